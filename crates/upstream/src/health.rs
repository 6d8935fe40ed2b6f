//! What is believed of one backend, as a state machine of pure functions.
//!
//! Live failures eject for `fail_timeout`; then one trial decides. Probes take a backend down and put it
//! back on their own; while they say down, live traffic has no say. Each function takes the old state and
//! gives the new one, so that no event can leave half of a state behind.

use std::time::Instant;

use goodgate_failure::{Blame, Cause};

use crate::{EjectionPolicy, ProbePolicy};

/// The state of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// In rotation.
    Up {
        /// Failed probes in a row.
        probe_failures: u32,
    },
    /// Live traffic took it out of rotation; a trial is due from `until`.
    Ejected {
        /// When a trial may go out.
        until: Instant,
        /// What ejected it.
        cause: Cause,
        /// Failed probes in a row.
        probe_failures: u32,
    },
    /// One request is under way to find out whether it is back.
    Trial {
        /// What ejected it.
        cause: Cause,
        /// Failed probes in a row.
        probe_failures: u32,
    },
    /// Probes took it out of rotation.
    Down {
        /// Passed probes in a row.
        passes: u32,
    },
}

/// The name of a state, for metrics, logs and the admin side. One at a time per backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// In rotation.
    Up,
    /// Taken out by probes.
    Down,
    /// Taken out by live traffic.
    Ejected,
    /// Being tried after an ejection.
    Trial,
}

impl State {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Ejected, Self::Trial];

    /// The word for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Trial => "trial",
        }
    }
}

/// A change of state, to be told to `telemetry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The backend.
    pub backend: crate::Address,
    /// What it was.
    pub from: State,
    /// What it is now.
    pub to: State,
    /// Why, if a failure did it.
    pub cause: Option<Cause>,
    /// How many backends of the upstream are in rotation now.
    pub in_rotation: usize,
}

impl Health {
    /// How a backend starts: in rotation, since nothing speaks against it.
    pub const NEW: Self = Self::Up { probe_failures: 0 };

    /// The name of the state.
    pub const fn state(self) -> State {
        match self {
            Self::Up { .. } => State::Up,
            Self::Ejected { .. } => State::Ejected,
            Self::Trial { .. } => State::Trial,
            Self::Down { .. } => State::Down,
        }
    }

    /// A live attempt failed, and enough of them have to eject.
    #[must_use]
    pub fn ejected(self, cause: Cause, policy: &EjectionPolicy, now: Instant) -> Self {
        match self {
            Self::Up { probe_failures } | Self::Trial { probe_failures, .. } => {
                Self::Ejected { until: now + policy.fail_timeout, cause, probe_failures }
            }
            Self::Ejected { .. } | Self::Down { .. } => self,
        }
    }

    /// The trial, or an attempt made although the backend was out of rotation, went well.
    #[must_use]
    pub fn proven(self) -> Self {
        match self {
            Self::Ejected { .. } | Self::Trial { .. } => Self::NEW,
            Self::Up { .. } | Self::Down { .. } => self,
        }
    }

    /// Claims the trial if one is due.
    #[must_use]
    pub fn trial(self, now: Instant) -> Option<Self> {
        match self {
            Self::Ejected { until, cause, probe_failures } if until <= now => {
                Some(Self::Trial { cause, probe_failures })
            }
            Self::Up { .. } | Self::Ejected { .. } | Self::Trial { .. } | Self::Down { .. } => None,
        }
    }

    /// The trial ended without telling anything: the client left, or we stopped. The next one is due now.
    #[must_use]
    pub fn trial_abandoned(self, now: Instant) -> Self {
        match self {
            Self::Trial { cause, probe_failures } => Self::Ejected { until: now, cause, probe_failures },
            Self::Up { .. } | Self::Ejected { .. } | Self::Down { .. } => self,
        }
    }

    /// A probe passed. If the backend was ejected because it could not be reached, it can be now, and the
    /// trial is due; what it did wrong over a standing connection a health page does not excuse.
    #[must_use]
    pub fn probe_passed(self, policy: &ProbePolicy, now: Instant) -> Self {
        match self {
            Self::Down { passes } if passes + 1 >= policy.rise.get() => Self::NEW,
            Self::Down { passes } => Self::Down { passes: passes + 1 },
            Self::Up { .. } => Self::NEW,
            Self::Ejected { until, cause, .. } => {
                let until = if cause.blame() == Blame::BackendUnreachable { until.min(now) } else { until };
                Self::Ejected { until, cause, probe_failures: 0 }
            }
            Self::Trial { cause, .. } => Self::Trial { cause, probe_failures: 0 },
        }
    }

