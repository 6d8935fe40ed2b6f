//! Reading without making a worker wait: what is in the page cache is taken at once, what is not is read by a thread
//! that may block.
//!
//! `preadv2` with `RWF_NOWAIT` says which of the two it is. A disk that does not answer must not hold requests up:
//! there is a limit to the waiting, and to the number of threads that may hang. As long as one does that was given
//! up, nobody waits who need not.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::sync::Semaphore;

use super::buffer::Buffer;

/// How long a reader waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A backend may answer instead.
    Little,
    /// Nobody else can.
    Much,
}

impl Patience {
    const fn limit(self) -> Duration {
        match self {
            Self::Little => Duration::from_millis(250),
            Self::Much => Duration::from_secs(2),
        }
    }
}

/// Threads that may wait for one disk at once.
const WAITING_MAX: usize = 32;
/// More is not copied on a worker, even if it is in memory.
const AT_ONCE_MAX: usize = 256 << 10;

/// What a read is at.
const QUEUED: u8 = 0;
const READING: u8 = 1;
const GIVEN_UP: u8 = 2;
const DONE: u8 = 3;

/// The right to wait for a disk.
#[derive(Debug)]
pub(super) struct Waiting {
    permits: Arc<Semaphore>,
    /// Reads that were given up and have not come back: the disk hangs.
    overdue: Arc<AtomicUsize>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(WAITING_MAX)), overdue: Arc::default() }
    }

    /// Whether a read was given up that has not come back.
    pub(super) fn hangs(&self) -> bool {
        self.overdue.load(Ordering::Relaxed) > 0
    }

    /// So many bytes from there, or an error; never fewer.
    pub(super) async fn read(
        &self,
        file: &Arc<File>,
        offset: u64,
        len: usize,
        patience: Patience,
    ) -> io::Result<Buffer> {
        if let Some(bytes) = at_once(file, offset, len) {
            return Ok(bytes);
        }
        let file = Arc::clone(file);
        let read = move || {
            let mut bytes = Buffer::of(len);
            file.read_exact_at(bytes.as_mut(), offset)?;
            Ok(bytes)
        };
        self.block(patience, read).await
    }

    /// Runs what may block elsewhere, for as long as a reader may wait. `WouldBlock` says that it was not tried.
    pub(super) async fn block<T: Send + 'static>(
        &self,
        patience: Patience,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.hangs() && (patience == Patience::Little || self.permits.available_permits() == 0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let state = Arc::new(AtomicU8::new(QUEUED));
        let (own, overdue) = (Arc::clone(&state), Arc::clone(&self.overdue));
        let work = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other)?;
            let work = move || {
                own.store(READING, Ordering::Relaxed);
                let result = work();
                if own.swap(DONE, Ordering::Relaxed) == GIVEN_UP {
                    overdue.fetch_sub(1, Ordering::Relaxed);
                }
                drop(permit);
                result
            };
            tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
        };
        let done = tokio::time::timeout(patience.limit(), work).await;
        done.unwrap_or_else(|_| {
            self.give_up(&state);
            Err(io::ErrorKind::TimedOut.into())
        })
    }

    fn give_up(&self, state: &AtomicU8) {
        self.overdue.fetch_add(1, Ordering::Relaxed);
        if state.compare_exchange(READING, GIVEN_UP, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.overdue.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What is in the page cache; none if not all of it is, or if that cannot be told, or if it is much.
pub(super) fn at_once(file: &File, offset: u64, len: usize) -> Option<Buffer> {
    if len > AT_ONCE_MAX {
        return None;
    }
    let mut bytes = Buffer::of(len);
    loop {
        match preadv2(file, &mut [IoSliceMut::new(bytes.as_mut())], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => return (read == len).then_some(bytes),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    fn kind<T>(done: io::Result<T>) -> Option<io::ErrorKind> {
        done.err().map(|error| error.kind())
    }

    #[tokio::test]
    async fn while_a_read_is_overdue_nobody_waits_who_need_not() {
        let waiting = Waiting::new();
        let (release, held) = mpsc::channel::<()>();
        let hanging = move || {
            let _sender_is_gone = held.recv();
            Ok(())
        };
        let began = Instant::now();
        assert_eq!(kind(waiting.block(Patience::Little, hanging).await), Some(io::ErrorKind::TimedOut));
        assert!(waiting.hangs() && began.elapsed() >= Patience::Little.limit());
        let began = Instant::now();
        let refused = waiting.block(Patience::Little, || Ok(())).await;
        assert_eq!(kind(refused), Some(io::ErrorKind::WouldBlock), "at once");
        assert!(began.elapsed() < Patience::Little.limit());
        assert_eq!(
            kind(waiting.block(Patience::Much, || Ok(())).await),
            None,
            "that one may work nevertheless"
        );
        drop(release);
        while waiting.hangs() {
            tokio::task::yield_now().await;
        }
        assert_eq!(kind(waiting.block(Patience::Little, || Ok(())).await), None);
    }
}
