//! What attempts at one backend were like: how they failed, and how long answers took.
//!
//! A backend that has never been asked costs nothing but the pointers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use goodgate_failure::Cause;

/// Times are kept in two stretches of this length, of which the older one is forgotten.
const STRETCH: Duration = Duration::from_mins(1);
/// Two buckets to a doubling: the bound that is shown is at most 1.5 times what was measured.
const BUCKETS: usize = 46;
/// The first bucket ends here, in microseconds, as a power of two.
const FIRST_POWER: u32 = 5;

/// The record of one backend.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    failures: OnceLock<Box<[AtomicU64; Cause::ALL.len()]>>,
    times: OnceLock<Box<Times>>,
    tally: OnceLock<Box<Tally>>,
}

/// Answers since the start, to be compared with those of the others: kept only where that is done.
#[derive(Debug, Default)]
struct Tally {
    good: AtomicU64,
    bad: AtomicU64,
    answered: AtomicU64,
    micros: AtomicU64,
}

/// A reading of the tally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tallied {
    pub(crate) good: u64,
    pub(crate) bad: u64,
    /// Those of them that were answered at all.
    pub(crate) answered: u64,
    /// The time to the first byte of all answers, in microseconds.
    pub(crate) micros: u64,
}

impl Seen {
    /// An attempt failed.
    pub(crate) fn failed(&self, cause: Cause) {
        let failures = self.failures.get_or_init(|| Box::new([const { AtomicU64::new(0) }; _]));
        if let Some(count) = failures.get(cause.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often attempts have failed for which cause, most often first.
    pub(crate) fn failures(&self) -> Vec<(Cause, u64)> {
        let Some(failures) = self.failures.get() else {
            return Vec::new();
        };
        let counts = Cause::ALL.into_iter().zip(failures.iter().map(|count| count.load(Ordering::Relaxed)));
        let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// A response header has come after this long, `at` a time since some fixed start.
    pub(crate) fn answered(&self, after: Duration, at: Duration) {
        self.times.get_or_init(Box::default).add(after, at);
    }

    /// The times that half of the answers and that 99 of 100 took at most, of the last one to two minutes.
    pub(crate) fn quantiles(&self, at: Duration) -> Option<[Duration; 2]> {
        self.times.get()?.quantiles(at)
    }

    /// An answer to be compared with those of other backends; none for its time if there was none.
    pub(crate) fn tally(&self, is_good: bool, after: Option<Duration>) {
        let tally = self.tally.get_or_init(Box::default);
        if is_good { &tally.good } else { &tally.bad }.fetch_add(1, Ordering::Relaxed);
        if let Some(after) = after {
            let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX >> 20);
            tally.micros.fetch_add(micros, Ordering::Relaxed);
            tally.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn tallied(&self) -> Tallied {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.tally.get().map_or(Tallied::default(), |tally| Tallied {
            good: read(&tally.good),
            bad: read(&tally.bad),
            answered: read(&tally.answered),
            micros: read(&tally.micros),
        })
    }
}

impl Tallied {
    /// What has come since an earlier reading.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            good: self.good.saturating_sub(earlier.good),
            bad: self.bad.saturating_sub(earlier.bad),
            answered: self.answered.saturating_sub(earlier.answered),
            micros: self.micros.saturating_sub(earlier.micros),
        }
    }
}

/// How many answers took how long, in the stretch that runs and the one before.
#[derive(Debug)]
struct Times([Stretch; 2]);

#[derive(Debug)]
struct Stretch {
    /// The number of the stretch plus one.
    stamp: AtomicU64,
    buckets: [AtomicU32; BUCKETS],
}

impl Default for Times {
    fn default() -> Self {
        let stretch =
            || Stretch { stamp: AtomicU64::new(0), buckets: [const { AtomicU32::new(0) }; BUCKETS] };
        Self([stretch(), stretch()])
    }
}

impl Times {
    fn add(&self, after: Duration, at: Duration) {
        let number = number(at);
        let [even, odd] = &self.0;
        let stretch = if number.is_multiple_of(2) { even } else { odd };
        let is_old = stretch.stamp.load(Ordering::Relaxed) != number + 1;
        if is_old && stretch.stamp.swap(number + 1, Ordering::Relaxed) != number + 1 {
            // A few that another thread has added just now may go with the old ones.
            stretch.buckets.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        if let Some(count) = stretch.buckets.get(bucket(after)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn quantiles(&self, at: Duration) -> Option<[Duration; 2]> {
        let mut counts = [0_u64; BUCKETS];
        for stretch in &self.0 {
            let age = (number(at) + 1).checked_sub(stretch.stamp.load(Ordering::Relaxed));
            if age.is_some_and(|age| age < 2) {
                for (sum, count) in counts.iter_mut().zip(&stretch.buckets) {
                    *sum += u64::from(count.load(Ordering::Relaxed));
                }
            }
        }
        let all: u64 = counts.iter().sum();
        let quantile = |of_hundred: u64| {
            let mut left = (all * of_hundred).div_ceil(100);
            let reached = counts.iter().position(|count| {
                left = left.saturating_sub(*count);
                left == 0
            });
            bound(reached.unwrap_or(BUCKETS - 1))
        };
        (all > 0).then(|| [quantile(50), quantile(99)])
    }
}

fn number(at: Duration) -> u64 {
    at.as_secs() / STRETCH.as_secs()
}

/// The bucket of a time: 0 up to 32 µs, then two to each doubling, the last one for all that is longer.
fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1) - 1;
    let Some(power) = micros.checked_ilog2().filter(|power| *power >= FIRST_POWER) else {
        return 0;
    };
    let half = (micros >> (power - 1)) & 1;
    let bucket = u64::from(power - FIRST_POWER) * 2 + half + 1;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The longest time of a bucket.
fn bound(bucket: usize) -> Duration {
    let steps = u32::try_from(bucket).unwrap_or_default();
    let low = 1_u64 << (FIRST_POWER + steps.saturating_sub(1) / 2);
    Duration::from_micros(match steps {
        0 => 1 << FIRST_POWER,
        _ if steps % 2 == 1 => low + low / 2,
        _ => low * 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn each_time_lies_in_a_bucket_whose_bound_is_at_most_half_as_much_again() {
        for micros in (1..200_000).chain([1_000_000, 60_000_000]) {
            let bound = bound(bucket(us(micros)));
            assert!(bound >= us(micros), "{micros}: {bound:?}");
            assert!(bound <= us((micros * 3).div_ceil(2).max(32)), "{micros}: {bound:?}");
        }
        assert_eq!(bucket(Duration::from_hours(1)), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_of_the_last_minutes() {
        let seen = Seen::default();
        assert_eq!(seen.quantiles(Duration::ZERO), None);
        for _ in 0..98 {
            seen.answered(us(1000), Duration::ZERO);
        }
        seen.answered(us(90_000), Duration::ZERO);
        seen.answered(us(90_000), Duration::ZERO);
        assert_eq!(seen.quantiles(Duration::from_secs(100)), Some([us(1024), us(98_304)]));
        seen.answered(us(90_000), Duration::from_secs(100));
        assert_eq!(seen.quantiles(Duration::from_secs(119)).map(|[p50, _]| p50), Some(us(1024)));
        assert_eq!(seen.quantiles(Duration::from_mins(2)), Some([us(98_304), us(98_304)]));
        assert_eq!(seen.quantiles(Duration::from_mins(4)), None);
    }

    #[test]
    fn failures_are_counted_by_cause() {
        let seen = Seen::default();
        assert_eq!(seen.failures(), []);
        seen.failed(Cause::ConnectionRefused);
        seen.failed(Cause::ConnectionTimeout);
        seen.failed(Cause::ConnectionTimeout);
        assert_eq!(seen.failures(), [(Cause::ConnectionTimeout, 2), (Cause::ConnectionRefused, 1)]);
    }
}
