//! Who would notice if an upstream died now: for a sample of the live GET traffic of each route, whether a copy
//! would answer instead, for how long, or what stands in the way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

/// At most one request in this time is looked at.
const PACE: Duration = Duration::from_millis(10);
/// How many of them count, and for how long.
const SAMPLES_MAX: usize = 2048;
const COUNTS_FOR: Duration = Duration::from_mins(15);
/// For which outages the share is told.
const OUTAGES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(6),
    Duration::from_hours(24),
];

/// What would become of a request if its upstream were dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A copy would answer it for this long from now on.
    Survives(Duration),
    /// Nothing would, for this reason.
    Lost(&'static str),
}

/// The sample of one route.
#[derive(Debug)]
pub(crate) struct Survival {
    born: Instant,
    /// Microseconds after `born` when the next request may be looked at.
    next: AtomicU64,
    samples: Mutex<VecDeque<(Instant, Fate)>>,
}

/// What is known of one route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteSurvival {
    /// The route's name.
    pub route: String,
    /// How many requests of the last 15 minutes were looked at.
    pub samples: usize,
    /// Which share of them would get a good answer, by how long the outage lasts.
    pub survives: Vec<OutageShare>,
    /// What stands in the way for the others, the most frequent first.
    pub in_the_way: Vec<ReasonShare>,
}

/// A share of the traffic that survives an outage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OutageShare {
    /// How long it lasts, in seconds.
    pub outage_s: u64,
    /// From 0 to 1.
    pub share: f64,
}

/// A share of the traffic that is lost for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReasonShare {
    /// In words.
    pub reason: &'static str,
    /// From 0 to 1.
    pub share: f64,
}

impl Survival {
    pub(crate) fn new(now: Instant) -> Self {
        Self { born: now, next: AtomicU64::new(0), samples: Mutex::default() }
    }

    /// Whether a request is to be looked at. Only one that asks is told so.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let now = micros(now.saturating_duration_since(self.born));
        let next = self.next.load(Ordering::Relaxed);
        let later = now.saturating_add(micros(PACE));
        now >= next && self.next.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn note(&self, fate: Fate, now: Instant) {
        let mut samples = self.samples.lock();
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back((now, fate));
    }

    fn view(&self, route: &str, now: Instant) -> RouteSurvival {
        let fates: Vec<Fate> = {
            let mut samples = self.samples.lock();
            samples.retain(|(at, _)| now.saturating_duration_since(*at) <= COUNTS_FOR);
            samples.iter().map(|(_, fate)| *fate).collect()
        };
        let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let share = |count: usize| float(count) / float(fates.len().max(1));
        let outlast = |outage| move |fate: &&Fate| matches!(fate, Fate::Survives(time) if *time >= outage);
        let survives = OUTAGES.iter().map(|outage| OutageShare {
            outage_s: outage.as_secs(),
            share: share(fates.iter().filter(outlast(*outage)).count()),
        });
        let mut counts: Vec<(&'static str, usize)> = Vec::new();
        for fate in &fates {
            let Fate::Lost(reason) = fate else { continue };
            match counts.iter_mut().find(|(known, _)| known == reason) {
                Some((_, count)) => *count += 1,
                None => counts.push((reason, 1)),
            }
        }
        counts.sort_by_key(|(reason, count)| (usize::MAX - count, *reason));
        let in_the_way =
            counts.into_iter().map(|(reason, count)| ReasonShare { reason, share: share(count) });
        RouteSurvival {
            route: route.to_owned(),
            samples: fates.len(),
            survives: survives.collect(),
            in_the_way: in_the_way.collect(),
        }
    }
}

/// The samples of all routes, by name: they outlive reloads.
#[derive(Debug, Default)]
pub(crate) struct Survivals(Mutex<Vec<(String, Arc<Survival>)>>);

impl Survivals {
    /// That of a route.
    pub(crate) fn of(&self, route: &str, now: Instant) -> Arc<Survival> {
        let mut all = self.0.lock();
        if let Some((_, survival)) = all.iter().find(|(name, _)| name == route) {
            return Arc::clone(survival);
        }
        let survival = Arc::new(Survival::new(now));
        all.push((route.to_owned(), Arc::clone(&survival)));
        survival
    }

    /// Forgets a route that is not configured any more.
    pub(crate) fn forget(&self, route: &str) {
        self.0.lock().retain(|(name, _)| name != route);
    }

    /// All routes of which something is known, in the order of the configuration that had them first.
    pub(crate) fn views(&self, now: Instant) -> Vec<RouteSurvival> {
        let all = self.0.lock().clone();
        let views = all.iter().map(|(route, survival)| survival.view(route, now));
        views.filter(|view| view.samples > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn shares_are_of_the_requests_that_were_looked_at() {
        let now = Instant::now();
        let survivals = Survivals::default();
        let survival = survivals.of("shop", now);
        for fate in [
            Fate::Survives(secs(30)),
            Fate::Survives(secs(3600)),
            Fate::Survives(secs(86_400)),
            Fate::Lost("Set-Cookie"),
            Fate::Lost("no-store"),
            Fate::Lost("Set-Cookie"),
            Fate::Survives(secs(59)),
            Fate::Survives(secs(60)),
        ] {
            survival.note(fate, now);
        }
        survivals.of("idle", now);
        let views = survivals.views(now + secs(1));
        let view = &views[0];
        assert_eq!((views.len(), view.route.as_str(), view.samples), (1, "shop", 8));
        let shares: Vec<f64> = view.survives.iter().map(|outage| outage.share).collect();
        assert_eq!(shares, [0.625, 0.375, 0.25, 0.25, 0.125, 0.125]);
        let reasons: Vec<_> = view.in_the_way.iter().map(|lost| (lost.reason, lost.share)).collect();
        assert_eq!(reasons, [("Set-Cookie", 0.25), ("no-store", 0.125)]);
        assert!(survivals.views(now + COUNTS_FOR + secs(1)).is_empty(), "old samples do not count");
    }

    #[test]
    fn few_are_looked_at_and_few_are_kept() {
        let start = Instant::now();
        let survival = Survival::new(start);
        let due = (0..1000u64).filter(|at| survival.is_due(start + Duration::from_millis(*at))).count();
        assert_eq!(due, 100);
        for _ in 0..SAMPLES_MAX + 5 {
            survival.note(Fate::Lost("x"), start);
        }
        assert_eq!(survival.view("x", start).samples, SAMPLES_MAX);
    }
}
