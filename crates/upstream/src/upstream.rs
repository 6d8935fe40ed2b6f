//! A named set of backends under one policy: membership, and what probes and DNS report.

mod admission;
mod seating;
mod selection;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use goodgate_failure::{Budget, Cause};
use parking_lot::Mutex;

use crate::alarm::Alarm;
use crate::breaker::Breaker;
use crate::rotation::{Roster, Rotation};
use crate::{Address, Backend, BackendAddress, BackendSpec, BackendView, Health, Transition, UpstreamSpec};
use seating::Seating;
pub use selection::{Ties, Wish};

/// An upstream of one configuration. Its backends' vitals and its budget come from the one before.
#[derive(Debug)]
pub struct Upstream {
    spec: UpstreamSpec,
    members: Mutex<Vec<Member>>,
    rotation: ArcSwap<Rotation>,
    cursor: AtomicU64,
    /// Retries take turns of their own: if they used up those of first attempts, two backends of which one
    /// is bad would fall into step, and every request would begin with the bad one.
    retry_cursor: AtomicU64,
    budget: Arc<Budget>,
    /// Bounds what is under way.
    breaker: Option<Arc<Breaker>>,
    /// Requests under way on all backends, those that have left included.
    in_flight: Arc<AtomicU64>,
    /// Failures for the probes to look into, and for the lookups of names.
    probe_alarm: Alarm,
    name_alarm: Alarm,
}

/// One entry of the configuration with what it stands for now.
#[derive(Debug)]
struct Member {
    spec: BackendSpec,
    backends: Vec<Arc<Backend>>,
    /// Why the name has no addresses, as long as it has none.
    unresolved: Option<Cause>,
}

impl Upstream {
    /// Builds the upstream; backends whose address `previous` knows keep what was seen of them, and names
    /// that it had resolved keep their addresses until the next lookup.
    pub fn new(spec: UpstreamSpec, previous: Option<&Self>, now: Instant) -> Arc<Self> {
        let in_flight = previous.map(|old| Arc::clone(&old.in_flight)).unwrap_or_default();
        let known = previous.map(Self::backends).unwrap_or_default();
        let seating = Seating::new(&spec, &known, &in_flight, now);
        let members = spec
            .backends
            .iter()
            .map(|entry| {
                let addresses = match &entry.address {
                    BackendAddress::Ip(address) => vec![Address::Ip(*address)],
                    BackendAddress::Unix(path) => vec![Address::unix(path)],
                    BackendAddress::Name { .. } => {
                        previous.map(|old| old.addresses_of(&entry.address)).unwrap_or_default()
                    }
                };
                let backends = seating.seats(entry, &addresses);
                // Until the resolver has said something, it has not answered in time.
                let known_cause = || previous.and_then(|old| old.why_unresolved(&entry.address));
                let unresolved = backends.is_empty().then(|| known_cause().unwrap_or(Cause::DnsTimeout));
                Member { spec: entry.clone(), backends, unresolved }
            })
            .collect();
        drop(seating);
        let known = previous.and_then(|old| old.breaker.as_ref());
        let new = |policy| known.map_or_else(|| Arc::new(Breaker::new(policy)), Arc::clone);
        let breaker = spec.breaker;
        let upstream = Self {
            breaker: breaker.map(new),
            budget: previous.map_or_else(|| Arc::new(Budget::new(now)), |old| Arc::clone(&old.budget)),
            spec,
            members: Mutex::new(members),
            rotation: ArcSwap::from_pointee(Rotation::default()),
            cursor: AtomicU64::new(0),
            retry_cursor: AtomicU64::new(0),
            in_flight,
            probe_alarm: Alarm::default(),
            name_alarm: Alarm::default(),
        };
        upstream.rotate(Members::Changed);
        if let (Some(breaker), Some(policy)) = (&upstream.breaker, breaker) {
            breaker.change(policy, &|| upstream.room(), now);
        }
        Arc::new(upstream)
    }

    /// What it is told to be.
    pub fn spec(&self) -> &UpstreamSpec {
        &self.spec
    }

    /// Its retry budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether a backend that `tried` does not rule out could be had, in rotation or not.
    pub fn has_untried(&self, tried: impl Fn(Address) -> bool) -> bool {
        self.rotation.load().backends().any(|backend| !tried(backend.address))
    }

    /// Whether every backend in rotation has as much under way as it may.
    pub fn is_full(&self) -> bool {
        self.rotation.load().is_all_full()
    }

    /// How many backends are in rotation, backups included.
    pub fn in_rotation(&self) -> usize {
        self.rotation.load().taking_turns
    }

    /// Whether nothing is in rotation at all.
    pub fn is_out(&self) -> bool {
        self.in_rotation() == 0
    }

    /// Whether an ejection has run out, so that one request may find out more.
    pub fn is_trial_due(&self, now: Instant) -> bool {
        self.rotation.load().trial_due.is_some_and(|due| due <= now)
    }

    /// When nothing is in rotation: how long until the next trial, or the next probe, can change that.
    pub fn next_chance(&self, now: Instant) -> Option<Duration> {
        let rotation = self.rotation.load();
        if rotation.taking_turns > 0 {
            return None;
        }
        let trial = rotation.trial_due.map(|due| due.saturating_duration_since(now));
        let probe = self.spec.probe.as_ref().map(|probe| probe.interval_down * probe.rise.get());
        trial.into_iter().chain(probe).min()
    }

