//! Clients that have closed their side of the connection behind a request.

use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::ClientStream;

/// How long a client that sends nothing more may still wait in a queue, or for its tunnel. Most clients that close have
/// left, but some only say that they are done (RFC 9112 section 9.6); until something is written they look the same.
pub(crate) const HALF_CLOSED: Duration = Duration::from_secs(1);
/// How long it may wait for the response of a backend that has its request, without a byte of it.
const HALF_CLOSED_EXCHANGE: Duration = Duration::from_secs(10);
/// How long a response that has begun may pause for it: a stream without events holds its backend until then.
const HALF_CLOSED_RESPONSE: Duration = Duration::from_secs(3);

impl ClientStream {
    /// The client has said that it is done. For a while it is still told what the backend has to say.
    pub(super) fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_short = self.switched.load(Ordering::Relaxed) || self.is_queued.load(Ordering::Relaxed);
        let limit = match (is_short, self.has_written) {
            (true, _) => HALF_CLOSED,
            (false, true) => HALF_CLOSED_RESPONSE,
            (false, false) => HALF_CLOSED_EXCHANGE,
        };
        let new = || (Instant::now(), Box::pin(sleep(limit)));
        let (since, wake) = self.half_closed.get_or_insert_with(new);
        let end = tokio::time::Instant::from_std(*since + limit);
        if wake.deadline() != end {
            wake.as_mut().reset(end);
        }
        wake.as_mut().poll(context).map(Ok)
    }

    /// Says whether the request waits in a queue from now on.
    pub(crate) fn queues(&self, is_queued: bool) {
        self.is_queued.store(is_queued, Ordering::Relaxed);
    }
}
