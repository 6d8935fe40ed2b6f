//! Who waits, and who is next: the routes take turns, and within a route the first to come is the first to go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;

/// The number of one that waits: higher than those of all that came before.
pub(super) type Ticket = u64;

/// Those who wait, by route. No route without anybody is in it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    routes: HashMap<Box<str>, BTreeMap<Ticket, Option<Waker>>>,
    /// Whose turn is next.
    turns: VecDeque<Box<str>>,
    length: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A route that has nobody waiting yet has its turn after all others.
    pub(super) fn push(&mut self, route: &str, ticket: Ticket) {
        self.length += 1;
        if let Some(waiting) = self.routes.get_mut(route) {
            waiting.insert(ticket, None);
            return;
        }
        self.routes.insert(route.into(), BTreeMap::from([(ticket, None)]));
        self.turns.push_back(route.into());
    }

    /// Whom to wake when it is the turn of this one.
    pub(super) fn watch(&mut self, route: &str, ticket: Ticket, waker: &Waker) {
        if let Some(watcher) = self.routes.get_mut(route).and_then(|waiting| waiting.get_mut(&ticket)) {
            *watcher = Some(waker.clone());
        }
    }

    /// The next, and whom to wake for it.
    pub(super) fn pop(&mut self) -> Option<(Ticket, Option<Waker>)> {
        let route = self.turns.pop_front()?;
        let waiting = self.routes.get_mut(&route)?;
        let next = waiting.pop_first();
        if waiting.is_empty() {
            self.routes.remove(&route);
        } else {
            self.turns.push_back(route);
        }
        self.length -= usize::from(next.is_some());
        next
    }

    /// This one waits no more. False if it did not.
    pub(super) fn remove(&mut self, route: &str, ticket: Ticket) -> bool {
        let Some(waiting) = self.routes.get_mut(route) else {
            return false;
        };
        if waiting.remove(&ticket).is_none() {
            return false;
        }
        if waiting.is_empty() {
            self.routes.remove(route);
            self.turns.retain(|other| **other != *route);
        }
        self.length -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(queue: &mut Queue) -> Vec<Ticket> {
        std::iter::from_fn(|| queue.pop().map(|(ticket, _)| ticket)).collect()
    }

    #[test]
    fn routes_take_turns_and_each_serves_the_first_first() {
        let mut queue = Queue::default();
        for ticket in 0..6 {
            queue.push("busy", ticket);
        }
        queue.push("quiet", 6);
        queue.push("third", 7);
        queue.push("quiet", 8);
        assert_eq!(queue.len(), 9);
        assert_eq!(drained(&mut queue), [0, 6, 7, 1, 8, 2, 3, 4, 5]);
        assert!(queue.is_empty() && queue.turns.is_empty() && queue.routes.is_empty());
    }

    #[test]
    fn who_comes_back_does_not_get_a_turn_before_its_time() {
        let mut queue = Queue::default();
        queue.push("a", 0);
        queue.push("b", 1);
        queue.push("b", 2);
        assert_eq!(queue.pop().unwrap().0, 0);
        queue.push("a", 3);
        assert_eq!(drained(&mut queue), [1, 3, 2]);
    }

    #[test]
    fn who_leaves_leaves_nothing_behind() {
        let mut queue = Queue::default();
        for (route, ticket) in [("a", 0), ("a", 1), ("b", 2), ("a", 3)] {
            queue.push(route, ticket);
        }
        assert!(queue.remove("a", 1) && queue.remove("b", 2));
        assert!(!queue.remove("a", 1) && !queue.remove("b", 2) && !queue.remove("c", 0));
        assert_eq!(queue.len(), 2);
        queue.watch("a", 1, Waker::noop());
        assert_eq!(queue.len(), 2, "who has left is not brought back");
        assert_eq!(drained(&mut queue), [0, 3]);
        assert!(queue.turns.is_empty() && queue.routes.is_empty());
    }
}