    /// Why there is no backend for a request: they are full; or DNS has failed, if a name has no address; else
    /// just that.
    pub fn why_none(&self) -> Cause {
        if self.rotation.load().is_full(|_| false) {
            return Cause::ConnectionLimitReached;
        }
        let members = self.members.lock();
        members.iter().find_map(|member| member.unresolved).unwrap_or(Cause::DestinationUnavailable)
    }

    /// The names that `watch` must look up.
    pub fn names(&self) -> Vec<BackendAddress> {
        let is_name = |entry: &&BackendSpec| matches!(entry.address, BackendAddress::Name { .. });
        self.spec.backends.iter().filter(is_name).map(|entry| entry.address.clone()).collect()
    }

    /// Whether a name has no address.
    pub fn has_unresolved_names(&self) -> bool {
        self.members.lock().iter().any(|member| member.unresolved.is_some())
    }

    /// A lookup of `name` gave these addresses. Those that stay keep what was seen of them; requests under
    /// way on those that leave finish undisturbed. Whether anything changed.
    pub fn resolved(&self, name: &BackendAddress, addresses: &[Address], now: Instant) -> bool {
        let known = self.backends();
        let seating = Seating::new(&self.spec, &known, &self.in_flight, now);
        let mut changed = false;
        for member in self.members.lock().iter_mut().filter(|member| member.spec.address == *name) {
            let same = member.backends.len() == addresses.len()
                && member.backends.iter().all(|backend| addresses.contains(&backend.address));
            if !same {
                member.backends = seating.seats(&member.spec, addresses);
                changed = true;
            }
            member.unresolved = None;
        }
        if changed {
            self.rotate(Members::Changed);
        }
        changed
    }

    /// A lookup of `name` failed: the last addresses stay. Whether there are any.
    pub fn unresolved(&self, name: &BackendAddress, cause: Cause) -> bool {
        let mut kept = false;
        for member in self.members.lock().iter_mut().filter(|member| member.spec.address == *name) {
            if member.backends.is_empty() {
                member.unresolved = Some(cause);
            } else {
                kept = true;
            }
        }
        kept
    }

    /// A probe of `address` passed or failed.
    pub fn probed(&self, address: Address, failure: Option<Cause>, now: Instant) -> Option<Transition> {
        let policy = self.spec.probe.as_ref()?;
        let backend = Arc::clone(self.rotation.load().at(address)?);
        let step = |health: Health| match failure {
            None => health.probe_passed(policy, now),
            Some(_) => health.probe_failed(policy),
        };
        let before = backend.vitals.health();
        let change = backend.vitals.step(step, now);
        let is_trial_moved = matches!(before, Health::Ejected { .. }) && backend.vitals.health() != before;
        if change.is_none() && is_trial_moved {
            self.rotate(Members::Same);
        }
        self.changed(backend.transition(change, failure))
    }

    /// A request has failed there: it is looked at now, and not when its turn comes.
    pub(crate) fn suspect(&self, address: Address, now: Instant) {
        if self.spec.probe.is_some() {
            self.probe_alarm.raise(address, now);
        }
        if self.spec.backends.iter().any(|entry| matches!(entry.address, BackendAddress::Name { .. })) {
            self.name_alarm.raise(address, now);
        }
    }

    /// Backends for the probes to look at.
    pub fn probe_alarm(&self) -> &Alarm {
        &self.probe_alarm
    }

    /// Backends whose names are to be looked up.
    pub fn name_alarm(&self) -> &Alarm {
        &self.name_alarm
    }

    /// All backends as they are now.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.rotation.load().backends().map(Arc::clone).collect()
    }

    /// All backends at this moment, for metrics and the admin side.
    pub fn views(&self) -> Vec<BackendView> {
        self.rotation.load().backends().map(|backend| backend.view()).collect()
    }

    /// Passes a transition on, with the rotation made anew.
    pub(crate) fn changed(&self, change: Option<Transition>) -> Option<Transition> {
        let change = change?;
        self.rotate(Members::Same);
        Some(Transition { in_rotation: self.rotation.load().taking_turns, ..change })
    }

    fn why_unresolved(&self, name: &BackendAddress) -> Option<Cause> {
        self.members.lock().iter().find(|member| member.spec.address == *name)?.unresolved
    }

    fn addresses_of(&self, name: &BackendAddress) -> Vec<Address> {
        let members = self.members.lock();
        let member = members.iter().find(|member| member.spec.address == *name);
        member
            .map(|member| member.backends.iter().map(|backend| backend.address).collect())
            .unwrap_or_default()
    }

    /// Makes the rotation anew from the members and their health. The lock orders concurrent makers, so
    /// that the last one has seen every change.
    fn rotate(&self, change: Members) {
        let members = self.members.lock();
        let backends = members.iter().flat_map(|member| &member.backends).map(Arc::clone);
        let roster = match change {
            Members::Changed => Arc::new(Roster::new(self.spec.balance, backends)),
            Members::Same => Arc::clone(&self.rotation.load().roster),
        };
        self.rotation.store(Arc::new(Rotation::new(self.spec.balance, &roster)));
        self.rotated();
    }
}

/// What a new rotation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Members {
    /// They are the same in the same order; their health is not.
    Same,
    Changed,
}

#[cfg(test)]
mod tests;
