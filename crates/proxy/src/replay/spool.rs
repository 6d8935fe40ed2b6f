//! Bodies of requests, kept so that they can be sent again: the beginning in memory, the rest in a file.
//!
//! The file has no name, so that nothing is left behind however the process ends. Reading and writing is done on
//! threads where waiting is allowed, one operation at a time for each body, and none is lost if who waits for it is
//! not polled to its end. What cannot be kept is given up, and the request goes on without. A disk that hangs holds a few
//! threads with a piece each: pieces that wait for a thread are bounded, and dropped with their body.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use goodgate_telemetry::{SpoolMetrics, SpoolResult};
use log::warn;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout_at;

/// What of a body is kept in memory.
const MEMORY_BYTES: usize = 256 << 10;
/// What of all bodies together is.
const MEMORY_BYTES_IN_ALL: u64 = 64 << 20;
/// What is sent again at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Threads at work for all bodies, whose memory is not that of bodies.
const THREADS_MAX: usize = 8;
/// Pieces that are being written, or wait for it, of all bodies together.
const PENDING_BYTES_MAX: u64 = 16 << 20;
/// How long a request waits for a piece of its body to be written, before it goes on without.
const WRITE_LIMIT: Duration = Duration::from_secs(1);
/// How long it waits for a piece to be read, before it fails.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How often it is said in the log that the file of a body failed.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// Where bodies are kept, all together.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    bytes: AtomicU64,
    memory_bytes: AtomicU64,
    pending_bytes: AtomicU64,
    metrics: SpoolMetrics,
    threads: Arc<Semaphore>,
    said: Mutex<Option<Instant>>,
}

impl Spool {
    /// Files in this folder, of so many bytes in all.
    pub(crate) fn new(folder: &Path, bytes_max: u64, metrics: SpoolMetrics) -> Arc<Self> {
        let folder = folder.to_owned();
        Arc::new(Self {
            folder,
            bytes_max,
            bytes: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            pending_bytes: AtomicU64::new(0),
            metrics,
            threads: Arc::new(Semaphore::new(THREADS_MAX)),
            said: Mutex::default(),
        })
    }

    /// Has a thread do this. Dropped before a thread has begun, it is not done; the thread counts as busy until it ends.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Running<io::Result<T>> {
        let threads = Arc::clone(&self.threads);
        Running(tokio::spawn(async move {
            let one_of_few = threads.acquire_owned().await;
            let work = move || {
                let done = work();
                drop(one_of_few);
                done
            };
            ended(spawn_blocking(work).await)
        }))
    }

    fn reserve_memory(&self, count: u64) -> bool {
        reserve(&self.memory_bytes, count, MEMORY_BYTES_IN_ALL)
    }

    fn reserve(&self, count: u64) -> bool {
        let reserved = reserve(&self.bytes, count, self.bytes_max);
        if reserved {
            self.metrics.holds(count);
        }
        reserved
    }

    /// Room for a piece that is to be written: in the file, and among those that wait.
    fn reserve_piece(self: &Arc<Self>, count: u64) -> Option<Pending> {
        if !reserve(&self.pending_bytes, count, PENDING_BYTES_MAX) {
            return None;
        }
        let mut pending = Pending { spool: Arc::clone(self), count, in_file: 0 };
        pending.in_file = if self.reserve(count) { count } else { return None };
        Some(pending)
    }

    fn release(&self, count: u64) {
        self.bytes.fetch_sub(count, Ordering::Relaxed);
        self.metrics.releases(count);
    }

    /// A file of this process that nobody else can open.
    fn file(&self) -> io::Result<File> {
        let name = || format!("goodgate-body-{}-{:016x}", std::process::id(), fastrand::u64(..));
        goodgate_files::unnamed(&self.folder, name)
    }

    fn failed(&self, error: &io::Error) {
        let mut said = self.said.lock();
        if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
            *said = Some(Instant::now());
            warn!(folder:% = self.folder.display(), error:% = error; "a request's body could not be kept: it cannot be sent again (more of this in a minute is only counted)");
        }
    }
}

/// The body of one request, as far as it has come, and a place in it.
#[derive(Debug)]
pub(super) struct Body {
    spool: Arc<Spool>,
    bytes_max: u64,
    memory: Vec<u8>,
    file: Option<Arc<File>>,
    file_bytes: u64,
    /// All that has come, kept or not.
    taken: u64,
    /// What of it has been sent in the attempt under way.
    sent: u64,
    job: Option<Job>,
    state: Keeping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// What comes is kept.
    All,
    /// Nobody will want it again.
    NoMore,
    /// It is lost, for this reason.
    Lost(SpoolResult),
}

/// What a thread does for the body.
#[derive(Debug)]
enum Job {
    /// Until then.
    Write(tokio::time::Instant, Running<io::Result<(Arc<File>, Pending)>>),
    /// From this place of the body, until then.
    Read(u64, tokio::time::Instant, Running<io::Result<Bytes>>),
}

/// The work of a thread; dropped before it has begun, it is not done.
#[derive(Debug)]
struct Running<T>(JoinHandle<T>);

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A piece that is being written. Its bytes count until that has ended, whatever has become of its body.
#[derive(Debug)]
struct Pending {
    spool: Arc<Spool>,
    count: u64,
    /// What it takes of the room for files.
    in_file: u64,
}

impl Pending {
    /// It is written: the bytes in the file belong to the body now.
    fn written(mut self) -> u64 {
        std::mem::take(&mut self.in_file)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.spool.pending_bytes.fetch_sub(self.count, Ordering::Relaxed);
        if self.in_file > 0 {
            self.spool.release(self.in_file);
        }
    }
}

