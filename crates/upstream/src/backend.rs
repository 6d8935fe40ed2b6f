//! One address of an upstream: what it is told to be, and what has been seen of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use goodgate_failure::{Blame, Cause, Window};
use parking_lot::Mutex;

use crate::average::Average;
use crate::balance::Ranking;
use crate::idle::IdleClose;
use crate::slow_start::SlowStart;
use crate::{Address, BackendId, EjectionPolicy, Health, IdleCloseView, State, Transition, domain_of};

/// A backend as one configuration has it. The running state behind it is shared and outlives it.
#[derive(Debug)]
pub struct Backend {
    /// The address that attempts go to.
    pub address: Address,
    /// The address as written: a name where the configuration has one.
    pub written: Arc<str>,
    /// Its share of the requests relative to the others.
    pub weight: u16,
    /// Used only when no other is in rotation, or all others are full.
    pub backup: bool,
    /// Those of the lowest rank are asked first, the others when none of them can be had.
    pub rank: u32,
    /// Requests that it may have under way; zero: any number.
    pub in_flight_max: u32,
    /// What it is called in a cookie that ties clients to it, where there is one.
    pub id: Option<BackendId>,
    /// When live failures eject it.
    pub ejection: EjectionPolicy,
    /// The name that is sent and proven in the TLS handshake; none: no TLS.
    pub tls_name: Option<Arc<str>>,
    pub(crate) vitals: Arc<Vitals>,
}

/// What has been seen of one address: health and counters. Survives reloads.
#[derive(Debug)]
pub struct Vitals {
    born: Instant,
    health: Mutex<Health>,
    attempts: Window,
    unreachable: Window,
    misbehaved: Window,
    in_flight: AtomicU64,
    /// The sum over all backends of the upstream.
    in_flight_in_all: Arc<AtomicU64>,
    /// Who must hear of each change of what is under way, if somebody must.
    place: ArcSwapOption<Place>,
    has_place: AtomicBool,
    slow_start: SlowStart,
    first_byte: Average,
    ok: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds after `born`, plus one; zero: never.
    last_failure: AtomicU64,
    idle_close: IdleClose,
    certificate_expires: Mutex<Option<SystemTime>>,
    has_left: AtomicBool,
}

/// A backend's place in a ranking by what is under way.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) ranking: Arc<Ranking>,
    pub(crate) player: usize,
}

/// A backend at one moment, for metrics and the admin side.
#[derive(Clone, Debug)]
pub struct BackendView {
    /// Its address.
    pub address: Address,
    /// The address as written in the configuration.
    pub written: Arc<str>,
    /// Its state.
    pub state: State,
    /// What ejected it, if it is ejected or on trial.
    pub cause: Option<Cause>,
    /// Its weight.
    pub weight: u16,
    /// Whether it is a backup.
    pub backup: bool,
    /// Requests under way.
    pub in_flight: u64,
    /// Attempts that went well.
    pub ok: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// When the certificate that it has shown last ends; none: not known, or no TLS.
    pub certificate_expires: Option<SystemTime>,
}

impl Vitals {
    /// Nothing seen yet of a backend of an upstream that has so much under way in all.
    pub(crate) fn new(in_flight_in_all: Arc<AtomicU64>, now: Instant) -> Self {
        Self {
            born: now,
            health: Mutex::new(Health::NEW),
            attempts: Window::default(),
            unreachable: Window::default(),
            misbehaved: Window::default(),
            in_flight: AtomicU64::new(0),
            in_flight_in_all,
            place: ArcSwapOption::empty(),
            has_place: AtomicBool::new(false),
            slow_start: SlowStart::default(),
            first_byte: Average::default(),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_failure: AtomicU64::new(0),
            idle_close: IdleClose::new(now),
            certificate_expires: Mutex::default(),
            has_left: AtomicBool::new(false),
        }
    }

