//! Handles of one route or upstream, resolved when the configuration is loaded.
//!
//! Closed label sets exist at zero from the start; what cannot be listed beforehand (a status that a
//! backend invents) is resolved at its first use and kept.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use goodgate_failure::{Cause, Refusal};
use prometheus::{Histogram, IntCounter};

use crate::survival::Survival;
use crate::{Fate, Metrics, NameMetrics};

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
    const ALL: [Self; 3] = [Self::Retry, Self::Stale, Self::ConnectionRace];

    /// Whether it can keep a failure of this cause from the client: those series exist at zero.
    const fn can_avert(self, cause: Cause) -> bool {
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

/// The series of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    metrics: Arc<Metrics>,
    route: String,
    upstream: String,
    responses: Vec<OnceLock<IntCounter>>,
    gateway_errors: Vec<OnceLock<IntCounter>>,
    rescues: Vec<OnceLock<IntCounter>>,
    cache: Vec<IntCounter>,
    duration: Histogram,
    stale_age: Histogram,
    forgotten: OnceLock<IntCounter>,
    survival: Arc<Survival>,
}

impl RouteMetrics {
    /// Resolves the series of a route and makes the closed ones exist at zero.
    pub fn new(metrics: &Arc<Metrics>, route: &str, upstream: &str) -> Self {
        let this = Self {
            metrics: Arc::clone(metrics),
            route: route.to_owned(),
            upstream: upstream.to_owned(),
            responses: (0..STATUSES * Origin::ALL.len()).map(|_| OnceLock::new()).collect(),
            gateway_errors: Cause::ALL.iter().map(|_| OnceLock::new()).collect(),
            rescues: (0..By::ALL.len() * Cause::ALL.len()).map(|_| OnceLock::new()).collect(),
            cache: CacheResult::ALL
                .iter()
                .map(|result| metrics.caches.requests.with_label_values(&[route, result.name()]))
                .collect(),
            duration: metrics.requests.duration.with_label_values(&[route]),
            stale_age: metrics.caches.stale_age.with_label_values(&[route]),
            forgotten: OnceLock::new(),
            survival: metrics.survivals.of(route, Instant::now()),
        };
        this.exist_at_zero();
        this
    }

    fn exist_at_zero(&self) {
        for status in [502, 503, 504] {
            for origin in Origin::ALL {
                self.response_counter(status, origin);
            }
        }
        for (by, cause) in By::ALL.into_iter().flat_map(|by| Cause::ALL.map(|cause| (by, cause))) {
            if by.can_avert(cause) {
                self.rescue_counter(by, cause);
            }
        }
        for cause in Cause::ALL.into_iter().filter(|cause| matches!(cause.status(), 502..=504)) {
            if !matches!(cause, Cause::Received(_)) {
                self.gateway_error_counter(cause);
            }
        }
    }

    /// Whether this request is one of those of which it is noted whether it would survive.
    pub fn survival_due(&self, now: Instant) -> bool {
        self.survival.is_due(now)
    }

    /// Notes what would become of a request if the upstream were dead.
    pub fn survival(&self, fate: Fate, now: Instant) {
        self.survival.note(fate, now);
    }

