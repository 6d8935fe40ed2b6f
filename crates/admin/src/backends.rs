//! The backends and the upstreams as the API shows them, and the orders that operators give for them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_config::added_backend;
use goodgate_telemetry::failed_open;
use goodgate_upstream::{Backend, BackendSpec, Mode, NotOrdered, Order, Upstream, Why};
use log::{info, warn};
use serde::Serialize;

use crate::explain::text::shown;
use crate::probes::ProbeRow;
use crate::query::Query;

/// The parameters of an order.
const PARAMETERS: [&str; 4] = ["upstream", "backend", "action", "weight"];
const ACTIONS: &str = "drain, disable, enable, weight, add, remove, reset";

/// A backend as the API shows it.
#[derive(Serialize)]
pub(crate) struct BackendRow<'a> {
    upstream: &'a str,
    backend: String,
    address: String,
    state: &'static str,
    /// How long it has been in that state, as far as its health is concerned.
    for_s: f64,
    cause: Option<&'static str>,
    weight: u16,
    backup: bool,
    /// Those of level 0 are asked first, the others when none of them can be had.
    level: usize,
    /// What an operator has made of it, beside the configuration.
    ordered: Option<Ordered>,
    in_flight: u64,
    ok: u64,
    failed: u64,
    /// How often attempts have failed for which cause.
    failures: BTreeMap<&'static str, u64>,
    /// Of the last one to two minutes.
    first_byte_p50_ms: Option<f64>,
    first_byte_p99_ms: Option<f64>,
    /// Until a request may be tried on it, if that is what it waits for.
    next_trial_s: Option<f64>,
    /// Until its next health check.
    next_probe_s: Option<f64>,
    /// Its last health check.
    last_probe: Option<ProbeRow>,
    /// After how long it closes an idle connection, as far as that was learned.
    idle_close_ms: Option<u64>,
}

/// What an operator has made of a backend.
#[derive(Serialize)]
struct Ordered {
    /// It was added at run time.
    added: bool,
    /// Not to take part: drain or disable.
    mode: Option<&'static str>,
    /// The weight that the file has, if another was ordered.
    weight_in_file: Option<u16>,
}

/// An upstream as the API shows it.
#[derive(Serialize)]
pub(crate) struct UpstreamRow<'a> {
    upstream: &'a str,
    backends: usize,
    in_rotation: usize,
    /// For how long requests have been sent to backends out of rotation, for want of others.
    failing_open_s: Option<f64>,
    /// What operators have added to and removed from the configuration.
    added: Vec<String>,
    removed: Vec<String>,
}

/// All backends.
pub(crate) fn rows<'a>(upstreams: &'a [Arc<Upstream>], now: Instant) -> Vec<BackendRow<'a>> {
    let of = |upstream: &'a Arc<Upstream>| {
        let orders = upstream.orders();
        let added: HashSet<String> = orders.added().iter().map(|entry| entry.address.to_string()).collect();
        let all = upstream.backends();
        let ranks: BTreeSet<u32> = all.iter().map(|backend| backend.rank).collect();
        let level = |backend: &Backend| ranks.range(..backend.rank).count();
        let row = |backend: Arc<Backend>| BackendRow {
            level: level(&backend),
            ..row(upstream, &backend, &added, now)
        };
        all.into_iter().map(row).collect::<Vec<_>>()
    };
    upstreams.iter().flat_map(of).collect()
}

/// The names of upstreams, for a message.
pub(crate) fn names(upstreams: &[Arc<Upstream>]) -> String {
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.spec().name.as_str()).collect();
    names.join(", ")
}

/// All upstreams.
pub(crate) fn upstream_rows<'a>(upstreams: &'a [Arc<Upstream>], now: Instant) -> Vec<UpstreamRow<'a>> {
    let row = |upstream: &'a Arc<Upstream>| {
        let orders = upstream.orders();
        UpstreamRow {
            upstream: &upstream.spec().name,
            backends: upstream.backends().len(),
            in_rotation: upstream.in_rotation(),
            failing_open_s: upstream.failing_open_since().map(|since| seconds(now - since)),
            added: orders.added().iter().map(|entry| entry.address.to_string()).collect(),
            removed: orders.removed().iter().map(ToString::to_string).collect(),
        }
    };
    upstreams.iter().map(row).collect()
}

