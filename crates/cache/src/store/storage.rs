//! Pingora's storage trait over the store. Only standard copies are seen here: a last-good copy must not become a
//! hit, but the fill that follows the miss takes its place.

use std::any::Any;

use async_trait::async_trait;
use pingora_cache::key::{CacheHashKey, HashBinary};
use pingora_cache::storage::streaming_write::U64WriteId;
use pingora_cache::storage::{HitHandler, MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheEntryKey, CacheKey, CacheMeta};
use pingora_error::Result;
use std::sync::Arc;

use super::Store;
use super::fill::Fill;
use super::hit::{BodyReader, Hit};
use super::meta::{self, CopyId};
use super::object::Object;
use super::shard::{KeyRef, Removed, Shard};
use super::tier::Newness;
use super::writer::{FillWriter, base_weight};
use crate::kept::Kept;
use crate::{Generation, Key, PurgeMode, clock};

impl Store {
    /// Files a finished fill.
    pub(super) fn file(&self, key: KeyRef<'_>, slot: Option<HashBinary>, object: Object) {
        let mut shard = self.shard(&key.bin).write();
        let Some(object) = self.in_order(key, object) else { return };
        let removed = shard.insert_fill(key, slot, Arc::clone(&object));
        self.tier.keep(&shard, key, &object, Newness::Body);
        drop(shard);
        self.filed(removed);
    }

    /// Files a copy that was written outside Pingora's phases.
    pub(super) fn file_last_good(&self, key: &Key, object: Object) {
        let mut shard = self.shard(&key.bin()).write();
        let Some(object) = self.in_order(key.into(), object) else { return };
        let removed = shard.insert_last_good(key.into(), Arc::clone(&object));
        self.tier.keep(&shard, key.into(), &object, Newness::Body);
        drop(shard);
        self.filed(removed);
    }

    /// A finished response in the order of changes: one that was asked for before its address changed is not fresh, and
    /// one of an address that was removed since is none. It is called under the lock of the shard, so that no change
    /// can come between this and the filing.
    fn in_order(&self, key: KeyRef<'_>, mut object: Object) -> Option<Arc<Object>> {
        match self.change_since(key, &object.kept) {
            Some(PurgeMode::Hard) => {
                self.budget.give_back(object.weight());
                return None;
            }
            Some(PurgeMode::Soft) => object.outdate(clock::now()),
            None => {}
        }
        Some(Arc::new(object))
    }

    pub(super) fn change_since(&self, key: KeyRef<'_>, kept: &Kept) -> Option<PurgeMode> {
        self.purges.change_since(Generation::from_number(kept.facts.generation), key.bytes)
    }

    pub(super) fn filed(&self, displaced: Removed) {
        self.objects.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.release(displaced);
    }

    pub(super) fn expire_family(&self, key: KeyRef<'_>) -> bool {
        let now = clock::now();
        let mut shard = self.shard(&key.bin).write();
        let was_on_disk = self.tier.expire(key.bytes, now);
        shard.expire(&key.bin, now) || was_on_disk
    }

    /// The key of what is in memory under a hash: Pingora names no more when it takes something away.
    fn key_under(&self, bin: &HashBinary) -> Option<Arc<[u8]>> {
        self.shard(bin).read().key_under(bin)
    }

    /// Gives the copy with this identity other meta data; `false` if it is there no more.
    pub(super) fn renew(&self, key: KeyRef<'_>, id: CopyId, mut kept: Kept) -> bool {
        let base = base_weight(key.bytes, kept.head().len() as u64);
        if !self.reserve(base) {
            return false;
        }
        let mut replaced = None;
        let mut shard = self.shard(&key.bin).write();
        let is_outdated = self.change_since(key, &kept).is_some();
        if is_outdated {
            kept.expire(clock::now());
        }
        let updated = shard.update_meta(key, id, kept, |object| {
            replaced = Some(object.base());
            base + object.body.weight()
        });
        if let Some(updated) = updated.as_ref().filter(|_| is_outdated) {
            updated.outlive();
        }
        if let Some(updated) = &updated {
            self.tier.keep(&shard, key, updated, Newness::Times);
        }
        drop(shard);
        self.budget.give_back(replaced.unwrap_or(base));
        updated.is_some()
    }

