//! Who gets an attempt: a bound backend, a trial, the rotation, or, when nothing is left, the least recently failed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Upstream;
use crate::rotation::{Hall, Rotation};
use crate::{Address, Backend, BackendId, How, Lease};

/// What a request wants of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// It has been tried before.
    pub is_retry: bool,
    /// It may be the request that finds out whether an ejected backend is back.
    pub may_be_trial: bool,
}

/// What ties a request to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// The backend that its cookie names: it comes first if it is in rotation.
    pub bound: Option<BackendId>,
    /// For consistent hashing.
    pub hash: Option<u64>,
}

impl Upstream {
    /// The next backend that `tried` does not rule out, for a request that nothing ties to one.
    pub fn select(
        self: &Arc<Self>,
        tried: impl Fn(Address) -> bool,
        wish: Wish,
        now: Instant,
    ) -> Option<Lease> {
        self.select_tied(tried, wish, Ties::default(), now)
    }

    /// The next backend that `tried` does not rule out: first the one that the request is bound to, then a
    /// trial that is due (if the request may be one), then the rotation, rank by rank.
    pub fn select_tied(
        self: &Arc<Self>,
        tried: impl Fn(Address) -> bool,
        wish: Wish,
        ties: Ties,
        now: Instant,
    ) -> Option<Lease> {
        let rotation = self.rotation();
        let hall = Hall {
            rotation: &rotation,
            tried: &tried,
            in_flight: &self.of_all.in_flight,
            slow_start: self.spec.slow_start,
            now,
        };
        let lease = |seat, how| {
            rotation.backend(seat).map(|backend| Lease::new(Arc::clone(self), Arc::clone(backend), how))
        };
        if let Some(seat) = ties.bound.and_then(|id| rotation.seat_of(id))
            && hall.sit(seat)
        {
            return lease(seat, How::Rotation);
        }
        let nothing_else = rotation.taking_turns == 0;
        if (wish.may_be_trial || nothing_else)
            && rotation.trial_due.is_some_and(|due| due <= now)
            && let Some(backend) = claim_trial(&rotation, &tried, now)
        {
            return Some(Lease::new(Arc::clone(self), backend, How::Trial));
        }
        let cursor = if wish.is_retry { &self.course.retry_cursor } else { &self.course.cursor };
        let turn = || cursor.fetch_add(1, Ordering::Relaxed);
        let seat = rotation.choose(turn, ties.hash, &hall).or_else(|| {
            // If all that are left have let their turn pass, one of them gets the request nevertheless.
            let at_once = Hall { slow_start: Duration::ZERO, ..hall };
            hall.is_anybody_starting().then(|| rotation.choose(turn, ties.hash, &at_once)).flatten()
        })?;
        lease(seat, How::Rotation)
    }

    /// When [`Upstream::select`] has nothing: the untried backend that failed the longest ago, whatever
    /// its state (fail open), but for those that an operator has sent away. None, if that is not allowed, or there are
    /// backends that answer, and they are full.
    pub fn select_fail_open(self: &Arc<Self>, tried: impl Fn(Address) -> bool) -> Option<Lease> {
        let rotation = self.rotation();
        if !self.spec.fail_open || rotation.is_full(&tried) {
            return None;
        }
        let untried = rotation.usable().filter(|backend| !tried(backend.address));
        let backend = untried
            .filter(|backend| !backend.is_full())
            .min_by_key(|backend| (backend.rank, backend.vitals.last_failure()))?;
        let lease = || Lease::new(Arc::clone(self), Arc::clone(backend), How::FailOpen);
        backend.vitals.try_start(backend.in_flight_max).then(lease)
    }
}

fn claim_trial(rotation: &Rotation, tried: &impl Fn(Address) -> bool, now: Instant) -> Option<Arc<Backend>> {
    let mut left = rotation.out().filter(|backend| !tried(backend.address) && !backend.is_full());
    let backend = left.find(|backend| backend.vitals.claim_trial(now))?;
    // Whatever its limit: a trial that was claimed is made.
    backend.vitals.try_start(0);
    Some(Arc::clone(backend))
}
