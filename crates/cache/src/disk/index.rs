//! Where each copy is: the only part of the disk tier that is in memory, so every byte counts.
//!
//! A family holds the copies under one key; all of them vary by the same fields, so that any one says how to find
//! the others. The disk thread writes the index, workers read it. A purge takes effect here at once: its number is
//! kept until the thread has come to it, so that a copy that was queued before cannot slip in behind it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

use super::key::KeyHash;
use super::terms::Terms;
use crate::Standing;

const SHARDS: usize = 64;
/// Variants of one family, as in memory.
const VARIANTS_MAX: usize = 65;

/// Where a copy is, and what is worth knowing of it before it is read.
#[derive(Debug)]
pub(super) struct Slot {
    /// The number of its record.
    pub(super) seq: u64,
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
    /// When it was stored or confirmed, in seconds since 1970.
    pub(super) stored: u32,
    /// Since when it is stale by a purge; zero if it is not.
    pub(super) expired: u32,
    pub(super) vary: u32,
    pub(super) variance: u32,
    pub(super) terms: Terms,
    pub(super) marks: Marks,
}

/// How a copy was used, in one byte.
#[derive(Debug, Default)]
pub(super) struct Marks(AtomicU8);

impl Marks {
    const USED: u8 = 1;
    const PROVEN: u8 = 2;

    pub(super) fn of_new(is_proven: bool) -> Self {
        Self(AtomicU8::new(if is_proven { Self::PROVEN } else { 0 }))
    }

    /// It was read since it was written.
    pub(super) fn is_used(&self) -> bool {
        self.get() & Self::USED != 0
    }

    /// It was asked for again, since it was written or before.
    pub(super) fn is_proven(&self) -> bool {
        self.get() & Self::PROVEN != 0
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets a mark; says whether it was not there.
    fn set(&self, mark: u8) -> bool {
        self.0.fetch_or(mark, Ordering::Relaxed) & mark == 0
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        Self { marks: Marks(AtomicU8::new(self.marks.get())), ..*self }
    }
}

impl Slot {
    /// Until when it is fresh, in seconds since 1970.
    pub(super) fn fresh_until(&self) -> u32 {
        let until = self.stored.saturating_add(self.terms.fresh_for);
        if self.expired == 0 { until } else { until.min(self.expired) }
    }

    /// By what the copy is judged. Its age is not known without reading it.
    pub(super) fn standing(&self) -> Standing {
        let time = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
        let stored = time(self.stored);
        Standing { info: self.terms.info(stored), fresh_until: time(self.fresh_until()), epoch: stored }
    }

    fn replaces(&self, other: &Self) -> bool {
        self.vary != other.vary || self.variance == other.variance
    }
}

#[derive(Debug)]
enum Family {
    One(Slot),
    /// The youngest last.
    Many(Vec<Slot>),
}

impl Family {
    fn slots(&self) -> &[Slot] {
        match self {
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    fn slots_mut(&mut self) -> &mut [Slot] {
        match self {
            Self::One(slot) => std::slice::from_mut(slot),
            Self::Many(slots) => slots,
        }
    }

    fn into_slots(self) -> Vec<Slot> {
        match self {
            Self::One(slot) => vec![slot],
            Self::Many(slots) => slots,
        }
    }

    fn of(mut slots: Vec<Slot>) -> Option<Self> {
        if slots.len() > 1 { Some(Self::Many(slots)) } else { slots.pop().map(Self::One) }
    }
}

#[derive(Debug, Default)]
struct Shard {
    families: HashMap<KeyHash, Family, ahash::RandomState>,
    /// What was purged, with the purge's number, until the journal has it.
    purged: HashMap<KeyHash, u64, ahash::RandomState>,
}

/// The index of one directory.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[RwLock<Shard>]>,
    objects: AtomicU64,
    /// Bytes of all records, and of those that are proven.
    bytes: AtomicU64,
    proven: AtomicU64,
}

impl Index {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, objects: AtomicU64::new(0), bytes: AtomicU64::new(0), proven: AtomicU64::new(0) }
    }

