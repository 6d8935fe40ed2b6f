//! Counting requests against a rate: the generic cell rate algorithm. All that is kept of a client is one time,
//! at which it would be as if it had never asked; each request admitted moves it on by one interval, and it
//! may lie only so far ahead as the burst is large. Times are nanoseconds since a beginning of the table's.

use goodgate_config::RateLimit;

/// A rate as intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Between two requests at the full rate.
    interval: u64,
    /// How far ahead the time may lie for one more request to be admitted.
    ahead_max: u64,
}

impl Gcra {
    pub(super) fn new(limit: &RateLimit) -> Self {
        let period = u64::from(limit.rate.period.seconds()) * 1_000_000_000;
        // Rounded up: never more than the rate.
        let interval = period.div_ceil(u64::from(limit.rate.count.get()));
        Self { interval, ahead_max: interval.saturating_mul(u64::from(limit.burst.get() - 1)) }
    }

    /// Whether a request would be admitted; nothing is counted. The error is how long it is until the next one is.
    pub(super) fn ask(self, time: u64, now: u64) -> Result<(), u64> {
        match time.saturating_sub(now).checked_sub(self.ahead_max) {
            Some(wait) if wait > 0 => Err(wait),
            Some(_) | None => Ok(()),
        }
    }

    /// Counts one request. The error is how long it is until the next one is admitted; a request that is not
    /// admitted is not counted.
    pub(super) fn admit(self, time: &mut u64, now: u64) -> Result<(), u64> {
        self.ask(*time, now)?;
        *time = (*time).max(now).saturating_add(self.interval);
        Ok(())
    }

    /// Takes back what [`Gcra::admit`] counted.
    pub(super) fn take_back(self, time: &mut u64) {
        *time = time.saturating_sub(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goodgate_config::{Per, Period, Rate};

    const SECOND: u64 = 1_000_000_000;

    fn gcra(count: u32, period: Period, burst: u32) -> Gcra {
        let rate = Rate { count: count.try_into().unwrap(), period };
        Gcra::new(&RateLimit {
            per: Per::Route,
            rate,
            burst: burst.try_into().unwrap(),
            exempt: std::iter::empty().collect(),
        })
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let limit = gcra(10, Period::Second, 3);
        let mut time = 0;
        let now = 5 * SECOND;
        for _ in 0..3 {
            assert_eq!(limit.admit(&mut time, now), Ok(()));
        }
        assert_eq!(limit.admit(&mut time, now), Err(SECOND / 10));
        assert_eq!(
            limit.admit(&mut time, now + SECOND / 20),
            Err(SECOND / 20),
            "what is refused is not counted"
        );
        assert_eq!(limit.admit(&mut time, now + SECOND / 10), Ok(()));
        assert_eq!(limit.admit(&mut time, now + SECOND / 10), Err(SECOND / 10));
        for _ in 0..3 {
            assert_eq!(limit.admit(&mut time, now + SECOND), Ok(()), "after a pause there is a burst again");
        }
        assert!(limit.admit(&mut time, now + SECOND).is_err());
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept() {
        for (count, period, burst) in [
            (7, Period::Second, 1),
            (100, Period::Second, 200),
            (30, Period::Minute, 5),
            (1000, Period::Hour, 9),
        ] {
            let limit = gcra(count, period, burst);
            let (mut time, mut admitted) = (0, 0);
            let period = u64::from(period.seconds()) * SECOND;
            let step = period / u64::from(count) / 50;
            for at in 0..10 * period / step {
                admitted += u32::from(limit.admit(&mut time, at * step).is_ok());
            }
            let most = 10 * count + burst;
            assert!((most * 97 / 100..=most).contains(&admitted), "{admitted} of {count}, {burst}");
        }
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        let slowest = gcra(1, Period::Hour, 1_000_000);
        let mut time = u64::MAX - 1;
        assert!(slowest.admit(&mut time, 0).is_err());
        assert_eq!(slowest.admit(&mut time, u64::MAX), Ok(()));
        let fastest = gcra(1_000_000, Period::Second, 1);
        let mut time = 0;
        assert_eq!(fastest.admit(&mut time, 0), Ok(()));
        assert_eq!(fastest.admit(&mut time, 0), Err(1000));
    }
}
