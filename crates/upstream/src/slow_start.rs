//! Who has just come into rotation gets a share of its turns that grows from nothing to all of them.
//!
//! Turns are let pass evenly: of any run of turns with a share of one in four every fourth is taken. Whoever
//! chooses comes to the next backend then; only if all of them let pass does nobody.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// All turns.
const ALL: u64 = 1 << 16;

/// Since when a backend has been in rotation, if it is to start slowly.
#[derive(Debug, Default)]
pub(crate) struct SlowStart {
    /// Milliseconds since a fixed start, plus one; zero: it is at full speed.
    since: AtomicU64,
    /// The sum of all shares so far; a turn is taken when it passes a whole number.
    sum: AtomicU32,
}

impl SlowStart {
    /// It has come into rotation, `at` a time since some fixed start.
    pub(crate) fn begin(&self, at: Duration) {
        self.since.store(millis(at) + 1, Ordering::Relaxed);
    }

    /// Whether it takes its turn, when it takes `length` to come to full speed.
    pub(crate) fn takes_turn(&self, length: Duration, at: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            return true;
        }
        let (passed, length) = (millis(at).saturating_sub(since - 1), millis(length));
        if passed >= length {
            self.since.store(0, Ordering::Relaxed);
            return true;
        }
        let share = u32::try_from(passed * ALL / length).unwrap_or(0);
        let before = u64::from(self.sum.fetch_add(share, Ordering::Relaxed));
        before % ALL + u64::from(share) >= ALL
    }

    /// Whether it is still on its way.
    pub(crate) fn is_under_way(&self, length: Duration, at: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since > 0 && millis(at).saturating_sub(since - 1) < millis(length)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 17).min(u64::MAX >> 17)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn taken(start: &SlowStart, turns: u64, at: Duration) -> u64 {
        (0..turns).filter(|_| start.takes_turn(TEN, at)).count() as u64
    }

    #[test]
    fn it_takes_exactly_the_share_that_has_passed() {
        let start = SlowStart::default();
        assert_eq!(taken(&start, 100, Duration::ZERO), 100, "it has been there all along");
        let born = Duration::from_mins(1);
        start.begin(born);
        assert_eq!(taken(&start, 1000, born), 0);
        for (seconds, expected) in [(1.25, 100), (2.5, 200), (5.0, 400), (7.5, 600)] {
            let at = born + Duration::from_secs_f64(seconds);
            assert_eq!(taken(&start, 800, at), expected, "after {seconds} s");
            assert!(start.is_under_way(TEN, at));
        }
        assert_eq!(taken(&start, 100, born + TEN), 100);
        assert!(!start.is_under_way(TEN, born + TEN));
    }

    #[test]
    fn the_turns_that_it_takes_are_even() {
        let start = SlowStart::default();
        start.begin(Duration::ZERO);
        let quarter = Duration::from_millis(2500);
        let turns: Vec<_> = (0..12).map(|_| start.takes_turn(TEN, quarter)).collect();
        assert_eq!(turns, [false, false, false, true].repeat(3));
    }
}
