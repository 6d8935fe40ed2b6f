//! What is valid and does not do what it seems to do, or what will be regretted in an outage.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use goodgate_failure::Word;
use goodgate_upstream::{BackendAddress, ProbeTls, UpstreamSpec};

use crate::view::{Map, View};
use crate::{Config, RouteSpec};

/// How long usual load balancers keep an idle connection (AWS ALB: 60 s). One that the gateway closes before is lost to a
/// request that is being sent on it.
const BALANCER_KEEPALIVE: Duration = Duration::from_mins(1);

/// Notes all warnings.
pub(super) fn warn(top: &Map<'_>, config: &Config) {
    let upstreams: Vec<(&UpstreamSpec, View<'_>)> = upstreams(top, config);
    for (upstream, view) in &upstreams {
        unused(config, upstream, view);
        single(config, upstream, view);
        unverified(upstream, view);
        own_listener(config, upstream, view);
    }
    let routes = top.get("routes").and_then(|view| view.items()).unwrap_or_default();
    if routes.len() == config.routes.len() {
        config.routes.iter().zip(&routes).for_each(|(route, view)| late_retry(config, route, view));
    }
    listeners(top, config);
    let limits = top.get("limits").and_then(|view| view.entries());
    let keepalive = limits.and_then(|map| map.get("keepalive_timeout"));
    if !config.trusted_proxies.is_empty()
        && config.limits.keepalive_timeout <= BALANCER_KEEPALIVE
        && let Some(view) = keepalive
    {
        view.warn(
            "idle connections end before those of a usual load balancer in front (60s): requests that it sends at that \
             moment fail; allow more than its idle time, like 75s",
        );
    }
}

fn upstreams<'a, 'c>(top: &Map<'a>, config: &'c Config) -> Vec<(&'c UpstreamSpec, View<'a>)> {
    let Some(entries) = top.get("upstreams").and_then(|view| view.entries()) else { return Vec::new() };
    let of = |(name, view): (&str, View<'a>)| {
        Some((config.upstreams.iter().find(|upstream| upstream.name == name)?, view))
    };
    entries.each().filter_map(of).collect()
}

fn index(config: &Config, upstream: &UpstreamSpec) -> Option<usize> {
    config.upstreams.iter().position(|other| other.name == upstream.name)
}

fn unused(config: &Config, upstream: &UpstreamSpec, view: &View<'_>) {
    let Some(index) = index(config, upstream) else { return };
    let uses = |route: &RouteSpec| {
        let has_share = |(share, _): &(usize, u8)| *share == index;
        route.action.upstream() == Some(index)
            || route.split.as_ref().is_some_and(|split| split.shares.iter().any(has_share))
            || route.mirror.as_ref().is_some_and(|mirror| mirror.upstream == index)
    };
    if !config.routes.iter().any(uses) {
        view.warn("no route uses this upstream");
    }
}

fn single(config: &Config, upstream: &UpstreamSpec, view: &View<'_>) {
    let [only] = upstream.backends.as_slice() else { return };
    let Some(index) = index(config, upstream) else { return };
    let mut routes = config.routes.iter().filter(|route| route.action.upstream() == Some(index)).peekable();
    if !only.address.is_name() && routes.peek().is_some() && routes.all(|route| route.cache.is_none()) {
        view.warn(
            "one backend and no cache: when it fails, clients see errors; add a backend, or `cache: fallback` to its routes",
        );
    }
}

fn unverified(upstream: &UpstreamSpec, view: &View<'_>) {
    let has_tls =
        upstream.added.has_tls || upstream.backends.iter().any(|backend| backend.tls_name.is_some());
    let check = upstream.probe.as_ref().and_then(|probe| match &probe.tls {
        ProbeTls::On { policy, .. } => Some(policy.verify),
        ProbeTls::AsBackend | ProbeTls::Off => None,
    });
    if has_tls && !upstream.tls.verify {
        view.warn("`tls.verify: off`: any server can pose as a backend; name its authority in `tls.ca`");
    } else if check == Some(false) {
        view.warn("`health_check.tls.verify: off`: any server can pass the health check");
    }
}

fn own_listener(config: &Config, upstream: &UpstreamSpec, view: &View<'_>) {
    let listeners = || config.listeners.iter().filter(|listener| listener.address.port() > 0);
    for backend in &upstream.backends {
        let own = listeners().find(|listener| leads_to(&backend.address, listener.address));
        if let Some(listener) = own {
            let address = listener.address;
            view.warn(format!(
                "the backend {} is the listener {address} of this gateway: a loop",
                backend.address
            ));
        }
    }
}

fn leads_to(backend: &BackendAddress, listener: SocketAddr) -> bool {
    match backend {
        BackendAddress::Ip(address) => {
            address.port() == listener.port()
                && (address.ip() == listener.ip()
                    || (listener.ip().is_unspecified() && is_this_machine(address.ip())))
        }
        BackendAddress::Name { host, port } => {
            let is_local = listener.ip().is_unspecified() || listener.ip().is_loopback();
            *port == listener.port() && is_local && host.trim_end_matches('.') == "localhost"
        }
        BackendAddress::Service(_) | BackendAddress::Unix(_) => false,
    }
}

fn is_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

fn listeners(top: &Map<'_>, config: &Config) {
    let Some(items) = top.get("listeners").and_then(|view| view.items()) else { return };
    if items.len() != config.listeners.len() {
        return;
    }
    let has_tls = config.listeners.iter().any(|listener| listener.tls.is_some());
    let mut taken = vec![(config.admin.address, "admin.address".to_owned())];
    for (listener, view) in config.listeners.iter().zip(&items) {
        if listener.redirect_to_https.is_some() && !has_tls {
            view.warn("`redirect_to_https` without a listener that has `tls`: clients are sent to a port that this gateway does not serve");
        }
        if let Some((other, path)) = taken.iter().find(|(other, _)| overlap(*other, listener.address)) {
            view.warn(format!(
                "{} and {other} of `{path}` overlap: the start fails, because one address covers the other",
                listener.address
            ));
        }
        taken.push((listener.address, view.path().to_owned()));
    }
}

/// Whether one of two different addresses stands for all of the machine's, the other's included.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wide: SocketAddr, narrow: SocketAddr| {
        wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    one.port() == other.port()
        && one.port() > 0
        && one.ip() != other.ip()
        && (covers(one, other) || covers(other, one))
}

fn late_retry(config: &Config, route: &RouteSpec, view: &View<'_>) {
    let Some(upstream) = route.action.upstream().and_then(|index| config.upstreams.get(index)) else {
        return;
    };
    let is_retried = route.retry.tries.get() > 1 && route.retry.on.contains(Word::Timeout);
    let has_others = upstream.backends.len() > 1;
    let longest = upstream.timeouts.connect.max(upstream.timeouts.first_byte);
    if is_retried && has_others && longest >= route.timeout {
        view.warn(
            "a retry after a timeout cannot fit into `timeout`: it is not longer than `timeouts.connect` or \
             `timeouts.first_byte` of the upstream, so the first attempt takes all of it",
        );
    }
}
