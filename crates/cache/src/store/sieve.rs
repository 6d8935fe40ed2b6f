//! Which copy of a shard to give up: a queue of newcomers and a queue of proven copies.
//!
//! What has been asked for once waits among the newcomers and goes in the order in which it came. What has been asked
//! for again is proven, and newcomers cannot push it out of its share of the space (`last_good_share`): a crawl through
//! pages that nobody asks for twice passes through the rest. Beyond that share the proven ones pay for themselves, by
//! SIEVE (Zhang et al., NSDI 2024): a hand walks from the old end to the young one; what was used since it last passed
//! is spared and loses its mark, the first that was not goes. A hit only sets a bit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pingora_cache::key::HashBinary;

use super::object::Object;
use crate::StoreSpec;

/// Where an object is.
pub(super) type Place = u32;

/// Two doubly linked lists over a vector: places are stable, freed ones are used again.
pub(super) struct Sieve {
    nodes: Vec<Node>,
    free: Vec<Place>,
    newcomers: Queue,
    proven: Queue,
    share: Arc<Share>,
}

#[derive(Default)]
struct Queue {
    youngest: Option<Place>,
    oldest: Option<Place>,
    /// Of the proven alone.
    hand: Option<Place>,
    len: usize,
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

/// The share of the space that the proven hold, all shards together: a shard may have room for one copy.
#[derive(Debug)]
pub(super) struct Share {
    limit: AtomicU64,
    proven: AtomicU64,
}

impl Share {
    pub(super) fn new(spec: &StoreSpec) -> Self {
        let share = Self { limit: AtomicU64::new(0), proven: AtomicU64::new(0) };
        share.set(spec);
        share
    }

    pub(super) fn set(&self, spec: &StoreSpec) {
        let limit = spec.memory_bytes / 100 * u64::from(spec.last_good_percent);
        self.limit.store(limit, Ordering::Relaxed);
    }

    fn is_exceeded(&self) -> bool {
        self.proven.load(Ordering::Relaxed) > self.limit.load(Ordering::Relaxed)
    }
}

/// What is in a queue: an object, and where its shard files it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) bin: HashBinary,
    pub(super) object: Arc<Object>,
}

