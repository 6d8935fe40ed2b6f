//! Kept backend connections: since when each lies idle, and who closed it.
//!
//! Pingora's pool tells neither. Here each connection carries a witness that hears of its end, and is found
//! again by its socket when it is taken for another request. From that come three things: what a backend's
//! own idle limit is (`upstream::idle`), whether a connection is too old for the request at hand, and which ones
//! are to be closed for their age. Pingora could do the last, with a timer for every request that ends.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use goodgate_failure::ConnectionAge;
use goodgate_upstream::Backend;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use parking_lot::Mutex;
use pingora_core::upstreams::peer::{Tracer, Tracing};

/// Connections are spread over this many locks by their socket.
const SHARDS: usize = 16;
/// How often a look is taken at what lies idle for too long.
pub const RETIRE_EVERY: Duration = Duration::from_millis(250);
/// No socket has been noted.
const NONE: RawFd = -1;

/// All backend connections that have been used at least once.
#[derive(Debug)]
pub(crate) struct KeptConnections {
    born: Instant,
    shards: [Mutex<HashMap<RawFd, Arc<Kept>, RandomState>>; SHARDS],
}

/// One backend connection.
#[derive(Debug)]
pub(crate) struct Kept {
    all: Arc<KeptConnections>,
    backend: Arc<Backend>,
    socket: AtomicI32,
    /// The configured limit of its rest.
    idle_max: Duration,
    /// Closed by us for its age; its task has yet to hear of it.
    retired: AtomicBool,
    /// Microseconds after the table was made; zero for `idle_since`: in use.
    made: AtomicU64,
    idle_since: AtomicU64,
}

/// Hears of the end of the connection that it was given to.
#[derive(Debug)]
struct Witness(Arc<Kept>);