    /// Counts a response.
    pub fn response(&self, status: u16, origin: Origin, duration: Duration) {
        if let Some(counter) = self.response_counter(status, origin) {
            counter.inc();
        }
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts an error that goodgate answered. `status` differs from the cause's own only for a client's
    /// mistakes, of which there are several kinds.
    pub fn gateway_error(&self, status: u16, cause: Cause) {
        if status == cause.status() {
            if let Some(counter) = self.gateway_error_counter(cause) {
                counter.inc();
            }
        } else {
            let status = status.to_string();
            let labels = [self.route.as_str(), &self.upstream, &status, cause.name()];
            self.metrics.requests.gateway_errors.with_label_values(&labels).inc();
        }
    }

    /// Makes the series of an error exist at zero that this route may answer and others do not.
    pub fn expect_error(&self, status: u16, cause: Cause) {
        let status = status.to_string();
        let labels = [self.route.as_str(), &self.upstream, &status, cause.name()];
        self.metrics.requests.gateway_errors.with_label_values(&labels);
    }

    /// Makes the series of its rate limits exist at zero.
    pub fn expect_limits(&self) {
        self.forgotten_counter();
    }

    /// Counts a client that a rate limit has forgotten early to make room for another.
    pub fn client_forgotten(&self) {
        self.forgotten_counter().inc();
    }

    fn forgotten_counter(&self) -> &IntCounter {
        self.forgotten.get_or_init(|| self.metrics.requests.forgotten.with_label_values(&[&self.route]))
    }

    /// Counts a failure that the client never saw.
    pub fn rescue(&self, by: By, cause: Cause) {
        if let Some(counter) = self.rescue_counter(by, cause) {
            counter.inc();
        }
    }

    /// Counts what the cache did.
    pub fn cache(&self, result: CacheResult) {
        if let Some(counter) = self.cache.get(result as usize) {
            counter.inc();
        }
    }

    /// Notes how far past its freshness a copy was that was served because of a failure.
    pub fn stale_age(&self, past_freshness: Duration) {
        self.stale_age.observe(past_freshness.as_secs_f64());
    }

    fn rescue_counter(&self, by: By, cause: Cause) -> Option<&IntCounter> {
        let slot = self.rescues.get(by as usize * Cause::ALL.len() + cause.index())?;
        Some(slot.get_or_init(|| {
            let labels = [self.route.as_str(), &self.upstream, by.name(), cause.name()];
            self.metrics.requests.rescues.with_label_values(&labels)
        }))
    }

    fn response_counter(&self, status: u16, origin: Origin) -> Option<&IntCounter> {
        let column = usize::from(status.clamp(STATUS_MIN, STATUS_MAX) - STATUS_MIN);
        let slot = self.responses.get(origin as usize * STATUSES + column)?;
        Some(slot.get_or_init(|| {
            let status = status.to_string();
            let labels = [self.route.as_str(), &self.upstream, &status, origin.name()];
            self.metrics.requests.responses.with_label_values(&labels)
        }))
    }

    fn gateway_error_counter(&self, cause: Cause) -> Option<&IntCounter> {
        let slot = self.gateway_errors.get(cause.index())?;
        Some(slot.get_or_init(|| {
            let status = cause.status().to_string();
            let labels = [self.route.as_str(), &self.upstream, &status, cause.name()];
            self.metrics.requests.gateway_errors.with_label_values(&labels)
        }))
    }
}

/// The series of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    attempt_failures: Vec<IntCounter>,
    retries: IntCounter,
    refusals: Vec<IntCounter>,
    ejections: Vec<IntCounter>,
    checks_ok: IntCounter,
    checks_failed: Vec<IntCounter>,
    aborts_waiting: IntCounter,
    aborts_response: IntCounter,
    aborts_request: IntCounter,
    connect: Histogram,
    first_byte: Histogram,
    names: NameMetrics,
}

impl UpstreamMetrics {
    /// Resolves the series of an upstream; they exist at zero from then on.
    pub fn new(metrics: &Metrics, upstream: &str) -> Self {
        let by_cause = |family: &prometheus::IntCounterVec| {
            Cause::ALL.iter().map(|cause| family.with_label_values(&[upstream, cause.name()])).collect()
        };
        let refusal =
            |reason: &Refusal| metrics.backends.retries_refused.with_label_values(&[upstream, reason.name()]);
        let aborts = |phase: &str| metrics.requests.client_aborts.with_label_values(&[upstream, phase]);
        Self {
            attempt_failures: by_cause(&metrics.backends.attempt_failures),
            retries: metrics.backends.retries.with_label_values(&[upstream]),
            refusals: Refusal::ALL.iter().map(refusal).collect(),
            ejections: by_cause(&metrics.backends.ejections),
            checks_ok: metrics.backends.health_checks.with_label_values(&[upstream, "ok"]),
            checks_failed: by_cause(&metrics.backends.health_checks),
            aborts_waiting: aborts("waiting"),
            aborts_response: aborts("response"),
            aborts_request: aborts("request"),
            connect: metrics.backends.connect.with_label_values(&[upstream]),
            first_byte: metrics.backends.first_byte.with_label_values(&[upstream]),
            names: NameMetrics::new(metrics, upstream),
        }
    }

    /// Counts a failed attempt.
    pub fn attempt_failed(&self, cause: Cause) {
        increment(&self.attempt_failures, cause.index());
    }

    /// Counts an attempt after the first.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// Counts a retry that was refused.
    pub fn retry_refused(&self, reason: Refusal) {
        increment(&self.refusals, reason as usize);
    }

    /// Counts an ejection.
    pub fn ejected(&self, cause: Cause) {
        increment(&self.ejections, cause.index());
    }

    /// Counts an active health check.
    pub fn checked(&self, failure: Option<Cause>) {
        match failure {
            None => self.checks_ok.inc(),
            Some(cause) => increment(&self.checks_failed, cause.index()),
        }
    }

    /// Counts a client that left before any response byte (`response_begun` false) or in the middle.
    pub fn client_aborted(&self, request_complete: bool, response_begun: bool) {
        match (request_complete, response_begun) {
            (_, true) => self.aborts_response.inc(),
            (true, false) => self.aborts_waiting.inc(),
            (false, false) => self.aborts_request.inc(),
        }
    }

    /// Notes how long a new connection took.
    pub fn connected(&self, after: Duration) {
        self.connect.observe(after.as_secs_f64());
    }

    /// Notes how long the response header took.
    pub fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    /// Those of its names.
    pub fn names(&self) -> &NameMetrics {
        &self.names
    }
}

fn increment(counters: &[IntCounter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.inc();
    }
}