    fn since_birth(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    pub(crate) fn health(&self) -> Health {
        *self.health.lock()
    }

    /// Applies one step of the state machine; the transition if the state's name changed.
    pub(crate) fn step(&self, step: impl FnOnce(Health) -> Health, now: Instant) -> Option<(State, State)> {
        let mut health = self.health.lock();
        let before = health.state();
        *health = step(*health);
        let after = health.state();
        if before == after {
            return None;
        }
        if after == State::Up {
            self.slow_start.begin(self.since_birth(now));
        }
        Some((before, after))
    }

    /// It joins backends that are at work already.
    pub(crate) fn joins(&self, now: Instant) {
        self.slow_start.begin(self.since_birth(now));
    }

    /// Whether it takes its turn, as far as a slow start is concerned.
    pub(crate) fn takes_turn(&self, slow_start: Duration, now: Instant) -> bool {
        self.slow_start.takes_turn(slow_start, self.since_birth(now))
    }

    /// Whether it is still starting slowly.
    pub(crate) fn is_starting(&self, slow_start: Duration, now: Instant) -> bool {
        self.slow_start.is_under_way(slow_start, self.since_birth(now))
    }

    /// The average time to its first byte.
    pub(crate) fn first_byte_micros(&self, now: Instant) -> Option<u64> {
        self.first_byte.micros(self.since_birth(now))
    }

    /// A response header has come this long after the attempt began.
    pub(crate) fn answered(&self, after: Duration, now: Instant) {
        self.first_byte.add(after, self.since_birth(now));
    }

    /// An attempt has failed this long after it began.
    pub(crate) fn failed_after(&self, after: Duration, now: Instant) {
        self.first_byte.add_failure(after, self.since_birth(now));
    }

    pub(crate) fn claim_trial(&self, now: Instant) -> bool {
        let mut health = self.health.lock();
        let claimed = health.trial(now);
        if let Some(trial) = claimed {
            *health = trial;
        }
        claimed.is_some()
    }

    pub(crate) fn last_failure(&self) -> u64 {
        self.last_failure.load(Ordering::Relaxed)
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// One more is under way, unless that would be more than `limit` (zero: any number).
    pub(crate) fn try_start(&self, limit: u32) -> bool {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if limit > 0 && before >= u64::from(limit) {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.in_flight_in_all.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// From now on this ranking hears of changes; none: nobody does.
    pub(crate) fn set_place(&self, place: Option<Place>) {
        let has_one = place.is_some();
        if has_one || self.has_place.load(Ordering::Relaxed) {
            self.place.store(place.map(Arc::new));
            self.has_place.store(has_one, Ordering::SeqCst);
            self.tell();
        }
    }

    /// Tells who must hear of it that what is under way has changed.
    pub(crate) fn tell(&self) {
        if self.has_place.load(Ordering::SeqCst)
            && let Some(place) = &*self.place.load()
        {
            place.ranking.changed(place.player, || self.in_flight());
        }
    }

    /// One less is under way.
    pub(crate) fn ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.in_flight_in_all.fetch_sub(1, Ordering::Relaxed);
        self.tell();
    }

    /// The attempt is over; it is counted once, as what it was in the end, if it told anything.
    pub(crate) fn count(&self, went_well: Option<bool>) {
        if let Some(went_well) = went_well {
            if went_well { &self.ok } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Backend {
    /// What it is called in a `Host` of its own: the address as written, but a Unix socket has none, and of a
    /// service it is the domain.
    pub fn host(&self) -> &str {
        match self.written.strip_prefix("srv:") {
            Some(service) => domain_of(service),
            None if self.address.is_unix() => "localhost",
            None => &self.written,
        }
    }

    /// It is no member of the upstream any more: what is under way finishes, and no connection to it is kept.
    pub(crate) fn leaves(&self) {
        self.vitals.has_left.store(true, Ordering::Relaxed);
    }

    /// Whether it is no member of the upstream any more.
    pub fn has_left(&self) -> bool {
        self.vitals.has_left.load(Ordering::Relaxed)
    }

    /// Whether it may have no more under way.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight_max > 0 && self.vitals.in_flight() >= u64::from(self.in_flight_max)
    }

    /// It said in `Keep-Alive: timeout=` how long it keeps an idle connection.
    pub fn hinted_idle_close(&self, limit: Duration, now: Instant) {
        self.vitals.idle_close.hinted(limit, now);
    }

    /// It closed a connection that had lain idle for this long.
    pub fn closed_idle(&self, idle: Duration, now: Instant) {
        self.vitals.idle_close.closed_after(idle, now);
    }

    /// How long a connection to it may have lain idle to be used again: at most `configured`, and less than
    /// what is known of its own limit.
    pub fn idle_limit(&self, configured: Duration, now: Instant) -> Duration {
        self.vitals.idle_close.limit(configured, now)
    }

    /// The same for a request that may not be repeated if the connection turns out to be dead.
    pub fn wary_idle_limit(&self, configured: Duration, now: Instant) -> Duration {
        self.vitals.idle_close.wary_limit(configured, now)
    }

    /// What is known of how long it keeps idle connections.
    pub fn idle_close(&self, now: Instant) -> IdleCloseView {
        self.vitals.idle_close.view(now)
    }

    /// An attempt went well. `out_of_rotation` says that it was made although the backend was ejected,
    /// on trial or failing open: then it proves the backend, while a straggler from before the ejection
    /// does not.
    pub(crate) fn succeeded(&self, out_of_rotation: bool, now: Instant) -> Option<Transition> {
        let vitals = &self.vitals;
        vitals.attempts.add(vitals.since_birth(now), self.ejection.fail_timeout);
        if !out_of_rotation {
            return None;
        }
        let change = vitals.step(Health::proven, now);
        if change.is_some() {
            vitals.unreachable.clear();
            vitals.misbehaved.clear();
        }
        self.transition(change, None)
    }

    /// An attempt failed; `is_first` says that nothing has been reported of it before.
    pub(crate) fn failed(&self, cause: Cause, is_first: bool, now: Instant) -> Option<Transition> {
        let vitals = &self.vitals;
        let at = vitals.since_birth(now);
        if is_first {
            vitals.attempts.add(at, self.ejection.fail_timeout);
        }
        if cause.blame() == Blame::Nobody {
            return self.abandoned(now);
        }
        let millis = u64::try_from(at.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        vitals.last_failure.store(millis, Ordering::Relaxed);
        if !self.ejection.fail_on.covers(cause) {
            return self.abandoned(now);
        }
        match cause.blame() {
            Blame::BackendUnreachable => vitals.unreachable.add(at, self.ejection.fail_timeout),
            Blame::BackendMisbehaved => vitals.misbehaved.add(at, self.ejection.fail_timeout),
            Blame::Nobody => {}
        }
        let enough = self.enough_failures(at);
        let eject = |health: Health| match health {
            Health::Trial { .. } => health.ejected(cause, &self.ejection, now),
            Health::Up { .. } if enough => health.ejected(cause, &self.ejection, now),
            Health::Up { .. } | Health::Ejected { .. } | Health::Down { .. } => health,
        };
        let change = vitals.step(eject, now);
        self.transition(change, Some(cause))
    }

    /// An attempt ended without saying anything about the backend.
    pub(crate) fn abandoned(&self, now: Instant) -> Option<Transition> {
        let change = self.vitals.step(|health| health.trial_abandoned(now), now);
        self.transition(change, None)
    }

    fn enough_failures(&self, at: Duration) -> bool {
        let EjectionPolicy { max_fails, fail_timeout, min_fail_share, .. } = self.ejection;
        if max_fails == 0 {
            return false;
        }
        let vitals = &self.vitals;
        let attempts = vitals.attempts.sum(at, fail_timeout).max(1);
        let misbehaved = vitals.misbehaved.sum(at, fail_timeout);
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds are far below 2^52")]
        let heavy = misbehaved as f64 >= min_fail_share * attempts as f64;
        let counted = vitals.unreachable.sum(at, fail_timeout) + if heavy { misbehaved } else { 0 };
        counted >= u64::from(max_fails)
    }

    /// The transition, but for what only the upstream knows.
    pub(crate) fn transition(
        &self,
        change: Option<(State, State)>,
        cause: Option<Cause>,
    ) -> Option<Transition> {
        change.map(|(from, to)| Transition { backend: self.address, from, to, cause, in_rotation: 0 })
    }

    /// Notes when the certificate that it shows ends.
    pub fn note_certificate(&self, expires: SystemTime) {
        *self.vitals.certificate_expires.lock() = Some(expires);
    }

    /// The backend at this moment.
    pub fn view(&self) -> BackendView {
        let health = self.vitals.health();
        let cause = match health {
            Health::Ejected { cause, .. } | Health::Trial { cause, .. } => Some(cause),
            Health::Up { .. } | Health::Down { .. } => None,
        };
        BackendView {
            address: self.address,
            written: Arc::clone(&self.written),
            state: health.state(),
            cause,
            weight: self.weight,
            backup: self.backup,
            in_flight: self.vitals.in_flight(),
            ok: self.vitals.ok.load(Ordering::Relaxed),
            failed: self.vitals.failed.load(Ordering::Relaxed),
            certificate_expires: self.tls_name.as_ref().and_then(|_| *self.vitals.certificate_expires.lock()),
        }
    }
}
