//! What a route counts while it runs, by its name: the route of the next configuration goes on with it.
//!
//! The table holds weak references. A state lives as long as a snapshot or a mirrored request uses it, so a mirror that
//! leaves the configuration and comes back finds its requests in flight, and names that are gone take no memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The running state of one route.
#[derive(Debug, Default)]
pub(crate) struct RouteState {
    /// Requests that a split without a hash has distributed.
    pub(crate) split_requests: AtomicU64,
    /// Requests that a mirror has looked at.
    pub(crate) mirror_requests: AtomicU64,
    pub(crate) mirrored_in_flight: AtomicUsize,
}

/// The states of all routes.
#[derive(Debug, Default)]
pub(crate) struct RouteStates(Mutex<HashMap<String, Weak<RouteState>>>);

impl RouteStates {
    /// The state of a route, new unless something still uses one of this name.
    pub(crate) fn of(&self, route: &str) -> Arc<RouteState> {
        let mut all = self.0.lock();
        if let Some(known) = all.get(route).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, state| state.strong_count() > 0);
        let state = Arc::default();
        all.insert(route.to_owned(), Arc::downgrade(&state));
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_lives_as_long_as_something_uses_it() {
        let states = RouteStates::default();
        let first = states.of("shop");
        assert!(Arc::ptr_eq(&first, &states.of("shop")));
        drop(first);
        drop(states.of("other"));
        states.of("third");
        assert_eq!(states.0.lock().len(), 1);
    }
}
