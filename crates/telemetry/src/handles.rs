//! Handles of one route, resolved when the configuration is loaded.
//!
//! What clients see (5xx responses and errors of the gateway) exists at zero from the start. Rescues are resolved at their
//! first use, because their product with the routes is large; their totals exist at zero ([`crate::totals`]). All of them leave with the route.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use goodgate_failure::Cause;
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::in_use::{Held, Series, remove};
use crate::metrics::{CacheFamilies, RequestFamilies};
use crate::survival::{Survival, Survivals};
use crate::totals::Totals;
use crate::{Fate, Metrics};

/// Who made a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A backend.
    #[default]
    Backend,
    /// A copy in the cache.
    Cache,
    /// goodgate itself.
    Goodgate,
}

impl Origin {
    const ALL: [Self; 3] = [Self::Backend, Self::Cache, Self::Goodgate];

    /// The word for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Cache => "cache",
            Self::Goodgate => "goodgate",
        }
    }
}

/// How a failure was kept from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Another backend answered.
    Retry,
    /// An old copy was served.
    Stale,
    /// A dead kept connection was replaced by a fresh one.
    ConnectionRace,
}

impl By {
    pub(crate) const ALL: [Self; 3] = [Self::Retry, Self::Stale, Self::ConnectionRace];

    /// Whether it can keep a failure of this cause from the client.
    pub(crate) const fn can_avert(self, cause: Cause) -> bool {
        match self {
            Self::Retry | Self::Stale => cause.word().is_some(),
            Self::ConnectionRace => matches!(cause, Cause::ConnectionTerminated),
        }
    }

    /// The word for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Stale => "stale",
            Self::ConnectionRace => "connection_race",
        }
    }
}

/// What the cache did for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// A fresh copy was served.
    Hit,
    /// There was no usable copy.
    Miss,
    /// The backend confirmed the copy.
    Revalidated,
    /// An old copy was served because of a failure.
    Stale,
    /// An old copy was served while it is refreshed.
    Updating,
    /// The request asked not to be answered from the cache.
    Bypass,
    /// The answer may not be kept.
    Uncacheable,
}

impl CacheResult {
    const ALL: [Self; 7] = [
        Self::Hit,
        Self::Miss,
        Self::Revalidated,
        Self::Stale,
        Self::Updating,
        Self::Bypass,
        Self::Uncacheable,
    ];

    /// The word for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Updating => "updating",
            Self::Bypass => "bypass",
            Self::Uncacheable => "uncacheable",
        }
    }
}

/// First and last status that can be counted on its own.
const STATUS_MIN: u16 = 100;
const STATUS_MAX: u16 = 599;
const STATUSES: usize = (STATUS_MAX - STATUS_MIN + 1) as usize;

/// The series of one route with one of its upstreams.
#[derive(Debug)]
pub struct RouteMetrics(Held<RouteSeries>);

/// What is counted of a route by upstream.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    labels: [String; 2],
    families: RequestFamilies,
    totals: Arc<Totals>,
    responses: Vec<OnceLock<IntCounter>>,
    gateway_errors: Vec<OnceLock<IntCounter>>,
    /// Of causes that have several statuses: those beside the cause's own.
    other_errors: Mutex<Vec<(u16, Cause)>>,
    rescues: Vec<OnceLock<IntCounter>>,
    of_route: Held<RouteAlone>,
}

/// What is counted of a route whatever its upstream.
#[derive(Debug)]
pub(crate) struct RouteAlone {
    route: String,
    requests: RequestFamilies,
    caches: CacheFamilies,
    cache: [OnceLock<IntCounter>; CacheResult::ALL.len()],
    duration: Histogram,
    stale_age: OnceLock<Histogram>,
    forgotten: OnceLock<IntCounter>,
    survival: Arc<Survival>,
    survivals: Arc<Survivals>,
}

