//! What workers and the disk thread share: the index, the queue, the limits and the counts.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use goodgate_files::Folder;
use parking_lot::{Condvar, Mutex, RwLock};
use pingora_cache::key::HashBinary;

use super::counters::{Counters, DiskEvent, DiskState, Operation};
use super::index::Index;
use super::key::{KeyHash, seconds, variance_of, whole_seconds};
use super::queue::{Job, Queue};
use super::read::Waiting;
use super::terms::Terms;
use crate::purge::Purges;
use crate::store::Object;
use crate::{CopyKind, DiskSpec};

/// A body up to this size is in its record, read as a whole and then held in memory.
const INLINE_BYTES_MAX: u64 = 4 << 20;
/// The bounds of a segment's size, and how many the limit is divided into between them.
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 1 << 30);
const SEGMENTS: u64 = 64;
/// What may wait for the disk thread, unless the largest object in memory is larger.
const QUEUE_BYTES_MIN: u64 = 32 << 20;
/// How long the last try for purges may take.
const LAST_TRY: Duration = Duration::from_secs(3);
/// Whether a key has copies in memory.
pub(super) type IsHeld = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What workers and the disk thread share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    /// Where large bodies are; none: the directory has not been opened.
    pub(super) folder: RwLock<Option<Arc<Folder>>>,
    pub(super) index: Index,
    pub(super) files: RwLock<HashMap<u64, Arc<File>>>,
    pub(super) queue: Queue,
    pub(super) waiting: Waiting,
    pub(super) counters: Counters,
    pub(super) is_held: IsHeld,
    /// Those of the store, that they survive it.
    pub(super) purges: Arc<Purges>,
    pub(super) retry: (Duration, Duration),
    pub(super) limit: AtomicU64,
    pub(super) object_bytes_max: AtomicU64,
    /// The largest object that memory takes.
    pub(super) memory_object_max: AtomicU64,
    last_good_percent: AtomicU8,
    /// In seconds, see [`DiskSpec::refresh`].
    refresh: AtomicU32,
    pub(super) bytes: AtomicU64,
    seq: AtomicU64,
    segment: AtomicU64,
    /// Whether the first opening is over, one way or the other.
    is_settled: Mutex<bool>,
    settled: Condvar,
    /// The thread has had one thing in hand for too long.
    is_stuck: AtomicBool,
    /// Purges that could not be written so far.
    pub(super) purges_waiting: AtomicUsize,
    /// The directory is to be tried again at once.
    pub(super) is_hurried: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        spec: &DiskSpec,
        memory_object_max: u64,
        counters: Counters,
        (is_held, purges): (IsHeld, Arc<Purges>),
        retry: (Duration, Duration),
    ) -> Self {
        Self {
            path: spec.path.clone(),
            folder: RwLock::default(),
            index: Index::new(),
            files: RwLock::default(),
            queue: Queue::new(QUEUE_BYTES_MIN.max(memory_object_max)),
            waiting: Waiting::new(),
            counters,
            is_held,
            purges,
            retry,
            limit: AtomicU64::new(spec.bytes),
            object_bytes_max: AtomicU64::new(spec.object_bytes_max),
            memory_object_max: AtomicU64::new(memory_object_max),
            last_good_percent: AtomicU8::new(spec.last_good_percent),
            refresh: AtomicU32::new(whole_seconds(spec.refresh)),
            bytes: AtomicU64::new(0),
            seq: AtomicU64::new(0),
            segment: AtomicU64::new(0),
            is_settled: Mutex::new(false),
            settled: Condvar::new(),
            is_stuck: AtomicBool::new(false),
            purges_waiting: AtomicUsize::new(0),
            is_hurried: AtomicBool::new(false),
        }
    }

    /// Takes over the limits of a reload.
    pub(super) fn set_limits(&self, spec: &DiskSpec, memory_object_max: u64) {
        self.limit.store(spec.bytes, Ordering::Relaxed);
        self.object_bytes_max.store(spec.object_bytes_max, Ordering::Relaxed);
        self.memory_object_max.store(memory_object_max, Ordering::Relaxed);
        self.last_good_percent.store(spec.last_good_percent, Ordering::Relaxed);
        self.refresh.store(whole_seconds(spec.refresh), Ordering::Relaxed);
        self.queue.set_limit(QUEUE_BYTES_MIN.max(memory_object_max));
    }

    /// See [`DiskSpec::last_good_percent`].
    pub(super) fn last_good_percent(&self) -> u8 {
        self.last_good_percent.load(Ordering::Relaxed)
    }

    /// Waits until the first opening is over, one way or the other, but no longer than this.
    pub(super) fn wait_until_settled(&self, limit: Duration) {
        let mut is_settled = self.is_settled.lock();
        if !*is_settled {
            self.settled.wait_for(&mut is_settled, limit);
        }
    }

    /// Greater than all before it, and than the generation of every response that was asked for before: the journal alone
    /// then says where the generations of the next process must begin.
    pub(super) fn next_seq(&self) -> u64 {
        let now = self.purges.number();
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.seq.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.map_or(now, |last| next(last).unwrap_or(now))
    }

    pub(super) fn seq_seen(&self, seq: u64) {
        self.seq.fetch_max(seq, Ordering::Relaxed);
    }

    pub(super) fn next_segment(&self) -> u64 {
        self.segment.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn segments_seen(&self, id: u64) {
        self.segment.fetch_max(id, Ordering::Relaxed);
    }

    /// Whether the copy that is there will do for a while: it was written a moment ago, and is the same but for its
    /// times, or both are for the case of failure, or no longer fresh and soon to be so. What is still fresh would be
    /// served in place of the newer one, once that is out of memory.
    pub(super) fn will_do(&self, key: KeyHash, object: &Object, is_update: bool) -> bool {
        let (standing, refresh) = (object.kept.standing(), self.refresh.load(Ordering::Relaxed));
        let info = &standing.info;
        let Some(slot) = self.index.variant(key, variance_of(object.kept.variance())) else {
            return false;
        };
        let now = seconds(info.stored);
        let is_over = slot.fresh_until() <= now && Terms::of(&standing).fresh_for <= refresh;
        slot.terms.kind == info.kind
            && slot.expired == 0
            && now.saturating_sub(slot.stored) < refresh
            && (is_update || info.kind == CopyKind::LastGood || is_over)
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        (self.limit.load(Ordering::Relaxed) / SEGMENTS).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1)
    }

    pub(super) fn inline_bytes_max(&self) -> u64 {
        let memory = self.memory_object_max.load(Ordering::Relaxed);
        INLINE_BYTES_MAX.min(self.segment_bytes() / 4).min(memory / 2)
    }

    pub(super) fn set_state(&self, state: DiskState) {
        self.counters.set_state(state);
        *self.is_settled.lock() = true;
        self.settled.notify_all();
    }

    /// Looks whether the thread gets on with its work. Where it does not the disk is out of use: what is to be
    /// written would only wait.
    pub(super) fn look_after(&self) {
        let is_working = self.counters.state() == DiskState::Working;
        if is_working && self.queue.is_stuck() && !self.is_stuck.swap(true, Ordering::AcqRel) {
            self.counters.count_error(Operation::Write);
            self.counters.set_state(DiskState::Degraded);
            self.counters.report(&DiskEvent::Stuck);
        }
    }

    /// Waits until what is queued is written, but no longer than this. A disk that is out of use is tried once more for
    /// the purges that wait for it.
    pub(super) fn flush(&self, limit: Duration) {
        self.queue.drain(limit);
        let until = Instant::now() + limit.min(LAST_TRY);
        let waiting = || self.purges_waiting.load(Ordering::Relaxed);
        if waiting() > 0 {
            self.is_hurried.store(true, Ordering::Relaxed);
        }
        while waiting() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        if waiting() > 0 {
            self.counters.report(&DiskEvent::PurgesLost { purges: waiting() });
        }
    }

    /// The thread has got on with its work.
    pub(super) fn moves_on(&self) {
        if self.is_stuck.swap(false, Ordering::AcqRel) {
            self.counters.set_state(DiskState::Working);
            self.counters.report(&DiskEvent::MovesOn);
        }
    }

    /// A read came to nothing. One that was not tried is no news.
    pub(super) fn read_failed(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::WouldBlock {
            self.counters.failed(Operation::Read, error);
        }
    }

    /// A job that will not be done. An older copy of the same must not outlive the newer in memory.
    pub(super) fn lost(&self, job: &Job) {
        match job {
            Job::Keep { key, object, .. } => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                self.outdate(KeyHash::of(key), object.kept.variance());
            }
            Job::Piece(stream, data) => {
                stream.waiting.fetch_sub(data.len() as u64, Ordering::Relaxed);
                stream.is_lost.store(true, Ordering::Relaxed);
            }
            Job::Finish { .. } => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Job::Purge { .. }
            | Job::Drop { .. }
            | Job::Expire { .. }
            | Job::Note(_)
            | Job::Release(_)
            | Job::Abandon(_) => {}
        }
    }

    /// Takes a copy out of the index that is no longer the newest.
    pub(super) fn outdate(&self, key: KeyHash, variance: Option<HashBinary>) {
        if let Some(slot) = self.index.variant(key, variance_of(variance)) {
            self.forget((key, slot.seq));
        }
    }

    /// Takes a record out of the index.
    pub(super) fn forget(&self, (key, seq): (KeyHash, u64)) {
        if self.index.remove(key, seq) {
            self.queue.push(Job::Release(vec![seq]));
        }
    }
}
