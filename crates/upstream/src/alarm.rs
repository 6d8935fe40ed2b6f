//! Live failures that are worth a look at once: whoever watches the backends is woken for them.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Address;

/// How often one backend raises it at most.
const APART: Duration = Duration::from_secs(1);

/// Backends that have failed and that one watcher has not looked at since.
#[derive(Debug, Default)]
pub struct Alarm(Mutex<Raised>);

#[derive(Debug, Default)]
struct Raised {
    suspects: Vec<Address>,
    /// Who has raised it within [`APART`].
    recent: Vec<(Address, Instant)>,
    watcher: Option<Waker>,
}

impl Alarm {
    /// `before` is called if anybody is woken for it, before that.
    pub(crate) fn raise(&self, address: Address, now: Instant, before: impl FnOnce()) {
        let mut raised = self.0.lock();
        raised.recent.retain(|(_, at)| now.saturating_duration_since(*at) < APART);
        if raised.recent.iter().any(|(recent, _)| *recent == address) {
            return;
        }
        raised.recent.push((address, now));
        raised.suspects.push(address);
        before();
        let watcher = raised.watcher.take();
        drop(raised);
        if let Some(watcher) = watcher {
            watcher.wake();
        }
    }

    /// The suspects, each once, when there are any. One watcher waits at a time.
    pub fn poll_suspects(&self, context: &Context<'_>) -> Poll<Vec<Address>> {
        let mut raised = self.0.lock();
        if raised.suspects.is_empty() {
            raised.watcher = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut suspects = std::mem::take(&mut raised.suspects);
        suspects.sort_unstable();
        suspects.dedup();
        Poll::Ready(suspects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_backend_raises_it_once_in_a_second_and_the_watcher_is_woken() {
        let (alarm, count) = (Alarm::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let [a, b] = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| Address::Ip(address.parse().unwrap()));
        let now = Instant::now();
        assert!(alarm.poll_suspects(&context).is_pending());
        for _ in 0..3 {
            alarm.raise(b, now, || {});
            alarm.raise(a, now, || {});
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(alarm.poll_suspects(&context), Poll::Ready(vec![a, b]));
        alarm.raise(a, now + APART / 2, || {});
        assert!(alarm.poll_suspects(&context).is_pending());
        alarm.raise(a, now + APART, || {});
        assert_eq!(alarm.poll_suspects(&context), Poll::Ready(vec![a]));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
