//! The last health checks of a backend as the API shows them.

use std::sync::Arc;
use std::time::Instant;

use goodgate_upstream::{ProbeResult, Probed, Upstream};
use serde::Serialize;

use crate::query::Query;

/// The parameters of the address.
pub(crate) const PARAMETERS: [&str; 2] = ["upstream", "backend"];

/// One health check.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ProbeRow {
    /// Since it was over.
    pub(crate) ago_s: f64,
    pub(crate) took_ms: f64,
    /// `ok`, `draining`, or why it failed.
    pub(crate) result: &'static str,
    /// The status that it received, if it received one.
    pub(crate) status: Option<u16>,
}

/// The health checks of one backend, the newest first.
#[derive(Debug, Serialize)]
pub(crate) struct ProbesOf {
    upstream: String,
    backend: String,
    address: String,
    probes: Vec<ProbeRow>,
}

impl ProbeRow {
    pub(crate) fn new(result: &ProbeResult, now: Instant) -> Self {
        let millis = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        Self {
            ago_s: millis(now.saturating_duration_since(result.at).as_secs_f64()),
            took_ms: millis(result.took.as_secs_f64() * 1000.0),
            result: match result.found {
                Probed::Passed => "ok",
                Probed::Announced => "draining",
                Probed::Failed(cause) => cause.name(),
            },
            status: result.status,
        }
    }
}

/// What a query asks for: of a name all its addresses. The error is a sentence for the one who asked.
pub(crate) fn probes(
    upstreams: &[Arc<Upstream>],
    query: Option<&str>,
    now: Instant,
) -> Result<Vec<ProbesOf>, String> {
    let query = Query::read(query, &PARAMETERS)?;
    let needed = |name: &str| query.value(name).ok_or_else(|| format!("{name} is needed"));
    let name = needed("upstream")?;
    let known = upstreams.iter().find(|upstream| upstream.spec().name == name);
    let upstream = known.ok_or_else(|| format!("there is no upstream {name}"))?;
    let wanted = needed("backend")?;
    let backends = upstream.backends();
    let of = backends
        .iter()
        .filter(|backend| *backend.written == *wanted || backend.address.to_string() == wanted)
        .map(|backend| ProbesOf {
            upstream: name.to_owned(),
            backend: backend.written.to_string(),
            address: backend.address.to_string(),
            probes: backend.probes().iter().map(|result| ProbeRow::new(result, now)).collect(),
        });
    let found: Vec<ProbesOf> = of.collect();
    if found.is_empty() { Err(format!("{name} has no backend {wanted}")) } else { Ok(found) }
}
