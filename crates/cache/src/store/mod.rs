//! The memory store: sharded, bounded by bytes, behind Pingora's storage trait.
//!
//! A family is all that is kept under one key: the primary slot, the variants that its `Vary` leads to, and the
//! fills in progress. Families are found by a keyed 128-bit hash, and then the whole key is compared. One budget of
//! bytes covers copies and fills; room is made before it is used, shard after shard, by SIEVE. Readers of a copy
//! that was evicted or replaced keep it to their end: what they hold is bounded by the requests in flight.
//!
//! A copy whose size turns out too large in mid-stream is no reason to abort anybody. The fill then only passes
//! the body through: nobody new may join, what all readers have read is released, and the key is remembered, so
//! that [`Store::takes`] refuses it next time and Pingora streams with its usual back-pressure. What one slow
//! reader may hold up is bounded too (twice the largest object, or a quarter of the store); beyond that the stream
//! is aborted, because Pingora reads a backend into the cache as fast as it can, and waiting here would wait for ourselves.
//! Do not set Pingora's `set_max_file_size_bytes`: it aborts every chunked response that is too large.

mod body;
mod budget;
mod family;
mod fill;
mod hit;
mod last_failure;
mod meta;
mod object;
mod shard;
mod sieve;
mod storage;
#[cfg(test)]
mod tests;
mod tier;
mod unstorable;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use http::{HeaderMap, header};
use parking_lot::RwLock;
use pingora_cache::CacheMeta;
use pingora_cache::key::HashBinary;
use pingora_http::ResponseHeader;

use crate::disk::DiskUsage;
use crate::kept::{Kept, text_len};
use crate::purge::{self, Generation, PurgeMode, PurgeScope, Purges};
use crate::sent::SentRequest;
use crate::{Key, StoreSpec, clock, key, vary};
use budget::Budget;
use family::Family;
use shard::{KeyRef, Mercy, Shard};
use sieve::Share;
use tier::Tier;
use writer::base_weight;

pub(crate) use body::Body;
pub use fill::FILL_WAIT;
pub use hit::BodyReader;
pub use last_failure::REFRESH_BACKOFF;
pub(crate) use object::Object;
pub use object::StoredCopy;
pub use writer::CopyWriter;

/// Shards, a power of two: enough that writers seldom meet.
const SHARDS: usize = 64;

/// One store. Made once and leaked: Pingora wants it `'static`, and its copies outlive reloads.
pub struct Store {
    shards: Box<[RwLock<Shard>]>,
    budget: Budget,
    object_bytes_max: AtomicU64,
    share: Arc<Share>,
    /// The shard that gives up a copy next.
    next_victim: AtomicUsize,
    /// The next identity of a copy or fill.
    next_id: AtomicU64,
    evictions: AtomicU64,
    objects: AtomicU64,
    purges: Arc<Purges>,
    tier: Tier,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Complete copies.
    pub objects: u64,
    /// Bytes of copies and of fills in progress, bookkeeping included.
    pub bytes: u64,
    /// Copies given up for room since the start.
    pub evictions: u64,
    /// Purges of one scope each since the start.
    pub purges: u64,
    /// The tier under the memory.
    pub disk: Option<DiskUsage>,
}

impl Store {
    /// An empty store with these limits, in memory only: see [`Store::use_disk`].
    pub fn new(spec: &StoreSpec) -> Self {
        let share = Arc::new(Share::new(spec));
        Self {
            shards: (0..SHARDS).map(|_| RwLock::new(Shard::new(Arc::clone(&share)))).collect(),
            budget: Budget::new(spec.memory_bytes),
            object_bytes_max: AtomicU64::new(spec.object_bytes_max),
            share,
            next_victim: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            evictions: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            purges: Arc::default(),
            tier: Tier::default(),
        }
    }