fn row<'a>(
    upstream: &'a Upstream,
    backend: &Backend,
    added: &HashSet<String>,
    now: Instant,
) -> BackendRow<'a> {
    let view = backend.view();
    let until = |due: Instant| seconds(due.saturating_duration_since(now));
    let quantile = |place: usize| {
        let time = backend.first_byte(now).and_then(|times| times.get(place).copied());
        time.map(|time| time.as_secs_f64() * 1000.0)
    };
    BackendRow {
        upstream: &upstream.spec().name,
        backend: view.written.to_string(),
        address: view.address.to_string(),
        state: view.state.name(),
        for_s: seconds(now.saturating_duration_since(backend.since())),
        cause: view.why.map(Why::name),
        weight: view.weight,
        backup: view.backup,
        level: 0,
        ordered: ordered(backend, added.contains(&*backend.written)),
        in_flight: view.in_flight,
        ok: view.ok,
        failed: view.failed,
        failures: backend.failures().into_iter().map(|(cause, count)| (cause.name(), count)).collect(),
        first_byte_p50_ms: quantile(0),
        first_byte_p99_ms: quantile(1),
        next_trial_s: backend.trial_due().map(until),
        next_probe_s: backend.next_probe().map(until),
        last_probe: backend.last_probe().map(|result| ProbeRow::new(&result, now)),
        idle_close_ms: backend
            .idle_close(now)
            .believed
            .and_then(|limit| u64::try_from(limit.as_millis()).ok()),
    }
}

fn ordered(backend: &Backend, added: bool) -> Option<Ordered> {
    let mode = (backend.mode != Mode::Serve).then_some(backend.mode.name());
    let weight_in_file = (backend.weight != backend.own_weight).then_some(backend.own_weight);
    let differs = added || mode.is_some() || weight_in_file.is_some();
    differs.then_some(Ordered { added, mode, weight_in_file })
}

/// To the millisecond: nobody reads more.
fn seconds(length: Duration) -> f64 {
    (length.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Carries out an order that was sent as a form. The error is a sentence for the one who asked.
pub(crate) fn order(upstreams: &[Arc<Upstream>], form: &str, now: Instant) -> Result<(), String> {
    let query = Query::read(Some(form), &PARAMETERS)?;
    let needed = |name: &str| query.value(name).ok_or_else(|| format!("{name} is needed"));
    let name = needed("upstream")?;
    let known = upstreams.iter().find(|upstream| upstream.spec().name == name);
    let upstream = known
        .ok_or_else(|| format!("there is no upstream {}; there are: {}", shown(name), names(upstreams)))?;
    let backend = needed("backend")?;
    let action = needed("action")?;
    let order = match action {
        "weight" => Order::Weight(weight(needed("weight")?)?),
        _ if query.value("weight").is_some() => return Err("weight belongs to action=weight".to_owned()),
        "add" => Order::Add(Box::new(
            added_backend(backend, &upstream.spec().added)
                .map_err(|allowed| format!("backend is {allowed}"))?,
        )),
        "remove" => Order::Remove,
        "reset" => Order::Reset,
        word => Order::Mode(Mode::of(word).ok_or_else(|| format!("action is one of {ACTIONS}"))?),
    };
    upstream.order(backend, order, now).map_err(|why| refusal(why, backend, upstream))?;
    info!(upstream = name, backend = backend, action = action, weight = query.value("weight").unwrap_or("as it was"), in_rotation = upstream.in_rotation(); "an operator has changed a backend");
    match upstream.failed_open_for() {
        Some(length) => failed_open(name, length),
        None if upstream.is_out() => {
            warn!(upstream = name; "the upstream has no backend in rotation");
        }
        None => {}
    }
    Ok(())
}

fn weight(text: &str) -> Result<NonZeroU16, String> {
    let weight = text.parse().ok().filter(|weight: &NonZeroU16| weight.get() <= BackendSpec::WEIGHT_MAX);
    weight.ok_or_else(|| format!("weight is a whole number from 1 to {}", BackendSpec::WEIGHT_MAX))
}

fn refusal(why: NotOrdered, backend: &str, upstream: &Upstream) -> String {
    let name = &upstream.spec().name;
    match why {
        NotOrdered::Unknown => format!("{name} has no backend {backend}"),
        NotOrdered::Exists => format!("{name} has a backend {backend} already"),
        NotOrdered::TooMany => format!("{name} has as many added backends as may be"),
        NotOrdered::NotAnEntry => {
            format!("{backend} is one of the addresses of a name: remove the name, or drain the address")
        }
    }
}
