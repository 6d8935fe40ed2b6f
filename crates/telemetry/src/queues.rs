//! Who waits for an upstream that has enough, and who is refused for it.

use std::time::{Duration, Instant};

use goodgate_upstream::{BreakerState, Shed, Upstream};
use prometheus::{Histogram, IntCounter};

use crate::Metrics;
use crate::in_use::{Held, Series, remove};
use crate::metrics::QueueFamilies;

/// The series of one upstream with a breaker; they exist at zero.
#[derive(Debug)]
pub struct QueueMetrics(Held<QueueSeries>);

#[derive(Debug)]
pub(crate) struct QueueSeries {
    upstream: String,
    families: QueueFamilies,
    wait: Histogram,
    shed: [IntCounter; Shed::ALL.len()],
}

impl QueueMetrics {
    /// Resolves them.
    pub fn new(metrics: &Metrics, upstream: &str) -> Self {
        let QueueFamilies { wait, shed, .. } = &metrics.queues;
        let series = || QueueSeries {
            upstream: upstream.to_owned(),
            families: metrics.queues.clone(),
            wait: wait.with_label_values(&[upstream]),
            shed: Shed::ALL.map(|reason| shed.with_label_values(&[upstream, reason.name()])),
        };
        Self(metrics.breakers.hold(upstream.to_owned(), series))
    }

    /// Notes how long one has waited.
    pub fn waited(&self, time: Duration) {
        self.0.wait.observe(time.as_secs_f64());
    }

    /// Counts one that was refused.
    pub fn shed(&self, reason: Shed) {
        if let Some(counter) = self.0.shed.get(reason as usize) {
            counter.inc();
        }
    }
}

impl Series for QueueSeries {
    fn remove(&self) {
        let upstream = self.upstream.as_str();
        remove(&self.families.wait, &[upstream]);
        for reason in Shed::ALL {
            remove(&self.families.shed, &[upstream, reason.name()]);
        }
    }
}

impl QueueFamilies {
    /// Forgets what it showed, before the scrape writes it anew.
    pub(crate) fn reset(&self) {
        for gauge in [&self.length, &self.state, &self.under_way, &self.places] {
            gauge.reset();
        }
    }

    /// Writes down what the breaker does, if there is one.
    pub(crate) fn write(&self, upstream: &Upstream, now: Instant) {
        let Some(view) = upstream.breaker(now) else { return };
        let name = upstream.spec().name.as_str();
        self.length.with_label_values(&[name]).set(i64::try_from(view.pending).unwrap_or(i64::MAX));
        self.under_way.with_label_values(&[name]).set(i64::from(view.under_way));
        self.places.with_label_values(&[name]).set(i64::from(view.places));
        for state in BreakerState::ALL {
            let gauge = self.state.with_label_values(&[name, state.name()]);
            gauge.set(i64::from(state == view.state));
        }
    }
}
