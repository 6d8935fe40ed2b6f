//! The clock of the cache: wall-clock time that never jumps while the process runs.
//!
//! Freshness is a span, so it is measured with the monotonic clock, on top of the wall-clock time at which the process
//! began. A wall clock that is set back makes no cached response young again, one that is set forward makes none old. Only
//! the fields that name a date (`Date`, `Expires`, `Last-Modified`) are compared with the wall clock.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// The wall-clock time and the uptime at which this clock began.
static ORIGIN: LazyLock<(SystemTime, Duration)> = LazyLock::new(|| (SystemTime::now(), uptime()));

/// The time by which cached responses are judged.
pub fn now() -> SystemTime {
    let (wall, began) = *ORIGIN;
    wall.checked_add(uptime().saturating_sub(began)).unwrap_or(wall)
}

/// Time since the machine was started, suspension included.
fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By which spans are measured: see [`now`].
    pub steady: SystemTime,
    /// With which dates in fields are compared.
    pub wall: SystemTime,
}

impl Moment {
    /// The present one.
    pub fn now() -> Self {
        Self { steady: now(), wall: SystemTime::now() }
    }
}

/// The same moment by both clocks: what holds until the wall clock is set.
impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self { steady: time, wall: time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_with_the_wall_clock_until_that_is_set() {
        let before = now();
        let apart = SystemTime::now().duration_since(before).unwrap_or_else(|ahead| ahead.duration());
        assert!(apart < Duration::from_secs(1), "{apart:?}");
        assert!(now() >= before);
    }
}
