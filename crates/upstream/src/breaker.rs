//! How many requests an upstream gets at a time, and who waits while it has as many as it may.
//!
//! A request takes a place before its first attempt and gives it back when its answer has come as a whole. Beyond
//! the limit it waits, in a queue with a bound; a place that becomes free is handed to the next one in it, which
//! alone is woken, and nobody overtakes. After an outage there are few places at first (`ramp.rs`). Nothing in here
//! waits or reads a clock; whoever has a place or waits for one holds a `place.rs`, which cannot forget to let go.

mod place;
mod queue;
mod ramp;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use place::{Admission, Place, Turn};
use queue::{Queue, Ticket};
use ramp::{Ramp, Slope};

/// When an upstream has enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Requests under way.
    pub requests_max: NonZeroU32,
    /// Requests that wait for one of them to end.
    pub pending_max: u32,
    /// How long one may wait.
    pub pending_timeout: Duration,
    /// How long it takes after an outage until all may be under way; zero: they may at once.
    pub ramp: Duration,
}

/// What a breaker does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// There are places left.
    Closed,
    /// All places are taken.
    Limiting,
    /// The upstream is on its way back from an outage, or in one, and has fewer places.
    Ramping,
}

impl BreakerState {
    /// Every member.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Limiting, Self::Ramping];

    /// The word for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Limiting => "limiting",
            Self::Ramping => "ramping",
        }
    }
}

/// A breaker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// What it does.
    pub state: BreakerState,
    /// Requests that have a place.
    pub under_way: u32,
    /// Places that there are now.
    pub places: u32,
    /// Requests that wait for one.
    pub pending: usize,
}

/// Why a request gets no place. A closed set: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// As many wait as may.
    QueueFull,
    /// It has waited for as long as it may.
    PendingTimeout,
    /// It has waited until the route's `timeout`.
    Deadline,
}

impl Shed {
    /// Every member, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::PendingTimeout, Self::Deadline];

    /// The word for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::PendingTimeout => "pending_timeout",
            Self::Deadline => "deadline",
        }
    }
}

/// Free connections of the backends in rotation; none: any number.
type Room<'a> = &'a dyn Fn() -> Option<u64>;

/// The breaker of an upstream. It outlives configurations.
#[derive(Debug)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug)]
struct State {
    policy: BreakerPolicy,
    /// In rotation.
    backends: u32,
    under_way: u32,
    /// Those of them that have no backend yet.
    choosing: u64,
    places: u32,
    ramp: Ramp,
    queue: Queue,
    /// Whose turn has come and who has not taken the place yet.
    called: BTreeSet<Ticket>,
    next: Ticket,
    /// Places given back so far.
    given_back: u64,
    /// Somebody sees to it that time is noticed.
    has_clock: bool,
}

/// What becomes of a request that asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Admitted,
    /// With what had been given back by then.
    Waits(Ticket, u64),
    Shed,
}

impl State {
    fn slope(&self) -> Slope {
        Slope {
            backends: self.backends,
            requests_max: self.policy.requests_max.get(),
            length: self.policy.ramp,
        }
    }

    fn refresh(&mut self, now: Instant) {
        let slope = self.slope();
        self.ramp.settle(&slope, !self.queue.is_empty(), now);
        self.places = self.ramp.places(&slope, now);
    }

    /// Nothing is answered any more.
    fn fall(&mut self) {
        let slope = self.slope();
        self.ramp.fall(&slope);
        if self.ramp == Ramp::Cold {
            self.places = slope.first();
        }
    }

    fn has_place(&self, room: Room<'_>) -> bool {
        self.under_way < self.places && room().is_none_or(|room| room > self.choosing)
    }

    fn take(&mut self) {
        self.under_way += 1;
        self.choosing += 1;
    }

    /// Hands the free places on. Whom to wake, once the lock is let go.
    #[must_use]
    fn call(&mut self, room: Room<'_>) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while !self.queue.is_empty() && self.has_place(room) {
            let Some((ticket, waker)) = self.queue.pop() else {
                break;
            };
            self.called.insert(ticket);
            self.take();
            wakers.extend(waker);
        }
        wakers
    }

    fn give_back(&mut self, is_choosing: bool) {
        self.under_way -= 1;
        self.choosing -= u64::from(is_choosing);
        self.given_back += 1;
    }
}

