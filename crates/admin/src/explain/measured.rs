//! What is measured now of the parts of a request that is explained.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_config::{Limits, RouteSpec};
use goodgate_failure::Cause;
use goodgate_telemetry::{AccessRecord, Spread};
use goodgate_upstream::{Address, BackendView, IdleCloseView, Timeouts, Upstream};

use crate::Subject;
use crate::probes::ProbeRow;

/// The figures beside one record, of this moment and not of the request's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// The record's upstream; none if it had none, or the configuration has it no more.
    pub(crate) upstream: Option<MeasuredUpstream>,
    /// `limits.max_response_header_bytes`.
    pub(crate) response_header_bytes_max: usize,
    pub(crate) files: Option<Files>,
    /// The limits and routes in force, where the gateway itself has refused the request.
    pub(crate) limits: Option<Arc<Limits>>,
    pub(crate) routes: Arc<[RouteSpec]>,
}

/// Open files of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) open: u64,
    pub(crate) limit: u64,
}

/// One upstream.
#[derive(Clone, Debug)]
pub(crate) struct MeasuredUpstream {
    pub(crate) timeouts: Timeouts,
    pub(crate) in_rotation: usize,
    pub(crate) backends: Vec<MeasuredBackend>,
    pub(crate) has_probe: bool,
    /// The names among its backends, as written.
    pub(crate) names: Vec<String>,
    /// Whether a name has no address.
    pub(crate) is_unresolved: bool,
    /// Whether the last addresses are used on because lookups fail.
    pub(crate) is_dns_stale: bool,
    pub(crate) first_byte: Option<Spread>,
    pub(crate) connect: Option<Spread>,
    /// For each cause of the record: which backends failed with it how often, in the records that are kept.
    pub(crate) culprits: Vec<(Cause, Address, u64)>,
}

/// One backend.
#[derive(Clone, Debug)]
pub(crate) struct MeasuredBackend {
    pub(crate) view: BackendView,
    pub(crate) idle_close: IdleCloseView,
    /// When kept connections to it are retired.
    pub(crate) idle_limit: Duration,
    pub(crate) last_probe: Option<ProbeRow>,
}

impl Measured {
    /// Looks at the running gateway.
    pub(crate) fn of(record: &AccessRecord<'_>, subject: &dyn Subject, now: Instant) -> Self {
        let upstream = subject.upstreams().into_iter().find(|one| one.spec().name == record.upstream);
        Self {
            upstream: upstream.map(|upstream| MeasuredUpstream::of(record, &upstream, subject, now)),
            response_header_bytes_max: subject.response_header_bytes_max(),
            files: record.causes().contains(&Cause::ResourceExhausted).then(files).flatten(),
            limits: (400..500).contains(&record.status).then(|| subject.limits()),
            routes: subject.routes(),
        }
    }
}

impl MeasuredUpstream {
    fn of(record: &AccessRecord<'_>, upstream: &Arc<Upstream>, subject: &dyn Subject, now: Instant) -> Self {
        let spec = upstream.spec();
        let backend = |backend: Arc<goodgate_upstream::Backend>| MeasuredBackend {
            view: backend.view(),
            idle_close: backend.idle_close(now),
            idle_limit: backend.idle_limit(spec.timeouts.idle, now),
            last_probe: backend.last_probe().map(|result| ProbeRow::new(&result, now)),
        };
        Self {
            timeouts: spec.timeouts,
            in_rotation: upstream.in_rotation(),
            backends: upstream.backends().into_iter().map(backend).collect(),
            has_probe: spec.probe.is_some(),
            names: upstream.names().iter().map(ToString::to_string).collect(),
            is_unresolved: upstream.has_unresolved_names(),
            is_dns_stale: subject.metrics().is_dns_stale(&spec.name),
            first_byte: subject.metrics().first_byte_of(&spec.name),
            connect: subject.metrics().connect_of(&spec.name),
            culprits: culprits(&record.causes(), subject, &spec.name),
        }
    }
}

fn culprits(causes: &[Cause], subject: &dyn Subject, upstream: &str) -> Vec<(Cause, Address, u64)> {
    let mut counts: Vec<(Cause, Address, u64)> = Vec::new();
    for record in subject.ring().newest_first(Some(upstream)) {
        for attempt in record.attempts.iter() {
            let passed_on =
                || record.causes().first().copied().filter(|_| attempt.status == Some(record.status));
            let Some(cause) = attempt.cause.or_else(passed_on).filter(|cause| causes.contains(cause)) else {
                continue;
            };
            match counts.iter_mut().find(|(of, backend, _)| *of == cause && *backend == attempt.backend) {
                Some((.., count)) => *count += 1,
                None => counts.push((cause, attempt.backend, 1)),
            }
        }
    }
    counts.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
    counts
}

/// None where the kernel does not tell.
fn files() -> Option<Files> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    Some(Files { open: open as u64, limit: line.split_whitespace().next()?.parse().ok()? })
}
