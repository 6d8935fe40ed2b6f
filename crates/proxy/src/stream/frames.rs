//! The client's connection where it speaks HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio::io::{AsyncRead, ReadBuf};

use super::{ClientStream, GATHER_BYTES_MAX};
use crate::grant::Grant;
use crate::http2::{Frames, Http2Facts};

impl ClientStream {
    /// Hands on everything: the frames of HTTP/2.
    pub(crate) fn grant_frames(&mut self, facts: Arc<Http2Facts>, header_bytes_max: usize) {
        self.grant(Grant::Everything, false);
        self.frames = Some(Box::new(Frames::new(facts, header_bytes_max)));
    }

    /// Reads frames of HTTP/2. Those that were held back for a while are in `ahead`.
    pub(super) fn poll_frames(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ahead.is_empty() {
            let (Some(socket), Some(frames)) = (&mut self.socket, &mut self.frames) else {
                return Poll::Ready(Ok(()));
            };
            let before = buffer.filled().len();
            ready!(Pin::new(socket).poll_read(context, buffer))?;
            let read = buffer.filled_mut().get_mut(before..).unwrap_or_default();
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.pace.sent(read.len());
            let passed = frames.pass(read, &mut self.ahead);
            buffer.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let count = buffer.remaining().min(self.ahead.len());
        buffer.put_slice(self.ahead.get(..count).unwrap_or_default());
        self.ahead.advance(count);
        Poll::Ready(Ok(()))
    }

    /// Puts interim responses before what goes out next.
    pub(super) fn put_interim(&mut self) {
        if self.out.len() < GATHER_BYTES_MAX
            && let Some(interim) = self.frames.as_ref().and_then(|frames| frames.facts().take_interim())
        {
            self.out.extend_from_slice(&interim);
        }
    }

    /// Puts interim responses, and the frames that reset streams into both directions. The library takes the latter for
    /// the client's.
    pub(super) fn put_news(&mut self) {
        self.put_interim();
        let Some(frames) = self.frames.as_ref().filter(|frames| frames.is_between_frames()) else {
            return;
        };
        if let Some(resets) = frames.facts().take_resets() {
            self.ahead.extend_from_slice(&resets);
            self.out.extend_from_slice(&resets);
        }
    }

    /// Follows the frames that go out.
    pub(super) fn note_sent(&self, data: &[u8]) {
        if let Some(frames) = &self.frames {
            frames.facts().sent(data);
        }
    }

    /// Tells the loop of the connection whether the client takes no bytes.
    pub(super) fn note_blocked(&self, is_blocked: bool) {
        if let Some(frames) = &self.frames {
            frames.facts().is_blocked.store(is_blocked, Ordering::Relaxed);
        }
    }
}
