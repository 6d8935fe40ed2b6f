//! What is counted of backends.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::DURATION_BUCKETS;
use crate::declare::{Declare, Declared};

/// What became of attempts, and what is believed of backends.
#[derive(Clone, Debug)]
pub(crate) struct BackendFamilies {
    pub(crate) attempts: IntCounterVec,
    pub(crate) attempt_failures: IntCounterVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) retries_refused: IntCounterVec,
    pub(crate) connect: HistogramVec,
    pub(crate) first_byte: HistogramVec,
    pub(crate) in_rotation: IntGaugeVec,
    pub(crate) state: IntGaugeVec,
    pub(crate) in_flight: IntGaugeVec,
    pub(crate) health_checks: IntCounterVec,
    pub(crate) ejections: IntCounterVec,
}

impl BackendFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            attempts: to.counters(
                "goodgate_attempts_total",
                "Tries at a backend",
                &["upstream", "backend", "outcome"],
            )?,
            attempt_failures: to.counters(
                "goodgate_attempt_failures_total",
                "Failed tries by cause",
                &["upstream", "cause"],
            )?,
            retries: to.counters("goodgate_retries_total", "Attempts after the first", &["upstream"])?,
            retries_refused: to.counters(
                "goodgate_retries_refused_total",
                "Why no further try was made",
                &["upstream", "reason"],
            )?,
            connect: to.histograms(
                "goodgate_upstream_connect_seconds",
                "Time to a new connection",
                &["upstream"],
                &DURATION_BUCKETS,
            )?,
            first_byte: to.histograms(
                "goodgate_upstream_first_byte_seconds",
                "Time to the response header",
                &["upstream"],
                &DURATION_BUCKETS,
            )?,
            in_rotation: to.gauges(
                "goodgate_upstream_backends_in_rotation",
                "Backends that requests are given to",
                &["upstream"],
            )?,
            state: to.gauges(
                "goodgate_backend_state",
                "1 for the state that the backend is in",
                &["upstream", "backend", "state"],
            )?,
            in_flight: to.gauges(
                "goodgate_backend_requests_in_flight",
                "Requests under way",
                &["upstream", "backend"],
            )?,
            health_checks: to.counters(
                "goodgate_health_checks_total",
                "Active health checks",
                &["upstream", "result"],
            )?,
            ejections: to.counters(
                "goodgate_ejections_total",
                "Backends taken out of rotation by live traffic",
                &["upstream", "cause"],
            )?,
        })
    }
}

/// Requests sent to backends out of rotation for want of others.
#[derive(Clone, Debug)]
pub(crate) struct FailOpenFamilies {
    pub(crate) attempts: IntCounterVec,
    pub(crate) now: IntGaugeVec,
}

impl FailOpenFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            attempts: to.counters(
                "goodgate_fail_open_attempts_total",
                "Tries at backends out of rotation for want of others",
                &["upstream"],
            )?,
            now: to.gauges(
                "goodgate_upstream_failing_open",
                "1 while requests go to backends out of rotation for want of others",
                &["upstream"],
            )?,
        })
    }
}
