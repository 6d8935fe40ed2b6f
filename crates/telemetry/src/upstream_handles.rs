//! Handles of one upstream, resolved when the configuration is loaded.

use std::time::Duration;

use goodgate_failure::{Cause, Refusal};
use goodgate_upstream::{Probed, Why};
use prometheus::{Histogram, IntCounter};

use crate::{Metrics, NameMetrics};

/// The series of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    attempt_failures: Vec<IntCounter>,
    retries: IntCounter,
    refusals: Vec<IntCounter>,
    ejections: Vec<IntCounter>,
    ejections_success_rate: IntCounter,
    ejections_first_byte: IntCounter,
    fail_open_attempts: IntCounter,
    checks_ok: IntCounter,
    checks_draining: IntCounter,
    checks_failed: Vec<IntCounter>,
    aborts_waiting: IntCounter,
    aborts_response: IntCounter,
    aborts_request: IntCounter,
    connect: Histogram,
    first_byte: Histogram,
    names: NameMetrics,
}

impl UpstreamMetrics {
    /// Resolves the series of an upstream; they exist at zero from then on.
    pub fn new(metrics: &Metrics, upstream: &str) -> Self {
        let by_cause = |family: &prometheus::IntCounterVec| {
            Cause::ALL.iter().map(|cause| family.with_label_values(&[upstream, cause.name()])).collect()
        };
        let ejections = |why: Why| metrics.backends.ejections.with_label_values(&[upstream, why.name()]);
        let refusal =
            |reason: &Refusal| metrics.backends.retries_refused.with_label_values(&[upstream, reason.name()]);
        let aborts = |phase: &str| metrics.requests.client_aborts.with_label_values(&[upstream, phase]);
        Self {
            attempt_failures: by_cause(&metrics.backends.attempt_failures),
            retries: metrics.backends.retries.with_label_values(&[upstream]),
            refusals: Refusal::ALL.iter().map(refusal).collect(),
            ejections: by_cause(&metrics.backends.ejections),
            ejections_success_rate: ejections(Why::SuccessRate),
            ejections_first_byte: ejections(Why::FirstByte),
            fail_open_attempts: metrics.fail_open.attempts.with_label_values(&[upstream]),
            checks_draining: metrics.backends.health_checks.with_label_values(&[upstream, "draining"]),
            checks_ok: metrics.backends.health_checks.with_label_values(&[upstream, "ok"]),
            checks_failed: by_cause(&metrics.backends.health_checks),
            aborts_waiting: aborts("waiting"),
            aborts_response: aborts("response"),
            aborts_request: aborts("request"),
            connect: metrics.backends.connect.with_label_values(&[upstream]),
            first_byte: metrics.backends.first_byte.with_label_values(&[upstream]),
            names: NameMetrics::new(metrics, upstream),
        }
    }

    /// Counts a failed attempt.
    pub fn attempt_failed(&self, cause: Cause) {
        increment(&self.attempt_failures, cause.index());
    }

    /// Counts an attempt after the first.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// Counts a retry that was refused.
    pub fn retry_refused(&self, reason: Refusal) {
        increment(&self.refusals, reason as usize);
    }

    /// Counts an ejection.
    pub fn ejected(&self, why: Why) {
        match why {
            Why::Failure(cause) => increment(&self.ejections, cause.index()),
            Why::SuccessRate => self.ejections_success_rate.inc(),
            Why::FirstByte => self.ejections_first_byte.inc(),
            Why::Announced => {}
        }
    }

    /// Counts a try at a backend out of rotation for want of others.
    pub fn failed_open(&self) {
        self.fail_open_attempts.inc();
    }

    /// Counts an active health check.
    pub fn checked(&self, found: Probed) {
        match found {
            Probed::Passed => self.checks_ok.inc(),
            Probed::Announced => self.checks_draining.inc(),
            Probed::Failed(cause) => increment(&self.checks_failed, cause.index()),
        }
    }

    /// Counts a client that left before any response byte (`response_begun` false) or in the middle.
    pub fn client_aborted(&self, request_complete: bool, response_begun: bool) {
        match (request_complete, response_begun) {
            (_, true) => self.aborts_response.inc(),
            (true, false) => self.aborts_waiting.inc(),
            (false, false) => self.aborts_request.inc(),
        }
    }

    /// Notes how long a new connection took.
    pub fn connected(&self, after: Duration) {
        self.connect.observe(after.as_secs_f64());
    }

    /// Notes how long the response header took.
    pub fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    /// Those of its names.
    pub fn names(&self) -> &NameMetrics {
        &self.names
    }
}

fn increment(counters: &[IntCounter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.inc();
    }
}
