//! Lookups of an upstream's names that a failure has set off: a request that found its last address dead waits a moment
//! for them, since the service may have moved.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Whether lookups are awaited, and by whom.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    are_awaited: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Lookups {
    /// A failure has set them off.
    pub(crate) fn begin(&self) {
        self.are_awaited.store(true, Ordering::Release);
    }

    pub(crate) fn are_awaited(&self) -> bool {
        self.are_awaited.load(Ordering::Acquire)
    }

    /// They have ended, whatever they have found.
    pub(crate) fn end(&self) {
        let waiting = {
            let mut waiting = self.waiting.lock();
            self.are_awaited.store(false, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ready once they have ended.
    pub(crate) fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.lock();
        if !self.are_awaited() {
            return Poll::Ready(());
        }
        waiting.push(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_the_lookups_have_ended() {
        let lookups = Lookups::default();
        let context = Context::from_waker(Waker::noop());
        assert!(lookups.poll_end(&context).is_ready());
        lookups.begin();
        assert!(lookups.are_awaited() && lookups.poll_end(&context).is_pending());
        lookups.end();
        assert!(lookups.waiting.lock().is_empty() && lookups.poll_end(&context).is_ready());
    }
}
