//! One shard: the families whose hash leads here, and the order in which their copies are given up.
//!
//! Every method that takes copies out says how many and how many bytes: the store gives those back. A lock of a
//! fill may be taken under a shard's lock, never the other way round.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use crate::sent::SentRequest;
use pingora_cache::key::HashBinary;

use super::family::{Family, Placement, Slot, Slots};
use super::fill::Fill;
use super::meta::CopyId;
use super::object::{Object, StoredCopy};
use super::sieve::{Entry, Rank, Share, Sieve};
use super::unstorable::Unstorable;
use crate::kept::Kept;
use crate::{Generation, Key, PurgeMode};

pub(super) struct Shard {
    families: HashMap<HashBinary, Box<Family>, ahash::RandomState>,
    sieve: Sieve,
    /// Keys whose last answer was too large, the oldest first.
    too_large: VecDeque<HashBinary>,
    pub(super) unstorable: Unstorable,
}

/// Whether a copy that was used since the last round may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mercy {
    SpareUsed,
    None,
}

/// What was taken out of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

/// A key as a shard needs it: the hash to find, the bytes to be sure.
#[derive(Clone, Copy)]
pub(super) struct KeyRef<'a> {
    pub(super) bin: HashBinary,
    pub(super) bytes: &'a [u8],
}

impl<'a> From<&'a Key> for KeyRef<'a> {
    fn from(key: &'a Key) -> Self {
        Self { bin: key.bin(), bytes: key.bytes() }
    }
}

impl Shard {
    pub(super) fn new(share: Arc<Share>) -> Self {
        Self {
            families: HashMap::default(),
            sieve: Sieve::new(share),
            too_large: VecDeque::new(),
            unstorable: Unstorable::default(),
        }
    }

    pub(super) fn find(&self, key: &Key, request: &dyn SentRequest) -> Option<StoredCopy> {
        let slot = self.family(key.into())?.resolve(request).filter(|slot| slot.object.body.is_sound())?;
        Some(StoredCopy(slot.object.clone()))
    }

    /// The family of a key; none also if another key has the same hash.
    pub(super) fn family(&self, key: KeyRef<'_>) -> Option<&Family> {
        self.families
            .get(&key.bin)
            .map(AsRef::as_ref)
            .filter(|family: &&Family| family.key.as_ref() == key.bytes)
    }

    pub(super) fn key_under(&self, bin: &HashBinary) -> Option<Arc<[u8]>> {
        self.families.get(bin).map(|family| Arc::clone(&family.key))
    }

    fn family_mut(&mut self, key: KeyRef<'_>) -> Option<&mut Family> {
        self.families
            .get_mut(&key.bin)
            .map(AsMut::as_mut)
            .filter(|family: &&mut Family| family.key.as_ref() == key.bytes)
    }

    /// The family of a key, made if need be; none if another key has the same hash.
    fn family_or_new(&mut self, key: KeyRef<'_>) -> Option<&mut Family> {
        let family = self.families.entry(key.bin).or_insert_with(|| Box::new(Family::new(key.bytes.into())));
        (family.key.as_ref() == key.bytes).then_some(family)
    }

    /// Files an object in the slot that Pingora named, unless a response that was asked for later is there.
    pub(super) fn insert_fill(
        &mut self,
        key: KeyRef<'_>,
        variance: Option<HashBinary>,
        object: Arc<Object>,
    ) -> Removed {
        self.unstorable.forget(&key.bin);
        let held = self.family(key).and_then(|family| family.slot(variance));
        if held.is_some_and(|slot| slot.object.outranks(&object)) {
            return Removed { objects: 1, bytes: object.weight() };
        }
        self.insert(key, variance, object)
    }

    /// Files an object in a slot.
    fn insert(&mut self, key: KeyRef<'_>, variance: Option<HashBinary>, object: Arc<Object>) -> Removed {
        // Whoever wanted the copy that this one replaces has wanted it twice.
        let is_again = self.family(key).is_some_and(|family| family.slot(variance).is_some());
        let rank = if is_again { Rank::Proven } else { Rank::Newcomer };
        let place = self.sieve.push(Entry { bin: key.bin, object: object.clone() }, rank);
        if let Some(family) = self.family_or_new(key) {
            let displaced = family.insert(variance, place, object);
            self.drop_slots(displaced)
        } else {
            self.sieve.remove(place);
            Removed { objects: 1, bytes: object.weight() }
        }
    }

