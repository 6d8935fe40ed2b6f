//! How long a backend lets a kept connection lie idle before it closes it: learned, so that we close first.
//!
//! A request that goes out on a kept connection just when the backend closes it is lost, and if it may not
//! be repeated that is a 502. Nobody configures both ends alike, so the backend's own limit is taken from
//! its `Keep-Alive: timeout=` hint and from the closes that are seen. One close says little, for a process
//! that is restarted closes all its connections at any age: two that agree are believed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How many closes are kept.
const CLOSES_MAX: usize = 8;
/// How long something learned is believed. Connections are retired before the limit from then on, so that no
/// further close confirms it.
const HOLDS: Duration = Duration::from_hours(1);
/// A close earlier than this is no idle limit: nobody sets one so short, and a restart under load looks so.
const IDLE_MIN: Duration = Duration::from_millis(100);
/// Closes at different ages within this time are the end of a process, not of its patience.
const BURST: Duration = Duration::from_millis(50);
/// As long as nothing is known, a request that may not be repeated goes over a connection that was used
/// within this time. Common limits begin at 2 s.
const WARY: Duration = Duration::from_secs(1);

/// What was learned of one backend. Reads are a few atomic loads.
#[derive(Debug)]
pub(crate) struct IdleClose {
    born: Instant,
    /// Milliseconds; zero: unknown.
    hint: AtomicU64,
    seen: AtomicU64,
    /// The smallest close seen, believed or not.
    earliest: AtomicU64,
    /// Milliseconds after `born` until which hint and closes hold.
    hint_until: AtomicU64,
    seen_until: AtomicU64,
    closes: Mutex<Closes>,
}

#[derive(Debug, Default)]
struct Closes {
    /// Idle time and moment of each.
    latest: Vec<(Duration, Instant)>,
    burst: Option<Instant>,
}

/// What is known of a backend's idle limit, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleCloseView {
    /// Its `Keep-Alive: timeout=`.
    pub hint: Option<Duration>,
    /// The shortest and the longest idle time after which it was seen to close.
    pub seen: Option<(Duration, Duration)>,
    /// The limit that is believed.
    pub believed: Option<Duration>,
}

impl IdleClose {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            born: now,
            hint: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            earliest: AtomicU64::new(0),
            hint_until: AtomicU64::new(0),
            seen_until: AtomicU64::new(0),
            closes: Mutex::default(),
        }
    }

    /// The backend said how long it keeps an idle connection.
    pub(crate) fn hinted(&self, limit: Duration, now: Instant) {
        self.hint.store(millis(limit).max(1), Ordering::Relaxed);
        self.hint_until.store(self.until(now), Ordering::Relaxed);
    }

    /// The backend closed a connection that had been idle for this long.
    pub(crate) fn closed_after(&self, idle: Duration, now: Instant) {
        if idle < IDLE_MIN {
            return;
        }
        let mut closes = self.closes.lock();
        closes.add(idle, now);
        self.seen.store(closes.agreed().map_or(0, millis), Ordering::Relaxed);
        self.earliest.store(closes.earliest().map_or(0, millis), Ordering::Relaxed);
        self.seen_until.store(self.until(now), Ordering::Relaxed);
    }

    /// This was learned before a restart.
    pub(crate) fn recall(&self, limit: Duration, now: Instant) {
        self.seen.store(millis(limit).max(1), Ordering::Relaxed);
        self.earliest.store(millis(limit).max(1), Ordering::Relaxed);
        self.seen_until.store(self.until(now), Ordering::Relaxed);
    }

    /// How long a connection may have lain idle to be used again, at most `configured`.
    pub(crate) fn limit(&self, configured: Duration, now: Instant) -> Duration {
        self.believed(now).map_or(configured, |limit| before(limit).min(configured))
    }

    /// The same for a request that may not be repeated: far from any limit.
    pub(crate) fn wary_limit(&self, configured: Duration, now: Instant) -> Duration {
        let wary = self.believed(now).map_or(WARY, |limit| limit / 2);
        let earliest = self.held(&self.earliest, &self.seen_until, now);
        earliest.map_or(wary, |close| wary.min(close / 2)).min(configured)
    }

    pub(crate) fn view(&self, now: Instant) -> IdleCloseView {
        let closes = self.closes.lock();
        let idle = || closes.latest.iter().map(|(idle, _)| *idle);
        IdleCloseView {
            hint: self.held(&self.hint, &self.hint_until, now),
            seen: idle().min().zip(idle().max()),
            believed: self.believed(now),
        }
    }

    fn believed(&self, now: Instant) -> Option<Duration> {
        let hint = self.held(&self.hint, &self.hint_until, now);
        let seen = self.held(&self.seen, &self.seen_until, now);
        hint.into_iter().chain(seen).min()
    }

    fn held(&self, value: &AtomicU64, until: &AtomicU64, now: Instant) -> Option<Duration> {
        let value = value.load(Ordering::Relaxed);
        if value == 0 {
            return None;
        }
        let at = millis(now.saturating_duration_since(self.born));
        (at < until.load(Ordering::Relaxed)).then_some(Duration::from_millis(value))
    }

    fn until(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.born) + HOLDS)
    }
}

