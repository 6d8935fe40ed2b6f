//! Handles of one upstream, resolved when the configuration is loaded.
//!
//! Those by cause are resolved at their first use; their totals exist at zero. All of them leave with the upstream.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use goodgate_failure::{Cause, Refusal};
use goodgate_upstream::{Probed, Why};
use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::in_use::{Held, Series, remove};
use crate::metrics::{BackendFamilies, DnsFamilies, FailOpenFamilies};
use crate::totals::Totals;
use crate::{Metrics, NameMetrics};

const ABORT_PHASES: [&str; 3] = ["waiting", "response", "request"];

/// The series of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics(Held<UpstreamSeries>);

/// What is counted of an upstream.
#[derive(Debug)]
pub(crate) struct UpstreamSeries {
    upstream: String,
    families: BackendFamilies,
    fail_open: FailOpenFamilies,
    dns: DnsFamilies,
    aborts: IntCounterVec,
    totals: Arc<Totals>,
    attempt_failures: ByCause,
    retries: IntCounter,
    refusals: Vec<IntCounter>,
    ejections: ByCause,
    fail_open_attempts: IntCounter,
    checks_failed: ByCause,
    aborts_by_phase: [IntCounter; 3],
    connect: Histogram,
    first_byte: Histogram,
    names: OnceLock<NameMetrics>,
}

/// One counter for each cause, resolved at the first event.
#[derive(Debug)]
struct ByCause {
    family: IntCounterVec,
    upstream: String,
    counters: [OnceLock<IntCounter>; Cause::ALL.len()],
}

impl ByCause {
    fn new(family: &IntCounterVec, upstream: &str) -> Self {
        let counters = [const { OnceLock::new() }; Cause::ALL.len()];
        Self { family: family.clone(), upstream: upstream.to_owned(), counters }
    }

    fn count(&self, cause: Cause) {
        let resolve = || self.family.with_label_values(&[self.upstream.as_str(), cause.name()]);
        if let Some(slot) = self.counters.get(cause.index()) {
            slot.get_or_init(resolve).inc();
        }
    }

    /// Counts under a name that is no cause.
    fn count_other(&self, name: &str) {
        self.family.with_label_values(&[self.upstream.as_str(), name]).inc();
    }

    fn remove(&self, others: &[&str]) {
        let causes = Cause::ALL.iter().map(|cause| cause.name());
        for name in causes.chain(others.iter().copied()) {
            remove(&self.family, &[self.upstream.as_str(), name]);
        }
    }
}

impl UpstreamMetrics {
    /// Resolves the series of an upstream; small label sets exist at zero from then on.
    pub fn new(metrics: &Metrics, upstream: &str) -> Self {
        Self(metrics.upstreams.hold(upstream.to_owned(), || UpstreamSeries::new(metrics, upstream)))
    }

    /// Makes the series of its health checks exist at zero.
    pub fn expect_checks(&self) {
        for result in ["ok", "draining"] {
            self.0.families.health_checks.with_label_values(&[self.0.upstream.as_str(), result]);
        }
    }

    /// Counts a failed attempt.
    pub fn attempt_failed(&self, cause: Cause) {
        self.0.totals.attempt_failure(cause);
        self.0.attempt_failures.count(cause);
    }

    /// Counts an attempt after the first.
    pub fn retry(&self) {
        self.0.retries.inc();
    }

    /// Counts a retry that was refused.
    pub fn retry_refused(&self, reason: Refusal) {
        if let Some(counter) = self.0.refusals.get(reason as usize) {
            counter.inc();
        }
    }

    /// Counts an ejection.
    pub fn ejected(&self, why: Why) {
        match why {
            Why::Failure(cause) => self.0.ejections.count(cause),
            Why::SuccessRate | Why::FirstByte => self.0.ejections.count_other(why.name()),
            Why::Announced => {}
        }
    }

    /// Counts a try at a backend out of rotation for want of others.
    pub fn failed_open(&self) {
        self.0.fail_open_attempts.inc();
    }

    /// Counts an active health check.
    pub fn checked(&self, found: Probed) {
        match found {
            Probed::Passed => self.0.checks_failed.count_other("ok"),
            Probed::Announced => self.0.checks_failed.count_other("draining"),
            Probed::Failed(cause) => self.0.checks_failed.count(cause),
        }
    }

    /// Counts a client that left before any response byte (`response_begun` false) or in the middle.
    pub fn client_aborted(&self, request_complete: bool, response_begun: bool) {
        let [waiting, response, request] = &self.0.aborts_by_phase;
        match (request_complete, response_begun) {
            (_, true) => response.inc(),
            (true, false) => waiting.inc(),
            (false, false) => request.inc(),
        }
    }

    /// Notes how long a new connection took.
    pub fn connected(&self, after: Duration) {
        self.0.connect.observe(after.as_secs_f64());
    }

    /// Notes how long the response header took.
    pub fn first_byte(&self, after: Duration) {
        self.0.first_byte.observe(after.as_secs_f64());
    }

    /// Those of its names; they exist at zero from the first use on.
    pub fn names(&self) -> &NameMetrics {
        self.0.names.get_or_init(|| NameMetrics::new(&self.0.dns, &self.0.upstream))
    }
}

impl UpstreamSeries {
    fn new(metrics: &Metrics, upstream: &str) -> Self {
        let families = &metrics.backends;
        let aborts = &metrics.requests.client_aborts;
        let refusal =
            |reason: &Refusal| families.retries_refused.with_label_values(&[upstream, reason.name()]);
        Self {
            upstream: upstream.to_owned(),
            families: families.clone(),
            fail_open: metrics.fail_open.clone(),
            dns: metrics.dns.clone(),
            aborts: aborts.clone(),
            totals: Arc::clone(&metrics.totals),
            attempt_failures: ByCause::new(&families.attempt_failures, upstream),
            retries: families.retries.with_label_values(&[upstream]),
            refusals: Refusal::ALL.iter().map(refusal).collect(),
            ejections: ByCause::new(&families.ejections, upstream),
            fail_open_attempts: metrics.fail_open.attempts.with_label_values(&[upstream]),
            checks_failed: ByCause::new(&families.health_checks, upstream),
            aborts_by_phase: ABORT_PHASES.map(|phase| aborts.with_label_values(&[upstream, phase])),
            connect: families.connect.with_label_values(&[upstream]),
            first_byte: families.first_byte.with_label_values(&[upstream]),
            names: OnceLock::new(),
        }
    }
}

impl Series for UpstreamSeries {
    fn remove(&self) {
        let upstream = self.upstream.as_str();
        self.attempt_failures.remove(&[]);
        self.ejections.remove(&[Why::SuccessRate.name(), Why::FirstByte.name()]);
        self.checks_failed.remove(&["ok", "draining"]);
        remove(&self.families.retries, &[upstream]);
        for reason in Refusal::ALL {
            remove(&self.families.retries_refused, &[upstream, reason.name()]);
        }
        for phase in ABORT_PHASES {
            remove(&self.aborts, &[upstream, phase]);
        }
        remove(&self.fail_open.attempts, &[upstream]);
        remove(&self.families.connect, &[upstream]);
        remove(&self.families.first_byte, &[upstream]);
        NameMetrics::remove(&self.dns, upstream);
    }
}