impl Sieve {
    pub(super) fn new(share: Arc<Share>) -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            newcomers: Queue::default(),
            proven: Queue::default(),
            share,
        }
    }

    pub(super) fn push(&mut self, entry: Entry, rank: Rank) -> Place {
        let node = Node { entry: Some(entry), younger: None, older: None, rank };
        let free = self.free.pop();
        let place = free.unwrap_or_else(|| u32::try_from(self.nodes.len()).unwrap_or(Place::MAX));
        if let Some(free) = self.node_mut(place) {
            *free = node;
        } else {
            if self.nodes.len() == self.nodes.capacity() {
                // By an eighth and not by all: there may be millions.
                self.nodes.reserve_exact(self.nodes.len() / 8 + 16);
            }
            self.nodes.push(node);
        }
        self.link(place, rank);
        place
    }

    /// Exchanges the object at a place; the queue's order stays.
    pub(super) fn replace(&mut self, place: Place, object: Arc<Object>) {
        let weight = object.weight();
        let Some(node) = self.node_mut(place) else { return };
        let (rank, Some(entry)) = (node.rank, node.entry.as_mut()) else { return };
        let former = std::mem::replace(&mut entry.object, object).weight();
        self.weigh(rank, weight, former);
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.unlink(place);
        if let Some(node) = self.node_mut(place)
            && node.entry.take().is_some()
        {
            self.free.push(place);
        }
    }

    /// The one to give up next; it stays where it is until it is removed. None if all were used, or hold their share:
    /// a small shard does not pay with its best copy for what others keep idle.
    pub(super) fn victim(&mut self) -> Option<Entry> {
        let proven = self.proven.len;
        let idle = self.idle_newcomer();
        // Those who have become proven just now were in use.
        let do_proven_pay = self.proven.len == proven && self.share.is_exceeded();
        idle.or_else(|| if do_proven_pay { self.idle_proven() } else { None })
    }

    /// The next one, used or not.
    pub(super) fn last_resort(&self) -> Option<Entry> {
        let place = self.newcomers.oldest.or(self.proven.hand).or(self.proven.oldest)?;
        self.node(place)?.entry.clone()
    }

    /// The oldest newcomer that was not asked for again, unless the proven have more than their share. Those who were
    /// asked for become proven.
    fn idle_newcomer(&mut self) -> Option<Entry> {
        while !self.share.is_exceeded() {
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

    /// In which queue the one at a place is.
    pub(super) fn rank(&self, place: Place) -> Option<Rank> {
        self.node(place).map(|node| node.rank)
    }

    fn link(&mut self, place: Place, rank: Rank) {
        let older = self.queue_mut(rank).youngest.replace(place);
        let mut weight = 0;
        if let Some(node) = self.node_mut(place) {
            (node.older, node.younger, node.rank) = (older, None, rank);
            weight = node.entry.as_ref().map_or(0, |entry| entry.object.weight());
        }
        match older.and_then(|older| self.node_mut(older)) {
            Some(older) => older.younger = Some(place),
            None => self.queue_mut(rank).oldest = Some(place),
        }
        self.queue_mut(rank).len += 1;
        self.weigh(rank, weight, 0);
    }

    fn unlink(&mut self, place: Place) {
        let Some(node) = self.node(place) else { return };
        let Some(entry) = &node.entry else { return };
        let (younger, older, rank, weight) = (node.younger, node.older, node.rank, entry.object.weight());
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
        self.weigh(rank, 0, weight);
    }

    fn weigh(&self, rank: Rank, more: u64, less: u64) {
        if rank == Rank::Proven {
            self.share.proven.fetch_add(more.wrapping_sub(less), Ordering::Relaxed);
        }
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

    /// Half of so many.
    fn sieve(copies: u64) -> Sieve {
        let spec = StoreSpec {
            name: "main".to_owned(),
            memory_bytes: copies * 100,
            object_bytes_max: 1,
            last_good_percent: 50,
            disk: None,
        };
        let share = Share::new(&spec);
        share.limit.store(copies / 2, Ordering::Relaxed);
        Sieve::new(Arc::new(share))
    }

    fn proven(sieve: &Sieve) -> u64 {
        sieve.share.proven.load(Ordering::Relaxed)
    }

    fn object() -> Arc<Object> {
        match admit(&fallback(), &request(&[]), &response(200, &[]), now()) {
            Admission::KeepLastGood(meta) => Arc::new(Object::new(Kept::of(&meta), 1, Body::default(), 1)),
            other @ (Admission::Store(_) | Admission::Refuse(_)) => panic!("{other:?}"),
        }
    }

    fn filled(count: u8) -> (Sieve, Vec<(Place, Arc<Object>)>) {
        let mut sieve = sieve(u64::from(count));
        let entries = (0..count)
            .map(|at| {
                let object = object();
                (sieve.push(Entry { bin: [at; 16], object: object.clone() }, Rank::Newcomer), object)
            })
            .collect();
        (sieve, entries)
    }

    /// As a store asks: twice for one that may go, then for any.
    fn next(sieve: &mut Sieve) -> Option<Entry> {
        sieve.victim().or_else(|| sieve.victim()).or_else(|| sieve.last_resort())
    }

    /// Takes all out, in the order in which they would be given up.
    fn drain(sieve: &mut Sieve, entries: &[(Place, Arc<Object>)]) -> Vec<u8> {
        let mut order = Vec::new();
        while let Some(victim) = next(sieve) {
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
        assert_eq!((sieve.newcomers.len, sieve.proven.len, proven(&sieve)), (0, 0, 0));
    }

    #[test]
    fn newcomers_do_not_push_out_what_was_asked_for_again() {
        let (mut sieve, entries) = filled(10);
        for (_, object) in entries.iter().take(5) {
            object.visit();
        }
        for at in 10..210 {
            sieve.push(Entry { bin: [at; 16], object: object() }, Rank::Newcomer);
            let victim = sieve.victim().or_else(|| sieve.victim()).unwrap();
            assert!(victim.bin[0] >= 5, "{}", victim.bin[0]);
            let place = sieve.newcomers.oldest.unwrap();
            assert_eq!(sieve.node(place).unwrap().entry.as_ref().unwrap().bin, victim.bin);
            sieve.remove(place);
        }
        assert_eq!((sieve.proven.len, proven(&sieve), sieve.newcomers.len), (5, 5, 5));
    }

    #[test]
    fn beyond_their_share_the_proven_pay_for_themselves() {
        let mut sieve = sieve(8);
        for at in 0..8 {
            let rank = if at < 6 { Rank::Proven } else { Rank::Newcomer };
            sieve.push(Entry { bin: [at; 16], object: object() }, rank);
        }
        let mut order = Vec::new();
        while let Some(victim) = next(&mut sieve) {
            order.push(victim.bin[0]);
            sieve.remove(u32::from(victim.bin[0]));
        }
        assert_eq!(order, [0, 1, 6, 7, 2, 3, 4, 5]);
    }

    #[test]
    fn an_exchange_keeps_the_sums() {
        let mut sieve = sieve(8);
        let places = [0, 1].map(|at| sieve.push(Entry { bin: [at; 16], object: object() }, Rank::Proven));
        let heavier = Object::new(object().kept.clone(), 2, Body::default(), 7);
        sieve.replace(places[0], Arc::new(heavier));
        assert_eq!(proven(&sieve), 8);
        sieve.remove(places[0]);
        sieve.remove(places[0]);
        assert_eq!((proven(&sieve), sieve.proven.len), (1, 1));
    }
}
