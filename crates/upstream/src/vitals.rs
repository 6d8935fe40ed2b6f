//! What has been seen of one address: health and counters. Survives reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use goodgate_failure::{Cause, Window};
use parking_lot::Mutex;

use crate::average::Average;
use crate::balance::Ranking;
use crate::idle::IdleClose;
use crate::probe_log::ProbeLog;
use crate::seen::Seen;
use crate::slow_start::SlowStart;
use crate::{EjectionPolicy, Health, State};

/// What has been seen of one address.
#[derive(Debug)]
pub struct Vitals {
    pub(crate) born: Instant,
    health: Mutex<Health>,
    attempts: Window,
    unreachable: Window,
    misbehaved: Window,
    in_flight: AtomicU64,
    of_all: Arc<OfAll>,
    /// Who must hear of each change of what is under way, if somebody must.
    place: ArcSwapOption<Place>,
    has_place: AtomicBool,
    slow_start: SlowStart,
    first_byte: Average,
    ok: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds after `born`, plus one; zero: never.
    last_failure: AtomicU64,
    pub(crate) seen: Seen,
    pub(crate) idle_close: IdleClose,
    pub(crate) certificate_expires: Mutex<Option<SystemTime>>,
    pub(crate) next_probe: Mutex<Option<Instant>>,
    pub(crate) probes: ProbeLog,
    /// It is no member of its upstream any more.
    pub(crate) has_left: AtomicBool,
}

/// What all backends of an upstream have together, whatever configuration they are of.
#[derive(Debug, Default)]
pub(crate) struct OfAll {
    /// Requests under way, those on backends that have left included.
    pub(crate) in_flight: AtomicU64,
    /// How often a change of health has made rotations out of date.
    pub(crate) changes: AtomicU64,
}

/// A backend's place in a ranking by what is under way.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) ranking: Arc<Ranking>,
    pub(crate) player: usize,
}

impl Vitals {
    /// Nothing seen yet of a backend, whose upstream has this in all.
    pub(crate) fn new(of_all: Arc<OfAll>, health: Health, now: Instant) -> Self {
        Self {
            born: now,
            health: Mutex::new(health),
            attempts: Window::default(),
            unreachable: Window::default(),
            misbehaved: Window::default(),
            in_flight: AtomicU64::new(0),
            of_all,
            place: ArcSwapOption::empty(),
            has_place: AtomicBool::new(false),
            slow_start: SlowStart::default(),
            first_byte: Average::default(),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_failure: AtomicU64::new(0),
            seen: Seen::default(),
            idle_close: IdleClose::new(now),
            certificate_expires: Mutex::default(),
            next_probe: Mutex::default(),
            probes: ProbeLog::default(),
            has_left: AtomicBool::new(false),
        }
    }

    pub(crate) fn since_birth(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    pub(crate) fn health(&self) -> Health {
        *self.health.lock()
    }

    /// Applies one step of the state machine; the transition if the state's name changed.
    pub(crate) fn step(&self, step: impl FnOnce(Health) -> Health, now: Instant) -> Option<(State, State)> {
        let mut health = self.health.lock();
        let old = *health;
        *health = step(old);
        let (before, after) = (old.state(), health.state());
        if before != after || old.trial_due() != health.trial_due() {
            self.of_all.changes.fetch_add(1, Ordering::Release);
        }
        if before == after {
            return None;
        }
        if after == State::Up {
            self.slow_start.begin(self.since_birth(now));
            self.unreachable.clear();
            self.misbehaved.clear();
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
    pub(crate) fn average_answer(&self, after: Duration, now: Instant) {
        self.first_byte.add(after, self.since_birth(now));
    }

    /// An attempt has failed this long after it began.
    pub(crate) fn average_failure(&self, after: Duration, now: Instant) {
        self.first_byte.add_failure(after, self.since_birth(now));
    }

    /// An attempt has come to an end that says something.
    pub(crate) fn count_attempt(&self, policy: &EjectionPolicy, now: Instant) {
        self.attempts.add(self.since_birth(now), policy.fail_timeout);
    }

    /// A failure that speaks against it, whether it counts or not.
    pub(crate) fn note_failure(&self, cause: Cause, now: Instant) {
        let millis = u64::try_from(self.since_birth(now).as_millis()).unwrap_or(u64::MAX - 1) + 1;
        self.last_failure.store(millis, Ordering::Relaxed);
        self.seen.failed(cause);
    }

    /// A failure that counts. Whether there were enough of them to eject it.
    pub(crate) fn count_failure(&self, is_unreachable: bool, policy: &EjectionPolicy, now: Instant) -> bool {
        let at = self.since_birth(now);
        let EjectionPolicy { max_fails, fail_timeout, min_fail_share, .. } = *policy;
        if is_unreachable { &self.unreachable } else { &self.misbehaved }.add(at, fail_timeout);
        if max_fails == 0 {
            return false;
        }
        let attempts = self.attempts.sum(at, fail_timeout).max(1);
        let misbehaved = self.misbehaved.sum(at, fail_timeout);
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds are far below 2^52")]
        let heavy = misbehaved as f64 >= min_fail_share * attempts as f64;
        let counted = self.unreachable.sum(at, fail_timeout) + if heavy { misbehaved } else { 0 };
        counted >= u64::from(max_fails)
    }

    /// Claims the trial if one is due: it is under way from now on.
    pub(crate) fn claim_trial(&self, now: Instant) -> bool {
        let mut health = self.health.lock();
        let claimed = health.trial(now);
        if let Some(trial) = claimed {
            *health = trial;
            self.of_all.changes.fetch_add(1, Ordering::Release);
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
        self.of_all.in_flight.fetch_add(1, Ordering::Relaxed);
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
        self.of_all.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.tell();
    }

    /// The attempt is over; it is counted once, as what it was in the end, if it told anything.
    pub(crate) fn count(&self, went_well: Option<bool>) {
        if let Some(went_well) = went_well {
            if went_well { &self.ok } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Attempts that went well, and that failed.
    pub(crate) fn outcomes(&self) -> (u64, u64) {
        (self.ok.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}
