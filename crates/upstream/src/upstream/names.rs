//! Names among the backends: their addresses come, go, and are kept for a while when lookups fail.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use goodgate_failure::Cause;

use super::Upstream;
use super::seating::Seating;
use crate::{Address, Backend, BackendAddress, BackendSpec, FoundAddress, NameView, Standing, Unresolved};

/// One entry of the configuration with what it stands for now.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) spec: BackendSpec,
    pub(super) backends: Vec<Arc<Backend>>,
    /// What the last good lookup gave, in order.
    found: Vec<FoundAddress>,
    standing: Standing,
}

impl Member {
    /// A name has the addresses that were known of it, and they stand as they stood.
    pub(super) fn new(
        spec: &BackendSpec,
        seating: &Seating<'_>,
        known: impl FnOnce() -> Option<(Vec<FoundAddress>, Standing)>,
    ) -> Self {
        let (found, standing) = match spec.address.as_address() {
            Some(address) => (vec![FoundAddress::plain(address)], Standing::Known),
            // Until the resolver has said something, it has not answered in time.
            None => known().unwrap_or((Vec::new(), Standing::Unresolved(Cause::DnsTimeout))),
        };
        let backends = seating.seats(spec, &found);
        let standing = match standing {
            Standing::Known | Standing::Kept { .. } if backends.is_empty() => {
                Standing::Unresolved(Cause::DnsError)
            }
            Standing::Known | Standing::Kept { .. } | Standing::Unresolved(_) => standing,
        };
        Self { spec: spec.clone(), backends, found, standing }
    }

    /// Why there is no address, if there is none.
    pub(super) fn why_unresolved(&self) -> Option<Cause> {
        match self.standing {
            Standing::Unresolved(cause) => Some(cause),
            Standing::Known | Standing::Kept { .. } => None,
        }
    }

    /// Its addresses and how it stands with them.
    pub(super) fn known(&self) -> (Vec<FoundAddress>, Standing) {
        (self.found.clone(), self.standing)
    }

    pub(super) fn is_name(&self) -> bool {
        self.spec.address.is_name()
    }
}

impl Upstream {
    /// The names that `watch` must look up.
    pub fn names(&self) -> Vec<BackendAddress> {
        let members = self.members.lock();
        members.iter().filter(|member| member.is_name()).map(|member| member.spec.address.clone()).collect()
    }

    /// Whether a name has no address.
    pub fn has_unresolved_names(&self) -> bool {
        self.members.lock().iter().any(|member| member.why_unresolved().is_some())
    }

    /// The names at this moment.
    pub fn name_views(&self) -> Vec<NameView> {
        let view = |member: &Member| NameView {
            name: member.spec.address.clone(),
            standing: member.standing,
            addresses: member.backends.iter().map(|backend| backend.address).collect(),
        };
        self.members.lock().iter().filter(|member| member.is_name()).map(view).collect()
    }

    /// A lookup of `name` gave these addresses, at least one of a family that is used. Those that stay keep what was
    /// seen of them; requests under way on those that leave finish undisturbed. Whether anything changed.
    pub fn resolved(&self, name: &BackendAddress, found: &[FoundAddress], now: Instant) -> bool {
        let mut found = found.to_vec();
        found.sort_unstable();
        self.change(name, now, |member, seating| {
            member.standing = Standing::Known;
            let changed = member.found != found;
            if changed {
                member.backends = seating.seats(&member.spec, &found);
                member.found.clone_from(&found);
            }
            changed
        })
    }

    /// A lookup of `name` failed: the last addresses stay, for as long as `dns.keep` says.
    pub fn unresolved(&self, name: &BackendAddress, cause: Cause, now: Instant) -> Unresolved {
        let keep = self.spec.dns.keep;
        let mut outcome = Unresolved::Still;
        self.change(name, now, |member, _| {
            let since = match member.standing {
                Standing::Kept { since, .. } => since,
                Standing::Known | Standing::Unresolved(_) => now,
            };
            let runs_out = now.saturating_duration_since(since) >= keep;
            (outcome, member.standing) = match member.standing {
                Standing::Unresolved(_) => (Unresolved::Still, Standing::Unresolved(cause)),
                _ if runs_out => (Unresolved::RanOut, Standing::Unresolved(cause)),
                Standing::Known => (Unresolved::KeptFromNow, Standing::Kept { since, cause }),
                Standing::Kept { .. } => (Unresolved::Kept, Standing::Kept { since, cause }),
            };
            if outcome == Unresolved::RanOut {
                member.found.clear();
                member.backends.clear();
            }
            outcome == Unresolved::RanOut
        });
        outcome
    }

    /// The next configuration is in force: what it does not have has left. None: it has nothing of this upstream.
    pub fn hand_over(&self, next: Option<&Self>) {
        let stays =
            |backend: &Backend| next.is_some_and(|next| next.rotation.load().at(backend.address).is_some());
        self.backends().iter().filter(|backend| !stays(backend)).for_each(|backend| backend.leaves());
    }

    /// Changes the member of a name; the step says whether its addresses are others now. Those that no member has any
    /// more have left.
    fn change(
        &self,
        name: &BackendAddress,
        now: Instant,
        step: impl FnOnce(&mut Member, &Seating<'_>) -> bool,
    ) -> bool {
        let known = self.backends();
        let orders = self.orders.lock();
        let seating = Seating::new(&self.spec, &known, &self.of_all, &orders, now);
        let mut members = self.members.lock();
        let Some(member) = members.iter_mut().find(|member| member.spec.address == *name) else {
            return false;
        };
        let before = member.backends.clone();
        if !step(member, &seating) {
            return false;
        }
        let left = left(before, &members);
        drop(members);
        drop(orders);
        self.regroup();
        // Only now nobody is given them any more.
        for backend in left {
            backend.leaves();
        }
        true
    }

    pub(super) fn with_member<T>(&self, name: &BackendAddress, of: impl FnOnce(&Member) -> T) -> Option<T> {
        self.members.lock().iter().find(|member| member.spec.address == *name).map(of)
    }
}

/// Those that no member has any more.
pub(super) fn left(before: Vec<Arc<Backend>>, members: &[Member]) -> Vec<Arc<Backend>> {
    let stay: HashSet<Address> =
        members.iter().flat_map(|member| &member.backends).map(|backend| backend.address).collect();
    before.into_iter().filter(|backend| !stay.contains(&backend.address)).collect()
}
