//! All that is kept under one key: the primary slot, the variants, and the fills in progress.
//!
//! The primary slot's `Vary` says how to find the others, so without it there are none: whoever comes first is
//! primary, and when the primary goes all go. A new primary that varies by other fields takes the variants away.

use std::sync::Arc;
use std::time::SystemTime;

use crate::sent::SentRequest;
use crate::variant::is_accepted;
use crate::vary::half;
use pingora_cache::key::HashBinary;
use smallvec::{SmallVec, smallvec};

use super::fill::Fill;
use super::object::Object;
use super::sieve::Place;

/// How many variants are kept under one key besides the primary.
pub(super) const VARIANTS_MAX: usize = 64;

/// Most families have one.
pub(super) type Slots = SmallVec<[Slot; 1]>;

pub(super) struct Family {
    pub(super) key: Arc<[u8]>,
    /// The primary first, then the variants, the oldest first.
    slots: Slots,
    fills: Fills,
}

pub(super) struct Slot {
    /// None for the primary.
    variance: Option<Box<HashBinary>>,
    pub(super) place: Place,
    pub(super) object: Arc<Object>,
}

/// Those of a family; mostly there are none, which then takes one word.
#[derive(Default)]
#[expect(clippy::box_collection, reason = "one word where there are none")]
struct Fills(Option<Box<Vec<Arc<Fill>>>>);

impl Fills {
    fn list(&self) -> &[Arc<Fill>] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, fill: Arc<Fill>) {
        self.0.get_or_insert_default().push(fill);
    }

    fn remove(&mut self, tag: u64) {
        if let Some(fills) = &mut self.0 {
            fills.retain(|fill| fill.tag() != tag);
            if fills.is_empty() {
                self.0 = None;
            }
        }
    }
}

/// Where a copy goes.
pub(super) enum Placement {
    /// Into the primary slot, or that of a variant.
    Slot(Option<HashBinary>),
    /// Nowhere: it would displace one that is better.
    Nowhere,
}

impl Family {
    pub(super) fn new(key: Arc<[u8]>) -> Self {
        Self { key, slots: Slots::new(), fills: Fills::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.fills.list().is_empty()
    }

    pub(super) fn primary(&self) -> Option<&Slot> {
        self.slots.first()
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn slot(&self, variance: Option<HashBinary>) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.variance.as_deref() == variance.as_ref())
    }

    pub(super) fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// The copy for a request: the primary if it varies not or as the request does, else the variant.
    pub(super) fn resolve(&self, request: &dyn SentRequest) -> Option<&Slot> {
        let primary = self.primary()?;
        match primary.object.kept.vary_by().variance(request) {
            None => Some(primary),
            variance if variance == primary.object.kept.variance() => Some(primary),
            variance => self.slot(variance),
        }
    }

    /// The variants that the request accepts although they are for other requests.
    pub(super) fn accepted(&self, request: &dyn SentRequest) -> impl Iterator<Item = &Arc<Object>> {
        let wanted = self.primary().map(|primary| half(primary.object.kept.vary_by().variance(request)));
        self.slots.iter().map(|slot| &slot.object).filter(move |object| {
            let vary_by = object.kept.vary_by();
            object.body.is_sound()
                && Some(half(object.kept.variance())) == wanted
                && is_accepted(&object.kept, request, |name| vary_by.has(name))
        })
    }

    /// Where a copy written outside Pingora belongs.
    pub(super) fn placement(&self, object: &Object) -> Placement {
        let Some(primary) = self.primary() else {
            return Placement::Slot(None);
        };
        let variance = object.kept.variance();
        let is_variant = primary.object.kept.vary_by() == object.kept.vary_by()
            && variance != primary.object.kept.variance();
        let variance = variance.filter(|_| is_variant);
        let now = object.kept.info().stored;
        let is_displacing = self.slot(variance).is_some_and(|slot| {
            slot.object.outranks(object) || !object.kept.is_standard() && is_fresh(&slot.object, now)
        });
        if is_displacing { Placement::Nowhere } else { Placement::Slot(variance) }
    }

