//! The client's connection as Pingora sees it: exactly the bytes of one request, then silence.
//!
//! The connection loop reads the head itself, checks it, and grants it to Pingora together with the body
//! that its framing announces. Bytes beyond the grant are the next request: they stay here and never
//! reach the parser of this one. While Pingora waits for the backend it polls for a client that leaves;
//! such a poll reads ahead into a small buffer, so that a pipelined request is not mistaken for garbage.
//! Writes are gathered, so that a small response leaves in one piece, and go out at the latest when Pingora
//! waits for more.

mod facts;
mod frames;
mod half_closed;
mod writing;

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use goodgate_config::Limits;
use pingora_core::protocols::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::grant::Grant;
use crate::http2::Frames;
use crate::kept_date::KeptDate;
use crate::pace::Pace;
use crate::socket::{Socket, linger};

/// How much of following requests is read while one is under way.
const AHEAD_BYTES_MAX: usize = 16 << 10;
/// Reads of a head ask for this much.
const READ_BYTES: usize = 4 << 10;
/// Writes up to this size are gathered until a flush.
const GATHER_BYTES_MAX: usize = 16 << 10;

pub(crate) use half_closed::HALF_CLOSED;

/// A client's connection with its buffers.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that has nothing to do with the others")]
pub(crate) struct ClientStream {
    socket: Option<Socket>,
    ahead: BytesMut,
    grant: Grant,
    out: BytesMut,
    /// Nothing is held back in it.
    is_live: AtomicBool,
    kept_date: KeptDate,
    lingers: bool,
    /// The request asks for another protocol: no other request comes behind it, whatever becomes of that.
    asks_to_switch: bool,
    /// The backend has agreed.
    switched: AtomicBool,
    pace: Pace,
    /// It was too slow: nothing more is owed to it.
    given_up: bool,
    /// It cannot be written to, or has closed its side and waits for nothing.
    has_left: bool,
    /// Since the client has closed its side behind a complete request, or got the last bytes after that; and what wakes
    /// its task.
    half_closed: Option<(Instant, Pin<Box<Sleep>>)>,
    /// The request waits in a queue of ours: no backend has it.
    is_queued: AtomicBool,
    /// A byte has gone out for the request under way.
    has_written: bool,
    /// Watches the frames of an HTTP/2 connection.
    frames: Option<Box<Frames>>,
}

