//! What is believed of one backend, as a state machine of pure functions.
//!
//! Live failures eject for `fail_timeout`; then one trial decides. Probes take a backend down and put it
//! back on their own; while they say down, live traffic has no say. A backend may ask for a rest itself. Each
//! function takes the old state and gives the new one, so that no event can leave half of a state behind.

use std::time::{Duration, Instant};

use goodgate_failure::{Blame, Cause};

use crate::{EjectionPolicy, ProbePolicy};

/// How often an ejection can double.
const STRIKES_MAX: u32 = 20;

/// What is believed of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    condition: Condition,
    since: Instant,
    /// Failed probes in a row.
    probe_failures: u32,
    /// Ejections, less those that were forgiven since.
    strikes: u32,
}

/// A state with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In rotation.
    Up,
    /// Not known yet: the first probe decides.
    Checking,
    /// Live traffic took it out of rotation; a trial is due from `until`.
    Ejected {
        /// When a trial may go out.
        until: Instant,
        /// What ejected it.
        why: Why,
    },
    /// One request is under way to find out whether it is back.
    Trial {
        /// What took it out.
        why: Why,
    },
    /// Probes took it out of rotation.
    Down {
        /// Passed probes in a row.
        passes: u32,
        /// What the last failed probe found.
        cause: Cause,
    },
    /// It has asked for no new requests. If an answer said so, a trial is due from `until`; if a probe did, the next
    /// one decides.
    Draining {
        /// When a trial may go out.
        until: Option<Instant>,
    },
}

/// What took a backend out of rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Attempts failed.
    Failure(Cause),
    /// Fewer of its answers are good than of the others of its upstream.
    SuccessRate,
    /// Its answers take longer than those of the others.
    FirstByte,
    /// It said so itself.
    Announced,
}

impl Why {
    /// What is called so.
    pub fn of(name: &str) -> Option<Self> {
        let others = [Self::SuccessRate, Self::FirstByte, Self::Announced];
        Cause::ALL.map(Self::Failure).into_iter().chain(others).find(|why| why.name() == name)
    }

    /// The word for metrics, logs and the admin side.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failure(cause) => cause.name(),
            Self::SuccessRate => "success_rate_outlier",
            Self::FirstByte => "first_byte_outlier",
            Self::Announced => "announced",
        }
    }

    /// Whether the backend answers, only not as it should: so only a share of an upstream may be out for it.
    pub const fn is_soft(self) -> bool {
        matches!(self, Self::Failure(Cause::Received(_)) | Self::SuccessRate | Self::FirstByte)
    }

    /// Whether it could not be reached.
    pub fn is_unreachable(self) -> bool {
        matches!(self, Self::Failure(cause) if cause.blame() == Blame::BackendUnreachable)
    }
}

/// The name of a state, for metrics, logs and the admin side. One at a time per backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// In rotation.
    Up,
    /// Not known yet.
    Checking,
    /// Taken out by probes.
    Down,
    /// Taken out by live traffic.
    Ejected,
    /// Being tried after an ejection.
    Trial,
    /// No new requests, by its own wish or an operator's order.
    Draining,
    /// Taken out by an operator.
    Disabled,
}

impl State {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Up, Self::Checking, Self::Down, Self::Ejected, Self::Trial, Self::Draining, Self::Disabled];

    /// The word for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Checking => "checking",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Trial => "trial",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
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
    /// Why, if something speaks against it.
    pub why: Option<Why>,
    /// How many backends of the upstream are in rotation now.
    pub in_rotation: usize,
    /// For how long requests were sent to backends out of rotation for want of others, if that has ended now.
    pub failed_open_for: Option<Duration>,
}

impl Health {
    /// In rotation, since nothing speaks against it.
    pub const fn up(now: Instant) -> Self {
        Self { condition: Condition::Up, since: now, probe_failures: 0, strikes: 0 }
    }

    /// Out of rotation until a probe has passed.
    pub const fn checking(now: Instant) -> Self {
        Self { condition: Condition::Checking, ..Self::up(now) }
    }