impl KeptConnections {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self { born: now, shards: std::array::from_fn(|_| Mutex::default()) })
    }

    /// A connection that may be about to be made to this backend, to lie idle for no longer than `idle_max`.
    pub(crate) fn expect(self: &Arc<Self>, backend: &Arc<Backend>, idle_max: Duration) -> Arc<Kept> {
        Arc::new(Kept {
            all: Arc::clone(self),
            backend: Arc::clone(backend),
            socket: AtomicI32::new(NONE),
            idle_max,
            retired: AtomicBool::new(false),
            made: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
        })
    }

    /// The connection on this socket, taken out of its rest, with its age.
    pub(crate) fn take(&self, socket: RawFd, now: Instant) -> Option<(Arc<Kept>, ConnectionAge)> {
        let (kept, idle_since) = {
            let shard = self.shard(socket).lock();
            let kept = Arc::clone(shard.get(&socket)?);
            let idle_since = kept.idle_since.swap(0, Ordering::Relaxed);
            (kept, idle_since)
        };
        let micros = self.micros(now);
        let idle = match idle_since {
            _ if kept.retired.load(Ordering::Relaxed) => Duration::MAX,
            // The request before is about to note that it is done: it ended just now.
            0 => Duration::ZERO,
            since => Duration::from_micros(micros.saturating_sub(since)),
        };
        let made = kept.made.load(Ordering::Relaxed);
        let since_connect = Duration::from_micros(micros.saturating_sub(made));
        Some((kept, ConnectionAge { since_connect, idle: Some(idle) }))
    }

    /// Closes what has lain idle for as long as it may, and what goes to a backend that has left. Who has just been
    /// given one of these finds it too old.
    pub(crate) fn retire(&self, now: Instant) {
        let micros = self.micros(now);
        for shard in &self.shards {
            // With the lock held no connection can end, so that the socket is the one that was noted.
            for (socket, kept) in shard.lock().iter() {
                if kept.is_over(micros, now) && !kept.retired.swap(true, Ordering::Relaxed) {
                    // An error says that the other side was faster.
                    let _ = shutdown(*socket, Shutdown::Both);
                }
            }
        }
    }

    fn shard(&self, socket: RawFd) -> &Mutex<HashMap<RawFd, Arc<Kept>, RandomState>> {
        let [first, rest @ ..] = &self.shards;
        let index = usize::try_from(socket).unwrap_or_default() % SHARDS;
        index.checked_sub(1).and_then(|index| rest.get(index)).unwrap_or(first)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

impl Kept {
    /// What a peer must carry so that this connection's end is heard of.
    pub(crate) fn tracer(self: &Arc<Self>) -> Tracer {
        Tracer(Box::new(Witness(Arc::clone(self))))
    }

    /// The connection was made, on this socket.
    pub(crate) fn made(self: &Arc<Self>, socket: RawFd, now: Instant) {
        self.made.store(self.all.micros(now), Ordering::Relaxed);
        self.socket.store(socket, Ordering::Relaxed);
        self.all.shard(socket).lock().insert(socket, Arc::clone(self));
    }

    /// The request on it is done. If it is kept, it lies idle from now on.
    pub(crate) fn rests(&self, now: Instant) {
        self.idle_since.store(self.all.micros(now), Ordering::Relaxed);
        if self.retired.load(Ordering::Relaxed) {
            self.close();
        }
    }

    /// It is closed behind the request on it. A request that gets it from the pool before finds it too old.
    pub(crate) fn leave_pool(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn close(&self) {
        let socket = self.socket.load(Ordering::Relaxed);
        let shard = self.all.shard(socket).lock();
        // With the lock held it cannot end, so that the socket is the one that was noted.
        if shard.get(&socket).is_some_and(|kept| std::ptr::eq(&raw const **kept, self)) {
            // An error says that the other side was faster.
            let _ = shutdown(socket, Shutdown::Both);
        }
    }

    fn is_over(&self, micros: u64, now: Instant) -> bool {
        let since = self.idle_since.load(Ordering::Relaxed);
        let idle = Duration::from_micros(micros.saturating_sub(since));
        since > 0 && (self.backend.has_left() || idle >= self.backend.idle_limit(self.idle_max, now))
    }

    /// The connection ends; its socket is still open.
    fn ends(&self) {
        let socket = self.socket.load(Ordering::Relaxed);
        if socket == NONE {
            return;
        }
        let mut shard = self.all.shard(socket).lock();
        if shard.get(&socket).is_some_and(|kept| std::ptr::eq(&raw const **kept, self)) {
            shard.remove(&socket);
        }
        drop(shard);
        let since = self.idle_since.load(Ordering::Relaxed);
        if since > 0 && !self.retired.load(Ordering::Relaxed) && is_closed_by_peer(socket) {
            let now = Instant::now();
            let idle = Duration::from_micros(self.all.micros(now).saturating_sub(since));
            self.backend.closed_idle(idle, now);
        }
    }
}

impl Tracing for Witness {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.0.ends();
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

/// Whether there is something to read on a socket, without a wait.
pub(crate) fn has_bytes(socket: RawFd) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(socket, &mut [0], flags), Ok(1..))
}

/// Whether the other side has closed. If we do (idle limit, full pool), there is simply nothing to read.
fn is_closed_by_peer(socket: RawFd) -> bool {
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    !matches!(recv(socket, &mut byte, flags), Ok(1..) | Err(nix::errno::Errno::EAGAIN))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use tokio::io::{AsyncRead, ReadBuf};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn is_read_pending(stream: &mut TcpStream) -> bool {
        let mut bytes = [0; 16];
        let mut buffer = ReadBuf::new(&mut bytes);
        Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).is_pending()
    }

    /// A read fails to find bytes that arrived after the event loop has last looked: so does Pingora's own check of an
    /// idle connection.
    #[tokio::test]
    async fn bytes_that_the_event_loop_has_not_reported_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut idle = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut backend = listener.accept().await.unwrap().0.into_std().unwrap();
        while !is_read_pending(&mut idle) {}
        assert!(!has_bytes(idle.as_raw_fd()));
        backend.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(is_read_pending(&mut idle), "the event loop has not run since");
        assert!(has_bytes(idle.as_raw_fd()));
    }
}
