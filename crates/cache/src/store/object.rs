//! One complete copy: immutable but for the mark of use and the note of a failed refresh.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use goodgate_failure::Cause;
use parking_lot::Mutex;
use pingora_cache::CacheMeta;
use pingora_error::Result;

use super::hit::BodyReader;
use super::meta::{self, CopyId};
use crate::disk::LargeBody;
use crate::purge::{self, Generation, Mark};
use crate::{CopyInfo, CopyKind};

/// How long after a failed refresh a copy is served without asking again.
pub const REFRESH_BACKOFF: Duration = Duration::from_secs(1);

pub(crate) struct Object {
    pub(crate) meta: CacheMeta,
    pub(crate) info: CopyInfo,
    pub(crate) body: Body,
    pub(crate) weight: u64,
    visited: AtomicBool,
    failure: Mutex<Option<Failure>>,
    is_outlived: AtomicBool,
    /// The tags that its answer named.
    pub(super) tags: Box<[Mark]>,
    /// The number of the last purge that is known not to concern it.
    settled: AtomicU64,
}

#[derive(Clone, Copy)]
struct Failure {
    cause: Cause,
    at: Instant,
}

impl Object {
    /// `weight` is what has been reserved for it.
    pub(super) fn new(mut meta: CacheMeta, id: u64, body: Body, weight: u64) -> Self {
        meta.extensions_mut().insert(CopyId(id));
        if let Some(own) = meta::compact(meta.response_header()) {
            *meta.response_header_mut() = own;
        }
        Self {
            info: CopyInfo::of(&meta),
            tags: purge::tags(meta.headers()),
            settled: AtomicU64::new(Generation::of(&meta).number()),
            meta,
            body,
            weight,
            visited: AtomicBool::new(false),
            failure: Mutex::new(None),
            is_outlived: AtomicBool::new(false),
        }
    }

    /// The same copy with other meta data: a confirmed or an expired one.
    pub(super) fn with_meta(&self, meta: CacheMeta, weight: u64) -> Self {
        let CopyId(id) = self.id().unwrap_or(CopyId(0));
        let copy = Self::new(meta, id, self.body.clone(), weight);
        copy.visited.store(self.visited.load(Ordering::Relaxed), Ordering::Relaxed);
        copy
    }

    /// See [`StoredCopy::outlive`].
    pub(super) fn outlive(&self) {
        self.is_outlived.store(true, Ordering::Relaxed);
    }

    /// The number of the last purge that is known not to concern it.
    pub(super) fn settled(&self) -> Generation {
        Generation::from_number(self.settled.load(Ordering::Relaxed))
    }

    /// No purge up to this one concerns it any more.
    pub(super) fn settle(&self, generation: Generation) {
        self.settled.store(generation.number(), Ordering::Relaxed);
    }

    pub(super) fn is_standard(&self) -> bool {
        self.info.kind == CopyKind::Standard
    }

    pub(super) fn id(&self) -> Option<CopyId> {
        self.meta.extensions().get().copied()
    }

    pub(super) fn visit(&self) {
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the last call.
    pub(super) fn take_visit(&self) -> bool {
        self.visited.swap(false, Ordering::Relaxed)
    }
}

/// A complete body, which all readers share.
#[derive(Clone)]
pub(crate) enum Body {
    /// In memory, in chunks of which none is empty.
    Memory { chunks: Arc<[Bytes]>, len: usize },
    /// On disk.
    File(Arc<LargeBody>),
}

impl Body {
    /// Joins what came in small pieces, so that a hit is few writes. Large pieces stay as they are.
    pub(crate) fn of(pieces: Vec<Bytes>) -> Self {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        let is_large_in_large_pieces =
            len > BLOCK_BYTES && len.checked_div(pieces.len()).is_some_and(|mean| mean >= BLOCK_BYTES / 4);
        let is_as_it_should_be = pieces.len() == 1 && len > 0 || is_large_in_large_pieces;
        let chunks = if is_as_it_should_be { pieces } else { join(&pieces, len) };
        Self::Memory { chunks: chunks.into(), len }
    }

