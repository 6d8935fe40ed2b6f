//! A named set of backends under one policy: membership, and what probes and DNS report.

mod admission;
mod control;
mod names;
mod recall;
mod seating;
mod selection;
mod verdicts;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use goodgate_failure::{Budget, Cause};
use parking_lot::Mutex;

use crate::alarm::Alarm;
use crate::breaker::Breaker;
use crate::lookups::Lookups;
use crate::rotation::{Roster, Rotation};
use crate::seen::Tallied;
use crate::vitals::OfAll;
use crate::{
    Address, Backend, BackendAddress, BackendSpec, BackendView, FoundAddress, Orders, Standing, UpstreamSpec,
};
use names::Member;
use seating::Seating;
pub use selection::{Ties, Wish};
pub use verdicts::Probed;

/// An upstream of one configuration. Its backends' vitals and its budget come from the one before.
#[derive(Debug)]
pub struct Upstream {
    spec: UpstreamSpec,
    members: Mutex<Vec<Member>>,
    /// How often they have changed.
    membership: AtomicU64,
    /// Whether one of them is a name.
    has_names: AtomicBool,
    rotation: ArcSwap<Rotation>,
    course: Arc<Course>,
    budget: Arc<Budget>,
    /// Bounds what is under way.
    breaker: Option<Arc<Breaker>>,
    /// What all backends have together.
    of_all: Arc<OfAll>,
    /// Failures for the probes to look into, and for the lookups of names.
    probe_alarm: Arc<Alarm>,
    name_alarm: Arc<Alarm>,
    lookups: Arc<Lookups>,
    /// What operators have ordered; it holds for the upstream of the next configuration, too.
    orders: Arc<Mutex<Orders>>,
    /// Since when requests are sent to backends out of rotation for want of others.
    failing_open: Arc<Mutex<Option<Instant>>>,
}

/// What selection and comparison remember. The upstream of the next configuration goes on with it.
#[derive(Debug, Default)]
struct Course {
    cursor: AtomicU64,
    /// Retries take turns of their own: if they used up those of first attempts, two backends of which one
    /// is bad would fall into step, and every request would begin with the bad one.
    retry_cursor: AtomicU64,
    /// One ejection at a time of those of which only so many are allowed.
    ejecting: Mutex<()>,
    /// What was seen of each address when outliers were last looked for.
    compared: Mutex<HashMap<Address, Tallied>>,
}

impl Upstream {
    /// Builds the upstream; backends whose address `previous` knows keep what was seen of them, and names
    /// that it had resolved keep their addresses until the next lookup.
    pub fn new(spec: UpstreamSpec, previous: Option<&Self>, now: Instant) -> Arc<Self> {
        let alarm =
            |of: fn(&Self) -> &Arc<Alarm>| previous.map(|old| Arc::clone(of(old))).unwrap_or_default();
        let orders = previous.map(|old| Arc::clone(&old.orders)).unwrap_or_default();
        orders.lock().fit(&spec.backends);
        let known = previous.and_then(|old| old.breaker.as_ref());
        let new = |policy| known.map_or_else(|| Arc::new(Breaker::new(policy)), Arc::clone);
        let breaker = spec.breaker;
        let upstream = Self {
            breaker: breaker.map(new),
            budget: previous.map_or_else(|| Arc::new(Budget::new(now)), |old| Arc::clone(&old.budget)),
            spec,
            members: Mutex::default(),
            membership: AtomicU64::new(0),
            has_names: AtomicBool::new(false),
            rotation: ArcSwap::from_pointee(Rotation::default()),
            course: previous.map(|old| Arc::clone(&old.course)).unwrap_or_default(),
            of_all: previous.map(|old| Arc::clone(&old.of_all)).unwrap_or_default(),
            probe_alarm: alarm(|old| &old.probe_alarm),
            name_alarm: alarm(|old| &old.name_alarm),
            lookups: previous.map(|old| Arc::clone(&old.lookups)).unwrap_or_default(),
            orders,
            failing_open: previous.map(|old| Arc::clone(&old.failing_open)).unwrap_or_default(),
        };
        let known = previous.map(Self::backends).unwrap_or_default();
        let of_name = |name: &BackendAddress| previous?.with_member(name, Member::known);
        *upstream.members.lock() = upstream.seat(&upstream.orders.lock(), &known, of_name, now);
        upstream.regroup();
        if let (Some(breaker), Some(policy)) = (&upstream.breaker, breaker) {
            breaker.change(policy, &|| upstream.room(), now);
        }
        Arc::new(upstream)
    }

