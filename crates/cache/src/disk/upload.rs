//! A body too large for memory on its way to the disk, while it streams to a client.
//!
//! What waits for the disk is bounded for each body; a disk that is slower than that loses the copy, never the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::key::KeyHash;
use super::queue::{Job, Stream};
use super::shared::Shared;
use crate::kept::Kept;

/// Bytes of one body that may wait for the disk.
const WAITING_MAX: u64 = 8 << 20;

/// One body being written. Dropped unfinished, nothing of it stays.
pub(crate) struct Upload {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    len: u64,
    is_over: bool,
}

impl Upload {
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let stream =
            Stream { id: shared.next_seq(), waiting: AtomicU64::new(0), is_lost: AtomicBool::new(false) };
        Self { shared: Arc::clone(shared), stream: Arc::new(stream), len: 0, is_over: false }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a piece; false once the copy is given up.
    pub(crate) fn push(&mut self, data: &Bytes) -> bool {
        let bytes = data.len() as u64;
        self.len += bytes;
        let is_too_large = self.len > self.shared.object_bytes_max.load(Ordering::Relaxed);
        let is_too_slow = self.waiting() + bytes > WAITING_MAX;
        if is_too_large || is_too_slow || self.stream.is_lost.load(Ordering::Relaxed) {
            return self.lose();
        }
        self.stream.waiting.fetch_add(bytes, Ordering::Relaxed);
        // A part of a larger read buffer must not keep all of that in memory.
        let piece = Job::Piece(Arc::clone(&self.stream), Bytes::copy_from_slice(data));
        self.shared.queue.push(piece) || self.lose()
    }

    /// Whether the disk is falling behind.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting() > WAITING_MAX / 2
    }

    /// Whether another response has been stored under the key since this one began to come. It is as new as this one.
    pub(crate) fn is_overtaken(&self, key: &[u8]) -> bool {
        let youngest = self.shared.index.youngest(KeyHash::of(key));
        youngest.is_some_and(|slot| slot.seq > self.stream.id)
    }

    /// The body is complete: it is filed when the disk has all of it.
    pub(crate) fn finish(mut self, key: &Arc<[u8]>, kept: Kept) {
        self.is_over = true;
        let seq = self.shared.next_seq();
        let (stream, key, kept) = (Arc::clone(&self.stream), Arc::clone(key), Box::new(kept));
        self.shared.queue.push(Job::Finish { stream, key, kept, seq });
    }

    fn waiting(&self) -> u64 {
        self.stream.waiting.load(Ordering::Relaxed)
    }

    fn lose(&self) -> bool {
        if !self.stream.is_lost.swap(true, Ordering::Relaxed) {
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        false
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_over {
            self.stream.is_lost.store(true, Ordering::Relaxed);
            self.shared.queue.push(Job::Abandon(Arc::clone(&self.stream)));
        }
    }
}
