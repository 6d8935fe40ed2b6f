//! The two ways in: Pingora's miss handler, which readers may follow, and a plain writer for last-good copies.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora_cache::CacheMeta;
use pingora_cache::key::HashBinary;
use pingora_cache::storage::streaming_write::U64WriteId;
use pingora_cache::storage::{HandleMiss, MissFinishType};
use pingora_error::{Error, ErrorType, Result};
use tokio::sync::watch;

use super::body::Body;
use super::fill::{Fill, Progress};
use super::meta;
use super::object::Object;
use super::shard::KeyRef;
use super::{Store, content_length};
use crate::Key;
use crate::disk::Upload;
use crate::kept::{Kept, text_len};

/// Bookkeeping of one copy besides key, header and body, with what an allocator leaves between them.
const OBJECT_BYTES: u64 = 576;

/// What a copy weighs before its body.
pub(super) fn base_weight(key: &[u8], head: u64) -> u64 {
    OBJECT_BYTES + key.len() as u64 + head
}

/// The body's length that the header announces. A 204 has no body whatever its header says.
fn announced(meta: &CacheMeta) -> Option<u64> {
    let header = meta.response_header();
    if header.status == StatusCode::NO_CONTENT { Some(0) } else { content_length(&header.headers) }
}

/// Writes one copy outside Pingora's cache phases. Dropped unfinished, it leaves everything as it was.
pub struct CopyWriter {
    store: &'static Store,
    key: Key,
    /// None once given up or finished.
    draft: Option<Draft>,
}

enum Draft {
    Memory {
        meta: CacheMeta,
        pieces: Vec<Bytes>,
        len: u64,
        /// Bytes taken from the budget.
        weight: u64,
    },
    /// Too large for memory.
    Disk { meta: CacheMeta, upload: Upload },
}

impl CopyWriter {
    pub(super) fn new(store: &'static Store, key: &Key, meta: CacheMeta) -> Self {
        let weight = base_weight(key.bytes(), text_len(meta.response_header()));
        let meta = meta::without_age(meta);
        let draft = if !store.takes(key, meta.response_header()) {
            store.tier.upload(meta.headers()).map(|upload| Draft::Disk { meta, upload })
        } else if store.reserve(weight) {
            Some(Draft::Memory { meta, pieces: Vec::new(), len: 0, weight })
        } else {
            None
        };
        Self { store, key: key.clone(), draft }
    }

    /// Adds to the body; `false` once the copy is given up because it is too large, or the disk too slow for it.
    pub fn push(&mut self, data: &Bytes) -> bool {
        if data.is_empty() {
            return self.draft.is_some();
        }
        let is_taken = match &mut self.draft {
            None => false,
            Some(Draft::Disk { upload, .. }) => upload.push(data),
            Some(Draft::Memory { pieces, len, weight, .. }) => {
                let bytes = data.len() as u64;
                let is_too_large = *weight + bytes > self.store.object_bytes_max();
                if is_too_large {
                    self.store.shard(&self.key.bin()).write().remember_too_large(self.key.bin());
                }
                let is_taken = !is_too_large && self.store.reserve(bytes);
                if is_taken {
                    *weight += bytes;
                    *len += bytes;
                    pieces.push(Bytes::copy_from_slice(data));
                }
                is_taken
            }
        };
        if !is_taken {
            self.give_up();
        }
        is_taken
    }

    /// Whether the disk would be glad of a pause.
    pub fn is_behind(&self) -> bool {
        matches!(&self.draft, Some(Draft::Disk { upload, .. }) if upload.is_behind())
    }

    /// Stores the copy, unless its body is shorter or longer than announced or a fresh copy is there already.
    pub fn finish(mut self) {
        let is_whole = |meta: &CacheMeta, len| announced(meta).is_none_or(|length| length == len);
        match self.draft.take() {
            Some(Draft::Memory { meta, pieces, len, weight }) if is_whole(&meta, len) => {
                let object = Object::new(Kept::of(&meta), self.store.new_id(), Body::of(pieces), weight);
                self.store.file_last_good(&self.key, object);
            }
            Some(Draft::Disk { meta, upload }) if is_whole(&meta, upload.len()) => {
                self.store.file_on_disk(&self.key, upload, &meta);
            }
            other => {
                self.draft = other;
                self.give_up();
            }
        }
    }