    /// A fresh copy, else the fill that will bring one, else the stale copy.
    fn look_up(&self, key: &CacheKey) -> Option<(CacheMeta, HitHandler)> {
        let slot = key.variance_bin();
        let key = key_ref(key);
        let is_behind = |shard: &Shard| {
            let slot = shard.family(key).and_then(|family| family.slot(slot));
            slot.is_some_and(|slot| self.is_behind(key, &slot.object))
        };
        let mut shard = self.shard(&key.bin).read();
        if is_behind(&shard) {
            drop(shard);
            self.settle(key);
            shard = self.shard(&key.bin).read();
        }
        let family = shard.family(key)?;
        let copy = family
            .slot(slot)
            .map(|slot| &slot.object)
            .filter(|object| object.kept.is_standard() && object.body.is_sound());
        let fill = family.fill_to_join(slot).filter(|fill| !self.is_purged(key, &fill.meta));
        match (copy, fill) {
            (Some(copy), Some(fill)) if !copy.kept.standing().is_fresh(clock::now()) => {
                join(fill).or_else(|| open(copy))
            }
            (Some(copy), _) => open(copy),
            (None, fill) => fill.and_then(join),
        }
    }
}

fn open(object: &Arc<Object>) -> Option<(CacheMeta, HitHandler)> {
    let meta = object.meta().ok()?;
    object.visit();
    Some((meta, Box::new(Hit::Complete(BodyReader::new(object.clone())))))
}

fn join(fill: &Arc<Fill>) -> Option<(CacheMeta, HitHandler)> {
    let reader = fill.join()?;
    Some((meta::duplicate(&fill.meta), Box::new(Hit::Partial(reader))))
}

fn key_ref(key: &CacheKey) -> KeyRef<'_> {
    KeyRef { bin: key.primary_bin(), bytes: key.primary_key() }
}

#[async_trait]
impl Storage for Store {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        Ok(self.look_up(key))
    }

    async fn lookup_streaming_write(
        &'static self,
        key: &CacheKey,
        streaming_write_tag: Option<&[u8]>,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let tag = streaming_write_tag.and_then(|tag| U64WriteId::try_from(tag).ok()).map(u64::from);
        let key = key_ref(key);
        let shard = self.shard(&key.bin).read();
        Ok(tag.and_then(|tag| join(shard.family(key)?.fill_tagged(tag)?)))
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        Ok(Box::new(FillWriter::start(self, key_ref(key), key.variance_bin(), meta)?))
    }

    /// A target without a variance stands for the whole family: without its primary no variant can be found.
    async fn purge(
        &'static self,
        target: PurgeTarget<'_>,
        _purge_type: PurgeType,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        if is_foreign(&target) {
            return Ok(PurgeOutcome::NotFound);
        }
        let bin = target.key().primary_bin();
        let Some(bytes) = self.key_under(&bin) else {
            return Ok(PurgeOutcome::NotFound);
        };
        let key = KeyRef { bin, bytes: &bytes };
        let is_found = match target.key().variance_bin() {
            Some(variance) => {
                let mut shard = self.shard(&key.bin).write();
                let removed = shard.remove_variant(&key.bin, variance);
                let was_on_disk = self.tier.drop_variant(key.bytes, variance);
                drop(shard);
                self.release(removed) || was_on_disk
            }
            None => self.remove_family(key),
        };
        Ok(if is_found { PurgeOutcome::Purged(None) } else { PurgeOutcome::NotFound })
    }

    async fn expire(&'static self, target: PurgeTarget<'_>, _trace: &SpanHandle) -> Result<PurgeOutcome> {
        let bin = target.key().primary_bin();
        let bytes = self.key_under(&bin).filter(|_| !is_foreign(&target));
        let is_found = bytes.is_some_and(|bytes| self.expire_family(KeyRef { bin, bytes: &bytes }));
        Ok(if is_found { PurgeOutcome::Expired } else { PurgeOutcome::NotFound })
    }

    async fn update_meta(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<bool> {
        let Some(id) = meta.extensions().get::<CopyId>().copied() else {
            return Ok(false);
        };
        Ok(self.renew(key_ref(key), id, Kept::of(&meta::without_age(meta::duplicate(meta)))))
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// Copies here have no generations of their own, so a target that names one cannot be meant.
fn is_foreign(target: &PurgeTarget<'_>) -> bool {
    matches!(target, PurgeTarget::Exact(CacheEntryKey::Identified { .. }))
}