    /// Where a copy from disk belongs, if nothing is there.
    pub(super) fn vacancy(&self, object: &Object) -> Placement {
        let Some(primary) = self.primary().filter(|primary| primary.object.body.is_sound()) else {
            return Placement::Slot(None);
        };
        let variance = object.kept.variance();
        let is_variant = variance.is_some()
            && variance != primary.object.kept.variance()
            && primary.object.kept.vary_by() == object.kept.vary_by();
        let is_vacant = is_variant && self.slot(variance).is_none_or(|slot| !slot.object.body.is_sound());
        if is_vacant { Placement::Slot(variance) } else { Placement::Nowhere }
    }

    /// Files an object and returns what it displaces.
    pub(super) fn insert(
        &mut self,
        variance: Option<HashBinary>,
        place: Place,
        object: Arc<Object>,
    ) -> Slots {
        let variance = variance.filter(|_| !self.slots.is_empty());
        let slot = Slot { variance: variance.map(Box::new), place, object };
        if variance.is_some() { self.insert_variant(slot) } else { self.insert_primary(slot) }
    }

    fn insert_variant(&mut self, slot: Slot) -> Slots {
        let mut displaced = self.take(|other| other.variance == slot.variance);
        if self.slots.len() > VARIANTS_MAX {
            displaced.push(self.slots.remove(1));
        }
        self.slots.push(slot);
        displaced
    }

    /// A former primary that answers other requests under the same `Vary` becomes a variant.
    fn insert_primary(&mut self, slot: Slot) -> Slots {
        let own = slot.object.kept.variance();
        let varies_alike =
            self.primary().is_some_and(|former| former.object.kept.vary_by() == slot.object.kept.vary_by());
        if let Some(former) = self.slots.first_mut() {
            former.variance = former.object.kept.variance().map(Box::new);
        }
        let mut displaced = self.take(|other| {
            !varies_alike || other.variance.is_none() || other.variance.as_deref() == own.as_ref()
        });
        if self.slots.len() > VARIANTS_MAX {
            displaced.push(self.slots.remove(0));
        }
        self.slots.insert(0, slot);
        displaced
    }

    /// Removes an object, and with a primary all variants.
    pub(super) fn remove(&mut self, object: &Arc<Object>) -> Slots {
        match self.slots.iter().position(|slot| Arc::ptr_eq(&slot.object, object)) {
            Some(0) => std::mem::take(&mut self.slots),
            Some(at) => smallvec![self.slots.remove(at)],
            None => Slots::new(),
        }
    }

    /// Removes what is complete, and keeps the fills in progress from being stored or joined.
    pub(super) fn purge(&mut self) -> Slots {
        self.fills.list().iter().for_each(|fill| fill.forbid_storing());
        self.take_slots()
    }

    /// Takes out what is complete.
    pub(super) fn take_slots(&mut self) -> Slots {
        std::mem::take(&mut self.slots)
    }

    /// Keeps the copies for the case of failure alone, and the fills in progress from being stored or joined.
    pub(super) fn outdate(&mut self) {
        self.fills.list().iter().for_each(|fill| fill.forbid_storing());
        self.slots.iter().for_each(|slot| slot.object.outlive());
    }

    pub(super) fn add_fill(&mut self, fill: Arc<Fill>) {
        self.fills.add(fill);
    }

    pub(super) fn remove_fill(&mut self, tag: u64) {
        self.fills.remove(tag);
    }

    pub(super) fn fill_tagged(&self, tag: u64) -> Option<&Arc<Fill>> {
        self.fills.list().iter().find(|fill| fill.tag() == tag)
    }

    /// The youngest fill of a slot that may be joined.
    pub(super) fn fill_to_join(&self, variance: Option<HashBinary>) -> Option<&Arc<Fill>> {
        self.fills.list().iter().rev().find(|fill| fill.slot() == variance && fill.may_be_joined())
    }

    fn take(&mut self, is_taken: impl Fn(&Slot) -> bool) -> Slots {
        let (taken, kept) = std::mem::take(&mut self.slots).into_iter().partition(is_taken);
        self.slots = kept;
        taken
    }
}

fn is_fresh(object: &Object, now: SystemTime) -> bool {
    object.kept.is_standard() && object.kept.standing().is_fresh(now)
}
