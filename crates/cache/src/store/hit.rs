//! Reading a copy, or a fill in progress, for Pingora.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_cache::CacheKey;
use pingora_cache::storage::{HandleHit, Storage};
use pingora_cache::trace::SpanHandle;
use pingora_error::{Error, ErrorType, Result};

use super::body::Body;
use super::fill::FillReader;
use super::object::Object;

/// What a lookup found.
pub(super) enum Hit {
    /// A complete copy.
    Complete(BodyReader),
    /// A fill that is joined.
    Partial(FillReader),
}

/// Hands out a copy's body, or a part of it, in chunks: without copying from memory, checked from disk.
pub struct BodyReader {
    object: Arc<Object>,
    /// In memory the next chunk, and how much of its beginning is not wanted; on disk the next byte.
    chunk: usize,
    skip: usize,
    /// Bytes still to be handed out.
    left: usize,
}

impl BodyReader {
    pub(super) fn new(object: Arc<Object>) -> Self {
        let left = object.body.len();
        Self { object, chunk: 0, skip: 0, left }
    }

    /// Whether there is no more.
    pub fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// The next chunk, never an empty one; none at the end. Only a body on disk can fail, or make one wait.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut part = match &self.object.body {
            body @ (Body::Small(_) | Body::Memory { .. }) => {
                let chunk = body.share(self.chunk, self.skip);
                self.chunk += 1;
                self.skip = 0;
                chunk
            }
            Body::File(body) => {
                let block = body.read(self.skip as u64).await.map_err(unreadable)?;
                self.skip += block.as_ref().map_or(0, Bytes::len);
                block
            }
        };
        if let Some(part) = &mut part {
            part.truncate(self.left);
            self.left -= part.len();
        }
        Ok(part)
    }

    /// What is next of it in memory; empty at the end, and where it is on disk.
    pub fn piece(&self) -> &[u8] {
        let piece = self.object.body.piece(self.chunk).and_then(|piece| piece.get(self.skip..));
        let piece = piece.unwrap_or_default();
        piece.get(..self.left).unwrap_or(piece)
    }

    /// Goes on behind what [`BodyReader::piece`] has shown.
    pub fn pass(&mut self) {
        self.left -= self.piece().len();
        self.chunk += 1;
        self.skip = 0;
    }

    /// `end` is exclusive; beyond the last byte it means the last byte.
    pub(super) fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        let len = self.object.body.len();
        let end = end.unwrap_or(len).min(len);
        if start >= end {
            return Error::e_explain(ErrorType::InternalError, format!("no bytes from {start} to {end}"));
        }
        self.left = end - start;
        self.skip = start;
        self.chunk = 0;
        for piece in self.object.body.pieces() {
            if self.skip < piece.len() {
                break;
            }
            self.skip -= piece.len();
            self.chunk += 1;
        }
        Ok(())
    }
}

/// Part of the body may have gone out already: the stream ends here.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora passes its errors boxed")]
fn unreadable(error: std::io::Error) -> Box<Error> {
    Error::because(ErrorType::FileReadError, "the copy cannot be read from disk", error)
}

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Complete(copy) => copy.next().await,
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