    /// A probe failed.
    #[must_use]
    pub fn probe_failed(self, policy: &ProbePolicy) -> Self {
        let failures = match self {
            Self::Down { .. } => return Self::Down { passes: 0 },
            Self::Up { probe_failures }
            | Self::Ejected { probe_failures, .. }
            | Self::Trial { probe_failures, .. } => probe_failures + 1,
        };
        if failures >= policy.fall.get() {
            return Self::Down { passes: 0 };
        }
        match self {
            Self::Up { .. } => Self::Up { probe_failures: failures },
            Self::Ejected { until, cause, .. } => Self::Ejected { until, cause, probe_failures: failures },
            Self::Trial { cause, .. } => Self::Trial { cause, probe_failures: failures },
            Self::Down { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProbeKind;
    use goodgate_failure::{Word, Words};
    use std::num::NonZeroU32;
    use std::time::Duration;

    fn ejection() -> EjectionPolicy {
        EjectionPolicy {
            max_fails: 3,
            fail_timeout: Duration::from_secs(10),
            fail_on: Words::of(&[Word::Error]),
            min_fail_share: 0.0,
        }
    }

    fn probe() -> ProbePolicy {
        ProbePolicy {
            kind: ProbeKind::Tcp,
            port: None,
            interval: Duration::from_secs(5),
            interval_down: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            rise: NonZeroU32::new(2).unwrap(),
            fall: NonZeroU32::new(3).unwrap(),
        }
    }

    #[test]
    fn an_ejection_ends_in_one_trial_that_decides() {
        let now = Instant::now();
        let ejected = Health::NEW.ejected(Cause::ConnectionRefused, &ejection(), now);
        assert_eq!(ejected.trial(now + Duration::from_secs(9)), None);
        let later = now + Duration::from_secs(10);
        let trial = ejected.trial(later).unwrap();
        assert_eq!(trial.trial(later), None, "one trial at a time");
        assert_eq!(trial.proven(), Health::NEW);
        let again = trial.ejected(Cause::ConnectionRefused, &ejection(), later);
        assert_eq!(again.trial(later + Duration::from_secs(9)), None);
        assert!(again.trial(later + Duration::from_secs(10)).is_some());
    }

    #[test]
    fn a_trial_that_told_nothing_is_due_again_at_once() {
        let now = Instant::now();
        let trial = Health::NEW.ejected(Cause::ConnectionRefused, &ejection(), now);
        let trial = trial.trial(now + Duration::from_secs(10)).unwrap().trial_abandoned(now);
        assert!(trial.trial(now).is_some());
    }

    #[test]
    fn probes_take_out_after_fall_and_put_back_after_rise() {
        let policy = probe();
        let two = Health::NEW.probe_failed(&policy).probe_failed(&policy);
        assert_eq!(two.state(), State::Up);
        let now = Instant::now();
        assert_eq!(two.probe_passed(&policy, now), Health::NEW, "a pass in between starts the count anew");
        let down = two.probe_failed(&policy);
        assert_eq!(down.state(), State::Down);
        assert_eq!(down.proven().state(), State::Down, "live traffic has no say while probes say down");
        let once = down.probe_passed(&policy, now);
        assert_eq!(once.state(), State::Down);
        assert_eq!(once.probe_failed(&policy).probe_passed(&policy, now).state(), State::Down);
        assert_eq!(once.probe_passed(&policy, now), Health::NEW);
    }

    #[test]
    fn probes_can_take_down_what_live_traffic_ejected() {
        let policy = probe();
        let ejected = Health::NEW.ejected(Cause::ConnectionRefused, &ejection(), Instant::now());
        let down = ejected.probe_failed(&policy).probe_failed(&policy).probe_failed(&policy);
        assert_eq!(down.state(), State::Down);
    }

    #[test]
    fn a_pass_brings_the_trial_forward_only_for_what_could_not_be_reached() {
        let (policy, now) = (probe(), Instant::now());
        let refused = Health::NEW.ejected(Cause::ConnectionRefused, &ejection(), now);
        assert!(refused.trial(now).is_none());
        assert!(refused.probe_passed(&policy, now).trial(now).is_some());
        let broken = Health::NEW.ejected(Cause::HttpProtocolError, &ejection(), now);
        assert!(broken.probe_passed(&policy, now).trial(now).is_none());
    }
}