    /// Files an object in the slot where it belongs, unless it would displace a fresh one.
    pub(super) fn insert_last_good(&mut self, key: KeyRef<'_>, object: Arc<Object>) -> Removed {
        let placement = self.family(key).map_or(Placement::Slot(None), |family| family.placement(&object));
        match placement {
            Placement::Slot(variance) => self.insert(key, variance, object),
            Placement::Nowhere => Removed { objects: 1, bytes: object.weight() },
        }
    }

    /// Whether a response that was asked for later than this one is there, for the same requests.
    pub(super) fn has_newer(&self, key: KeyRef<'_>, kept: &Kept) -> bool {
        let slots = self.family(key).map_or(&[][..], Family::slots);
        slots.iter().any(|slot| {
            slot.object.is_asked_after(kept.facts.generation)
                && slot.object.kept.variance() == kept.variance()
        })
    }

    /// Files a copy that has come from disk, where nothing is in its way; none if something is.
    pub(super) fn adopt(&mut self, key: KeyRef<'_>, object: Arc<Object>) -> Option<Removed> {
        let vacancy = self.family(key).map_or(Placement::Slot(None), |family| family.vacancy(&object));
        match vacancy {
            Placement::Slot(variance) => Some(self.insert(key, variance, object)),
            Placement::Nowhere => None,
        }
    }

    /// Gives up one copy, and with a primary its variants. Of what was asked for again the key is told.
    pub(super) fn evict(&mut self, mercy: Mercy) -> (Removed, Option<Arc<[u8]>>) {
        let victim = match mercy {
            Mercy::SpareUsed => self.sieve.victim(),
            Mercy::None => self.sieve.last_resort(),
        };
        let Some(entry) = victim else {
            return (Removed::default(), None);
        };
        let Some(family) = self.families.get_mut(&entry.bin) else {
            return (Removed::default(), None);
        };
        let key = Arc::clone(&family.key);
        let slots = family.remove(&entry.object);
        let is_proven = slots.iter().any(|slot| self.sieve.rank(slot.place) == Some(Rank::Proven));
        self.drop_empty(&entry.bin);
        (self.drop_slots(slots), is_proven.then_some(key))
    }

    /// Drops all copies of a family.
    pub(super) fn remove(&mut self, bin: &HashBinary) -> Removed {
        self.too_large.retain(|other| other != bin);
        let slots = self.families.get_mut(bin).map(|family| family.purge()).unwrap_or_default();
        self.drop_empty(bin);
        self.drop_slots(slots)
    }

    /// Drops the complete copies of a family and leaves its fills alone.
    pub(super) fn remove_slots(&mut self, bin: &HashBinary) -> Removed {
        let slots = self.families.get_mut(bin).map(|family| family.take_slots()).unwrap_or_default();
        self.drop_empty(bin);
        self.drop_slots(slots)
    }

    /// Drops one variant.
    pub(super) fn remove_variant(&mut self, bin: &HashBinary, variance: HashBinary) -> Removed {
        let Some(family) = self.families.get_mut(bin) else {
            return Removed::default();
        };
        let object = family.slot(Some(variance)).map(|slot| slot.object.clone());
        let slots = object.map(|object| family.remove(&object)).unwrap_or_default();
        self.drop_empty(bin);
        self.drop_slots(slots)
    }

    /// Makes the family's copies stale; says whether there are any.
    pub(super) fn expire(&mut self, bin: &HashBinary, now: SystemTime) -> bool {
        let Some(family) = self.families.get_mut(bin) else {
            return false;
        };
        for slot in family.slots_mut() {
            expire(slot, &mut self.sieve, now);
        }
        !family.slots().is_empty()
    }

