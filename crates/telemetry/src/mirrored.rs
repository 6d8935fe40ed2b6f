//! What became of the copies of requests that another upstream gets.

use prometheus::{IntCounter, IntCounterVec};

use crate::Metrics;
use crate::in_use::{Held, Series, remove};

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorResult {
    /// It was answered.
    Ok,
    /// No backend has answered it.
    Failed,
    /// None was made: the body is too long.
    BodyTooLarge,
    /// None was made: there are too many under way.
    Dropped,
}

impl MirrorResult {
    const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::BodyTooLarge, Self::Dropped];

    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::BodyTooLarge => "body_too_large",
            Self::Dropped => "dropped",
        }
    }
}

/// The series of one route that mirrors; they exist at zero.
#[derive(Debug)]
pub struct MirrorMetrics(Held<MirrorSeries>);

#[derive(Debug)]
pub(crate) struct MirrorSeries {
    route: String,
    family: IntCounterVec,
    counters: [IntCounter; MirrorResult::ALL.len()],
}

impl MirrorMetrics {
    /// Resolves them.
    pub fn new(metrics: &Metrics, route: &str) -> Self {
        let family = &metrics.requests.mirrored;
        let series = || MirrorSeries {
            route: route.to_owned(),
            family: family.clone(),
            counters: MirrorResult::ALL.map(|result| family.with_label_values(&[route, result.name()])),
        };
        Self(metrics.mirrors.hold(route.to_owned(), series))
    }

    /// Counts one.
    pub fn count(&self, result: MirrorResult) {
        if let Some(counter) = self.0.counters.get(result as usize) {
            counter.inc();
        }
    }
}

impl Series for MirrorSeries {
    fn remove(&self) {
        for result in MirrorResult::ALL {
            remove(&self.family, &[self.route.as_str(), result.name()]);
        }
    }
}
