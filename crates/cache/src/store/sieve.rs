//! Which copy of a shard to give up: a queue of newcomers and a queue of proven copies.
//!
//! What has been asked for once waits among the newcomers and goes in the order in which it came. What has been asked
//! for again is proven, and newcomers cannot push it out of its share of the space (`last_good_share`): a crawl through
//! pages that nobody asks for twice passes through the rest. Beyond that share the proven ones pay for themselves, by
//! SIEVE (Zhang et al., NSDI 2024): a hand walks from the old end to the young one; what was used since it last passed
//! is spared and loses its mark, the first that was not goes. A hit only sets a bit.

use std::sync::Arc;

use pingora_cache::key::HashBinary;

use super::object::Object;

/// Where an object is.
pub(super) type Place = u32;

/// Two doubly linked lists over a vector: places are stable, freed ones are used again.
#[derive(Default)]
pub(super) struct Sieve {
    nodes: Vec<Node>,
    free: Vec<Place>,
    newcomers: Queue,
    proven: Queue,
}

#[derive(Default)]
struct Queue {
    youngest: Option<Place>,
    oldest: Option<Place>,
    /// Of the proven alone.
    hand: Option<Place>,
    len: usize,
    bytes: u64,
}

struct Node {
    /// None in a free place.
    entry: Option<Entry>,
    younger: Option<Place>,
    older: Option<Place>,
    rank: Rank,
}

/// In which queue a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Asked for once.
    Newcomer,
    /// Asked for again.
    Proven,
}

/// The share of the space that the proven hold, in percent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share(pub(super) u8);

impl Share {
    fn is_exceeded(self, proven: u64, newcomers: u64) -> bool {
        let all = u128::from(proven) + u128::from(newcomers);
        u128::from(proven) * 100 > all * u128::from(self.0)
    }
}

/// What is in a queue: an object, and where its shard files it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) bin: HashBinary,
    pub(super) object: Arc<Object>,
}

impl Sieve {
    pub(super) fn push(&mut self, entry: Entry, rank: Rank) -> Place {
        let node = Node { entry: Some(entry), younger: None, older: None, rank };
        let free = self.free.pop();
        let place = free.unwrap_or_else(|| u32::try_from(self.nodes.len()).unwrap_or(Place::MAX));
        match self.node_mut(place) {
            Some(free) => *free = node,
            None => self.nodes.push(node),
        }
        self.link(place, rank);
        place
    }

    /// Exchanges the object at a place; the queue's order stays.
    pub(super) fn replace(&mut self, place: Place, object: Arc<Object>) {
        let weight = object.weight;
        let Some(node) = self.node_mut(place) else { return };
        let (rank, Some(entry)) = (node.rank, node.entry.as_mut()) else { return };
        let former = std::mem::replace(&mut entry.object, object).weight;
        let queue = self.queue_mut(rank);
        queue.bytes = queue.bytes + weight - former;
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.unlink(place);
        if let Some(node) = self.node_mut(place)
            && node.entry.take().is_some()
        {
            self.free.push(place);
        }
    }

    /// The one to give up next; it stays where it is until it is removed. None if all were used: each has now lost
    /// its mark, and a small shard does not pay with its best copy for what others keep idle.
    pub(super) fn victim(&mut self, share: Share) -> Option<Entry> {
        let proven = self.proven.len;
        let idle = self.idle_newcomer(share);
        // Those who have become proven just now were in use.
        let is_unchanged = self.proven.len == proven;
        idle.or_else(|| if is_unchanged { self.idle_proven() } else { None })
    }

    /// The next one, used or not.
    pub(super) fn last_resort(&self) -> Option<Entry> {
        let place = self.newcomers.oldest.or(self.proven.hand).or(self.proven.oldest)?;
        self.node(place)?.entry.clone()
    }

    /// The oldest newcomer that was not asked for again, unless the proven have more than their share. Those who were
    /// asked for become proven.
    fn idle_newcomer(&mut self, share: Share) -> Option<Entry> {
        while !share.is_exceeded(self.proven.bytes, self.newcomers.bytes) {
            let place = self.newcomers.oldest?;
            let entry = self.node(place)?.entry.as_ref()?;
            if !entry.object.take_visit() {
                return Some(entry.clone());
            }
            self.unlink(place);
            self.link(place, Rank::Proven);
        }
        None
    }

    fn idle_proven(&mut self) -> Option<Entry> {
        for _ in 0..self.proven.len {
            let place = self.proven.hand.or(self.proven.oldest)?;
            let node = self.node(place)?;
            let entry = node.entry.as_ref()?;
            if !entry.object.take_visit() {
                let entry = entry.clone();
                self.proven.hand = Some(place);
                return Some(entry);
            }
            self.proven.hand = node.younger;
        }
        None
    }

    fn link(&mut self, place: Place, rank: Rank) {
        let older = self.queue_mut(rank).youngest.replace(place);
        let mut weight = 0;
        if let Some(node) = self.node_mut(place) {
            (node.older, node.younger, node.rank) = (older, None, rank);
            weight = node.entry.as_ref().map_or(0, |entry| entry.object.weight);
        }
        match older.and_then(|older| self.node_mut(older)) {
            Some(older) => older.younger = Some(place),
            None => self.queue_mut(rank).oldest = Some(place),
        }
        let queue = self.queue_mut(rank);
        queue.len += 1;
        queue.bytes += weight;
    }

