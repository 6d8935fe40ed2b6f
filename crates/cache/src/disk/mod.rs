//! The disk tier: what was kept survives a restart, a crash and a full disk, and memory holds only its index.
//!
//! Copies are appended to segment files; beside each is a journal, from which alone the index is built at the start.
//! Everything that is read is checked by checksums and bounds before it is believed. One thread writes, from a queue
//! that is bounded: a slow disk costs copies, never requests. Nothing is forced to the platter: a killed process
//! leaves what it wrote to the kernel, and after a loss of power the checksums tell what is missing.
//!
//! Records are numbered in the order in which they came into being, deeds that take copies away among them
//! ([`Disk::purge`]): a purge of many copies at once needs no more than a number to compare theirs with.

mod body;
mod buffer;
mod bytes;
mod counters;
mod files;
mod head;
mod index;
mod journal;
mod key;
mod purges;
mod queue;
mod read;
mod record;
mod recover;
mod segments;
mod shared;
mod terms;
#[cfg(test)]
mod tests;
mod thread;
mod upload;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use pingora_cache::key::HashBinary;

use crate::kept::Kept;
use crate::purge::{PurgeEntry, Purges};
use crate::store::{Body, Object};
use crate::{DiskSpec, Standing};
use buffer::Buffer;
use counters::Counters;
use queue::Job;
use shared::{IsHeld, Shared};

pub(crate) use body::LargeBody;
pub use counters::{DiskEvent, DiskState, DiskUsage, Operation, Report};
use index::Slot;
pub(crate) use key::KeyHash;
pub use read::Patience;
pub(crate) use upload::Upload;

/// A directory that failed is tried again after this, then after twice as long, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(5));

/// One directory in use. Dropped, it is given back.
pub(crate) struct Disk {
    shared: Arc<Shared>,
}

/// Which copy of a family is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// The youngest: its `Vary` says which it should have been.
    Any,
    /// The one that answered such a request.
    Variant(Option<HashBinary>),
    /// The same by the number that the index has for it.
    Numbered(u32),
}

/// A copy that was read from disk.
pub(crate) struct Found {
    pub(crate) kept: Kept,
    pub(crate) body: Body,
    /// It was made stale by a purge, or by a request that changed what it shows.
    pub(crate) is_expired: bool,
    seq: u64,
}

impl Disk {
    /// Starts the disk thread, which opens the directory. `is_held` says which keys are in memory.
    pub(crate) fn start(
        spec: &DiskSpec,
        memory_object_max: u64,
        report: Report,
        is_held: IsHeld,
        purges: Arc<Purges>,
    ) -> io::Result<Self> {
        Self::start_retrying(spec, memory_object_max, report, (is_held, purges), RETRY)
    }