impl RouteMetrics {
    /// Resolves the series of a route; small label sets exist at zero from then on.
    pub fn new(metrics: &Arc<Metrics>, route: &str, upstream: &str) -> Self {
        let name = format!("{route}\n{upstream}");
        Self(metrics.routes.hold(name, || RouteSeries::new(metrics, route, upstream)))
    }

    /// Whether this request is one of those of which it is noted whether it would survive.
    pub fn survival_due(&self, now: Instant) -> bool {
        self.0.of_route.survival.is_due(now)
    }

    /// Notes what would become of a request if the upstream were dead.
    pub fn survival(&self, fate: Fate, now: Instant) {
        self.0.of_route.survival.note(fate, now);
    }

    /// Counts a response.
    pub fn response(&self, status: u16, origin: Origin, duration: Duration) {
        if let Some(counter) = self.0.response_counter(status, origin) {
            counter.inc();
        }
        self.0.of_route.duration.observe(duration.as_secs_f64());
    }

    /// Counts an error that goodgate answered. `status` differs from the cause's own only for a client's
    /// mistakes, of which there are several kinds.
    pub fn gateway_error(&self, status: u16, cause: Cause) {
        self.0.totals.gateway_error(cause);
        if status != cause.status() {
            self.0.other_error(status, cause).inc();
        } else if let Some(counter) = self.0.gateway_error_counter(cause) {
            counter.inc();
        }
    }

    /// Makes the series of an error exist at zero that this route may answer and others do not.
    pub fn expect_error(&self, status: u16, cause: Cause) {
        self.0.other_error(status, cause);
    }

    /// Makes the series of its rate limits exist at zero.
    pub fn expect_limits(&self) {
        self.0.of_route.forgotten_counter();
    }

    /// Makes the series of its cache exist at zero.
    pub fn expect_cache(&self) {
        for result in CacheResult::ALL {
            self.0.of_route.cache_counter(result);
        }
        self.0.of_route.stale_age();
    }

    /// Counts a client that a rate limit has forgotten early to make room for another.
    pub fn client_forgotten(&self) {
        self.0.of_route.forgotten_counter().inc();
    }

    /// Counts a failure that the client never saw.
    pub fn rescue(&self, by: By, cause: Cause) {
        self.0.totals.rescue(by, cause);
        if let Some(counter) = self.0.rescue_counter(by, cause) {
            counter.inc();
        }
    }

    /// Counts what the cache did.
    pub fn cache(&self, result: CacheResult) {
        if let Some(counter) = self.0.of_route.cache_counter(result) {
            counter.inc();
        }
    }

    /// Notes how far past its freshness a copy was that was served because of a failure.
    pub fn stale_age(&self, past_freshness: Duration) {
        self.0.of_route.stale_age().observe(past_freshness.as_secs_f64());
    }
}

impl RouteSeries {
    fn new(metrics: &Metrics, route: &str, upstream: &str) -> Self {
        let this = Self {
            labels: [route.to_owned(), upstream.to_owned()],
            families: metrics.requests.clone(),
            totals: Arc::clone(&metrics.totals),
            responses: (0..STATUSES * Origin::ALL.len()).map(|_| OnceLock::new()).collect(),
            gateway_errors: Cause::ALL.iter().map(|_| OnceLock::new()).collect(),
            other_errors: Mutex::default(),
            rescues: (0..By::ALL.len() * Cause::ALL.len()).map(|_| OnceLock::new()).collect(),
            of_route: metrics.routes_alone.hold(route.to_owned(), || RouteAlone::new(metrics, route)),
        };
        for status in [502, 503, 504] {
            for origin in Origin::ALL {
                this.response_counter(status, origin);
            }
        }
        // What clients see is alerted on: `rate` must see the first error of a route.
        let is_error =
            |cause: &Cause| matches!(cause.status(), 502..=504) && !matches!(cause, Cause::Received(_));
        for cause in Cause::ALL.into_iter().filter(is_error) {
            this.gateway_error_counter(cause);
        }
        this
    }

    fn counter(&self, family: &IntCounterVec, one: &str, two: &str) -> IntCounter {
        let [route, upstream] = &self.labels;
        family.with_label_values(&[route.as_str(), upstream, one, two])
    }

