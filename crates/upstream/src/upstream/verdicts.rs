//! What failures, probes, connections and comparisons say of backends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use goodgate_failure::Cause;

use super::Upstream;
use crate::alarm::Alarm;
use crate::outliers::outliers;
use crate::seen::Tallied;
use crate::{Address, Backend, Condition, Health, Mode, Transition};

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The backend is well.
    Passed,
    /// It is not.
    Failed(Cause),
    /// It wants no new requests.
    Announced,
}

impl Probed {
    /// Why the probe failed, if it did.
    pub const fn failure(self) -> Option<Cause> {
        match self {
            Self::Failed(cause) => Some(cause),
            Self::Passed | Self::Announced => None,
        }
    }
}

impl Upstream {
    /// A probe of `address` has found this.
    pub fn probed(&self, address: Address, found: Probed, now: Instant) -> Option<Transition> {
        let policy = self.spec.probe.as_ref()?;
        self.step(address, now, |health| match found {
            Probed::Passed => health.probe_passed(policy, now),
            Probed::Failed(cause) => health.probe_failed(cause, policy, now),
            Probed::Announced => health.probe_announced(now),
        })
    }

    /// Backends that were ejected because no connection to them could be made.
    pub fn unreachable(&self) -> Vec<Arc<Backend>> {
        self.rotation().out().filter(|backend| backend.is_unreachable()).map(Arc::clone).collect()
    }

    /// A connection to `address` could be made.
    pub fn reachable(&self, address: Address, now: Instant) -> Option<Transition> {
        self.step(address, now, |health| health.reachable(now))
    }

    fn step(
        &self,
        address: Address,
        now: Instant,
        step: impl FnOnce(Health) -> Health,
    ) -> Option<Transition> {
        let backend = Arc::clone(self.rotation().at(address)?);
        self.changed(backend.transition(backend.vitals.step(step, now)))
    }

    /// Ejects who answers worse than the others did since this was last asked.
    pub fn compare(&self, now: Instant) -> Vec<Transition> {
        let Some(policy) = &self.spec.outliers else {
            return Vec::new();
        };
        let backends = self.backends();
        // Read once: what comes in between belongs to the next comparison, and to no other.
        let latest: Vec<(Address, Tallied)> =
            backends.iter().map(|backend| (backend.address, backend.vitals.seen.tallied())).collect();
        let earlier = std::mem::replace(
            &mut *self.course.compared.lock(),
            latest.iter().copied().collect::<HashMap<_, _>>(),
        );
        let since = |(address, tallied): &(Address, Tallied)| {
            tallied.since(earlier.get(address).copied().unwrap_or_default())
        };
        let seen: Vec<_> = latest.iter().map(since).collect();
        let found = outliers(policy, &seen).into_iter();
        let eject = |(at, why)| {
            let backend: &Arc<Backend> = backends.get(at)?;
            self.eject_softly(|has_room| {
                let eject = |health: Health| {
                    let is_up = health.condition() == Condition::Up && backend.mode == Mode::Serve;
                    if is_up && has_room() { health.ejected(why, &backend.ejection, now) } else { health }
                };
                backend.transition(backend.vitals.step(eject, now))
            })
        };
        found.filter_map(eject).collect()
    }

    /// Makes an ejection of which only a share of the backends is allowed. It is told whether there is room for it.
    pub(crate) fn eject_softly(
        &self,
        eject: impl FnOnce(&dyn Fn() -> bool) -> Option<Transition>,
    ) -> Option<Transition> {
        let _one_at_a_time = self.course.ejecting.lock();
        let rotation = self.rotation();
        let has_room = || {
            #[expect(clippy::cast_precision_loss, reason = "backends are far fewer than 2^52")]
            let after = (rotation.softly_out + 1) as f64;
            #[expect(clippy::cast_precision_loss, reason = "backends are far fewer than 2^52")]
            let allowed = rotation.backends().count() as f64 * self.spec.soft_ejections_max;
            after <= allowed.max(1.0)
        };
        let change = eject(&has_room);
        self.changed(change)
    }

    /// A request has failed there: it is looked at now, and not when its turn comes.
    pub(crate) fn suspect(&self, address: Address, now: Instant) {
        if self.spec.probe.is_some() {
            self.probe_alarm.raise(address, now, || {});
        }
        if self.has_names.load(Ordering::Relaxed) {
            self.name_alarm.raise(address, now, || self.lookups.begin());
        }
    }

    /// The lookups that failures have set off have ended, or there is nothing to look up again yet.
    pub fn lookups_ended(&self) {
        self.lookups.end();
    }

    /// Whether a failure has set off lookups that have not ended.
    pub fn awaits_lookups(&self) -> bool {
        self.lookups.are_awaited()
    }

    /// Ready when they have.
    pub fn poll_lookups(&self, context: &Context<'_>) -> Poll<()> {
        self.lookups.poll_end(context)
    }

    /// Backends for the probes to look at.
    pub fn probe_alarm(&self) -> &Alarm {
        &self.probe_alarm
    }

    /// Backends whose names are to be looked up.
    pub fn name_alarm(&self) -> &Alarm {
        &self.name_alarm
    }

    /// Passes a transition on, with the rotation made anew. What an operator has sent away changes for nobody.
    pub(crate) fn changed(&self, change: Option<Transition>) -> Option<Transition> {
        let change = change?;
        let rotation = self.rotation();
        let mode = rotation.at(change.backend).map_or(Mode::Serve, |backend| backend.mode);
        let in_rotation = rotation.taking_turns;
        let failed_open_for = self.failed_open_for();
        (mode == Mode::Serve).then_some(Transition { in_rotation, failed_open_for, ..change })
    }

    /// Since when requests are sent to backends out of rotation for want of others.
    pub fn failing_open_since(&self) -> Option<Instant> {
        *self.failing_open.lock()
    }

    /// A request is sent to a backend out of rotation for want of others. Whether it is the first.
    pub fn fails_open(&self, now: Instant) -> bool {
        let mut since = self.failing_open.lock();
        // What a backend that is tried once more by one request says is no state of the upstream.
        let begins = since.is_none() && self.is_out();
        if begins {
            *since = Some(now);
        }
        begins
    }

    /// For how long that was so, once, when it has ended: a backend is in rotation again.
    pub fn failed_open_for(&self) -> Option<Duration> {
        if self.is_out() {
            return None;
        }
        self.failing_open.lock().take().map(|since| since.elapsed())
    }
}
