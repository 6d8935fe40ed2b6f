//! The last health checks of one backend, with what they found. One takes 16 bytes, and a backend that is never probed
//! only the pointers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use goodgate_failure::Cause;
use parking_lot::Mutex;

use crate::Probed;

/// So many are kept.
const KEPT_MAX: usize = 64;
/// What stands for "passed" and "draining" where a cause would be.
const PASSED: u16 = u16::MAX;
const ANNOUNCED: u16 = u16::MAX - 1;

/// One health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// When it was over.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// What it found.
    pub found: Probed,
    /// The status that it received, if it received one.
    pub status: Option<u16>,
}

/// The last health checks of one backend.
#[derive(Debug, Default)]
pub(crate) struct ProbeLog(Mutex<VecDeque<Packed>>);

/// One health check in 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Packed {
    /// Milliseconds after the backend was first seen.
    at_millis: u64,
    took_micros: u32,
    /// Zero: none.
    status: u16,
    /// The number of a cause, or one of the words above.
    found: u16,
}

const _: () = assert!(size_of::<Packed>() == 16);

impl ProbeLog {
    /// Keeps one, and forgets the oldest if there are too many.
    pub(crate) fn add(&self, result: &ProbeResult, born: Instant) {
        let at = result.at.saturating_duration_since(born).as_millis();
        let found = match result.found {
            Probed::Passed => PASSED,
            Probed::Announced => ANNOUNCED,
            Probed::Failed(cause) => u16::try_from(cause.index()).unwrap_or_default(),
        };
        let packed = Packed {
            at_millis: u64::try_from(at).unwrap_or(u64::MAX),
            took_micros: u32::try_from(result.took.as_micros()).unwrap_or(u32::MAX),
            status: result.status.unwrap_or_default(),
            found,
        };
        let mut log = self.0.lock();
        if log.len() >= KEPT_MAX {
            log.pop_front();
        }
        log.push_back(packed);
    }

    /// Those that are kept, the newest first.
    pub(crate) fn newest_first(&self, born: Instant) -> Vec<ProbeResult> {
        self.0.lock().iter().rev().map(|packed| packed.read(born)).collect()
    }

    /// The last one.
    pub(crate) fn last(&self, born: Instant) -> Option<ProbeResult> {
        self.0.lock().back().map(|packed| packed.read(born))
    }
}

impl Packed {
    fn read(&self, born: Instant) -> ProbeResult {
        let found = match self.found {
            PASSED => Probed::Passed,
            ANNOUNCED => Probed::Announced,
            number => {
                let cause = Cause::ALL.get(usize::from(number)).copied();
                Probed::Failed(cause.unwrap_or(Cause::ConnectionTerminated))
            }
        };
        ProbeResult {
            at: born + Duration::from_millis(self.at_millis),
            took: Duration::from_micros(u64::from(self.took_micros)),
            found,
            status: (self.status > 0).then_some(self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_64_are_kept_as_they_were() {
        let (born, log) = (Instant::now(), ProbeLog::default());
        assert_eq!(log.last(born), None);
        assert_eq!(log.0.lock().capacity(), 0, "nothing is allocated for a backend that is not probed");
        let found = |number: u64| match number % 3 {
            0 => Probed::Passed,
            1 => Probed::Announced,
            _ => Probed::Failed(Cause::ALL[usize::try_from(number).unwrap() % Cause::ALL.len()]),
        };
        let result = |number: u64| ProbeResult {
            at: born + Duration::from_millis(number * 5000),
            took: Duration::from_micros(number * 7),
            found: found(number),
            status: number.is_multiple_of(2).then_some(200 + u16::try_from(number).unwrap()),
        };
        (0..200).for_each(|number| log.add(&result(number), born));
        assert_eq!(log.last(born), Some(result(199)));
        let expected: Vec<ProbeResult> = (136..200).rev().map(result).collect();
        assert_eq!(log.newest_first(born), expected);
        assert!(log.0.lock().capacity() * size_of::<Packed>() <= 1024);
        // What is longer than can be said is said as the longest.
        log.add(&ProbeResult { took: Duration::from_hours(24), ..result(1) }, born);
        assert_eq!(log.last(born).unwrap().took, Duration::from_micros(u64::from(u32::MAX)));
    }
}