    fn start_retrying(
        spec: &DiskSpec,
        memory_object_max: u64,
        report: Report,
        of_store: (IsHeld, Arc<Purges>),
        retry: (Duration, Duration),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(spec, memory_object_max, Counters::new(report), of_store, retry));
        let its_own = Arc::clone(&shared);
        std::thread::Builder::new().name("disk".to_owned()).spawn(move || thread::run(its_own))?;
        Ok(Self { shared })
    }

    /// Waits until the index is read, or cannot be, but no longer than this.
    pub(crate) fn wait_until_open(&self, limit: Duration) {
        self.shared.wait_until_settled(limit);
    }

    /// Whether it is about this directory.
    pub(crate) fn is_at(&self, spec: &DiskSpec) -> bool {
        self.shared.path == spec.path
    }

    pub(crate) fn set_limits(&self, spec: &DiskSpec, memory_object_max: u64) {
        self.shared.set_limits(spec, memory_object_max);
    }

    pub(crate) fn usage(&self) -> DiskUsage {
        self.shared.look_after();
        DiskUsage {
            objects: self.shared.index.objects(),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            limit: self.shared.limit.load(Ordering::Relaxed),
            ..self.shared.counters.usage()
        }
    }

    /// Queues a purge of many copies, to be written down.
    pub(crate) fn note_purge(&self, entry: PurgeEntry) {
        self.shared.queue.push(Job::Note(entry));
    }

    /// Waits until what is queued is written, but no longer than this.
    pub(crate) fn flush(&self, limit: Duration) {
        self.shared.flush(limit);
    }

    /// Queues a copy, unless the one that is there [will do](Shared::will_do).
    pub(crate) fn keep(&self, key: &Arc<[u8]>, object: &Arc<Object>, is_update: bool) {
        let hash = KeyHash::of(key);
        let variance = object.kept.variance();
        if self.shared.will_do(hash, object, is_update) {
            return;
        }
        self.shared.look_after();
        let seq = self.shared.next_seq();
        let job = Job::Keep { key: Arc::clone(key), object: Arc::clone(object), is_update, seq };
        if !self.is_working() || !self.shared.queue.push(job) {
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
            self.shared.outdate(hash, variance);
        }
    }

    fn is_working(&self) -> bool {
        self.shared.counters.state() == DiskState::Working
    }

    /// Drops a family, of which there may be copies in the queue. Says whether there was one.
    pub(crate) fn purge(&self, key: &[u8]) -> bool {
        let key = KeyHash::of(key);
        let seq = self.shared.next_seq();
        let gone = self.shared.index.purge(key, seq);
        let is_found = !gone.is_empty();
        self.shared.queue.push(Job::Purge { key, seq, gone });
        is_found
    }

    /// Drops one variant.
    pub(crate) fn drop_variant(&self, key: &[u8], variance: Option<HashBinary>) -> bool {
        let key = KeyHash::of(key);
        let variance = key::variance_of(variance);
        let seq = self.shared.next_seq();
        let gone = self.shared.index.drop_variant(key, variance);
        let is_found = !gone.is_empty();
        self.shared.queue.push(Job::Drop { key, variance, seq, gone });
        is_found
    }

    /// Makes a family stale; says whether there is one.
    pub(crate) fn expire(&self, key: &[u8], now: SystemTime) -> bool {
        let key = KeyHash::of(key);
        let seq = self.shared.next_seq();
        let at = key::seconds(now);
        let is_found = self.shared.index.expire(key, at);
        self.shared.queue.push(Job::Expire { key, seq, at });
        is_found
    }

    /// Whether anything is kept under a key.
    pub(crate) fn knows(&self, key: KeyHash) -> bool {
        self.shared.index.youngest(key).is_some()
    }

    /// What to ask for to get the copies of a family, the youngest first, but no more than so many.
    pub(crate) fn variants(&self, key: KeyHash, most: usize) -> Vec<Wanted> {
        self.shared.index.variances(key, most).into_iter().map(Wanted::Numbered).collect()
    }

    /// Memory gives up copies that were asked for again.
    pub(crate) fn proven(&self, key: &[u8]) {
        self.shared.index.proven(KeyHash::of(key));
    }

    /// What is known of a copy without reading it.
    pub(crate) fn standing(&self, hash: KeyHash, wanted: Wanted) -> Option<Standing> {
        self.slot(hash, wanted).map(|slot| slot.standing())
    }

    fn slot(&self, hash: KeyHash, wanted: Wanted) -> Option<Slot> {
        match wanted {
            Wanted::Any => self.shared.index.youngest(hash),
            Wanted::Variant(variance) => self.shared.index.variant(hash, key::variance_of(variance)),
            Wanted::Numbered(variance) => self.shared.index.variant(hash, variance),
        }
    }

    /// Reads a copy of a family.
    pub(crate) async fn read(
        &self,
        key: &[u8],
        hash: KeyHash,
        wanted: Wanted,
        patience: Patience,
    ) -> Option<Found> {
        let slot = self.slot(hash, wanted)?;
        let (file, len) = self.record_of(&slot)?;
        let bytes = match self.shared.waiting.read(&file, u64::from(slot.offset), len, patience).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.shared.read_failed(&error);
                return None;
            }
        };
        let (mut found, frame) = self.understand(bytes, key, hash, &slot)?;
        if frame.body_id != 0 {
            let body = (frame.body_id, frame.body_len);
            found.body = self.open_body(body, (hash, slot.seq), patience).await?;
        }
        self.note_use(hash, &slot);
        Some(found)
    }

    /// The same if the page cache has all of it.
    pub(crate) fn read_at_once(&self, key: &[u8], hash: KeyHash, wanted: Wanted) -> Option<Found> {
        let slot = self.slot(hash, wanted)?;
        let (file, len) = self.record_of(&slot)?;
        let bytes = read::at_once(&file, u64::from(slot.offset), len)?;
        let (found, frame) = self.understand(bytes, key, hash, &slot)?;
        if frame.body_id != 0 {
            return None;
        }
        self.note_use(hash, &slot);
        Some(found)
    }

    fn record_of(&self, slot: &Slot) -> Option<(Arc<File>, usize)> {
        let file = self.shared.files.read().get(&u64::from(slot.segment)).cloned()?;
        Some((file, usize::try_from(slot.len).ok()?))
    }

    fn understand(
        &self,
        bytes: Buffer,
        key: &[u8],
        hash: KeyHash,
        slot: &Slot,
    ) -> Option<(Found, record::Frame)> {
        let Some(record) = record::read(bytes, slot.seq) else {
            self.forget(hash, slot);
            return None;
        };
        if record.head.key != key {
            return None;
        }
        let body = Body::of(vec![record.body]);
        let mut found = Found { kept: record.head.kept, body, is_expired: false, seq: slot.seq };
        if slot.expired != 0 {
            found.is_expired = true;
            found.kept.expire(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(slot.expired)));
        }
        Some((found, record.frame))
    }

    fn note_use(&self, hash: KeyHash, slot: &Slot) {
        self.shared.index.used(hash, slot.seq);
        self.shared.counters.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what was read is still to be had: it may have been purged since.
    pub(crate) fn still_has(&self, key: KeyHash, found: &Found) -> bool {
        self.shared.index.has(key, found.seq)
    }

    /// A record that is not what was written.
    fn forget(&self, key: KeyHash, slot: &Slot) {
        // Where the segment has gone or moved meanwhile, nothing is wrong.
        let now = self.shared.index.of_record(key, slot.seq);
        if now.is_some_and(|now| (now.segment, now.offset) == (slot.segment, slot.offset)) {
            self.shared.counters.corrupt("a record");
            self.shared.forget((key, slot.seq));
        }
    }

    async fn open_body(&self, body: (u64, u64), record: (KeyHash, u64), patience: Patience) -> Option<Body> {
        let folder = self.shared.folder.read().clone()?;
        match self.shared.waiting.block(patience, move || files::open_body(&folder, body.0)).await {
            Ok(file) => Some(Body::File(Arc::new(LargeBody::new(file, body, record, &self.shared)))),
            // It was given up for room in this very moment, or the whole directory is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.shared.forget(record);
                None
            }
            Err(error) => {
                self.shared.read_failed(&error);
                None
            }
        }
    }

    /// Starts to write a body that is too large for memory; none if it is too large for the disk too.
    pub(crate) fn upload(&self, announced: Option<u64>) -> Option<Upload> {
        let takes = announced.is_none_or(|len| len <= self.object_bytes_max());
        (takes && self.is_working()).then(|| Upload::start(&self.shared))
    }

    pub(crate) fn takes(&self, announced: Option<u64>) -> bool {
        self.is_working() && announced.is_none_or(|len| len <= self.object_bytes_max())
    }

    fn object_bytes_max(&self) -> u64 {
        self.shared.object_bytes_max.load(Ordering::Relaxed)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}
