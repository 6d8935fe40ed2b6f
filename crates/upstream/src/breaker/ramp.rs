//! How many requests an upstream gets after an outage: few at first, more with each good answer.
//!
//! Two bounds hold at a time. The window is opened by one place with each good answer, so that it doubles with each
//! round: a backend that is slow to wake is not asked for more than it has shown. The line grows with time from the
//! first places to all of them: a backend that answers fast, but with empty caches, is not taken for a warm one.

use std::time::{Duration, Instant};

/// Requests under way for each backend in rotation when nothing has been answered yet.
const FIRST_PLACES: u32 = 4;
/// Time lets nobody in more often than this.
const STEP_MIN: Duration = Duration::from_millis(20);

/// From where to where, and how fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slope {
    /// Backends in rotation.
    pub(super) backends: u32,
    pub(super) requests_max: u32,
    /// Zero: at once.
    pub(super) length: Duration,
}

impl Slope {
    /// Before anything was answered.
    pub(super) fn first(&self) -> u32 {
        FIRST_PLACES.saturating_mul(self.backends.max(1)).min(self.requests_max)
    }

    /// What time allows.
    fn line(&self, passed: Duration) -> u32 {
        if passed >= self.length {
            return self.requests_max;
        }
        let rest = u128::from(self.requests_max - self.first());
        let grown = rest * passed.as_micros() / self.length.as_micros().max(1);
        self.first() + u32::try_from(grown).unwrap_or(u32::MAX)
    }
}

/// How far an upstream has come since its last outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ramp {
    /// All the way, or there was none.
    #[default]
    Over,
    /// Nothing has been answered since.
    Cold,
    /// The first good answer came then, and so many were given since, the first places included.
    Rising { since: Instant, window: u32 },
}

impl Ramp {
    /// Requests that may be under way.
    pub(super) fn places(self, slope: &Slope, now: Instant) -> u32 {
        match self {
            Self::Over => slope.requests_max,
            Self::Cold => slope.first(),
            Self::Rising { since, window } => window.min(slope.line(now.saturating_duration_since(since))),
        }
    }

    /// Nothing is answered any more.
    pub(super) fn fall(&mut self, slope: &Slope) {
        if !slope.length.is_zero() {
            *self = Self::Cold;
        }
    }

    /// A good answer has come.
    pub(super) fn rise(&mut self, slope: &Slope, now: Instant) {
        *self = match *self {
            Self::Over => Self::Over,
            Self::Cold => Self::Rising { since: now, window: slope.first().saturating_add(1) },
            Self::Rising { since, window } => Self::Rising { since, window: window.saturating_add(1) },
        };
    }

    /// Time has passed. The end has come with all places, or with the time if there are places enough.
    pub(super) fn settle(&mut self, slope: &Slope, is_anybody_waiting: bool, now: Instant) {
        if let Self::Rising { since, window } = *self
            && now.saturating_duration_since(since) >= slope.length
            && (window >= slope.requests_max || !is_anybody_waiting)
        {
            *self = Self::Over;
        }
    }

    /// When time alone allows more; none: it does not.
    pub(super) fn next_step(self, slope: &Slope, now: Instant) -> Option<Instant> {
        let Self::Rising { since, window } = self else {
            return None;
        };
        let passed = now.saturating_duration_since(since);
        let is_on_line = passed < slope.length && slope.line(passed) <= window;
        let one = slope.length / (slope.requests_max - slope.first()).max(1);
        is_on_line.then(|| now + one.max(STEP_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOPE: Slope = Slope { backends: 1, requests_max: 104, length: Duration::from_secs(10) };

    #[test]
    fn each_good_answer_opens_one_place_more_and_time_no_more_than_its_share() {
        let (mut ramp, now) = (Ramp::default(), Instant::now());
        assert_eq!(ramp.places(&SLOPE, now), 104);
        ramp.fall(&SLOPE);
        assert_eq!(ramp.places(&SLOPE, now + SLOPE.length), 4, "time alone shows nothing");
        for answer in 1..=20 {
            ramp.rise(&SLOPE, now);
            assert_eq!(ramp.places(&SLOPE, now), 4, "as fast as they may come");
            assert_eq!(ramp.places(&SLOPE, now + SLOPE.length), 4 + answer);
        }
        let after = |seconds| ramp.places(&SLOPE, now + Duration::from_secs(seconds));
        assert_eq!([0, 1, 2, 3].map(after), [4, 14, 24, 24], "and then the answers are what is lacking");
    }

    #[test]
    fn it_starts_with_some_places_for_each_backend_and_never_beyond_all() {
        let (mut ramp, now) = (Ramp::default(), Instant::now());
        ramp.fall(&SLOPE);
        for (backends, expected) in [(0, 4), (1, 4), (3, 12), (50, 104), (u32::MAX, 104)] {
            assert_eq!(ramp.places(&Slope { backends, ..SLOPE }, now), expected);
        }
        assert_eq!(ramp.places(&Slope { requests_max: 2, ..SLOPE }, now), 2);
    }

    #[test]
    fn it_ends_with_its_time_unless_somebody_waits_for_answers() {
        let (mut ramp, now) = (Ramp::default(), Instant::now());
        ramp.fall(&SLOPE);
        ramp.settle(&SLOPE, false, now + SLOPE.length);
        assert_eq!(ramp, Ramp::Cold, "nothing was answered");
        ramp.rise(&SLOPE, now);
        ramp.settle(&SLOPE, false, now + SLOPE.length / 2);
        ramp.settle(&SLOPE, true, now + SLOPE.length);
        assert_ne!(ramp, Ramp::Over);
        let mut quiet = ramp;
        quiet.settle(&SLOPE, false, now + SLOPE.length);
        assert_eq!(quiet, Ramp::Over);
        (0..99).for_each(|_| ramp.rise(&SLOPE, now));
        ramp.settle(&SLOPE, true, now + SLOPE.length);
        assert_eq!(ramp, Ramp::Over, "all places are open");
    }

    #[test]
    fn time_is_waited_for_only_where_it_is_what_is_lacking() {
        let (mut ramp, now) = (Ramp::default(), Instant::now());
        assert_eq!(ramp.next_step(&SLOPE, now), None);
        ramp.fall(&SLOPE);
        assert_eq!(ramp.next_step(&SLOPE, now), None);
        ramp.rise(&SLOPE, now);
        assert_eq!(ramp.next_step(&SLOPE, now), Some(now + Duration::from_millis(100)));
        assert_eq!(ramp.next_step(&SLOPE, now + Duration::from_secs(1)), None, "answers are");
        assert_eq!(ramp.next_step(&SLOPE, now + SLOPE.length), None);
    }

    #[test]
    fn without_a_length_there_is_none() {
        let mut ramp = Ramp::default();
        ramp.fall(&Slope { length: Duration::ZERO, ..SLOPE });
        assert_eq!(ramp, Ramp::Over);
    }
}
