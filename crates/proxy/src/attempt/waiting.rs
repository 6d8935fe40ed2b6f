//! What the attempts of a request wait for besides their backends: the client's body, and lookups that a failure has set
//! off.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use super::Attempting;
use crate::route::Route;

/// Whether a request waits for lookups: once, and not for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    NotAwaited,
    Awaited,
    Over,
}

/// How long a request waits for them.
const LOOKUP_WAIT: Duration = Duration::from_millis(80);

/// The client's part in the attempt under way: while it sends its body the backend has nothing to answer.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Since when its body is waited for; none once it is complete.
    since: Option<Instant>,
    /// When its last piece came.
    last_piece: Option<Instant>,
    /// The backend closed the connection while the client was being waited for.
    pub(super) is_blamed: bool,
}

/// A client that has sent nothing for this long is being waited for.
const AWAITED_AFTER: Duration = Duration::from_secs(1);

impl Attempting {
    /// Whether the next attempt waits for lookups.
    pub(crate) fn awaits_lookups(&self) -> bool {
        self.lookup == Lookup::Awaited
    }

    /// Waits for the lookups that the last failure has set off, if there are any: they may find another address.
    pub(crate) async fn await_lookups(&mut self, route: &Route) {
        self.lookup = Lookup::Over;
        let ended = poll_fn(|context| route.upstream.poll_lookups(context));
        // Without an answer in time the request goes on with what is known.
        let _ = tokio::time::timeout(LOOKUP_WAIT, ended).await;
    }

    /// The client is still sending its body. Gives back the deadline that counts meanwhile.
    pub(crate) fn upload_begins(&mut self, deadline: Instant) -> Instant {
        self.upload = Upload { since: Some(self.connected_at), ..Upload::default() };
        deadline
    }

    /// A piece of the body goes to the backend. The time that all of it has taken does not count.
    pub(crate) fn piece_sent(&mut self, now: Instant, is_end: bool) {
        self.upload.last_piece = Some(now);
        if is_end {
            self.upload_ends(now);
        }
    }

    fn upload_ends(&mut self, now: Instant) {
        if let Some(since) = self.upload.since.take() {
            self.deadline += now.saturating_duration_since(since);
        }
    }

    /// The attempt broke before the body was complete. A backend that gives up on a client that keeps it waiting has not
    /// failed.
    pub(crate) fn upload_broke(&mut self, now: Instant) {
        let waits_since = self.upload.last_piece.or(self.upload.since);
        self.upload.is_blamed =
            waits_since.is_some_and(|since| now.saturating_duration_since(since) >= AWAITED_AFTER);
        self.upload_ends(now);
    }
}
