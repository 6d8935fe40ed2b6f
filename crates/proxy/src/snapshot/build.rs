//! From a configuration to a snapshot.

use std::cell::LazyCell;
use std::sync::Arc;
use std::time::Instant;

use goodgate_config::{Config, Limits, LogFormat, RouteSpec, defaults};
use goodgate_failure::Replay;
use goodgate_telemetry::{
    Format, LogPolicy, Mask, Metrics, MirrorMetrics, QueueMetrics, RouteMetrics, UpstreamMetrics,
};
use goodgate_upstream::{Timeouts, Upstream, UpstreamSpec};

use super::{Lasting, Snapshot};
use crate::gate::Gate;
use crate::mirror::Mirror;
use crate::own::OwnAnswer;
use crate::peer::BackendTls;
use crate::route::{Route, Router};
use crate::route_state::RouteState;
use crate::split::Split;
use crate::ties;

/// An upstream with what goes with it: shared by its routes.
struct Way {
    upstream: Arc<Upstream>,
    metrics: Arc<UpstreamMetrics>,
    queue_metrics: Option<Arc<QueueMetrics>>,
    tls: Arc<BackendTls>,
}

impl Way {
    fn new(upstream: &Arc<Upstream>, metrics: &Arc<Metrics>) -> Self {
        let spec = upstream.spec();
        let series = UpstreamMetrics::new(metrics, &spec.name);
        if spec.probe.is_some() {
            series.expect_checks();
        }
        series.names();
        Self {
            upstream: Arc::clone(upstream),
            metrics: Arc::new(series),
            queue_metrics: spec.breaker.map(|_| Arc::new(QueueMetrics::new(metrics, &spec.name))),
            tls: Arc::new(BackendTls::new(&spec.tls)),
        }
    }
}

/// The upstream of routes that answer themselves: it has no backend.
fn nowhere() -> UpstreamSpec {
    let timeouts = Timeouts {
        connect: defaults::CONNECT_TIMEOUT,
        first_byte: defaults::FIRST_BYTE_TIMEOUT,
        read: defaults::READ_TIMEOUT,
        write: defaults::WRITE_TIMEOUT,
        idle: defaults::IDLE_TIMEOUT,
        tunnel: defaults::TUNNEL_TIMEOUT,
    };
    UpstreamSpec::plain("none", timeouts)
}

pub(super) fn build(
    config: &Config,
    previous: Option<&Snapshot>,
    lasting: &Lasting,
    metrics: &Arc<Metrics>,
    now: Instant,
) -> Snapshot {
    let known = |name: &str| {
        previous.and_then(|old| old.upstreams.iter().find(|upstream| upstream.spec().name == name))
    };
    let upstream = |spec: &UpstreamSpec| {
        Upstream::new(ties::keyed(spec, &lasting.sticky_key), known(&spec.name).map(AsRef::as_ref), now)
    };
    let upstreams: Vec<Arc<Upstream>> = config.upstreams.iter().map(upstream).collect();
    let ways: Vec<Way> = upstreams.iter().map(|upstream| Way::new(upstream, metrics)).collect();
    let nowhere = LazyCell::new(|| Way::new(&Upstream::new(nowhere(), None, now), metrics));
    let rooms = lasting.stores.open(&config.stores);
    let old_routes = previous.map(|old| old.router.by_name()).unwrap_or_default();
    let routes = config.routes.iter().filter_map(|spec| {
        let way = match spec.action.upstream() {
            Some(upstream) => ways.get(upstream)?,
            None => &nowhere,
        };
        let policy = spec.cache.as_ref().filter(|_| spec.action.upstream().is_some());
        let cache = policy.and_then(|policy| Some((policy.clone(), *rooms.get(policy.store)?)));
        let metrics_of = |way: &Way| RouteMetrics::new(metrics, &spec.name, &way.upstream.spec().name);
        let old_gate = old_routes.get(spec.name.as_str()).and_then(|old| old.gate.as_deref());
        // Held until the route has it: what nothing holds leaves the exposition.
        let series = metrics_of(way);
        let gate = Gate::new(spec, old_gate, &lasting.verifier, &series);
        let route = |way: &Way| route(spec, way, gate.clone(), metrics_of(way), &config.limits);
        let state = || lasting.route_states.of(&spec.name);
        let split = spec.split.as_ref().map(|split| shares(split, way, &ways, state(), &route));
        let mirror = spec.mirror.as_ref().and_then(|mirror| {
            Some(self::mirror(mirror, route(ways.get(mirror.upstream)?), state(), metrics))
        });
        let route = Route { cache, split, mirror, ..route(way) };
        if route.cache.is_some() {
            route.metrics.expect_cache();
        }
        Some((spec, Arc::new(route)))
    });
    Snapshot {
        router: Router::new(routes),
        limits: Arc::new(config.limits.clone()),
        trusted_proxies: config.trusted_proxies.clone(),
        log: log_policy(&config.access_log),
        has_caches: config.routes.iter().any(|route| route.cache.is_some()),
        trace_share: config.tracing.as_ref().map_or(0.0, |tracing| tracing.sample),
        sticky: upstreams.iter().filter(|upstream| upstream.spec().sticky.is_some()).cloned().collect(),
        upstreams,
        listeners: config.listeners.clone(),
        routes: config.routes.clone().into(),
    }
}

