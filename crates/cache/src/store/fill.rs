//! A fill in progress: one writer, any number of readers, none of which waits for the client of another.
//!
//! A writer may hang with its backend: nobody joins a fill that has not moved for [`FILL_WAIT`], so that the next
//! request fetches anew. Who has joined before has got the beginning, and shares the end.
//!
//! The chunks are behind a short lock; that there is something new is told by a watch channel, whose sender the
//! writer owns: a writer that is dropped without an end wakes all readers, and they see an aborted body.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use pingora_cache::CacheMeta;
use pingora_cache::key::HashBinary;
use pingora_error::{Error, ErrorType, Result};
use tokio::sync::watch;

use super::Store;

pub(super) struct Fill {
    store: &'static Store,
    tag: u64,
    slot: Option<HashBinary>,
    pub(super) meta: CacheMeta,
    progress: watch::Receiver<Progress>,
    /// Purged meanwhile: nobody may join, and nothing is stored in the end.
    forbidden: AtomicBool,
    chunks: Mutex<Chunks>,
}

/// How long anybody waits for another one's fetch that does not get on.
pub const FILL_WAIT: Duration = Duration::from_secs(5);

/// How much of what is passed through a reader gets at once.
const JOINED_BYTES_MAX: usize = 256 << 10;

/// What the writer last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More may come.
    Writing,
    /// The body is complete.
    Complete,
}

/// The chunks that are held, and what becomes of them.
struct Chunks {
    fate: Fate,
    /// When the last one came, or the header.
    moved: Instant,
    held: VecDeque<Bytes>,
    /// Their bytes.
    bytes: u64,
    /// The index of the first chunk that is held.
    first: usize,
    /// The next chunk of each reader.
    readers: Vec<(u64, usize)>,
    next_reader: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// All are kept, to become a copy.
    Store,
    /// A chunk goes when every reader has it, and its bytes with it.
    PassThrough,
    /// The bytes are a copy's now.
    Stored,
    /// The writer gave up; the bytes were given back.
    Abandoned,
}

impl Fill {
    pub(super) fn new(
        store: &'static Store,
        tag: u64,
        slot: Option<HashBinary>,
        meta: CacheMeta,
        progress: watch::Receiver<Progress>,
    ) -> Self {
        let chunks = Chunks {
            fate: Fate::Store,
            moved: Instant::now(),
            held: VecDeque::new(),
            bytes: 0,
            first: 0,
            readers: Vec::new(),
            next_reader: 0,
        };
        Self {
            store,
            tag,
            slot,
            meta,
            progress,
            forbidden: AtomicBool::new(false),
            chunks: Mutex::new(chunks),
        }
    }

    pub(super) fn tag(&self) -> u64 {
        self.tag
    }

    pub(super) fn slot(&self) -> Option<HashBinary> {
        self.slot
    }

    pub(super) fn forbid_storing(&self) {
        self.forbidden.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_forbidden(&self) -> bool {
        self.forbidden.load(Ordering::Relaxed)
    }

    pub(super) fn may_be_joined(&self) -> bool {
        if self.is_forbidden() {
            return false;
        }
        let chunks = self.chunks.lock();
        match chunks.fate {
            Fate::Store => chunks.moved.elapsed() < FILL_WAIT,
            Fate::Stored => true,
            Fate::PassThrough | Fate::Abandoned => false,
        }
    }

    pub(super) fn is_storing(&self) -> bool {
        self.chunks.lock().fate == Fate::Store
    }

    /// A reader from the beginning; none if the beginning is gone.
    pub(super) fn join(self: &Arc<Self>) -> Option<FillReader> {
        let mut chunks = self.chunks.lock();
        if chunks.first > 0 {
            return None;
        }
        let id = chunks.next_reader;
        chunks.next_reader += 1;
        chunks.readers.push((id, 0));
        Some(FillReader { fill: self.clone(), id, progress: self.progress.clone() })
    }

    /// Adds a chunk whose bytes have been reserved.
    pub(super) fn push(&self, chunk: Bytes) {
        let mut chunks = self.chunks.lock();
        chunks.moved = Instant::now();
        chunks.bytes += chunk.len() as u64;
        chunks.held.push_back(chunk);
        chunks.trim(self.store);
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.chunks.lock().bytes
    }

    /// From now on only what some reader still needs is held.
    pub(super) fn pass_through(&self) {
        let mut chunks = self.chunks.lock();
        chunks.fate = Fate::PassThrough;
        chunks.trim(self.store);
    }

    /// The whole body, to be stored: its bytes go over to the copy.
    pub(super) fn settle(&self) -> Vec<Bytes> {
        let mut chunks = self.chunks.lock();
        chunks.fate = Fate::Stored;
        chunks.held.iter().cloned().collect()
    }

    /// Gives the bytes of an unfinished fill back, though readers may still hold them for a moment: they are about to end.
    pub(super) fn abandon(&self) {
        let mut chunks = self.chunks.lock();
        self.store.budget.give_back(chunks.bytes);
        chunks.fate = Fate::Abandoned;
    }
}

impl Chunks {
    /// Of what is only passed through a reader gets as much at once as there is, up to a bound: it comes in by several
    /// chunks at a time, and must not pile up.
    fn next_for(&mut self, reader: u64) -> Option<Bytes> {
        let (_, next) = self.readers.iter_mut().find(|(id, _)| *id == reader)?;
        let at = next.checked_sub(self.first)?;
        let chunk = self.held.get(at)?;
        let mut left = JOINED_BYTES_MAX.saturating_sub(chunk.len());
        let others = self.held.range(at + 1..).take_while(|other| match left.checked_sub(other.len()) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        });
        let others = if self.fate == Fate::PassThrough { others.count() } else { 0 };
        *next += 1 + others;
        if others == 0 {
            return Some(chunk.clone());
        }
        let joined: Vec<&[u8]> = self.held.range(at..=at + others).map(AsRef::as_ref).collect();
        Some(joined.concat().into())
    }

    /// In passing through, lets go what all readers have.
    fn trim(&mut self, store: &Store) {
        if self.fate != Fate::PassThrough {
            return;
        }
        let end = self.first + self.held.len();
        let needed = self.readers.iter().map(|(_, next)| *next).min().unwrap_or(end);
        while self.first < needed {
            let Some(chunk) = self.held.pop_front() else {
                return;
            };
            store.budget.give_back(chunk.len() as u64);
            self.bytes -= chunk.len() as u64;
            self.first += 1;
        }
    }
}

/// One reader of a fill, from its first byte.
pub(super) struct FillReader {
    fill: Arc<Fill>,
    id: u64,
    progress: watch::Receiver<Progress>,
}

impl FillReader {
    /// The next chunk; none at the end of a complete body, an error if the writer gave up.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            // Read before the chunks: what comes in between is then news, and wakes us again.
            let progress = *self.progress.borrow_and_update();
            if let Some(chunk) = self.take() {
                return Ok(Some(chunk));
            }
            if progress == Progress::Complete {
                return Ok(None);
            }
            if self.progress.changed().await.is_err() {
                let cut =
                    Error::explain(ErrorType::ConnectionClosed, "the response ended before it was complete");
                return Err(cut.into_up());
            }
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let mut chunks = self.fill.chunks.lock();
        let chunk = chunks.next_for(self.id);
        chunks.trim(self.fill.store);
        chunk
    }
}

impl Drop for FillReader {
    fn drop(&mut self) {
        let mut chunks = self.fill.chunks.lock();
        chunks.readers.retain(|(id, _)| *id != self.id);
        chunks.trim(self.fill.store);
    }
}
