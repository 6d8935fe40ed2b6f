//! Blocking work beside the control runtime: a file on a network disk that does not answer must hold up neither the
//! admin listener nor signals. One job at a time on a thread that the end of the process does not wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

/// Starts jobs one after another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offload {
    is_busy: Arc<AtomicBool>,
}

/// Marks the job as done, also if it panics.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Offload {
    /// Runs the job on a thread of its own. None if the previous job has not ended, or there is no thread for it.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<oneshot::Receiver<T>> {
        if self.is_busy.swap(true, Ordering::Acquire) {
            return None;
        }
        let busy = Busy(Arc::clone(&self.is_busy));
        let (done, result) = oneshot::channel();
        let run = move || {
            let value = job();
            drop(busy);
            // Nobody waits any more after the deadline.
            let _ = done.send(value);
        };
        std::thread::Builder::new().name("offload".to_owned()).spawn(run).ok()?;
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_hangs_admits_no_second_one() {
        let offload = Offload::default();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let hangs = offload.start(move || wait.recv()).unwrap();
        assert!(offload.start(|| ()).is_none());
        drop(release);
        assert!(hangs.blocking_recv().unwrap().is_err());
        assert_eq!(offload.start(|| 7).unwrap().blocking_recv(), Ok(7));
    }
}