impl ClientStream {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket: Some(socket),
            ahead: BytesMut::new(),
            grant: Grant::Bytes(0),
            out: BytesMut::new(),
            is_live: AtomicBool::new(false),
            kept_date: KeptDate::default(),
            lingers: false,
            asks_to_switch: false,
            switched: AtomicBool::new(false),
            pace: Pace::default(),
            given_up: false,
            has_left: false,
            half_closed: None,
            is_queued: AtomicBool::new(false),
            has_written: false,
            frames: None,
        }
    }

    /// Whether the handshake has chosen HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.socket.as_ref().is_some_and(Socket::speaks_http2)
    }

    /// The connection below.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        self.socket.as_ref().map(Socket::tcp)
    }

    /// Bytes that have been read and not handed on.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Drops the first bytes of what has been read.
    pub(crate) fn discard(&mut self, count: usize) {
        self.ahead.advance(count.min(self.ahead.len()));
    }

    /// Replaces a part of what has been read and not handed on.
    pub(crate) fn replace_ahead(&mut self, at: Range<usize>, with: &[u8]) {
        let rest = self.ahead.split_off(at.end.min(self.ahead.len()));
        self.ahead.truncate(at.start);
        self.ahead.extend_from_slice(with);
        self.ahead.extend_from_slice(&rest);
    }

    /// Reads more ahead; zero is the end.
    pub(crate) async fn read_ahead(&mut self) -> io::Result<usize> {
        let Some(socket) = &mut self.socket else { return Ok(0) };
        self.ahead.reserve(READ_BYTES);
        socket.read_buf(&mut self.ahead).await
    }

    /// Says farewell to a client that is owed nothing: with TLS it can tell that nothing was cut off.
    pub(crate) fn say_goodbye(&mut self) {
        if let Some(socket) = &mut self.socket {
            socket.close_notify();
        }
    }

    /// Takes back what was granted to the request that has ended.
    pub(crate) fn end_request(&mut self) {
        self.grant(Grant::Bytes(0), false);
    }

    /// Gives back the memory of empty buffers before a wait that may be long.
    pub(crate) fn rest(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
    }

    /// How fast the client must be from now on.
    pub(crate) fn keep_pace(&mut self, limits: &Limits) {
        self.pace.keep(limits);
    }

    /// Hands the request on. `lingers` says that a close must wait for what the client still sends.
    pub(crate) fn grant(&mut self, grant: Grant, lingers: bool) {
        self.grant = grant;
        *self.is_live.get_mut() = false;
        self.kept_date.forget();
        self.lingers = lingers;
        self.pace.begin();
        self.half_closed = None;
        *self.is_queued.get_mut() = false;
        self.has_written = false;
    }

    /// Hands on a request to switch to another protocol, of this length. What is behind it waits for the backend's word.
    pub(crate) fn grant_switch(&mut self, head: usize) {
        self.grant(Grant::Bytes(head as u64), true);
        self.asks_to_switch = true;
    }

    /// The backend has agreed: from now on all bytes are handed on.
    pub(crate) fn switch(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    /// The answer may pause at any time: what is written goes out at once.
    pub(crate) fn go_live(&self) {
        self.is_live.store(true, Ordering::Relaxed);
    }

    /// Whether the client takes nothing more of its response.
    pub(crate) fn has_left(&self) -> bool {
        self.has_left
    }

    /// The date of the next head.
    pub(crate) fn kept_date(&self) -> &KeptDate {
        &self.kept_date
    }

    /// Whether the request under way asks for another protocol.
    pub(crate) fn asks_to_switch(&self) -> bool {
        self.asks_to_switch
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(0)) };
        self.ahead.reserve(READ_BYTES.min(AHEAD_BYTES_MAX));
        let future = std::pin::pin!(socket.read_buf(&mut self.ahead));
        future.poll(context)
    }

    /// Nothing of this request is left: only a close is news.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD_BYTES_MAX {
            if ready!(self.poll_fill(context))? == 0 {
                return self.poll_done(context);
            }
        }
        // The buffer is full and the request goes on without us: whoever finishes it wakes the task.
        Poll::Pending
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(self.poll_out(context, &[]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        let Some(tls @ Socket::Tls(_)) = &mut self.socket else { return Poll::Ready(Ok(())) };
        // What was written may wait as ciphertext.
        let flushed = Pin::new(tls).poll_flush(context);
        if flushed.is_pending() {
            return self.poll_stalled(context);
        }
        self.pace.took_all();
        flushed
    }

    /// Writes what was gathered and then the data, as far as the client takes it.
    fn poll_out(&mut self, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let written = match (self.out.is_empty(), data.is_empty()) {
            (true, _) => Pin::new(socket).poll_write(context, data),
            (false, true) => Pin::new(socket).poll_write(context, &self.out),
            (false, false) => {
                let parts = [IoSlice::new(&self.out), IoSlice::new(data)];
                Pin::new(socket).poll_write_vectored(context, &parts)
            }
        };
        if written.is_pending() {
            return self.poll_stalled(context);
        }
        self.has_left |= matches!(written, Poll::Ready(Err(_)));
        if let Poll::Ready(Ok(count)) = &written {
            self.pace.took(*count);
            self.has_written = true;
            if let Some((since, _)) = &mut self.half_closed {
                *since = Instant::now();
            }
        }
        written
    }

    /// The client takes nothing more for now. Ready when it is given up for that.
    fn poll_stalled<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.pace.poll_room(context));
        (self.given_up, self.has_left) = (true, true);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether the request has been read to its end, and another may follow.
    pub(crate) fn is_spent(&self) -> bool {
        self.grant == Grant::Bytes(0) && !self.asks_to_switch
    }

    fn owes_nothing(&self) -> bool {
        !self.lingers || self.is_spent()
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if let (Some(socket), true) = (&self.socket, self.given_up) {
            // What the kernel still holds for it would stay there for minutes.
            let _ = socket.tcp().set_zero_linger();
            return;
        }
        if let (Some(socket), false) = (&mut self.socket, self.out.is_empty()) {
            // An answer that is cut short: what there is of it shows that it was one.
            socket.write_now(&self.out);
        }
        if self.owes_nothing() {
            return;
        }
        if let (Some(socket), Ok(runtime)) = (self.socket.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(linger(socket));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.frames.is_some() {
            this.put_news();
        }
        // Pingora reads here whenever it waits: what has been gathered has waited long enough. If there is
        // no room the write side wakes the task; reading goes on meanwhile.
        if let Poll::Ready(Err(error)) = this.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        if this.frames.is_some() {
            return this.poll_frames(context, buffer);
        }
        if *this.switched.get_mut() {
            this.grant = Grant::Everything;
        }
        if this.grant == Grant::Bytes(0) {
            let closed = this.poll_closed(context);
            this.has_left |= closed.is_ready();
            return closed;
        }
        if this.ahead.is_empty() {
            let Some(socket) = &mut this.socket else { return Poll::Ready(Ok(())) };
            let before = buffer.filled().len();
            // Straight into the reader's buffer, which may be large and has not been touched yet: that of a client
            // that sends little never is.
            if Pin::new(socket).poll_read(context, buffer)?.is_pending() {
                if this.grant != Grant::Everything {
                    ready!(this.pace.poll_body(context));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                return Poll::Pending;
            }
            let read = buffer.filled().get(before..).unwrap_or_default();
            if read.is_empty() && *this.switched.get_mut() {
                return this.poll_done(context);
            }
            this.pace.sent(read.len());
            let count = this.grant.take(read)?;
            this.ahead.extend_from_slice(read.get(count..).unwrap_or_default());
            buffer.set_filled(before + count);
        } else {
            let part = this.ahead.get(..buffer.remaining().min(this.ahead.len())).unwrap_or_default();
            let count = this.grant.take(part)?;
            buffer.put_slice(part.get(..count).unwrap_or_default());
            this.ahead.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.frames.is_some() {
            self.put_interim();
        }
        let put = self.poll_put(context, data);
        if let Poll::Ready(Ok(count)) = &put {
            self.note_sent(data.get(..*count).unwrap_or_default());
        }
        put
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.poll_send(context);
        self.note_blocked(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        let shut = Pin::new(socket).poll_shutdown(context);
        if shut.is_pending() { self.poll_stalled(context) } else { shut }
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // The connection is being given up: that it is gone already is no news.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}