    /// Takes over the limits of a reload and gives up what no longer fits.
    pub fn set_limits(&self, spec: &StoreSpec) {
        let grew =
            spec.object_bytes_max > self.object_bytes_max.swap(spec.object_bytes_max, Ordering::Relaxed);
        if grew {
            self.shards.iter().for_each(|shard| shard.write().forget_too_large());
        }
        self.share.set(spec);
        self.budget.set_limit(spec.memory_bytes);
        while self.budget.is_exceeded() && self.evict_one() {}
    }

    /// What the store holds.
    pub fn usage(&self) -> Usage {
        Usage {
            objects: self.objects.load(Ordering::Relaxed),
            bytes: self.budget.used(),
            evictions: self.evictions.load(Ordering::Relaxed),
            purges: self.purges.count(),
            disk: self.tier.usage(),
        }
    }

    /// The complete copy for this request, of either kind, however old. `Vary` is resolved as Pingora does: by
    /// the copy in the primary slot, which may itself be the one.
    pub fn find(&self, key: &Key, request: &dyn SentRequest) -> Option<StoredCopy> {
        let copy = self.peek(key, request)?;
        copy.0.visit();
        Some(copy)
    }

    /// The same without a mark of use: for who wants to know and not to have.
    pub fn peek(&self, key: &Key, request: &dyn SentRequest) -> Option<StoredCopy> {
        let shard = self.shard(&key.bin());
        let copy = shard.read().find(key, request)?;
        if !self.is_behind(key.into(), &copy.0) {
            return Some(copy);
        }
        self.settle(key.into());
        shard.read().find(key, request)
    }

    /// Another variant that the request accepts, the youngest of those: see [`crate::variant`]. It is for the case that
    /// nothing else can answer.
    pub fn find_accepted(&self, key: &Key, request: &dyn SentRequest) -> Option<StoredCopy> {
        let is_behind = |object: &Arc<Object>| self.is_behind(key.into(), object);
        let is_to_settle = self.shard(&key.bin()).read().family(key.into())?.accepted(request).any(is_behind);
        if is_to_settle {
            self.settle(key.into());
        }
        let shard = self.shard(&key.bin()).read();
        let accepted = shard.family(key.into())?.accepted(request);
        let copy = StoredCopy(Arc::clone(accepted.max_by_key(|object| object.kept.facts.stored)?));
        copy.0.visit();
        Some(copy)
    }

    /// A backend says that there is no page under the key any more. Notes it on every variant that the caller may judge, and
    /// says whether it was noted before, and nothing else was stored since.
    pub fn note_missing(&self, key: &Key, may_judge: impl Fn(&StoredCopy) -> bool) -> bool {
        let shard = self.shard(&key.bin()).read();
        let slots = shard.family(key.into()).map(Family::slots).unwrap_or_default();
        let judged = slots.iter().filter(|slot| may_judge(&StoredCopy(Arc::clone(&slot.object))));
        // All of them, so that it does not matter for which one the next response is.
        judged.map(|slot| slot.object.note_missing()).filter(|is_known| *is_known).count() > 0
    }

    /// That of a request which was received at `started` and has not been sent to a backend yet.
    pub fn generation(&self, started: Instant) -> Generation {
        self.purges.generation(started)
    }

    /// Purges all copies of a scope, in constant time. When this returns every later lookup sees it.
    pub fn purge_scope(&self, scope: &PurgeScope, mode: PurgeMode) {
        let entry = self.purges.add(scope, mode);
        self.tier.note_purge(&entry);
    }

    /// Whether a response is worth starting to store: not too large by its `Content-Length`, or, without one, by
    /// what is remembered of the key until it is purged or pushed out by other such keys.
    pub fn takes(&self, key: &Key, response: &ResponseHeader) -> bool {
        self.takes_under(key.into(), response)
    }

    /// Notes that a response to a request with this key cannot be stored.
    pub fn note_unstorable(&self, key: &Key) {
        self.shard(&key.bin()).write().unstorable.note(key.bin(), Instant::now());
    }