    /// What was believed before a restart.
    pub const fn recalled(condition: Condition, since: Instant, strikes: u32) -> Self {
        let strikes = if strikes < STRIKES_MAX { strikes } else { STRIKES_MAX };
        Self { condition, since, probe_failures: 0, strikes }
    }

    /// The same with no trial due later than the policy of now would set it.
    #[must_use]
    pub fn capped(self, policy: &EjectionPolicy, now: Instant) -> Self {
        let condition = match self.condition {
            Condition::Ejected { until, why } => {
                let longest = now + ejection_length(self.strikes, policy);
                Condition::Ejected { until: until.min(longest), why }
            }
            Condition::Draining { until: Some(until) } => {
                Condition::Draining { until: Some(until.min(now + policy.fail_timeout)) }
            }
            Condition::Up
            | Condition::Checking
            | Condition::Trial { .. }
            | Condition::Down { .. }
            | Condition::Draining { until: None } => self.condition,
        };
        Self { condition, ..self }
    }

    /// Ejections, less those that were forgiven since.
    pub const fn strikes(self) -> u32 {
        self.strikes
    }

    /// The state with what belongs to it.
    pub const fn condition(self) -> Condition {
        self.condition
    }

    /// Since when it has been in this state.
    pub const fn since(self) -> Instant {
        self.since
    }

    /// The name of the state.
    pub const fn state(self) -> State {
        match self.condition {
            Condition::Up => State::Up,
            Condition::Checking => State::Checking,
            Condition::Ejected { .. } => State::Ejected,
            Condition::Trial { .. } => State::Trial,
            Condition::Down { .. } => State::Down,
            Condition::Draining { .. } => State::Draining,
        }
    }

    /// What speaks against it.
    pub const fn why(self) -> Option<Why> {
        match self.condition {
            Condition::Up | Condition::Checking => None,
            Condition::Ejected { why, .. } | Condition::Trial { why } => Some(why),
            Condition::Down { cause, .. } => Some(Why::Failure(cause)),
            Condition::Draining { .. } => Some(Why::Announced),
        }
    }

    /// When a trial may go out, if that is what it waits for.
    pub const fn trial_due(self) -> Option<Instant> {
        match self.condition {
            Condition::Ejected { until, .. } | Condition::Draining { until: Some(until) } => Some(until),
            Condition::Up
            | Condition::Checking
            | Condition::Trial { .. }
            | Condition::Down { .. }
            | Condition::Draining { until: None } => None,
        }
    }

    fn turned(self, condition: Condition, now: Instant) -> Self {
        let next = Self { condition, ..self };
        Self { since: if next.state() == self.state() { self.since } else { now }, ..next }
    }

    /// Live traffic speaks against it, and enough to eject it.
    #[must_use]
    pub fn ejected(self, why: Why, policy: &EjectionPolicy, now: Instant) -> Self {
        match self.condition {
            Condition::Up | Condition::Trial { .. } | Condition::Draining { .. } => {
                let strikes = (self.strikes_left(policy, now) + 1).min(STRIKES_MAX);
                let ejected = Condition::Ejected { until: now + ejection_length(strikes, policy), why };
                Self { strikes, ..self.turned(ejected, now) }
            }
            Condition::Checking | Condition::Ejected { .. } | Condition::Down { .. } => self,
        }
    }

