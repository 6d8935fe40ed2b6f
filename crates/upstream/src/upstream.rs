//! A named set of backends under one policy: membership, selection, and what probes and DNS report.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use goodgate_failure::{Budget, Cause};
use parking_lot::Mutex;

use crate::rotation::turns;
use crate::{
    Address, Backend, BackendAddress, BackendSpec, BackendView, Health, How, Lease, State, Transition,
    UpstreamSpec, Vitals,
};

/// An upstream of one configuration. Its backends' vitals and its budget come from the one before.
#[derive(Debug)]
pub struct Upstream {
    spec: UpstreamSpec,
    members: Mutex<Vec<Member>>,
    rotation: ArcSwap<Rotation>,
    cursor: AtomicUsize,
    /// Retries take turns of their own: if they used up those of first attempts, two backends of which one
    /// is bad would fall into step, and every request would begin with the bad one.
    retry_cursor: AtomicUsize,
    budget: Arc<Budget>,
}

/// What a request wants of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// It has been tried before.
    pub is_retry: bool,
    /// It may be the request that finds out whether an ejected backend is back.
    pub may_be_trial: bool,
}

/// One entry of the configuration with what it stands for now.
#[derive(Debug)]
struct Member {
    spec: BackendSpec,
    backends: Vec<Arc<Backend>>,
    /// Why the name has no addresses, as long as it has none.
    unresolved: Option<Cause>,
}

/// Who takes turns now. Made anew at each change, read without a lock.
#[derive(Debug, Default)]
struct Rotation {
    backends: Vec<Arc<Backend>>,
    primary: Vec<u32>,
    backup: Vec<u32>,
    /// How many backends take turns.
    taking_turns: usize,
    /// When the first trial is due, if a backend is ejected.
    trial_due: Option<Instant>,
}