    /// Does to each copy of a family what the verdict on it says, and tells the hardest. All purges up to `generation`
    /// are done with then.
    pub(super) fn settle(
        &mut self,
        bin: &HashBinary,
        generation: Generation,
        now: SystemTime,
        verdict: impl Fn(&Object) -> Option<PurgeMode>,
    ) -> (Removed, Option<PurgeMode>) {
        let Some(family) = self.families.get_mut(bin) else {
            return (Removed::default(), None);
        };
        let mut gone = Vec::new();
        let mut soft = None;
        for slot in family.slots_mut() {
            let verdict = verdict(&slot.object);
            match verdict {
                Some(PurgeMode::Hard) => gone.push(slot.object.clone()),
                Some(PurgeMode::Soft) => {
                    expire(slot, &mut self.sieve, now);
                    slot.object.outlive();
                    soft = verdict;
                }
                None => {}
            }
            slot.object.settle(generation);
        }
        let worst = if gone.is_empty() { soft } else { Some(PurgeMode::Hard) };
        let slots = gone.iter().flat_map(|object| family.remove(object)).collect();
        self.drop_empty(bin);
        (self.drop_slots(slots), worst)
    }

    /// Drops what is in the way of a newer answer: copies become stale and are only for the case of failure, and
    /// fills in progress will not be stored.
    pub(super) fn invalidate(&mut self, bin: &HashBinary, now: SystemTime) -> bool {
        let is_found = self.expire(bin, now);
        if let Some(family) = self.families.get_mut(bin) {
            family.outdate();
        }
        is_found
    }

    /// Gives a standard copy new meta data if it is still the one with this identity. `weight` is asked for the
    /// weight that it then has.
    pub(super) fn update_meta(
        &mut self,
        key: KeyRef<'_>,
        id: CopyId,
        kept: Kept,
        weight: impl FnOnce(&Object) -> u64,
    ) -> Option<Arc<Object>> {
        let family = self.families.get_mut(&key.bin).filter(|family| family.key.as_ref() == key.bytes)?;
        let is_the_one = |slot: &&mut Slot| slot.object.kept.is_standard() && slot.object.id == id;
        let slot = family.slots_mut().iter_mut().find(is_the_one)?;
        let weight = weight(&slot.object);
        exchange(slot, &mut self.sieve, kept, weight);
        Some(slot.object.clone())
    }

    /// Adds a fill; `false` if another key has the same hash.
    pub(super) fn add_fill(&mut self, key: KeyRef<'_>, fill: Arc<Fill>) -> bool {
        self.family_or_new(key).map(|family| family.add_fill(fill)).is_some()
    }

    pub(super) fn remove_fill(&mut self, key: KeyRef<'_>, tag: u64) {
        if let Some(family) = self.family_mut(key) {
            family.remove_fill(tag);
        }
        self.drop_empty(&key.bin);
    }

    pub(super) fn is_too_large(&self, bin: &HashBinary) -> bool {
        self.too_large.contains(bin)
    }

    pub(super) fn remember_too_large(&mut self, bin: HashBinary) {
        self.too_large.retain(|other| *other != bin);
        if self.too_large.len() >= TOO_LARGE_MAX {
            self.too_large.pop_front();
        }
        self.too_large.push_back(bin);
    }

    pub(super) fn forget_too_large(&mut self) {
        self.too_large.clear();
    }

    fn drop_slots(&mut self, slots: Slots) -> Removed {
        let mut removed = Removed::default();
        for slot in slots {
            self.sieve.remove(slot.place);
            removed.objects += 1;
            removed.bytes += slot.object.weight();
        }
        removed
    }

    fn drop_empty(&mut self, bin: &HashBinary) {
        if self.families.get(bin).is_some_and(|family| family.is_empty()) {
            self.families.remove(bin);
        }
    }
}

/// How many keys a shard remembers as too large.
const TOO_LARGE_MAX: usize = 32;

/// From now on the copy is no longer fresh.
fn expire(slot: &mut Slot, sieve: &mut Sieve, now: SystemTime) {
    let mut kept = slot.object.kept.clone();
    kept.expire(now);
    exchange(slot, sieve, kept, slot.object.weight());
}

fn exchange(slot: &mut Slot, sieve: &mut Sieve, kept: Kept, weight: u64) {
    slot.object = Arc::new(slot.object.with_kept(kept, weight));
    sieve.replace(slot.place, slot.object.clone());
}
