//! Why asking for a newer answer than a copy has failed last, and when: one word, since every copy has one.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use goodgate_failure::Cause;

/// How long after a failed refresh a copy is served without asking again.
pub const REFRESH_BACKOFF: Duration = Duration::from_secs(1);

/// After this time a failure says nothing any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// Milliseconds count from here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Zero: none. Else the cause's place in [`Cause::ALL`] and one, in the upper bits, and the milliseconds below.
#[derive(Debug, Default)]
pub(super) struct LastFailure(AtomicU64);

/// In place of a cause: no failure, but a refresh that has begun.
const REFRESHING: u64 = 0xFFFF;
const TIME_BITS: u32 = 48;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

impl LastFailure {
    pub(super) fn set(&self, cause: Cause, now: Instant) {
        self.0.store(word(cause.index() as u64 + 1, now), Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The cause, within [`REFRESH_BACKOFF`].
    pub(super) fn recent(&self, now: Instant) -> Option<Cause> {
        let last = self.0.load(Ordering::Relaxed);
        cause_of(last).filter(|_| is_recent(last, now))
    }

    /// A refresh begins, unless one has begun within the time given to it or has failed within the back-off. Only one of
    /// several callers is told so.
    pub(super) fn begin_refresh(&self, now: Instant, limit: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let is_busy = last >> TIME_BITS == REFRESHING && elapsed(last, now) < limit;
        if is_busy || self.recent(now).is_some() {
            return false;
        }
        let next = word(REFRESHING, now);
        self.0.compare_exchange(last, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The same, but when the back-off is over one caller is told that there is none, and the others have another to
    /// wait.
    pub(super) fn claim(&self, now: Instant) -> Option<Cause> {
        let last = self.0.load(Ordering::Relaxed);
        let cause = cause_of(last)?;
        if is_recent(last, now) {
            return Some(cause);
        }
        if elapsed(last, now) >= FORGOTTEN_AFTER {
            return None;
        }
        let next = word(last >> TIME_BITS, now);
        let claimed = self.0.compare_exchange(last, next, Ordering::Relaxed, Ordering::Relaxed);
        claimed.is_err().then_some(cause)
    }
}

fn word(place: u64, now: Instant) -> u64 {
    let since = now.saturating_duration_since(*START).as_millis();
    place << TIME_BITS | u64::try_from(since).unwrap_or(TIME_MASK) & TIME_MASK
}

fn cause_of(word: u64) -> Option<Cause> {
    let place = usize::try_from(word >> TIME_BITS).ok()?.checked_sub(1)?;
    Cause::ALL.get(place).copied()
}

fn is_recent(word: u64, now: Instant) -> bool {
    elapsed(word, now) < REFRESH_BACKOFF
}

fn elapsed(word: u64, now: Instant) -> Duration {
    now.saturating_duration_since(*START + Duration::from_millis(word & TIME_MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_ask_again_when_the_back_off_is_over() {
        let (failure, now) = (LastFailure::default(), *START + Duration::from_hours(100));
        let later = now + REFRESH_BACKOFF;
        assert_eq!((failure.recent(now), failure.claim(now)), (None, None));
        for cause in Cause::ALL {
            failure.set(cause, now);
            assert_eq!((failure.recent(now), failure.claim(now)), (Some(cause), Some(cause)));
            assert_eq!(failure.recent(later), None);
            assert_eq!((failure.claim(later), failure.claim(later)), (None, Some(cause)));
            assert_eq!(failure.recent(later), Some(cause));
        }
        failure.clear();
        assert_eq!(failure.recent(now), None);
    }

    #[test]
    fn one_refresh_at_a_time_begins_and_none_within_the_back_off() {
        let (failure, now, limit) =
            (LastFailure::default(), *START + Duration::from_hours(1), Duration::from_secs(5));
        assert!(failure.begin_refresh(now, limit) && !failure.begin_refresh(now, limit));
        assert_eq!((failure.recent(now), failure.claim(now)), (None, None));
        assert!(failure.begin_refresh(now + limit, limit));
        failure.set(Cause::ConnectionRefused, now + limit);
        assert!(!failure.begin_refresh(now + limit, limit));
        assert!(failure.begin_refresh(now + limit + REFRESH_BACKOFF, limit));
    }
}