    /// Whether that was noted a short time ago, and nothing was stored since.
    pub fn is_unstorable(&self, key: &Key) -> bool {
        self.shard(&key.bin()).read().unstorable.has(&key.bin(), Instant::now())
    }

    /// Starts a copy outside Pingora's cache phases. The slot is chosen when it is finished.
    pub fn write(&'static self, key: &Key, request: &dyn SentRequest, mut meta: CacheMeta) -> CopyWriter {
        match vary::variance(meta.headers(), request) {
            Some(variance) => meta.set_variance(variance),
            None => meta.remove_variance(),
        }
        CopyWriter::new(self, key, meta)
    }

    /// Drops every copy under the key; says whether there was one. A fill in progress will not be stored.
    pub fn remove(&self, key: &Key) -> bool {
        self.remove_family(key.into())
    }

    /// Makes every copy under the key stale as of now, but keeps it for an outage; says whether there was one.
    #[cfg(test)]
    pub(crate) fn soft_purge(&self, key: &Key) -> bool {
        self.expire_family(key.into())
    }

    /// Puts everything that is stored under the key's address out of date (RFC 9111 section 4.4), whatever else is in
    /// its key: from now on it is only for the case of failure. What was asked for before is not stored as fresh any more.
    /// Says whether there was a copy under the address alone.
    pub fn invalidate(&self, key: &Key) -> bool {
        self.change(key, PurgeMode::Soft)
    }

    /// The same where there is nothing under the address any more: what is stored of it is gone, and what was asked for
    /// before is not stored any more.
    pub fn remove_address(&self, key: &Key) -> bool {
        self.change(key, PurgeMode::Hard)
    }

    fn change(&self, key: &Key, mode: PurgeMode) -> bool {
        let (host, target) = key::host_and_target(key.bytes());
        let entry = self.purges.add_change(host, target, mode);
        self.tier.note_purge(&entry);
        let of_scheme = |scheme| {
            let key = Key::new(scheme, host, target);
            match mode {
                PurgeMode::Soft => self.expire_plain(&key),
                PurgeMode::Hard => self.remove(&key),
            }
        };
        ["http", "https"].map(of_scheme).contains(&true)
    }

    fn expire_plain(&self, key: &Key) -> bool {
        let now = clock::now();
        let mut shard = self.shard(&key.bin()).write();
        let was_on_disk = self.tier.expire(key.bytes(), now);
        shard.invalidate(&key.bin(), now) || was_on_disk
    }

    /// Gives a copy the header and times of a newer answer that has confirmed it; `false` if it is there no more.
    pub fn renew_copy(&self, key: &Key, copy: &StoredCopy, mut meta: CacheMeta) -> bool {
        copy.mark(&mut meta);
        self.renew(key.into(), copy.0.id, Kept::of(&meta::without_age(meta)))
    }

    /// Makes one copy stale and leaves it for the case of failure.
    pub fn expire_copy(&self, key: &Key, copy: &StoredCopy) {
        let now = clock::now();
        self.tier.expire(key.bytes(), now);
        let mut expired = copy.0.kept.clone();
        expired.expire(now);
        if self.renew(key.into(), copy.0.id, expired)
            && let Some(family) = self.shard(&key.bin()).read().family(key.into())
        {
            family.slots().iter().filter(|slot| copy.is(&slot.object)).for_each(|slot| slot.object.outlive());
        }
    }

    /// Whether there is any copy under the key, for whatever request.
    pub fn has(&self, key: &Key) -> bool {
        self.shard(&key.bin()).read().family(key.into()).is_some_and(|family| family.primary().is_some())
    }