    /// The members by configuration and orders. `known` are backends whose vitals are kept, and `of_name` tells how it
    /// stood with a name.
    fn seat(
        &self,
        orders: &Orders,
        known: &[Arc<Backend>],
        of_name: impl Fn(&BackendAddress) -> Option<(Vec<FoundAddress>, Standing)>,
        now: Instant,
    ) -> Vec<Member> {
        let seating = Seating::new(&self.spec, known, &self.of_all, orders, now);
        let member = |entry: &BackendSpec| Member::new(entry, &seating, || of_name(&entry.address));
        orders.entries(&self.spec.backends).map(member).collect()
    }

    /// What it is told to be.
    pub fn spec(&self) -> &UpstreamSpec {
        &self.spec
    }

    /// Its retry budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether a backend that `tried` does not rule out could be had: in rotation, for a trial, or, if the caller and
    /// the upstream allow that, although it is out of rotation.
    pub fn has_untried(&self, tried: impl Fn(Address) -> bool, may_fail_open: bool, now: Instant) -> bool {
        self.rotation().has_untried(tried, self.spec.fail_open && may_fail_open, now)
    }

    /// Whether every backend in rotation has as much under way as it may.
    pub fn is_full(&self) -> bool {
        self.rotation().is_all_full()
    }

    /// Whether there are addresses of IPv4 and of IPv6 among the backends.
    pub fn has_both_families(&self) -> bool {
        self.rotation().roster.has_both_families
    }

    /// How many backends are in rotation, backups included.
    pub fn in_rotation(&self) -> usize {
        self.rotation().taking_turns
    }

    /// Whether nothing is in rotation at all.
    pub fn is_out(&self) -> bool {
        self.in_rotation() == 0
    }

    /// Whether an ejection has run out, so that one request may find out more.
    pub fn is_trial_due(&self, now: Instant) -> bool {
        self.rotation().trial_due.is_some_and(|due| due <= now)
    }

    /// When nothing is in rotation: how long until the next trial, or the next probe, can change that.
    pub fn next_chance(&self, now: Instant) -> Option<Duration> {
        let rotation = self.rotation();
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
        if self.rotation().is_full(|_| false) {
            return Cause::ConnectionLimitReached;
        }
        let members = self.members.lock();
        members.iter().find_map(Member::why_unresolved).unwrap_or(Cause::DestinationUnavailable)
    }

    /// Another number whenever there may be other backends, or others ordered away.
    pub fn membership(&self) -> u64 {
        self.membership.load(Ordering::Acquire)
    }

    /// All backends as they are now.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.rotation().backends().map(Arc::clone).collect()
    }

    /// All backends at this moment, for metrics and the admin side.
    pub fn views(&self) -> Vec<BackendView> {
        self.rotation().backends().map(|backend| backend.view()).collect()
    }

    /// The rotation, made anew if health has changed since: also by requests of an earlier configuration, which share
    /// the vitals and not the rotation.
    fn rotation(&self) -> Guard<Arc<Rotation>> {
        let rotation = self.rotation.load();
        if rotation.changes == self.of_all.changes.load(Ordering::Acquire) {
            return rotation;
        }
        drop(rotation);
        let _members = self.members.lock();
        let rotation = self.rotation.load();
        // Somebody else may have done it meanwhile.
        if rotation.changes != self.of_all.changes.load(Ordering::Acquire) {
            let roster = Arc::clone(&rotation.roster);
            drop(rotation);
            self.rotate(&roster);
        }
        self.rotation.load()
    }

    /// The members are others now: the rotation is made anew with them.
    fn regroup(&self) {
        let members = self.members.lock();
        self.has_names.store(members.iter().any(Member::is_name), Ordering::Relaxed);
        let backends = members.iter().flat_map(|member| &member.backends).map(Arc::clone);
        self.rotate(&Arc::new(Roster::new(self.spec.balance, backends)));
        self.membership.fetch_add(1, Ordering::Release);
    }

    /// Makes the rotation of these anew. The lock on the members, which the caller holds, orders concurrent makers, so that
    /// the last one has seen every change.
    fn rotate(&self, roster: &Arc<Roster>) {
        let changes = self.of_all.changes.load(Ordering::Acquire);
        self.rotation.store(Arc::new(Rotation::new(self.spec.balance, roster, changes)));
        self.rotated();
    }
}

#[cfg(test)]
mod tests;
