//! The families of totals by cause.

use prometheus::IntCounterVec;

use crate::declare::{Declare, Declared};

/// Counters by cause of all routes or upstreams together.
#[derive(Clone, Debug)]
pub(crate) struct TotalFamilies {
    pub(crate) rescues: IntCounterVec,
    pub(crate) gateway_errors: IntCounterVec,
    pub(crate) attempt_failures: IntCounterVec,
}

impl TotalFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            rescues: to.counters(
                "goodgate_rescues_by_cause_total",
                "Failures that the client never saw, of all routes together",
                &["by", "cause"],
            )?,
            gateway_errors: to.counters(
                "goodgate_gateway_errors_by_cause_total",
                "Errors that goodgate itself answered, of all routes together",
                &["cause"],
            )?,
            attempt_failures: to.counters(
                "goodgate_attempt_failures_by_cause_total",
                "Failed attempts, of all upstreams together",
                &["cause"],
            )?,
        })
    }
}