    /// Whether it can be read, as far as is known.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Memory { .. } => true,
            Self::File(body) => body.is_sound(),
        }
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory { len, .. } => *len,
            Self::File(body) => usize::try_from(body.len).unwrap_or(usize::MAX),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

/// The size of a joined piece, and up to which a body is one piece.
const BLOCK_BYTES: usize = 64 * 1024;

fn join(pieces: &[Bytes], len: usize) -> Vec<Bytes> {
    let mut blocks = Vec::with_capacity(len.div_ceil(BLOCK_BYTES));
    let mut block = Vec::with_capacity(len.min(BLOCK_BYTES));
    let mut left = len;
    for piece in pieces {
        let mut rest = piece.as_ref();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES - block.len()));
            block.extend_from_slice(now);
            rest = later;
            left -= now.len();
            if block.len() == BLOCK_BYTES || left == 0 {
                let next = Vec::with_capacity(left.min(BLOCK_BYTES));
                blocks.push(Bytes::from(std::mem::replace(&mut block, next)));
            }
        }
    }
    blocks
}

/// A complete copy found in a store. A clone is cheap, and stays whole whatever becomes of the store.
#[derive(Clone)]
pub struct StoredCopy(pub(super) Arc<Object>);

impl StoredCopy {
    /// Header and times.
    pub fn meta(&self) -> &CacheMeta {
        &self.0.meta
    }

    /// The same as a value of its own, as Pingora wants it.
    pub fn meta_copy(&self) -> CacheMeta {
        meta::duplicate(&self.0.meta)
    }

    /// Why it is kept, and for whom.
    pub fn info(&self) -> CopyInfo {
        self.0.info
    }

    /// A reader of the body, from its first byte.
    pub fn read(&self) -> BodyReader {
        BodyReader::new(Arc::clone(&self.0))
    }

    /// A reader of these bytes of the body; of none if there are none.
    pub fn read_part(&self, bytes: Range<usize>) -> Result<BodyReader> {
        let mut reader = self.read();
        reader.seek(bytes.start, Some(bytes.end))?;
        Ok(reader)
    }

    /// Whether the whole body is at hand.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.0.body, Body::Memory { .. })
    }

    /// The body's length in bytes.
    pub fn body_len(&self) -> usize {
        self.0.body.len()
    }

    /// Gives meta data the identity and the variance of this copy.
    pub(super) fn mark(&self, meta: &mut CacheMeta) {
        if let Some(id) = self.0.id() {
            meta.extensions_mut().insert(id);
        }
        match self.0.meta.variance() {
            Some(variance) => meta.set_variance(variance),
            None => meta.remove_variance(),
        }
    }

    /// Whether that is the same copy, perhaps with newer meta data.
    pub(super) fn is(&self, object: &Object) -> bool {
        self.0.id().is_some() && self.0.id() == object.id()
    }

    /// Notes that asking for a newer answer failed.
    pub fn refresh_failed(&self, cause: Cause, now: Instant) {
        *self.0.failure.lock() = Some(Failure { cause, at: now });
    }

    /// Notes that the backend answers again, though this copy was not replaced.
    pub fn refresh_succeeded(&self) {
        *self.0.failure.lock() = None;
    }

    /// Notes that the backend has given a good answer that may not be kept: from now on the copy is only for
    /// the case of failure, and must not be served while it is refreshed, which will not happen.
    pub fn outlive(&self) {
        self.0.outlive();
    }

    /// Whether [`StoredCopy::outlive`] was called.
    pub fn is_outlived(&self) -> bool {
        self.0.is_outlived.load(Ordering::Relaxed)
    }

    /// Why the last refresh failed, within [`REFRESH_BACKOFF`] of it.
    pub fn refresh_failure(&self, now: Instant) -> Option<Cause> {
        self.0.failure.lock().filter(|failure| failure.is_recent(now)).map(|failure| failure.cause)
    }

    /// As [`StoredCopy::refresh_failure`], but when the back-off is over only the first caller is told so: it is
    /// the one to ask, and the others have another back-off to wait.
    pub fn claim_refresh(&self, now: Instant) -> Option<Cause> {
        let mut slot = self.0.failure.lock();
        let failure = (*slot)?;
        if failure.is_recent(now) {
            return Some(failure.cause);
        }
        *slot = Some(Failure { at: now, ..failure });
        None
    }
}

impl Failure {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < REFRESH_BACKOFF
    }
}

impl fmt::Debug for StoredCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredCopy")
            .field("info", &self.0.info)
            .field("body_len", &self.0.body.len())
            .finish()
    }
}