    fn rescue_counter(&self, by: By, cause: Cause) -> Option<&IntCounter> {
        let slot = self.rescues.get(by as usize * Cause::ALL.len() + cause.index())?;
        Some(slot.get_or_init(|| self.counter(&self.families.rescues, by.name(), cause.name())))
    }

    fn response_counter(&self, status: u16, origin: Origin) -> Option<&IntCounter> {
        let column = usize::from(status.clamp(STATUS_MIN, STATUS_MAX) - STATUS_MIN);
        let slot = self.responses.get(origin as usize * STATUSES + column)?;
        Some(slot.get_or_init(|| self.counter(&self.families.responses, &status.to_string(), origin.name())))
    }

    fn gateway_error_counter(&self, cause: Cause) -> Option<&IntCounter> {
        let slot = self.gateway_errors.get(cause.index())?;
        Some(slot.get_or_init(|| {
            self.counter(&self.families.gateway_errors, &cause.status().to_string(), cause.name())
        }))
    }

    fn other_error(&self, status: u16, cause: Cause) -> IntCounter {
        let mut known = self.other_errors.lock();
        if !known.contains(&(status, cause)) {
            known.push((status, cause));
        }
        drop(known);
        self.counter(&self.families.gateway_errors, &status.to_string(), cause.name())
    }

    fn remove_one(&self, family: &IntCounterVec, one: &str, two: &str) {
        let [route, upstream] = &self.labels;
        remove(family, &[route.as_str(), upstream, one, two]);
    }
}

impl Series for RouteSeries {
    fn remove(&self) {
        let RequestFamilies { responses, gateway_errors, rescues, .. } = &self.families;
        for origin in Origin::ALL {
            let of_origin = self.responses.iter().skip(origin as usize * STATUSES).take(STATUSES);
            let counted = (STATUS_MIN..).zip(of_origin).filter(|(_, slot)| slot.get().is_some());
            counted.for_each(|(status, _)| self.remove_one(responses, &status.to_string(), origin.name()));
        }
        for cause in Cause::ALL {
            self.remove_one(gateway_errors, &cause.status().to_string(), cause.name());
            for by in By::ALL {
                self.remove_one(rescues, by.name(), cause.name());
            }
        }
        for (status, cause) in self.other_errors.lock().iter() {
            self.remove_one(gateway_errors, &status.to_string(), cause.name());
        }
    }
}

impl RouteAlone {
    fn new(metrics: &Metrics, route: &str) -> Self {
        Self {
            route: route.to_owned(),
            requests: metrics.requests.clone(),
            caches: metrics.caches.clone(),
            cache: Default::default(),
            duration: metrics.requests.duration.with_label_values(&[route]),
            stale_age: OnceLock::new(),
            forgotten: OnceLock::new(),
            survival: metrics.survivals.of(route, Instant::now()),
            survivals: Arc::clone(&metrics.survivals),
        }
    }

    fn forgotten_counter(&self) -> &IntCounter {
        self.forgotten.get_or_init(|| self.requests.forgotten.with_label_values(&[&self.route]))
    }

    fn stale_age(&self) -> &Histogram {
        self.stale_age.get_or_init(|| self.caches.stale_age.with_label_values(&[&self.route]))
    }

    fn cache_counter(&self, result: CacheResult) -> Option<&IntCounter> {
        let slot = self.cache.get(result as usize)?;
        let labels = [self.route.as_str(), result.name()];
        Some(slot.get_or_init(|| self.caches.requests.with_label_values(&labels)))
    }
}

impl Series for RouteAlone {
    fn remove(&self) {
        let route = self.route.as_str();
        for result in CacheResult::ALL {
            remove(&self.caches.requests, &[route, result.name()]);
        }
        remove(&self.caches.stale_age, &[route]);
        remove(&self.requests.duration, &[route]);
        remove(&self.requests.forgotten, &[route]);
        self.survivals.forget(route);
    }
}
