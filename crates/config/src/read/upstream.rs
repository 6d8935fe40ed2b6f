//! `upstreams`: who may answer, and what an upstream is told about failures and time.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use goodgate_upstream::{AddedBackend, HostHeader, Timeouts, UpstreamSpec};
use http::HeaderName;

use super::balance::{self, Balancing};
use super::tls::{self, Tls};
use super::{TIMEOUT, backend, breaker, dns, ejection, free_name, health};
use crate::address::parse_host_header;
use crate::kind::{boolean, duration, text, text_as, wrong};
use crate::tree::{Kind, Node};
use crate::view::{Map, View};
use crate::{defaults, keys};

/// A quiet tunnel may be meant, for days even.
const TUNNEL_MAX: Duration = Duration::from_hours(7 * 24);

/// The names, also of upstreams that could not be read: a route may refer to them without another problem.
pub(super) fn names<'a>(top: &Map<'a>) -> Vec<&'a str> {
    let map = top.get("upstreams").and_then(|view| view.entries());
    map.map(|map| map.each().map(|(name, _)| name).collect()).unwrap_or_default()
}

/// `servers` are asked for names where an upstream does not name its own.
pub(super) fn upstreams<'a>(
    top: &Map<'a>,
    folder: &Path,
    under: Option<&'a Node>,
    servers: &[SocketAddr],
) -> Vec<UpstreamSpec> {
    let Some(map) = top.required("upstreams").and_then(|view| view.entries()) else {
        return Vec::new();
    };
    let mut upstreams: Vec<UpstreamSpec> =
        map.each().filter_map(|(name, view)| upstream(name, &view.over(under), folder)).collect();
    for upstream in upstreams.iter_mut().filter(|upstream| upstream.dns.servers.is_empty()) {
        upstream.dns.servers = servers.to_vec();
    }
    upstreams
}

/// The long form is a map, the short form a list of backends.
fn upstream(name: &str, view: &View<'_>, folder: &Path) -> Option<UpstreamSpec> {
    if let Err(allowed) = free_name(name, "") {
        view.key_problem(format!("the name of an upstream; allowed: {allowed}"));
    }
    if !matches!(view.node().kind, Kind::List(_) | Kind::Map(_)) {
        view.problem(wrong(view.node(), "a list of backends, or a map"));
        return None;
    }
    let (map, backends) = if view.items().is_some() {
        (view.only_under(), Some(view.clone()))
    } else {
        let map = view.map(&keys::UPSTREAM)?;
        let backends = map.required("backends");
        (map, backends)
    };
    let (mut spec, tls) = policies(name, &map, folder);
    spec.backends = backend::backends(&backends?, &spec.added.ejection, &tls);
    health::fit(&map, &spec.backends);
    Some(spec)
}

/// Everything but the backends.
pub(super) fn policies(name: &str, map: &Map<'_>, folder: &Path) -> (UpstreamSpec, Tls) {
    let tls = tls::tls(map, folder);
    let ejection = ejection::ejection(map);
    let Balancing { balance, hash_on, sticky, slow_start } = balance::balancing(map, folder);
    let spec = UpstreamSpec {
        name: name.to_owned(),
        balance,
        hash_on,
        sticky,
        slow_start,
        host: map.read("host", host).unwrap_or(HostHeader::Client),
        backends: Vec::new(),
        dns: dns::dns(map),
        probe: map.get("health_check").and_then(|view| health::probe(&view.over(None), folder, &tls)),
        breaker: breaker::breaker(map),
        timeouts: timeouts(map),
        tls: tls.policy.clone(),
        fail_open: map.read("fail_open", boolean).unwrap_or(defaults::FAIL_OPEN),
        soft_ejections_max: ejection::soft_ejections_max(map),
        outliers: ejection::outliers(map),
        drain_header: map.read("drain_header", text_as(header_name)),
        added: AddedBackend { ejection, has_tls: tls.is_given, tls_name: tls.sni.clone() },
    };
    (spec, tls)
}

fn host(node: &Node) -> Result<HostHeader, String> {
    match text(node)?.as_str() {
        "client" => Ok(HostHeader::Client),
        "backend" => Ok(HostHeader::Backend),
        name => parse_host_header(name)
            .map(HostHeader::Name)
            .map_err(|_| wrong(node, "client, backend, or a host name like `app.internal`")),
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    super::headers::any_name(text, "x-drain")
}

fn timeouts(map: &Map<'_>) -> Timeouts {
    let map = map.section("timeouts", &keys::TIMEOUTS);
    let time = |key, default| map.read(key, duration(TIMEOUT)).unwrap_or(default);
    let tunnel = *TIMEOUT.start()..=TUNNEL_MAX;
    Timeouts {
        connect: time("connect", defaults::CONNECT_TIMEOUT),
        first_byte: time("first_byte", defaults::FIRST_BYTE_TIMEOUT),
        read: time("read", defaults::READ_TIMEOUT),
        write: time("write", defaults::WRITE_TIMEOUT),
        idle: time("idle", defaults::IDLE_TIMEOUT),
        tunnel: map.read("tunnel", duration(tunnel)).unwrap_or(defaults::TUNNEL_TIMEOUT),
    }
}