    pub(super) fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    /// Whether the records that were asked for again take more than this share, in percent.
    pub(super) fn is_share_exceeded(&self, percent: u8) -> bool {
        let bytes = |sum: &AtomicU64| u128::from(sum.load(Ordering::Relaxed));
        bytes(&self.proven) * 100 > bytes(&self.bytes) * u128::from(percent)
    }

    /// The youngest copy of a family.
    pub(super) fn youngest(&self, key: KeyHash) -> Option<Slot> {
        self.shard(key).read().families.get(&key)?.slots().last().cloned()
    }

    /// The copy of a family that was the answer to such a request.
    pub(super) fn variant(&self, key: KeyHash, variance: u32) -> Option<Slot> {
        let shard = self.shard(key).read();
        shard.families.get(&key)?.slots().iter().find(|slot| slot.variance == variance).cloned()
    }

    /// The variances of a family's copies, the youngest first.
    pub(super) fn variances(&self, key: KeyHash, most: usize) -> Vec<u32> {
        let shard = self.shard(key).read();
        let slots = shard.families.get(&key).map(Family::slots).unwrap_or_default();
        slots.iter().rev().take(most).map(|slot| slot.variance).collect()
    }

    /// Where this record is.
    pub(super) fn of_record(&self, key: KeyHash, seq: u64) -> Option<Slot> {
        let shard = self.shard(key).read();
        shard.families.get(&key)?.slots().iter().find(|slot| slot.seq == seq).cloned()
    }

    /// The record has another place now; false if it is known no more.
    pub(super) fn relocate(&self, key: KeyHash, seq: u64, segment: u64, offset: u32) -> bool {
        let mut shard = self.shard(key).write();
        let slots = shard.families.get_mut(&key).map(Family::slots_mut).unwrap_or_default();
        let Some(slot) = slots.iter_mut().find(|slot| slot.seq == seq) else {
            return false;
        };
        slot.segment = u32::try_from(segment).unwrap_or(u32::MAX);
        slot.offset = offset;
        slot.marks = Marks::of_new(slot.marks.is_proven());
        true
    }

    /// Whether the index still knows this record.
    pub(super) fn has(&self, key: KeyHash, seq: u64) -> bool {
        let shard = self.shard(key).read();
        shard.families.get(&key).is_some_and(|family| family.slots().iter().any(|slot| slot.seq == seq))
    }

    /// Notes that a record was read.
    pub(super) fn used(&self, key: KeyHash, seq: u64) {
        let shard = self.shard(key).read();
        let slots = shard.families.get(&key).map(Family::slots).unwrap_or_default();
        for slot in slots.iter().filter(|slot| slot.seq == seq) {
            slot.marks.set(Marks::USED);
            self.prove(slot);
        }
    }

    /// Notes that the copies of a family were asked for again, though not here.
    pub(super) fn proven(&self, key: KeyHash) {
        let shard = self.shard(key).read();
        shard
            .families
            .get(&key)
            .map(Family::slots)
            .unwrap_or_default()
            .iter()
            .for_each(|slot| self.prove(slot));
    }

    fn prove(&self, slot: &Slot) {
        if slot.marks.set(Marks::PROVEN) {
            self.proven.fetch_add(u64::from(slot.len), Ordering::Relaxed);
        }
    }

    fn weigh(&self, slot: &Slot, weigh: impl Fn(&AtomicU64, u64)) {
        weigh(&self.bytes, u64::from(slot.len));
        if slot.marks.is_proven() {
            weigh(&self.proven, u64::from(slot.len));
        }
    }

    /// Files a slot and returns the numbers of those it displaces; itself if it was purged meanwhile.
    pub(super) fn insert(&self, key: KeyHash, slot: Slot) -> Vec<u64> {
        let mut shard = self.shard(key).write();
        if shard.purged.get(&key).is_some_and(|purge| *purge > slot.seq) {
            return vec![slot.seq];
        }
        let former = shard.families.remove(&key).map(Family::into_slots).unwrap_or_default();
        let before = former.len();
        let (displaced, mut kept): (Vec<_>, Vec<_>) =
            former.into_iter().partition(|other| slot.replaces(other));
        let mut displaced = displaced;
        // Whoever wanted the copy that this one replaces has wanted it twice.
        let is_again = |other: &Slot| other.vary == slot.vary && other.seq != slot.seq;
        if displaced.iter().any(is_again) {
            slot.marks.set(Marks::PROVEN);
        }
        if kept.len() >= VARIANTS_MAX {
            displaced.push(kept.remove(0));
        }
        let displaced = self.out(&displaced);
        self.weigh(&slot, add);
        kept.push(slot);
        self.count(before, kept.len());
        if let Some(family) = Family::of(kept) {
            shard.families.insert(key, family);
        }
        displaced
    }