    /// One ejection is forgiven for each `fail_timeout` in rotation.
    fn strikes_left(self, policy: &EjectionPolicy, now: Instant) -> u32 {
        if self.state() != State::Up {
            return self.strikes;
        }
        let good = now.saturating_duration_since(self.since).as_micros();
        let forgiven = good / policy.fail_timeout.as_micros().max(1);
        self.strikes.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    /// An answer says that the backend wants no new requests for now.
    #[must_use]
    pub fn announced(self, policy: &EjectionPolicy, now: Instant) -> Self {
        match self.condition {
            Condition::Up
            | Condition::Trial { .. }
            | Condition::Ejected { .. }
            | Condition::Draining { until: Some(_) } => {
                self.turned(Condition::Draining { until: Some(now + policy.fail_timeout) }, now)
            }
            Condition::Checking | Condition::Down { .. } | Condition::Draining { until: None } => self,
        }
    }

    /// The trial, or an attempt made although the backend was out of rotation, went well.
    #[must_use]
    pub fn proven(self, now: Instant) -> Self {
        match self.condition {
            Condition::Ejected { .. } | Condition::Trial { .. } => {
                Self { probe_failures: 0, ..self.turned(Condition::Up, now) }
            }
            Condition::Up | Condition::Checking | Condition::Down { .. } | Condition::Draining { .. } => self,
        }
    }

    /// Claims the trial if one is due.
    #[must_use]
    pub fn trial(self, now: Instant) -> Option<Self> {
        let why = self.why()?;
        self.trial_due().filter(|due| *due <= now).map(|_| self.turned(Condition::Trial { why }, now))
    }

    /// The trial ended without telling anything: the client left, or we stopped. The next one is due now.
    #[must_use]
    pub fn trial_abandoned(self, now: Instant) -> Self {
        match self.condition {
            Condition::Trial { why: Why::Announced } => {
                self.turned(Condition::Draining { until: Some(now) }, now)
            }
            Condition::Trial { why } => self.turned(Condition::Ejected { until: now, why }, now),
            Condition::Up
            | Condition::Checking
            | Condition::Ejected { .. }
            | Condition::Down { .. }
            | Condition::Draining { .. } => self,
        }
    }

    /// A connection to it stands again. If it was ejected because there was none, the trial is due.
    #[must_use]
    pub fn reachable(self, now: Instant) -> Self {
        match self.condition {
            Condition::Ejected { until, why } if why.is_unreachable() => {
                self.turned(Condition::Ejected { until: until.min(now), why }, now)
            }
            Condition::Up
            | Condition::Checking
            | Condition::Ejected { .. }
            | Condition::Trial { .. }
            | Condition::Down { .. }
            | Condition::Draining { .. } => self,
        }
    }

    /// A probe passed. What the backend did wrong over a standing connection a health page does not excuse.
    #[must_use]
    pub fn probe_passed(self, policy: &ProbePolicy, now: Instant) -> Self {
        let this = Self { probe_failures: 0, ..self };
        match self.condition {
            Condition::Down { passes, cause } if passes + 1 < policy.rise.get() => {
                this.turned(Condition::Down { passes: passes + 1, cause }, now)
            }
            Condition::Down { .. } | Condition::Checking | Condition::Draining { until: None } => {
                this.turned(Condition::Up, now)
            }
            Condition::Ejected { .. } => this.reachable(now),
            Condition::Up | Condition::Trial { .. } | Condition::Draining { until: Some(_) } => this,
        }
    }

    /// A probe was told that the backend wants no new requests.
    #[must_use]
    pub fn probe_announced(self, now: Instant) -> Self {
        let this = Self { probe_failures: 0, ..self };
        this.turned(Condition::Draining { until: None }, now)
    }

    /// A probe failed.
    #[must_use]
    pub fn probe_failed(self, cause: Cause, policy: &ProbePolicy, now: Instant) -> Self {
        let failures = self.probe_failures + 1;
        let is_known = self.condition != Condition::Checking;
        if matches!(self.condition, Condition::Down { .. }) || failures >= policy.fall.get() || !is_known {
            let this = Self { probe_failures: 0, ..self };
            return this.turned(Condition::Down { passes: 0, cause }, now);
        }
        Self { probe_failures: failures, ..self }
    }
}

/// How long an ejection lasts: each is twice as long as the one before.
fn ejection_length(strikes: u32, policy: &EjectionPolicy) -> Duration {
    let doubled = policy.fail_timeout.saturating_mul(1 << strikes.clamp(1, STRIKES_MAX).saturating_sub(1));
    doubled.min(policy.fail_timeout_max).max(policy.fail_timeout)
}

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