impl Upstream {
    /// Builds the upstream; backends whose address `previous` knows keep what was seen of them, and names
    /// that it had resolved keep their addresses until the next lookup.
    pub fn new(spec: UpstreamSpec, previous: Option<&Self>, now: Instant) -> Arc<Self> {
        let known = previous.map(Self::backends).unwrap_or_default();
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
                let backends = seats(entry, &addresses, &known, now);
                // Until the resolver has said something, it has not answered in time.
                let known_cause = || previous.and_then(|old| old.why_unresolved(&entry.address));
                let unresolved = backends.is_empty().then(|| known_cause().unwrap_or(Cause::DnsTimeout));
                Member { spec: entry.clone(), backends, unresolved }
            })
            .collect();
        let upstream = Self {
            budget: previous.map_or_else(|| Arc::new(Budget::new(now)), |old| Arc::clone(&old.budget)),
            spec,
            members: Mutex::new(members),
            rotation: ArcSwap::from_pointee(Rotation::default()),
            cursor: AtomicUsize::new(0),
            retry_cursor: AtomicUsize::new(0),
        };
        upstream.rotate();
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

    /// The next backend in turn that `tried` does not rule out: first a trial that is due (if the request
    /// may be one), then the rotation, then the backups.
    pub fn select(
        self: &Arc<Self>,
        tried: impl Fn(Address) -> bool,
        wish: Wish,
        now: Instant,
    ) -> Option<Lease> {
        let rotation = self.rotation.load();
        let nothing_else = rotation.taking_turns == 0;
        if (wish.may_be_trial || nothing_else)
            && rotation.trial_due.is_some_and(|due| due <= now)
            && let Some(backend) = claim_trial(&rotation, &tried, now)
        {
            self.rotate();
            return Some(Lease::new(Arc::clone(self), backend, How::Trial));
        }
        let cursor = if wish.is_retry { &self.retry_cursor } else { &self.cursor };
        let backend = take_turn(cursor, &rotation, &rotation.primary, &tried)
            .or_else(|| take_turn(cursor, &rotation, &rotation.backup, &tried))?;
        Some(Lease::new(Arc::clone(self), backend, How::Rotation))
    }

    /// When [`Upstream::select`] has nothing: the untried backend that failed the longest ago, whatever
    /// its state (fail open).
    pub fn select_fail_open(self: &Arc<Self>, tried: impl Fn(Address) -> bool) -> Option<Lease> {
        let rotation = self.rotation.load();
        let backend = rotation
            .backends
            .iter()
            .filter(|backend| !tried(backend.address))
            .min_by_key(|backend| (backend.backup, backend.vitals.last_failure()))?;
        Some(Lease::new(Arc::clone(self), Arc::clone(backend), How::FailOpen))
    }

    /// Whether a backend that `tried` does not rule out could be had, in rotation or not.
    pub fn has_untried(&self, tried: impl Fn(Address) -> bool) -> bool {
        self.rotation.load().backends.iter().any(|backend| !tried(backend.address))
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

    /// Why there is no backend at all: the failure of DNS if a name has no address, else just that.
    pub fn why_empty(&self) -> Cause {
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
        let mut changed = false;
        for member in self.members.lock().iter_mut().filter(|member| member.spec.address == *name) {
            let same = member.backends.len() == addresses.len()
                && member.backends.iter().all(|backend| addresses.contains(&backend.address));
            if !same {
                member.backends = seats(&member.spec, addresses, &known, now);
                changed = true;
            }
            member.unresolved = None;
        }
        if changed {
            self.rotate();
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
        let backend = self.backends().into_iter().find(|backend| backend.address == address)?;
        let step = |health: Health| match failure {
            None => health.probe_passed(policy, now),
            Some(_) => health.probe_failed(policy),
        };
        let before = backend.vitals.health();
        let change = backend.vitals.step(step);
        if change.is_none() && backend.vitals.health() != before {
            // The state is the same, but a trial may have come forward.
            self.rotate();
        }
        self.changed(backend.transition(change, failure))
    }

    /// All backends as they are now.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.rotation.load().backends.clone()
    }

    /// All backends at this moment, for metrics and the admin side.
    pub fn views(&self) -> Vec<BackendView> {
        self.rotation.load().backends.iter().map(|backend| backend.view()).collect()
    }

    /// Passes a transition on, with the rotation made anew.
    pub(crate) fn changed(&self, change: Option<Transition>) -> Option<Transition> {
        let change = change?;
        self.rotate();
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
    fn rotate(&self) {
        let members = self.members.lock();
        let mut rotation = Rotation::default();
        let (mut primary, mut backup) = (Vec::new(), Vec::new());
        for backend in members.iter().flat_map(|member| &member.backends) {
            let index = u32::try_from(rotation.backends.len()).unwrap_or(u32::MAX);
            rotation.backends.push(Arc::clone(backend));
            let health = backend.vitals.health();
            if let Health::Ejected { until, .. } = health {
                rotation.trial_due = Some(rotation.trial_due.map_or(until, |due| due.min(until)));
            }
            if health.state() == State::Up {
                if backend.backup { &mut backup } else { &mut primary }.push((index, backend.weight));
            }
        }
        rotation.taking_turns = primary.len() + backup.len();
        rotation.primary = turns(&primary);
        rotation.backup = turns(&backup);
        self.rotation.store(Arc::new(rotation));
    }
}

fn take_turn(
    cursor: &AtomicUsize,
    rotation: &Rotation,
    turns: &[u32],
    tried: &impl Fn(Address) -> bool,
) -> Option<Arc<Backend>> {
    if turns.is_empty() {
        return None;
    }
    let start = cursor.fetch_add(1, Ordering::Relaxed) % turns.len();
    let order = turns.get(start..).into_iter().chain(turns.get(..start)).flatten();
    order
        .filter_map(|index| rotation.backends.get(usize::try_from(*index).ok()?))
        .find(|backend| !tried(backend.address))
        .cloned()
}

fn claim_trial(rotation: &Rotation, tried: &impl Fn(Address) -> bool, now: Instant) -> Option<Arc<Backend>> {
    let mut untried = rotation.backends.iter().filter(|backend| !tried(backend.address));
    untried.find(|backend| backend.vitals.claim_trial(now)).cloned()
}

/// The backends that one entry stands for. An address seen before keeps its vitals.
fn seats(
    entry: &BackendSpec,
    addresses: &[Address],
    known: &[Arc<Backend>],
    now: Instant,
) -> Vec<Arc<Backend>> {
    let written: Arc<str> = entry.address.to_string().into();
    let tls_name: Option<Arc<str>> = entry.tls_name.as_deref().map(Into::into);
    let seat = |address: &Address| {
        let seen = known.iter().find(|backend| backend.address == *address);
        Arc::new(Backend {
            address: *address,
            written: Arc::clone(&written),
            weight: entry.weight.get(),
            backup: entry.backup,
            ejection: entry.ejection,
            tls_name: tls_name.clone(),
            vitals: seen.map_or_else(|| Arc::new(Vitals::new(now)), |backend| Arc::clone(&backend.vitals)),
        })
    };
    addresses.iter().map(seat).collect()
}

#[cfg(test)]
mod tests;