    fn give_up(&mut self) {
        if let Some(Draft::Memory { weight, .. }) = self.draft.take() {
            self.store.budget.give_back(weight);
        }
    }
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Pingora's writer. Dropped unfinished, it wakes its readers with an error and leaves the old copy.
pub(super) struct FillWriter {
    store: &'static Store,
    bin: HashBinary,
    key: Arc<[u8]>,
    fill: Arc<Fill>,
    progress: watch::Sender<Progress>,
    tag: U64WriteId,
    announced: Option<u64>,
    len: u64,
    /// Bytes taken from the budget besides the body's.
    base: u64,
}

impl FillWriter {
    pub(super) fn start(
        store: &'static Store,
        key: KeyRef<'_>,
        slot: Option<HashBinary>,
        meta: &CacheMeta,
    ) -> Result<Self> {
        let header = meta.response_header();
        let base = base_weight(key.bytes, text_len(header));
        if !store.takes_under(key, header) || !store.reserve(base) {
            return refuse("the response is too large for the store");
        }
        let (progress, receiver) = watch::channel(Progress::Writing);
        let tag = store.new_id();
        let fill = Arc::new(Fill::new(store, tag, slot, meta::without_age(meta::duplicate(meta)), receiver));
        let writer = Self {
            store,
            bin: key.bin,
            key: key.bytes.into(),
            fill: fill.clone(),
            progress,
            tag: tag.into(),
            announced: announced(meta),
            len: 0,
            base,
        };
        if store.shard(&key.bin).write().add_fill(key, fill) {
            Ok(writer)
        } else {
            refuse("another key has the same hash")
        }
    }

    fn key(&self) -> KeyRef<'_> {
        KeyRef { bin: self.bin, bytes: &self.key }
    }

    fn push(&mut self, data: &Bytes) -> Result<()> {
        let bytes = data.len() as u64;
        self.len += bytes;
        if !self.fill.is_storing() {
            return self.pass(data);
        }
        let is_too_large = self.base + self.len > self.store.object_bytes_max();
        if is_too_large {
            self.store.shard(&self.bin).write().remember_too_large(self.bin);
        }
        if is_too_large || !self.store.reserve(bytes) {
            self.fill.pass_through();
            return self.pass(data);
        }
        self.publish(data);
        Ok(())
    }

    /// Passes a chunk on to the readers, if not too much waits for the slowest already.
    fn pass(&mut self, data: &Bytes) -> Result<()> {
        let bytes = data.len() as u64;
        if self.fill.held_bytes() + bytes > self.store.backlog_bytes_max() || !self.store.reserve(bytes) {
            return refuse("a reader is too slow for a response that is too large to keep");
        }
        self.publish(data);
        Ok(())
    }

    /// Copies into a buffer of just that size: what comes in may pin a much larger read buffer.
    fn publish(&mut self, data: &Bytes) {
        self.fill.push(Bytes::copy_from_slice(data));
        self.progress.send_replace(Progress::Writing);
    }
}

#[async_trait]
impl HandleMiss for FillWriter {
    async fn write_body(&mut self, data: Bytes, _eof: bool) -> Result<()> {
        if data.is_empty() { Ok(()) } else { self.push(&data) }
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        if self.announced.is_some_and(|length| length != self.len) {
            return refuse("the body is not as long as announced");
        }
        if !self.fill.is_storing() || self.fill.is_forbidden() {
            self.fill.pass_through();
        } else {
            let body = Body::of(self.fill.settle());
            let weight = std::mem::take(&mut self.base) + self.len;
            let object = Object::new(Kept::of(&self.fill.meta), self.store.new_id(), body, weight);
            self.store.file(self.key(), self.fill.slot(), object);
        }
        self.progress.send_replace(Progress::Complete);
        Ok(MissFinishType::Created(usize::try_from(self.len).unwrap_or(usize::MAX)))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(self.tag.as_bytes())
    }
}

impl Drop for FillWriter {
    fn drop(&mut self) {
        self.store.shard(&self.bin).write().remove_fill(self.key(), self.fill.tag());
        self.store.budget.give_back(self.base);
        if *self.progress.borrow() == Progress::Writing {
            self.fill.abandon();
        }
    }
}

fn refuse<T>(why: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::InternalError, why)
}