    fn shard(&self, bin: &HashBinary) -> &RwLock<Shard> {
        let at = usize::from(bin[0]) % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "there are SHARDS shards, and the index is below that")]
        &self.shards[at]
    }

    fn takes_under(&self, key: KeyRef<'_>, response: &ResponseHeader) -> bool {
        match content_length(&response.headers) {
            Some(body) => {
                body.saturating_add(base_weight(key.bytes, text_len(response))) <= self.object_bytes_max()
            }
            None => !self.shard(&key.bin).read().is_too_large(&key.bin),
        }
    }

    /// How much of a body that is too large to keep may wait for a slow reader.
    fn backlog_bytes_max(&self) -> u64 {
        self.object_bytes_max().saturating_mul(2).max(self.budget.limit() / 4)
    }

    /// The largest object kept, in bytes.
    pub fn object_bytes_max(&self) -> u64 {
        self.object_bytes_max.load(Ordering::Relaxed)
    }

    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes room for so many bytes and takes them; `false` if even an empty store has no room.
    fn reserve(&self, bytes: u64) -> bool {
        while !self.budget.take(bytes) {
            if !self.evict_one() {
                return self.budget.take(bytes);
            }
        }
        true
    }

    /// Gives up one copy: of the next shard that has an unused one, or, after a round in which marks fell and one
    /// in which they were all set again, of the next that has any.
    fn evict_one(&self) -> bool {
        (0..2 * SHARDS).any(|_| self.evict_from_next(Mercy::SpareUsed))
            || (0..SHARDS).any(|_| self.evict_from_next(Mercy::None))
    }

    fn evict_from_next(&self, mercy: Mercy) -> bool {
        let at = self.next_victim.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let (removed, proven) =
            self.shards.get(at).map(|shard| shard.write().evict(mercy)).unwrap_or_default();
        if let Some(key) = proven {
            self.tier.proven(&key);
        }
        self.evictions.fetch_add(removed.objects, Ordering::Relaxed);
        self.release(removed)
    }

    /// Gives back what a shard no longer holds; says whether that was anything.
    fn release(&self, removed: shard::Removed) -> bool {
        self.objects.fetch_sub(removed.objects, Ordering::Relaxed);
        self.budget.give_back(removed.bytes);
        removed.objects > 0
    }

    /// Whether purges, or changes that are looked for, have come since this copy was last looked at.
    fn is_behind(&self, key: KeyRef<'_>, object: &Object) -> bool {
        let settled = object.settled();
        settled < self.purges.newest() || settled < self.purges.newest_change() && !key::is_plain(key.bytes)
    }

    /// Applies the purges that have come to a family, in memory and on disk.
    fn settle(&self, key: KeyRef<'_>) {
        let newest = self.purges.newest().max(self.purges.newest_change());
        let now = clock::now();
        let verdict = |object: &Object| self.purges.verdict(object.settled(), key.bytes, object.kept.tags());
        let mut shard = self.shard(&key.bin).write();
        let (removed, worst) = shard.settle(&key.bin, newest, now, verdict);
        match worst {
            Some(PurgeMode::Hard) => self.tier.purge(key.bytes),
            Some(PurgeMode::Soft) => self.tier.expire(key.bytes, now),
            None => false,
        };
        drop(shard);
        self.release(removed);
    }

    /// Whether a fill was begun before a purge or a change that concerns it.
    fn is_purged(&self, key: KeyRef<'_>, meta: &CacheMeta) -> bool {
        let generation = Generation::of(meta);
        let verdict = || self.purges.verdict(generation, key.bytes, &purge::tags(meta.headers()));
        generation < self.purges.newest() && verdict().is_some()
            || self.purges.change_since(generation, key.bytes).is_some()
    }

    fn remove_family(&self, key: KeyRef<'_>) -> bool {
        let mut shard = self.shard(&key.bin).write();
        let removed = shard.remove(&key.bin);
        // Under the lock: whatever is read from disk is filed under it too, and must not slip in behind.
        let was_on_disk = self.tier.purge(key.bytes);
        drop(shard);
        self.release(removed) || was_on_disk
    }
}

/// The length of a response's body, if it is announced.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
