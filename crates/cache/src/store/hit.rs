//! Reading a copy, or a fill in progress, for Pingora.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_cache::CacheKey;
use pingora_cache::storage::{HandleHit, Storage};
use pingora_cache::trace::SpanHandle;
use pingora_error::{Error, ErrorType, Result};

use super::fill::FillReader;
use super::object::Object;

/// What a lookup found.
pub(super) enum Hit {
    /// A complete copy.
    Complete(CopyReader),
    /// A fill that is joined.
    Partial(FillReader),
}

/// Hands out a copy's chunks, or a part of them, without copying.
pub(super) struct CopyReader {
    object: Arc<Object>,
    /// The next chunk, and how much of its beginning is not wanted.
    chunk: usize,
    skip: usize,
    /// Bytes still to be handed out.
    left: usize,
}

impl CopyReader {
    pub(super) fn new(object: Arc<Object>) -> Self {
        let left = object.body.len;
        Self { object, chunk: 0, skip: 0, left }
    }

    fn next(&mut self) -> Option<Bytes> {
        let chunk = self.object.body.chunks.get(self.chunk)?;
        let end = chunk.len().min(self.skip.saturating_add(self.left));
        if end <= self.skip {
            return None;
        }
        let part = chunk.slice(self.skip..end);
        self.chunk += 1;
        self.skip = 0;
        self.left -= part.len();
        Some(part)
    }

    /// `end` is exclusive; beyond the last byte it means the last byte.
    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        let len = self.object.body.len;
        let end = end.unwrap_or(len).min(len);
        if start >= end {
            return Error::e_explain(ErrorType::InternalError, format!("no bytes from {start} to {end}"));
        }
        self.left = end - start;
        self.skip = start;
        self.chunk = 0;
        for chunk in self.object.body.chunks.iter() {
            if self.skip < chunk.len() {
                break;
            }
            self.skip -= chunk.len();
            self.chunk += 1;
        }
        Ok(())
    }
}

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Complete(copy) => Ok(copy.next()),
            Self::Partial(fill) => fill.next().await,
        }
    }

    async fn finish(
        self: Box<Self>,
        _storage: &'static (dyn Storage + Sync),
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        matches!(self, Self::Complete(_))
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        match self {
            Self::Complete(copy) => copy.seek(start, end),
            Self::Partial(_) => Error::e_explain(ErrorType::InternalError, "a fill in progress cannot seek"),
        }
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}
