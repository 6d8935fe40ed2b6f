//! The disk under a store: what is filed in memory is queued for it, what memory lacks is looked up in it.
//!
//! All that changes a family happens under the lock of its shard, in both places, so that a copy that is being
//! read from disk never comes back behind a purge. The lock is never held while something is read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use parking_lot::RwLock;
use pingora_cache::CacheMeta;
use pingora_cache::key::HashBinary;

use super::body::Body;
use super::family::Family;
use super::object::{Object, StoredCopy};
use super::shard::{KeyRef, Shard};
use super::writer::base_weight;
use super::{Store, content_length};
use crate::disk::{Disk, DiskUsage, Found, KeyHash, Patience, Report, Upload, Wanted};
use crate::kept::Kept;
use crate::purge::{Generation, PurgeEntry, PurgeMode};
use crate::sent::SentRequest;
use crate::{Key, Standing, StoreSpec, clock};

/// How many variants of one address are read because another one is missing.
const VARIANTS_READ_MAX: usize = 8;

/// Whether a copy differs from the one before in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newness {
    Body,
    Times,
}

/// The disk of a store, if it has one.
#[derive(Default)]
pub(super) struct Tier(RwLock<Option<Arc<Disk>>>);

impl Tier {
    fn disk(&self) -> Option<Arc<Disk>> {
        self.0.read().clone()
    }

    pub(super) fn usage(&self) -> Option<DiskUsage> {
        self.disk().map(|disk| disk.usage())
    }

    /// Queues a copy that has been filed, if it has.
    pub(super) fn keep(&self, shard: &Shard, key: KeyRef<'_>, object: &Arc<Object>, newness: Newness) {
        let Some(disk) = self.disk() else { return };
        let Some(family) = shard.family(key) else { return };
        if family.slots().iter().any(|slot| Arc::ptr_eq(&slot.object, object)) {
            disk.keep(&family.key, object, newness == Newness::Times);
        }
    }

    pub(super) fn purge(&self, key: &[u8]) -> bool {
        self.disk().is_some_and(|disk| disk.purge(key))
    }

    /// Memory gives up copies that were asked for again.
    pub(super) fn proven(&self, key: &[u8]) {
        if let Some(disk) = self.disk() {
            disk.proven(key);
        }
    }

    /// Writes down a purge of many copies.
    pub(super) fn note_purge(&self, entry: &PurgeEntry) {
        if let Some(disk) = self.disk() {
            disk.note_purge(*entry);
        }
    }

    pub(super) fn drop_variant(&self, key: &[u8], variance: HashBinary) -> bool {
        self.disk().is_some_and(|disk| disk.drop_variant(key, Some(variance)))
    }

    pub(super) fn expire(&self, key: &[u8], now: SystemTime) -> bool {
        self.disk().is_some_and(|disk| disk.expire(key, now))
    }

    /// Starts to write a body that memory does not take.
    pub(super) fn upload(&self, response: &HeaderMap) -> Option<Upload> {
        self.disk()?.upload(content_length(response))
    }
}

impl Store {
    /// Uses the disk that is configured, another than before, or none. `report` is told what an operator wants to
    /// know. Nothing waits for the disk: copies are found in it when its index has been read.
    pub fn use_disk(&'static self, spec: &StoreSpec, report: Report) {
        let mut tier = self.tier.0.write();
        let Some(disk) = &spec.disk else {
            *tier = None;
            return;
        };
        if let Some(former) = tier.as_ref().filter(|former| former.is_at(disk)) {
            former.set_limits(disk, spec.object_bytes_max);
            return;
        }
        *tier = None;
        let is_held = Box::new(|key: &[u8]| self.holds(key));
        // Without a thread there is no disk tier; the next reload tries again.
        *tier = Disk::start(disk, spec.object_bytes_max, report, is_held, Arc::clone(&self.purges))
            .ok()
            .map(Arc::new);
    }

    /// Whether there is a disk at all.
    pub fn has_disk(&self) -> bool {
        self.tier.0.read().is_some()
    }

    /// Waits until the disk's index is read, but no longer than this. It blocks.
    pub fn wait_for_disk(&self, limit: Duration) {
        if let Some(disk) = self.tier.disk() {
            disk.wait_until_open(limit);
        }
    }

    /// Waits until what is queued for the disk is written, but no longer than this. It blocks.
    pub fn flush(&self, limit: Duration) {
        if let Some(disk) = self.tier.disk() {
            disk.flush(limit);
        }
    }

    /// The complete copy for this request, read from disk into memory if it is not there. The first to find it there is
    /// the request that it was read for.
    pub async fn load(
        &self,
        key: &Key,
        request: &(dyn SentRequest + Sync),
        patience: Patience,
    ) -> Option<StoredCopy> {
        if let Some(copy) = self.peek(key, request) {
            return Some(copy);
        }
        let disk = self.tier.disk()?;
        let hash = KeyHash::of(key.bytes());
        if !disk.knows(hash) {
            return None;
        }
        // Twice: the first that is found may only say how to find the right one.
        for _ in 0..2 {
            let found = disk.read(key.bytes(), hash, self.wanted(key, request), patience).await?;
            self.adopt(&disk, key, hash, found);
            if let Some(copy) = self.peek(key, request) {
                return Some(copy);
            }
        }
        None
    }