impl Body {
    pub(super) fn new(spool: &Arc<Spool>, bytes_max: u64) -> Self {
        Self {
            spool: Arc::clone(spool),
            bytes_max,
            memory: Vec::new(),
            file: None,
            file_bytes: 0,
            taken: 0,
            sent: 0,
            job: None,
            state: Keeping::All,
        }
    }

    /// Whether all that has come could be sent again.
    pub(super) fn is_kept(&self) -> bool {
        self.state == Keeping::All
    }

    /// Whether nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Whether all that has come was sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.taken
    }

    /// It is sent from its beginning.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The next piece to be sent of what has come before. None: that was all. Not polled to its end it loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(piece) = self.settle().await? {
                self.sent += piece.len() as u64;
                return Ok(Some(piece));
            }
            if self.is_sent() {
                if self.state == Keeping::NoMore {
                    self.forget();
                }
                return Ok(None);
            }
            let in_memory = usize::try_from(self.sent).ok().and_then(|sent| self.memory.get(sent..));
            if let Some(rest) = in_memory.filter(|rest| !rest.is_empty()) {
                let piece = Bytes::copy_from_slice(rest.get(..PIECE_BYTES).unwrap_or(rest));
                self.sent += piece.len() as u64;
                return Ok(Some(piece));
            }
            let Some(file) = self.file.clone() else {
                return Err(io::Error::other("the body has not been kept"));
            };
            let offset = self.sent - self.memory.len() as u64;
            let length = (self.file_bytes - offset).min(PIECE_BYTES as u64);
            let read = self.spool.run(move || {
                let mut piece = vec![0; usize::try_from(length).unwrap_or(PIECE_BYTES)];
                file.read_exact_at(&mut piece, offset)?;
                Ok(Bytes::from(piece))
            });
            self.job = Some(Job::Read(self.sent, tokio::time::Instant::now() + READ_LIMIT, read));
        }
    }

    /// A piece has come from the client, and is sent. Only behind a `next` that had nothing left.
    pub(super) fn take(&mut self, piece: &Bytes) {
        self.taken += piece.len() as u64;
        self.sent = self.taken;
        if self.state != Keeping::All {
            return;
        }
        if self.taken > self.bytes_max {
            return self.lose(SpoolResult::TooLarge);
        }
        let fits = self.file_bytes == 0 && self.memory.len() + piece.len() <= MEMORY_BYTES;
        if fits && self.spool.reserve_memory(piece.len() as u64) {
            self.memory.extend_from_slice(piece);
            return;
        }
        let Some(pending) = self.spool.reserve_piece(piece.len() as u64) else {
            return self.lose(SpoolResult::Full);
        };
        let (spool, file, offset) = (Arc::clone(&self.spool), self.file.clone(), self.file_bytes);
        let piece = piece.clone();
        let write = self.spool.run(move || {
            let file = file.map_or_else(|| spool.file().map(Arc::new), Ok)?;
            file.write_all_at(&piece, offset)?;
            Ok((file, pending))
        });
        self.job = Some(Job::Write(tokio::time::Instant::now() + WRITE_LIMIT, write));
    }

    /// Nobody will want it again: the answer goes out.
    pub(super) fn release(&mut self) {
        if self.state == Keeping::All {
            self.state = Keeping::NoMore;
            if self.is_sent() {
                self.forget();
            }
        }
    }

    /// Waits for what a thread does. What it has read, if that is still wanted.
    async fn settle(&mut self) -> io::Result<Option<Bytes>> {
        let (done, at) = match &mut self.job {
            None => return Ok(None),
            Some(Job::Write(limit, write)) => match in_time(*limit, write).await {
                Ok((file, pending)) => {
                    let is_wanted = match self.state {
                        Keeping::All => true,
                        Keeping::NoMore => self.sent < self.taken,
                        Keeping::Lost(_) => false,
                    };
                    if is_wanted {
                        self.file_bytes += pending.written();
                        self.file = Some(file);
                    }
                    (Ok(None), self.sent)
                }
                Err(error) => (Err(error), self.sent),
            },
            Some(Job::Read(at, limit, read)) => (in_time(*limit, read).await.map(Some), *at),
        };
        self.job = None;
        match done {
            Ok(piece) => Ok(piece.filter(|_| at == self.sent)),
            Err(error) => {
                self.spool.failed(&error);
                self.lose(SpoolResult::Failed);
                if self.is_sent() { Ok(None) } else { Err(error) }
            }
        }
    }

    fn lose(&mut self, reason: SpoolResult) {
        self.state = Keeping::Lost(reason);
        self.forget();
    }

    fn forget(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.spool.memory_bytes.fetch_sub(memory.len() as u64, Ordering::Relaxed);
        self.file = None;
        self.spool.release(std::mem::take(&mut self.file_bytes));
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.forget();
        let result = match self.state {
            Keeping::All | Keeping::NoMore => SpoolResult::Kept,
            Keeping::Lost(reason) => reason,
        };
        self.spool.metrics.count(result);
    }
}

fn reserve(bytes: &AtomicU64, count: u64, bytes_max: u64) -> bool {
    let more = |bytes: u64| bytes.checked_add(count).filter(|bytes| *bytes <= bytes_max);
    bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// A disk that hangs must not hold up the request.
async fn in_time<T>(limit: tokio::time::Instant, job: &mut Running<io::Result<T>>) -> io::Result<T> {
    timeout_at(limit, &mut job.0).await.map_or_else(|_| Err(io::ErrorKind::TimedOut.into()), ended)
}

fn ended<T>(job: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    job.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
