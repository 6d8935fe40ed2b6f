//! A world of backends in trouble: what an attempt at one of them at some moment comes to, by a plan that is the same
//! for every run with the same seed.

use std::time::Duration;

use goodgate_failure::{Cause, ReceivedStatus};

use crate::dice::Dice;

/// So long a connection may take, and an answer to begin.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
pub(crate) const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(2);

/// A time around a mean, as between things that happen at random.
pub(crate) fn around(mean: Duration, dice: &mut Dice) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "32 bits of chance")]
    let chance = (dice.below(1 << 32) + 1) as f64 / (1_u64 << 32) as f64;
    mean.mul_f64(-chance.ln())
}

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The process is gone: connections are refused, and what was under way breaks.
    Crash,
    /// The machine is gone: nobody answers.
    BlackHole,
    /// It takes longer than anybody waits.
    Hang,
    /// It answers 503.
    Broken,
    /// It comes and goes every few seconds.
    Flap,
}

const TROUBLES: [Trouble; 5] =
    [Trouble::Crash, Trouble::BlackHole, Trouble::Hang, Trouble::Broken, Trouble::Flap];
/// Between two troubles of one backend, and how long one lasts.
const APART: Duration = Duration::from_hours(4);
const LASTS: Duration = Duration::from_mins(3);
const FLAP: u64 = 3;
/// When all are broken at a time.
const OUTAGE_FIRST: Duration = Duration::from_mins(10);
const OUTAGE_EVERY: Duration = Duration::from_hours(6);
const OUTAGE_LASTS: Duration = Duration::from_mins(1);

/// How an attempt ends: after how long, and why it failed and whether anything was sent.
pub(crate) type Ending = (Duration, Result<(), (Cause, bool)>);

/// The troubles of each backend, in order.
pub(crate) struct World(Vec<Vec<(Duration, Duration, Trouble)>>);

impl World {
    /// So many backends for so long. Once every six hours all of them answer 503 for a minute, as when what they
    /// share is gone.
    pub(crate) fn new(backends: usize, length: Duration, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let plan = |_| {
            let mut troubles = Vec::new();
            let mut at = around(APART, &mut dice);
            while at < length {
                let end = at + around(LASTS, &mut dice);
                let kind = usize::try_from(dice.below(TROUBLES.len() as u64)).unwrap_or(0);
                troubles.extend(TROUBLES.get(kind).map(|kind| (at, end, *kind)));
                at = end + around(APART, &mut dice);
            }
            let mut shared = OUTAGE_FIRST;
            while shared < length {
                troubles.push((shared, shared + OUTAGE_LASTS, Trouble::Broken));
                shared += OUTAGE_EVERY;
            }
            troubles.sort_by_key(|(start, ..)| *start);
            troubles
        };
        Self((0..backends).map(plan).collect())
    }

    fn trouble(&self, backend: usize, at: Duration) -> Option<Trouble> {
        let current = |(start, end, _): &&(Duration, Duration, Trouble)| *start <= at && at < *end;
        let kind = self.0.get(backend)?.iter().find(current).map(|(.., kind)| *kind)?;
        match kind {
            Trouble::Flap if (at.as_secs() / FLAP).is_multiple_of(2) => None,
            Trouble::Flap => Some(Trouble::Crash),
            Trouble::Crash | Trouble::BlackHole | Trouble::Hang | Trouble::Broken => Some(kind),
        }
    }

    /// An attempt that begins then and would take so long.
    pub(crate) fn attempt(&self, backend: usize, at: Duration, takes: Duration) -> Ending {
        let milli = Duration::from_millis(1);
        match self.trouble(backend, at) {
            Some(Trouble::Crash | Trouble::Flap) => (milli, Err((Cause::ConnectionRefused, false))),
            Some(Trouble::BlackHole) => (CONNECT_TIMEOUT, Err((Cause::ConnectionTimeout, false))),
            Some(Trouble::Hang) => (FIRST_BYTE_TIMEOUT, Err((Cause::HttpResponseTimeout, true))),
            Some(Trouble::Broken) => (milli * 5, Err((Cause::Received(ReceivedStatus::S503), true))),
            None => match self.trouble(backend, at + takes) {
                Some(Trouble::Crash | Trouble::Flap) => (takes, Err((Cause::ConnectionTerminated, true))),
                _ => (takes, Ok(())),
            },
        }
    }

    /// Whether a connection that is begun then comes about.
    pub(crate) fn connects(&self, backend: usize, at: Duration) -> bool {
        !matches!(self.trouble(backend, at), Some(Trouble::Crash | Trouble::Flap | Trouble::BlackHole))
    }
}

/// Whether all are broken then: no mechanism but a copy helps.
pub(crate) const fn is_outage(at: Duration) -> bool {
    let since_first = at.as_secs() + OUTAGE_EVERY.as_secs() - OUTAGE_FIRST.as_secs();
    since_first % OUTAGE_EVERY.as_secs() < OUTAGE_LASTS.as_secs()
}