    /// Reads variants of the address from disk that memory lacks, the youngest first, for [`Store::find_accepted`]. All
    /// requests that could need them come in an outage, so that there is a limit to how many.
    pub async fn load_variants(&self, key: &Key, patience: Patience) {
        let Some(disk) = self.tier.disk() else { return };
        let hash = KeyHash::of(key.bytes());
        for wanted in disk.variants(hash, VARIANTS_READ_MAX) {
            match disk.read(key.bytes(), hash, wanted, patience).await {
                Some(found) => self.adopt(&disk, key, hash, found),
                None => return,
            }
        }
    }

    /// The same as far as nothing has to be waited for. Like it, it leaves the mark of use to whoever then finds the
    /// copy in memory.
    pub fn load_at_once(&self, key: &Key, request: &dyn SentRequest) -> Option<StoredCopy> {
        let disk = self.tier.disk()?;
        let hash = KeyHash::of(key.bytes());
        for _ in 0..2 {
            let found = disk.read_at_once(key.bytes(), hash, self.wanted(key, request))?;
            self.adopt(&disk, key, hash, found);
            if let Some(copy) = self.peek(key, request) {
                return Some(copy);
            }
        }
        None
    }

    /// By what the copy for this request would be judged, as far as that is known without reading the disk, and
    /// without a mark of use. Where memory does not say by which fields the address varies, it is the youngest copy of
    /// the address.
    pub fn standing(&self, key: &Key, request: &dyn SentRequest) -> Option<Standing> {
        if let Some(copy) = self.peek(key, request) {
            return Some(copy.standing());
        }
        self.tier.disk()?.standing(KeyHash::of(key.bytes()), self.wanted(key, request))
    }

    /// Whether a response that memory does not take may go to the disk.
    pub fn takes_on_disk(&self, response: &HeaderMap) -> bool {
        self.tier.disk().is_some_and(|disk| disk.takes(content_length(response)))
    }

    /// The variance of the request, if something in memory says by which fields the family varies.
    fn wanted(&self, key: &Key, request: &dyn SentRequest) -> Wanted {
        let shard = self.shard(&key.bin()).read();
        let primary = shard.family(key.into()).and_then(Family::primary);
        primary.map_or(Wanted::Any, |slot| Wanted::Variant(slot.object.kept.vary_by().variance(request)))
    }

    fn adopt(&self, disk: &Disk, key: &Key, hash: KeyHash, found: Found) {
        if self.is_gone(key, &found.kept) {
            disk.drop_variant(key.bytes(), found.kept.variance());
            return;
        }
        let weight = base_weight(key.bytes(), found.kept.head().len() as u64) + found.body.weight();
        if weight > self.object_bytes_max() || !self.reserve(weight) {
            return;
        }
        let mut shard = self.shard(&key.bin()).write();
        let adopted = if disk.still_has(hash, &found) {
            let copy = StoredCopy(Arc::new(self.restored(found.kept, found.body, weight)));
            if found.is_expired {
                // Whether it was a purge or a request that changed the page, the disk does not say: the strict one.
                copy.outlive();
            }
            copy.0.expect_visit();
            shard.adopt(key.into(), copy.0)
        } else {
            None
        };
        drop(shard);
        match adopted {
            Some(displaced) => self.filed(displaced),
            None => self.budget.give_back(weight),
        }
    }

    /// A copy that was read from disk. What a process before this one has stored has no place in the order of this one; if
    /// its clock was ahead of ours, nothing is known of the copy's age, and it is not fresh.
    fn restored(&self, mut kept: Kept, body: Body, weight: u64) -> Object {
        let is_of_this_process =
            self.purges.is_of_this_process(Generation::from_number(kept.facts.generation));
        kept.limit_to(clock::now());
        let mut object = Object::new(kept, self.new_id(), body, weight);
        if !is_of_this_process {
            object.forget_order();
        }
        object
    }

    /// Whether a purge has taken the copy away, so that it need not be read again.
    fn is_gone(&self, key: &Key, kept: &Kept) -> bool {
        let generation = Generation::from_number(kept.facts.generation);
        let verdict = || self.purges.verdict(generation, key.bytes(), kept.tags());
        generation < self.purges.newest() && verdict() == Some(PurgeMode::Hard)
    }

    /// Whether memory has copies under a key.
    fn holds(&self, key: &[u8]) -> bool {
        let bin = Key::bin_of(key);
        let shard = self.shard(&bin).read();
        shard.family(KeyRef { bin, bytes: key }).is_some_and(|family| !family.slots().is_empty())
    }

    /// A body that went to disk only is complete: what memory had in its place goes.
    pub(super) fn file_on_disk(&self, key: &Key, upload: Upload, meta: &CacheMeta) {
        let mut kept = Kept::of(meta);
        let mut shard = self.shard(&key.bin()).write();
        if shard.has_newer(key.into(), &kept) || upload.is_overtaken(key.bytes()) {
            return;
        }
        let now = clock::now();
        let change = self.change_since(key.into(), &kept);
        if change == Some(PurgeMode::Hard) {
            return;
        }
        let is_outdated = change.is_some();
        if is_outdated {
            kept.expire(now);
        }
        let removed = shard.remove_slots(&key.bin());
        upload.finish(key.bytes(), kept);
        if is_outdated {
            self.tier.expire(key.bytes(), now);
        }
        drop(shard);
        self.release(removed);
    }
}