/// The shares of a route. What they answer is nothing for the copies that the others get.
fn shares(
    split: &goodgate_config::Split,
    own: &Way,
    ways: &[Way],
    state: Arc<RouteState>,
    route: &impl Fn(&Way) -> Route,
) -> Split {
    let rest = Arc::new(route(own));
    let share = |way: &Way| Arc::new(Route { rest: Some(Arc::clone(&rest)), ..route(way) });
    let known = split.shares.iter().filter_map(|(upstream, percent)| Some((ways.get(*upstream)?, *percent)));
    Split::new(split.by.clone(), known.map(|(way, percent)| (share(way), percent)).collect(), state)
}

/// Where the copies of a route's requests go: nothing is tried a second time for them.
fn mirror(
    mirror: &goodgate_config::Mirror,
    mut route: Route,
    state: Arc<RouteState>,
    metrics: &Metrics,
) -> Mirror {
    route.retry.replay = Replay::None;
    Mirror {
        share: mirror.share,
        body_bytes_max: mirror.body_bytes_max,
        metrics: Arc::new(MirrorMetrics::new(metrics, &route.name)),
        state,
        route: Arc::new(route),
    }
}

/// A route by one of its ways, without copies.
fn route(
    spec: &RouteSpec,
    way: &Way,
    gate: Option<Arc<Gate>>,
    metrics: RouteMetrics,
    limits: &Limits,
) -> Route {
    Route {
        gate,
        name: spec.name.clone(),
        own: OwnAnswer::of(&spec.action),
        upstream: Arc::clone(&way.upstream),
        upstream_metrics: Arc::clone(&way.metrics),
        queue_metrics: way.queue_metrics.clone(),
        metrics,
        backend_tls: Arc::clone(&way.tls),
        timeout: spec.timeout,
        retry: spec.retry.clone(),
        cache: None,
        body_bytes_max: spec.body_bytes_max,
        errors: spec.errors.clone(),
        pass_headers: spec.pass_headers.clone(),
        passes_method_override: spec.passes_method_override,
        merges_slashes: spec.merges_slashes,
        rewrite: spec.rewrite.clone(),
        request_headers: spec.request_headers.clone(),
        response_headers: spec.response_headers.clone(),
        access: spec.access.clone(),
        response_header_bytes_max: limits.response_header_bytes_max,
        body_timeout: limits.body_timeout,
        split: None,
        mirror: None,
        rest: None,
    }
}

fn log_policy(log: &goodgate_config::AccessLog) -> LogPolicy {
    LogPolicy {
        mask: Mask::new(&log.mask.query, log.mask.cuts_client),
        format: match log.format {
            LogFormat::Json => Format::Json,
            LogFormat::Text => Format::Text,
        },
        sample_ok: log.sample_ok,
    }
}
