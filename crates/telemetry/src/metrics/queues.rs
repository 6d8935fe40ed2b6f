//! The families of breakers and of those who wait for them.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::DURATION_BUCKETS;
use crate::declare::{Declare, Declared};

/// What breakers do, and who waits.
#[derive(Clone, Debug)]
pub(crate) struct QueueFamilies {
    pub(crate) length: IntGaugeVec,
    pub(crate) wait: HistogramVec,
    pub(crate) shed: IntCounterVec,
    pub(crate) state: IntGaugeVec,
    pub(crate) under_way: IntGaugeVec,
    pub(crate) places: IntGaugeVec,
}

impl QueueFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            length: to.gauges("goodgate_upstream_queue_length", "Requests that wait", &["upstream"])?,
            wait: to.histograms(
                "goodgate_upstream_queue_wait_seconds",
                "How long requests waited, whatever became of them",
                &["upstream"],
                &DURATION_BUCKETS,
            )?,
            shed: to.counters(
                "goodgate_upstream_requests_shed_total",
                "Requests that the breaker did not let through",
                &["upstream", "reason"],
            )?,
            state: to.gauges(
                "goodgate_upstream_breaker_state",
                "1 for what the breaker does",
                &["upstream", "state"],
            )?,
            under_way: to.gauges(
                "goodgate_upstream_breaker_requests",
                "Requests that the breaker counts as under way",
                &["upstream"],
            )?,
            places: to.gauges(
                "goodgate_upstream_breaker_limit",
                "Requests that may be under way now",
                &["upstream"],
            )?,
        })
    }
}