    fn unlink(&mut self, place: Place) {
        let Some(node) = self.node(place) else { return };
        let Some(entry) = &node.entry else { return };
        let (younger, older, rank, weight) = (node.younger, node.older, node.rank, entry.object.weight);
        match younger.and_then(|place| self.node_mut(place)) {
            Some(node) => node.older = older,
            None => self.queue_mut(rank).youngest = older,
        }
        match older.and_then(|place| self.node_mut(place)) {
            Some(node) => node.younger = younger,
            None => self.queue_mut(rank).oldest = younger,
        }
        let queue = self.queue_mut(rank);
        if queue.hand == Some(place) {
            queue.hand = younger;
        }
        queue.len -= 1;
        queue.bytes -= weight;
    }

    fn queue_mut(&mut self, rank: Rank) -> &mut Queue {
        match rank {
            Rank::Newcomer => &mut self.newcomers,
            Rank::Proven => &mut self.proven,
        }
    }

    fn node(&self, place: Place) -> Option<&Node> {
        self.nodes.get(usize::try_from(place).ok()?)
    }

    fn node_mut(&mut self, place: Place) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::Kept;
    use crate::store::body::Body;
    use crate::tests::{fallback, now, request, response};
    use crate::{Admission, admit};

    const HALF: Share = Share(50);

    fn object() -> Arc<Object> {
        match admit(&fallback(), &request(&[]), &response(200, &[]), now()) {
            Admission::KeepLastGood(meta) => Arc::new(Object::new(Kept::of(&meta), 1, Body::default(), 1)),
            other @ (Admission::Store(_) | Admission::Refuse(_)) => panic!("{other:?}"),
        }
    }

    fn filled(count: u8) -> (Sieve, Vec<(Place, Arc<Object>)>) {
        let mut sieve = Sieve::default();
        let entries = (0..count)
            .map(|at| {
                let object = object();
                (sieve.push(Entry { bin: [at; 16], object: object.clone() }, Rank::Newcomer), object)
            })
            .collect();
        (sieve, entries)
    }

    /// Takes all out, in the order in which they would be given up.
    fn drain(sieve: &mut Sieve, entries: &[(Place, Arc<Object>)]) -> Vec<u8> {
        let mut order = Vec::new();
        while let Some(victim) = sieve.victim(HALF).or_else(|| sieve.victim(HALF)) {
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
        assert_eq!(drain(&mut sieve, &entries), [1, 3, 0, 4, 2]);
        assert!(sieve.victim(HALF).is_none());
    }

    #[test]
    fn when_all_are_used_none_goes_before_the_next_round() {
        let (mut sieve, entries) = filled(3);
        for (_, object) in &entries {
            object.visit();
        }
        assert!(sieve.victim(HALF).is_none());
        assert_eq!(sieve.last_resort().map(|entry| entry.bin[0]), Some(2));
        assert_eq!(drain(&mut sieve, &entries), [0, 1, 2]);
        assert!(sieve.last_resort().is_none());
    }

    #[test]
    fn removing_from_any_place_keeps_the_order_and_frees_the_place() {
        let (mut sieve, mut entries) = filled(5);
        for at in [0, 4, 2, 2] {
            sieve.remove(entries[at].0);
        }
        entries[4] = (sieve.push(Entry { bin: [4; 16], object: object() }, Rank::Newcomer), object());
        assert_eq!(sieve.nodes.len(), 5);
        assert_eq!(drain(&mut sieve, &entries), [1, 3, 4]);
        assert_eq!((sieve.newcomers.len, sieve.newcomers.bytes, sieve.proven.len), (0, 0, 0));
    }

    #[test]
    fn newcomers_do_not_push_out_what_was_asked_for_again() {
        let (mut sieve, entries) = filled(10);
        for (_, object) in entries.iter().take(5) {
            object.visit();
        }
        for at in 10..210 {
            sieve.push(Entry { bin: [at; 16], object: object() }, Rank::Newcomer);
            let victim = sieve.victim(HALF).or_else(|| sieve.victim(HALF)).unwrap();
            assert!(victim.bin[0] >= 5, "{}", victim.bin[0]);
            let place = sieve.newcomers.oldest.unwrap();
            assert_eq!(sieve.node(place).unwrap().entry.as_ref().unwrap().bin, victim.bin);
            sieve.remove(place);
        }
        assert_eq!((sieve.proven.len, sieve.proven.bytes, sieve.newcomers.len), (5, 5, 5));
    }

    #[test]
    fn beyond_their_share_the_proven_pay_for_themselves() {
        let mut sieve = Sieve::default();
        for at in 0..8 {
            let rank = if at < 6 { Rank::Proven } else { Rank::Newcomer };
            sieve.push(Entry { bin: [at; 16], object: object() }, rank);
        }
        let mut order = Vec::new();
        while let Some(victim) = sieve.victim(HALF) {
            order.push(victim.bin[0]);
            sieve.remove(u32::from(victim.bin[0]));
        }
        assert_eq!(order, [0, 1, 2, 3, 6, 4, 7, 5]);
    }

    #[test]
    fn an_exchange_keeps_the_sums() {
        let (mut sieve, entries) = filled(2);
        let heavier = Object::new(Kept::clone(&entries[0].1.kept), 2, Body::default(), 7);
        sieve.replace(entries[0].0, Arc::new(heavier));
        assert_eq!(sieve.newcomers.bytes, 8);
        sieve.remove(entries[0].0);
        sieve.remove(entries[0].0);
        assert_eq!((sieve.newcomers.bytes, sieve.newcomers.len), (1, 1));
    }
}
