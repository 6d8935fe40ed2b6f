//! Where a backend is. It is noted with each attempt and compared in each choice, and is therefore small and `Copy`:
//! the paths of sockets are kept once, for good. There are no more of them than configurations have named.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

/// The address of a backend. Shown as `IP:port` or `unix:/path`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(&'static str),
}

/// All paths that there have been.
static PATHS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

impl Address {
    /// The Unix socket at this path.
    pub fn unix(path: &str) -> Self {
        let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = paths.get(path) {
            return Self::Unix(known);
        }
        let path: &'static str = Box::leak(path.into());
        paths.insert(path);
        Self::Unix(path)
    }

    /// Whether it is an address of IPv6 or of IPv4; none: it is neither.
    pub const fn is_ipv6(self) -> Option<bool> {
        match self {
            Self::Ip(address) => Some(address.is_ipv6()),
            Self::Unix(_) => None,
        }
    }

    /// Whether it is a Unix socket.
    pub const fn is_unix(self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_once_and_shown_as_it_is_written() {
        let (one, two) = (Address::unix("/run/a.sock"), Address::unix(&String::from("/run/a.sock")));
        let (Address::Unix(first), Address::Unix(second)) = (one, two) else {
            panic!("both are Unix sockets")
        };
        assert!(std::ptr::eq(first, second) && one == two && one != Address::unix("/run/b.sock"));
        assert_eq!(one.to_string(), "unix:/run/a.sock");
        assert_eq!(Address::from(SocketAddr::from(([127, 0, 0, 1], 80))).to_string(), "127.0.0.1:80");
    }
}
