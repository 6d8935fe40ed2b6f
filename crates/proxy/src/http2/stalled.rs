//! Responses over HTTP/2 that have stalled, of all connections together. Each holds memory for as long as its client
//! likes, up to `limits.write_timeout`; one connection may have a hundred of them. Beyond a number of them the one
//! that has stalled for the longest is reset.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Http2Facts;

/// Responses that may be stalled at a time.
const STALLED_MAX: usize = 512;
/// A response that waits for less than this is an ordinary one, to a client with a slow network.
const STALLED_AFTER: Duration = Duration::from_secs(2);
/// How often a connection looks for its stalled responses.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The stalled responses of all connections, the longest first.
#[derive(Debug, Default)]
pub(crate) struct StalledResponses(Mutex<BTreeMap<(Instant, u64, u32), Arc<Http2Facts>>>);

/// Those of one connection, until it ends.
pub(super) struct StalledHere<'a> {
    all: &'a StalledResponses,
    connection: u64,
    facts: &'a Arc<Http2Facts>,
    here: Vec<(Instant, u64, u32)>,
}

impl StalledResponses {
    pub(super) fn of_connection<'a>(
        &'a self,
        connection: u64,
        facts: &'a Arc<Http2Facts>,
    ) -> StalledHere<'a> {
        StalledHere { all: self, connection, facts, here: Vec::new() }
    }
}

impl StalledHere<'_> {
    /// Looks again which responses have stalled, and has the oldest of all connections reset if there are too many.
    pub(super) fn look(&mut self, now: Instant) {
        let then = now.checked_sub(STALLED_AFTER);
        let stalled = then.map(|then| self.facts.stalled_before(then)).unwrap_or_default();
        if stalled.is_empty() && self.here.is_empty() {
            return;
        }
        let mut all = self.all.0.lock();
        for entry in self.here.drain(..) {
            all.remove(&entry);
        }
        for (stream, since) in stalled {
            let entry = (since, self.connection, stream);
            self.here.push(entry);
            all.insert(entry, Arc::clone(self.facts));
        }
        while all.len() > STALLED_MAX
            && let Some(((_, _, stream), facts)) = all.pop_first()
        {
            facts.reset(stream);
        }
    }
}

impl Drop for StalledHere<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        for entry in self.here.drain(..) {
            all.remove(&entry);
        }
    }
}
