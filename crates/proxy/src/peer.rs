//! The Pingora peer of an attempt: an address, never a name, with every time limit set.

use std::time::{Duration, Instant};

use goodgate_upstream::{Backend, Timeouts};
use pingora_core::upstreams::peer::HttpPeer;

/// Builds the peer. What is left until `deadline` caps the connect; `fresh` forbids a kept connection.
pub(crate) fn peer(
    backend: &Backend,
    timeouts: &Timeouts,
    is_upgrade: bool,
    fresh: bool,
    deadline: Instant,
    now: Instant,
) -> HttpPeer {
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
    options.idle_timeout = Some(timeouts.idle);
    if fresh {
        // A group of its own: nothing in the pool belongs to it.
        peer.group_key = fastrand::u64(1..);
    }
    peer
}
