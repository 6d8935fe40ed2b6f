//! SIEVE: which copy of a shard to give up (Zhang et al., NSDI 2024).
//!
//! New ones join at the young end. A hand walks from the old end to the young one; what was used since it last
//! passed is spared and loses its mark, the first that was not goes. A scan through many pages used once passes
//! through without pushing out what is in use, and a hit only sets a bit.

use std::sync::Arc;

use pingora_cache::key::HashBinary;

use super::object::Object;

/// Where an object is in the queue.
pub(super) type Place = usize;

/// A doubly linked list over a vector: places are stable, freed ones are used again.
#[derive(Default)]
pub(super) struct Sieve {
    nodes: Vec<Node>,
    free: Vec<Place>,
    youngest: Option<Place>,
    oldest: Option<Place>,
    hand: Option<Place>,
    len: usize,
}

struct Node {
    /// None in a free place.
    entry: Option<Entry>,
    younger: Option<Place>,
    older: Option<Place>,
}

/// What is in the queue: an object, and where its shard files it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) bin: HashBinary,
    pub(super) object: Arc<Object>,
}

impl Sieve {
    pub(super) fn push(&mut self, entry: Entry) -> Place {
        let node = Node { entry: Some(entry), younger: None, older: self.youngest };
        let place = self.free.pop().unwrap_or(self.nodes.len());
        match self.nodes.get_mut(place) {
            Some(free) => *free = node,
            None => self.nodes.push(node),
        }
        match self.youngest.and_then(|youngest| self.nodes.get_mut(youngest)) {
            Some(youngest) => youngest.younger = Some(place),
            None => self.oldest = Some(place),
        }
        self.youngest = Some(place);
        self.len += 1;
        place
    }

    /// Exchanges the object at a place; the queue's order stays.
    pub(super) fn replace(&mut self, place: Place, object: Arc<Object>) {
        if let Some(entry) = self.nodes.get_mut(place).and_then(|node| node.entry.as_mut()) {
            entry.object = object;
        }
    }

    pub(super) fn remove(&mut self, place: Place) {
        let Some(node) = self.nodes.get_mut(place).filter(|node| node.entry.is_some()) else {
            return;
        };
        node.entry = None;
        let (younger, older) = (node.younger, node.older);
        match younger.and_then(|place| self.nodes.get_mut(place)) {
            Some(node) => node.older = older,
            None => self.youngest = older,
        }
        match older.and_then(|place| self.nodes.get_mut(place)) {
            Some(node) => node.younger = younger,
            None => self.oldest = younger,
        }
        if self.hand == Some(place) {
            self.hand = younger;
        }
        self.free.push(place);
        self.len -= 1;
    }

    /// The one to give up next; it stays in the queue until it is removed. None if all were used: each has now lost
    /// its mark, and a small shard does not pay with its best copy for what others keep idle.
    pub(super) fn victim(&mut self) -> Option<Entry> {
        for _ in 0..self.len {
            let place = self.hand.or(self.oldest)?;
            let node = self.nodes.get(place)?;
            let entry = node.entry.as_ref()?;
            if !entry.object.take_visit() {
                self.hand = Some(place);
                return Some(entry.clone());
            }
            self.hand = node.younger;
        }
        None
    }

    /// The one at the hand, used or not.
    pub(super) fn last_resort(&self) -> Option<Entry> {
        self.nodes.get(self.hand.or(self.oldest)?)?.entry.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::object::Body;
    use crate::tests::{fallback, now, request, response};
    use crate::{Admission, admit};

    fn object() -> Arc<Object> {
        match admit(&fallback(), &request(&[]), &response(200, &[]), now()) {
            Admission::KeepLastGood(meta) => Arc::new(Object::new(meta, 1, Body::default(), 1)),
            other @ (Admission::Store(_) | Admission::Refuse(_)) => panic!("{other:?}"),
        }
    }

    fn filled(count: u8) -> (Sieve, Vec<(Place, Arc<Object>)>) {
        let mut sieve = Sieve::default();
        let entries = (0..count)
            .map(|at| {
                let object = object();
                (sieve.push(Entry { bin: [at; 16], object: object.clone() }), object)
            })
            .collect();
        (sieve, entries)
    }

    /// Takes all out, in the order in which they would be given up.
    fn drain(sieve: &mut Sieve, entries: &[(Place, Arc<Object>)]) -> Vec<u8> {
        let mut order = Vec::new();
        while let Some(victim) = sieve.victim() {
            let at = victim.bin[0];
            sieve.remove(entries[usize::from(at)].0);
            order.push(at);
        }
        order
    }

    #[test]
    fn the_oldest_goes_first_and_the_used_are_spared_once() {
        let (mut sieve, entries) = filled(5);
        entries[0].1.visit();
        entries[2].1.visit();
        assert_eq!(drain(&mut sieve, &entries), [1, 3, 4, 0, 2]);
        assert!(sieve.victim().is_none());
    }

    #[test]
    fn when_all_are_used_none_goes_before_the_next_round() {
        let (mut sieve, entries) = filled(3);
        for (_, object) in &entries {
            object.visit();
        }
        assert!(sieve.victim().is_none());
        assert_eq!(sieve.last_resort().map(|entry| entry.bin[0]), Some(0));
        assert_eq!(drain(&mut sieve, &entries), [0, 1, 2]);
        assert!(sieve.last_resort().is_none());
    }

    #[test]
    fn removing_from_any_place_keeps_the_order_and_frees_the_place() {
        let (mut sieve, mut entries) = filled(5);
        for at in [0, 4, 2, 2] {
            sieve.remove(entries[at].0);
        }
        entries[4] = (sieve.push(Entry { bin: [4; 16], object: object() }), object());
        assert_eq!(sieve.nodes.len(), 5);
        assert_eq!(drain(&mut sieve, &entries), [1, 3, 4]);
        assert_eq!(sieve.len, 0);
    }
}
