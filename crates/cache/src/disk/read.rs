//! Reading without making a worker wait: what is in the page cache is taken at once, what is not is read by a thread
//! that may block.
//!
//! `preadv2` with `RWF_NOWAIT` says which of the two it is. A disk that does not answer must not hold requests up:
//! there is a limit to the waiting, and to the number of threads that may hang.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::sync::Semaphore;

/// How long a reader waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);
/// Threads that may wait for one disk at once.
const WAITING_MAX: usize = 32;
/// More is not copied on a worker, even if it is in memory.
const AT_ONCE_MAX: usize = 256 << 10;

/// The right to wait for a disk.
#[derive(Debug)]
pub(super) struct Waiting {
    permits: Arc<Semaphore>,
    /// The last to wait did so in vain: nobody queues behind it.
    is_stalled: AtomicBool,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(WAITING_MAX)), is_stalled: AtomicBool::new(false) }
    }

    /// So many bytes from there, or an error; never fewer.
    pub(super) async fn read(&self, file: &Arc<File>, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if len <= AT_ONCE_MAX
            && let Some(bytes) = at_once(file, offset, len)
        {
            return Ok(bytes);
        }
        let file = Arc::clone(file);
        self.block(move || {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        })
        .await
    }

    /// Runs what may block elsewhere, for as long as a reader may wait.
    pub(super) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.is_stalled.load(Ordering::Relaxed) && self.permits.available_permits() == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let work = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other)?;
            let work = move || {
                let result = work();
                drop(permit);
                result
            };
            tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
        };
        let done = tokio::time::timeout(PATIENCE, work).await;
        self.is_stalled.store(done.is_err(), Ordering::Relaxed);
        done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// What is in the page cache; none if not all of it is, or if that cannot be told.
fn at_once(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    loop {
        match preadv2(file, &mut [IoSliceMut::new(&mut bytes)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => return (read == len).then_some(bytes),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
