//! The time to the first byte, averaged so that what is long ago counts little: after five seconds half, after
//! ten a quarter.
//!
//! It fades while nothing comes in, so that a backend that was slow is asked again. All is whole numbers in one
//! word: no lock, and the same result everywhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time in which what was known loses half of its weight.
const HALF_LIFE_MS: u64 = 5000;
/// One, in the share of the old in the new.
const ONE: u64 = 1 << 16;

/// Microseconds plus one above, milliseconds since a fixed start below. Zero: nothing is known.
#[derive(Debug, Default)]
pub(crate) struct Average(AtomicU64);

impl Average {
    /// It took this long, `at` a time since some fixed start.
    pub(crate) fn add(&self, took: Duration, at: Duration) {
        let sample = micros(took);
        self.change(at, |old, share| match old {
            None => sample,
            Some(old) => {
                let (old, new) = (u64::from(old) * share, u64::from(sample) * (ONE - share));
                u32::try_from((old + new) / ONE).unwrap_or(u32::MAX)
            }
        });
    }

    /// It failed after this long: from now on it counts as twice as slow as it was, or as this was.
    pub(crate) fn add_failure(&self, took: Duration, at: Duration) {
        let sample = micros(took);
        self.change(at, |old, _| old.unwrap_or_default().max(sample).max(1).saturating_mul(2));
    }

    /// The average in microseconds; none: nothing is known.
    pub(crate) fn micros(&self, at: Duration) -> Option<u64> {
        let (value, stamp) = parts(self.0.load(Ordering::Relaxed));
        let value = value?;
        Some(u64::from(value) * share(millis(at), stamp) / ONE)
    }

    fn change(&self, at: Duration, change: impl Fn(Option<u32>, u64) -> u32) {
        let now = millis(at);
        // The closure never declines, so the result carries no news.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (value, stamp) = parts(word);
            let value = change(value, share(now, stamp)).min(u32::MAX - 1);
            Some(((u64::from(value) + 1) << 32) | u64::from(now))
        });
    }
}

fn parts(word: u64) -> (Option<u32>, u32) {
    let value = u32::try_from(word >> 32).ok().and_then(|value| value.checked_sub(1));
    (value, u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default())
}

/// How much of what was known then counts now: a half for each half-life, and in a straight line in between.
fn share(now: u32, then: u32) -> u64 {
    // Both wrap after 49 days; what seems to lie ahead was noted by another thread just now.
    let passed = now.wrapping_sub(then);
    let passed = if passed > u32::MAX / 2 { 0 } else { u64::from(passed) };
    let (halvings, rest) = (passed / HALF_LIFE_MS, passed % HALF_LIFE_MS);
    let whole = if halvings > 16 { 0 } else { ONE >> halvings };
    whole - whole * rest / (2 * HALF_LIFE_MS)
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis() & u128::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn old_and_new_weigh_what_the_time_between_them_says() {
        let average = Average::default();
        assert_eq!(average.micros(ms(0)), None);
        average.add(ms(8), ms(1000));
        assert_eq!(average.micros(ms(1000)), Some(8000), "the first one is believed");
        average.add(ms(16), ms(6000));
        assert_eq!(average.micros(ms(6000)), Some(12_000), "after a half-life: half and half");
        average.add(ms(4), ms(8500));
        assert_eq!(average.micros(ms(8500)), Some(10_000), "after half of one: three quarters of the old");
        average.add(ms(100), ms(8500));
        assert_eq!(average.micros(ms(8500)), Some(10_000), "at the same moment: the old");
    }

    #[test]
    fn it_fades_while_nothing_comes_in() {
        let average = Average::default();
        average.add(ms(64), ms(0));
        let after = |time| average.micros(ms(time)).unwrap();
        assert_eq!([after(5000), after(10_000), after(15_000), after(7500)], [32_000, 16_000, 8000, 24_000]);
        assert_eq!(after(1_000_000), 0);
    }

    #[test]
    fn it_outlives_the_range_of_its_clock() {
        let average = Average::default();
        let end = ms(u64::from(u32::MAX));
        average.add(ms(64), end);
        assert_eq!(average.micros(end + ms(5000)), Some(32_000));
        assert_eq!(
            average.micros(ms(u64::from(u32::MAX) - 1)),
            Some(64_000),
            "another thread was a little later"
        );
    }

    #[test]
    fn a_failure_doubles_what_was_known_or_what_it_took() {
        let average = Average::default();
        average.add(ms(10), ms(0));
        average.add_failure(ms(1), ms(0));
        assert_eq!(average.micros(ms(0)), Some(20_000));
        average.add_failure(ms(50), ms(0));
        assert_eq!(average.micros(ms(0)), Some(100_000));
        let unknown = Average::default();
        unknown.add_failure(ms(0), ms(0));
        assert_eq!(unknown.micros(ms(0)), Some(2));
        for _ in 0..40 {
            unknown.add_failure(ms(1), ms(0));
        }
        assert_eq!(unknown.micros(ms(0)), Some(u64::from(u32::MAX - 1)));
    }
}
