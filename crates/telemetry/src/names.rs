//! Handles of the names of one upstream.

use goodgate_failure::Cause;
use prometheus::{IntCounter, IntGauge};

use crate::in_use::remove;
use crate::metrics::DnsFamilies;

/// What became of the lookups of an upstream's names.
#[derive(Debug)]
pub struct NameMetrics {
    ok: IntCounter,
    failed: IntCounter,
    timeout: IntCounter,
    stale: IntGauge,
    kept_begun: IntCounter,
    kept_ended: IntCounter,
    kept_ran_out: IntCounter,
}

impl NameMetrics {
    /// Resolves the series; they exist at zero from then on.
    pub(crate) fn new(families: &DnsFamilies, upstream: &str) -> Self {
        let lookups = |result: &str| families.lookups.with_label_values(&[upstream, result]);
        let kept = |event: &str| families.kept.with_label_values(&[upstream, event]);
        Self {
            ok: lookups("ok"),
            failed: lookups("dns_error"),
            timeout: lookups("dns_timeout"),
            stale: families.stale.with_label_values(&[upstream]),
            kept_begun: kept("begun"),
            kept_ended: kept("ended"),
            kept_ran_out: kept("ran_out"),
        }
    }

    /// Removes the series of an upstream.
    pub(crate) fn remove(families: &DnsFamilies, upstream: &str) {
        for result in ["ok", "dns_error", "dns_timeout"] {
            remove(&families.lookups, &[upstream, result]);
        }
        for event in ["begun", "ended", "ran_out"] {
            remove(&families.kept, &[upstream, event]);
        }
        remove(&families.stale, &[upstream]);
    }

    /// Counts a lookup.
    pub fn looked_up(&self, failure: Option<Cause>) {
        match failure {
            None => self.ok.inc(),
            Some(Cause::DnsTimeout) => self.timeout.inc(),
            Some(_) => self.failed.inc(),
        }
    }

    /// Whether last addresses are used on because lookups fail.
    pub fn stale(&self, is_stale: bool) {
        self.stale.set(i64::from(is_stale));
    }

    /// The last addresses of a name are used on from now on.
    pub fn kept(&self) {
        self.kept_begun.inc();
    }

    /// They were, until a lookup brought addresses again.
    pub fn kept_ended(&self) {
        self.kept_ended.inc();
    }

    /// They were, for as long as they may, and have left.
    pub fn kept_ran_out(&self) {
        self.kept_ran_out.inc();
    }
}