    /// Drops one record; says whether it was there.
    pub(super) fn remove(&self, key: KeyHash, seq: u64) -> bool {
        !self.take(&mut self.shard(key).write(), key, |slot| slot.seq == seq).is_empty()
    }

    /// Drops a family, and keeps what was numbered before from coming.
    pub(super) fn purge(&self, key: KeyHash, seq: u64) -> Vec<u64> {
        let mut shard = self.shard(key).write();
        shard.purged.insert(key, seq);
        self.take(&mut shard, key, |_| true)
    }

    /// The same when the journal says it: nothing from before is to come any more.
    pub(super) fn purge_settled(&self, key: KeyHash, seq: u64) -> Vec<u64> {
        let mut shard = self.shard(key).write();
        if shard.purged.get(&key) == Some(&seq) {
            shard.purged.remove(&key);
        }
        self.take(&mut shard, key, |_| true)
    }

    /// Whether a purge is on its way to the journal: whatever is in there is older.
    pub(super) fn is_purged(&self, key: KeyHash) -> bool {
        self.shard(key).read().purged.contains_key(&key)
    }

    /// Drops one variant.
    pub(super) fn drop_variant(&self, key: KeyHash, variance: u32) -> Vec<u64> {
        self.take(&mut self.shard(key).write(), key, |slot| slot.variance == variance)
    }

    /// Makes a family stale; says whether there is one.
    pub(super) fn expire(&self, key: KeyHash, at: u32) -> bool {
        let mut shard = self.shard(key).write();
        let Some(family) = shard.families.get_mut(&key) else {
            return false;
        };
        for slot in family.slots_mut().iter_mut().filter(|slot| slot.expired == 0) {
            slot.expired = at;
        }
        true
    }

    /// Forgets all copies, but not what was purged and is not in the journal yet.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            shard.write().families = HashMap::default();
        }
        for sum in [&self.objects, &self.bytes, &self.proven] {
            sum.store(0, Ordering::Relaxed);
        }
    }

    fn take(&self, shard: &mut Shard, key: KeyHash, is_taken: impl Fn(&Slot) -> bool) -> Vec<u64> {
        let slots = shard.families.remove(&key).map(Family::into_slots).unwrap_or_default();
        let before = slots.len();
        let (taken, kept): (Vec<_>, Vec<_>) = slots.into_iter().partition(is_taken);
        self.count(before, kept.len());
        if let Some(family) = Family::of(kept) {
            shard.families.insert(key, family);
        }
        self.out(&taken)
    }

    /// These are no longer in the index; their numbers.
    fn out(&self, slots: &[Slot]) -> Vec<u64> {
        let out = slots.iter().map(|slot| {
            self.weigh(slot, subtract);
            slot.seq
        });
        out.collect()
    }

    fn count(&self, before: usize, after: usize) {
        self.objects.fetch_add(after as u64, Ordering::Relaxed);
        self.objects.fetch_sub(before as u64, Ordering::Relaxed);
    }

    fn shard(&self, key: KeyHash) -> &RwLock<Shard> {
        let [first, ..] = key.0;
        #[expect(clippy::indexing_slicing, reason = "there are SHARDS shards, and the index is below that")]
        &self.shards[usize::from(first) % SHARDS]
    }
}

fn add(sum: &AtomicU64, bytes: u64) {
    sum.fetch_add(bytes, Ordering::Relaxed);
}

fn subtract(sum: &AtomicU64, bytes: u64) {
    sum.fetch_sub(bytes, Ordering::Relaxed);
}
