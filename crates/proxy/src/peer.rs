//! The Pingora peer of an attempt: an address, never a name, with every time limit set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_upstream::{Backend, Timeouts};
use pingora_core::upstreams::peer::HttpPeer;

use crate::kept::Kept;

/// How long a connection that was made outside of the pool's groups may lie idle: nobody finds it there.
const LOST_AFTER: Duration = Duration::from_millis(1);

/// What an attempt's connection must be like.
pub(crate) struct Terms<'a> {
    pub(crate) backend: &'a Backend,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) is_upgrade: bool,
    /// It must not be a kept one.
    pub(crate) fresh: bool,
    /// What is left until then caps the connect.
    pub(crate) deadline: Instant,
    pub(crate) now: Instant,
}

/// Builds the peer.
pub(crate) fn peer(terms: &Terms<'_>, kept: &Arc<Kept>) -> HttpPeer {
    let Terms { backend, timeouts, is_upgrade, fresh, deadline, now } = *terms;
    let mut peer = HttpPeer::new(backend.address, false, String::new());
    let left = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
    let connect = timeouts.connect.min(left);
    let options = &mut peer.options;
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    // One limit for every read of the attempt, that of the header included: it must not undercut
    // `first_byte`, which the watchdog enforces.
    let read = if is_upgrade { timeouts.tunnel } else { timeouts.read };
    options.read_timeout = Some(read.max(timeouts.first_byte));
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(backend.idle_limit(timeouts.idle, now));
    options.tracer = Some(kept.tracer());
    if fresh {
        // A group of its own: nothing in the pool belongs to it.
        peer.group_key = fastrand::u64(1..);
        peer.options.idle_timeout = Some(LOST_AFTER);
    }
    peer
}