impl Breaker {
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        Self(Mutex::new(State {
            policy,
            backends: 0,
            under_way: 0,
            choosing: 0,
            places: policy.requests_max.get(),
            ramp: Ramp::default(),
            queue: Queue::default(),
            called: BTreeSet::new(),
            next: 0,
            given_back: 0,
            has_clock: false,
        }))
    }

    /// From now on this holds, for those who wait already, too.
    pub(crate) fn change(&self, policy: BreakerPolicy, room: Room<'_>, now: Instant) {
        self.update(room, |state| {
            state.policy = policy;
            if policy.ramp.is_zero() {
                state.ramp = Ramp::Over;
            }
            state.refresh(now);
        });
    }

    /// So many backends are in rotation now; none is an outage.
    pub(crate) fn rotated(&self, backends: usize, room: Room<'_>) {
        self.update(room, |state| {
            state.backends = u32::try_from(backends).unwrap_or(u32::MAX);
            if backends == 0 || state.ramp == Ramp::Cold {
                state.fall();
            }
        });
    }

    /// A backend has given a good answer.
    pub(crate) fn answered(&self, room: Room<'_>, now: Instant) {
        self.update(room, |state| {
            if state.ramp != Ramp::Over {
                let slope = state.slope();
                state.ramp.rise(&slope, now);
                state.refresh(now);
            }
        });
    }

    /// A backend may have become free.
    pub(crate) fn room_made(&self, room: Room<'_>) {
        self.update(room, |_| {});
    }

    /// Time has passed. When it must be noticed again; none: not any more.
    pub(crate) fn tick(&self, room: Room<'_>, now: Instant) -> Option<Instant> {
        let mut next = None;
        self.update(room, |state| {
            state.refresh(now);
            let slope = state.slope();
            // Who is called below does not wait any more, but a tick in vain does no harm.
            next = state.ramp.next_step(&slope, now).filter(|_| !state.queue.is_empty());
            state.has_clock = next.is_some();
        });
        next
    }

    /// Whether the caller is to see to it that time is noticed: somebody waits for it, and nobody else does.
    pub(crate) fn claims_clock(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        let is_due = !state.queue.is_empty() && state.ramp.next_step(&state.slope(), now).is_some();
        is_due && !std::mem::replace(&mut state.has_clock, true)
    }

    /// Whether who comes now would have to wait.
    pub(crate) fn is_busy(&self, room: Room<'_>) -> bool {
        let state = self.0.lock();
        !state.queue.is_empty() || !state.has_place(room)
    }

    pub(crate) fn view(&self, now: Instant) -> BreakerView {
        let mut state = self.0.lock();
        state.refresh(now);
        let is_full = state.under_way >= state.places || !state.queue.is_empty();
        BreakerView {
            state: match state.ramp {
                Ramp::Cold | Ramp::Rising { .. } => BreakerState::Ramping,
                Ramp::Over if is_full => BreakerState::Limiting,
                Ramp::Over => BreakerState::Closed,
            },
            under_way: state.under_way,
            places: state.places,
            pending: state.queue.len(),
        }
    }

    /// A place for a request of this route, or one in the queue.
    fn ask(&self, route: &str, room: Room<'_>, now: Instant) -> Asked {
        let mut asked = Asked::Shed;
        self.update(room, |state| {
            state.refresh(now);
            if state.queue.is_empty() && state.has_place(room) {
                state.take();
                asked = Asked::Admitted;
            } else if state.queue.len() < state.policy.pending_max as usize {
                let ticket = state.next;
                state.next += 1;
                state.queue.push(route, ticket);
                asked = Asked::Waits(ticket, state.given_back);
            }
        });
        asked
    }

    /// Whether the turn of this one has come: the place is taken then.
    fn poll_turn(&self, route: &str, ticket: Ticket, waker: &Waker) -> Poll<()> {
        let mut state = self.0.lock();
        if state.called.remove(&ticket) {
            return Poll::Ready(());
        }
        state.queue.watch(route, ticket, waker);
        Poll::Pending
    }

    /// This one waits no more, and a place that was handed to it goes to the next.
    fn leave(&self, route: &str, ticket: Ticket, room: Room<'_>) {
        self.update(room, |state| {
            if !state.queue.remove(route, ticket) && state.called.remove(&ticket) {
                state.give_back(true);
            }
        });
    }

    /// One has waited for as long as it may. If no place was given back all that time, the upstream hangs.
    fn waited_in_vain(&self, given_back: u64) {
        let mut state = self.0.lock();
        if state.given_back == given_back {
            state.fall();
        }
    }

    /// The request has a backend: that one's count has it now.
    fn chosen(&self, room: Room<'_>) {
        self.update(room, |state| state.choosing -= 1);
    }

    fn give_back(&self, is_choosing: bool, room: Room<'_>) {
        self.update(room, |state| state.give_back(is_choosing));
    }

    /// Changes something, and hands on the places that are free after it.
    fn update(&self, room: Room<'_>, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        let wakers = state.call(room);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
