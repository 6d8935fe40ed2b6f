//! Counters by cause of all routes or upstreams together. They exist at zero from the start, so that `rate` sees the first
//! event; the series by route and by upstream exist once they count, because their product is large.

use goodgate_failure::Cause;
use prometheus::{IntCounter, IntCounterVec};

use crate::By;
use crate::metrics::TotalFamilies;

/// The totals of the process.
#[derive(Debug)]
pub(crate) struct Totals {
    /// None where a failure cannot be rescued so.
    rescues: Vec<Option<IntCounter>>,
    gateway_errors: Vec<Option<IntCounter>>,
    attempt_failures: Vec<Option<IntCounter>>,
}

impl Totals {
    /// Resolves them; they exist at zero from then on.
    pub(crate) fn new(families: &TotalFamilies) -> Self {
        let TotalFamilies { rescues, gateway_errors, attempt_failures } = families;
        let pairs = By::ALL.into_iter().flat_map(|by| Cause::ALL.map(|cause| (by, cause)));
        let rescue = |(by, cause): (By, Cause)| {
            by.can_avert(cause).then(|| rescues.with_label_values(&[by.name(), cause.name()]))
        };
        let one = |family: &IntCounterVec, cause: Cause| family.with_label_values(&[cause.name()]);
        Self {
            rescues: pairs.map(rescue).collect(),
            gateway_errors: Cause::ALL.map(|cause| Some(one(gateway_errors, cause))).to_vec(),
            attempt_failures: Cause::ALL.map(|cause| Some(one(attempt_failures, cause))).to_vec(),
        }
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

fn count(counters: &[Option<IntCounter>], at: usize) {
    if let Some(Some(counter)) = counters.get(at) {
        counter.inc();
    }
}