impl Closes {
    fn add(&mut self, idle: Duration, now: Instant) {
        self.latest.retain(|(_, at)| now.saturating_duration_since(*at) < HOLDS);
        let is_soon = |at: Instant| now.saturating_duration_since(at) < BURST;
        if self.burst.is_some_and(is_soon) {
            self.burst = Some(now);
            return;
        }
        if let Some(&(last, at)) = self.latest.last()
            && is_soon(at)
        {
            if agree(last, idle) {
                // One event: the connections of one burst of requests grow old together.
                return;
            }
            self.latest.pop();
            self.burst = Some(now);
            return;
        }
        if self.latest.len() == CLOSES_MAX {
            self.latest.remove(0);
        }
        self.latest.push((idle, now));
    }

    /// The shortest idle time that another close confirms.
    fn agreed(&self) -> Option<Duration> {
        let mut ages: Vec<Duration> = self.latest.iter().map(|(idle, _)| *idle).collect();
        ages.sort_unstable();
        ages.iter().zip(ages.iter().skip(1)).find(|(one, next)| agree(**one, **next)).map(|(one, _)| *one)
    }

    fn earliest(&self) -> Option<Duration> {
        self.latest.iter().map(|(idle, _)| *idle).min()
    }
}

/// Whether two idle times may be one limit: within a tenth, or what timers are coarse by.
fn agree(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) <= (one / 10).max(BURST)
}

/// When to retire a connection that the other side closes after `limit`: early enough that a request is there
/// before.
fn before(limit: Duration) -> Duration {
    limit.saturating_sub((limit / 10).clamp(BURST, Duration::from_secs(1)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_hint_is_believed_at_once_and_undercut() {
        let now = Instant::now();
        let close = IdleClose::new(now);
        assert_eq!(close.limit(MINUTE, now), MINUTE);
        close.hinted(secs(5), now);
        assert_eq!(close.limit(MINUTE, now), Duration::from_millis(4500));
        assert_eq!(close.limit(secs(3), now), secs(3), "the setting is an upper limit");
        assert_eq!(close.limit(MINUTE, now + HOLDS), MINUTE, "what is long ago is forgotten");
    }

    #[test]
    fn one_close_makes_wary_and_two_that_agree_are_believed() {
        let now = Instant::now();
        let close = IdleClose::new(now);
        assert_eq!(close.wary_limit(MINUTE, now), WARY);
        close.closed_after(Duration::from_millis(1500), now);
        assert_eq!(close.limit(MINUTE, now), MINUTE);
        assert_eq!(close.wary_limit(MINUTE, now), Duration::from_millis(750));
        close.closed_after(Duration::from_millis(1540), now + secs(5));
        assert_eq!(close.limit(MINUTE, now), Duration::from_millis(1350));
        let seen = (Duration::from_millis(1500), Duration::from_millis(1540));
        assert_eq!(close.view(now).seen, Some(seen));
    }

    #[test]
    fn a_restart_that_closes_everything_at_any_age_teaches_nothing() {
        let now = Instant::now();
        let close = IdleClose::new(now);
        for age in [300, 900, 310, 5000, 950] {
            close.closed_after(Duration::from_millis(age), now);
        }
        assert_eq!(close.view(now), IdleCloseView::default());
        close.closed_after(Duration::from_millis(2), now + secs(1));
        assert_eq!(close.wary_limit(MINUTE, now), WARY, "a close right behind an answer is no idle limit");
    }

    #[test]
    fn connections_that_grew_old_together_are_one_close() {
        let now = Instant::now();
        let close = IdleClose::new(now);
        close.closed_after(secs(2), now);
        close.closed_after(secs(2), now);
        assert_eq!(close.limit(MINUTE, now), MINUTE);
        close.closed_after(secs(2), now + secs(3));
        assert_eq!(close.limit(MINUTE, now), Duration::from_millis(1800));
    }
}
