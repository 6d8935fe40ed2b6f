//! Counters by cause of all routes or upstreams together. They exist at zero from the start, so that `rate` sees the first
//! event; the series by route and by upstream exist once they count, because their product is large.

use goodgate_failure::Cause;
use prometheus::IntCounter;

use crate::By;
use crate::declare::{Declare, Declared};

/// The totals of the process.
#[derive(Debug)]
pub(crate) struct Totals {
    rescues: Vec<IntCounter>,
    gateway_errors: Vec<IntCounter>,
    attempt_failures: Vec<IntCounter>,
}

impl Totals {
    /// Resolves them from their families.
    pub(crate) fn declare(to: &Declare<'_>) -> Declared<Self> {
        let rescues = to.counters(
            "goodgate_rescues_by_cause_total",
            "Failures that the client never saw, of all routes together",
            &["by", "cause"],
        )?;
        let errors = to.counters(
            "goodgate_gateway_errors_by_cause_total",
            "Errors that goodgate itself answered, of all routes together",
            &["cause"],
        )?;
        let failures = to.counters(
            "goodgate_attempt_failures_by_cause_total",
            "Failed attempts, of all upstreams together",
            &["cause"],
        )?;
        let pairs = By::ALL.into_iter().flat_map(|by| Cause::ALL.map(|cause| (by, cause)));
        // What cannot be rescued so is counted all the same, outside of the exposition: it does not happen.
        let rescue = |(by, cause): (By, Cause)| match by.can_avert(cause) {
            true => Ok(rescues.with_label_values(&[by.name(), cause.name()])),
            false => IntCounter::new("goodgate_rescues_by_cause_total", "not exposed"),
        };
        Ok(Self {
            rescues: pairs.map(rescue).collect::<Declared<_>>()?,
            gateway_errors: Cause::ALL.map(|cause| errors.with_label_values(&[cause.name()])).to_vec(),
            attempt_failures: Cause::ALL.map(|cause| failures.with_label_values(&[cause.name()])).to_vec(),
        })
    }

    pub(crate) fn rescue(&self, by: By, cause: Cause) {
        count(&self.rescues, by as usize * Cause::ALL.len() + cause.index());
    }

    pub(crate) fn gateway_error(&self, cause: Cause) {
        count(&self.gateway_errors, cause.index());
    }

    pub(crate) fn attempt_failure(&self, cause: Cause) {
        count(&self.attempt_failures, cause.index());
    }
}

fn count(counters: &[IntCounter], at: usize) {
    if let Some(counter) = counters.get(at) {
        counter.inc();
    }
}
