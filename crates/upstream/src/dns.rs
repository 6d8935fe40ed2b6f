//! What names stand for, and what an upstream is told about looking them up. Looking up is `watch`'s.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use goodgate_failure::Cause;

use crate::{Address, BackendAddress};

/// How the names of an upstream are looked up, and what becomes of the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsPolicy {
    /// Name servers; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Domains that a name may be short for; none: those of `/etc/resolv.conf` if its servers are asked.
    pub search: Option<Vec<String>>,
    /// Which addresses are used, and in which order.
    pub family: Family,
    /// An answer holds at least this long, whatever its TTL says.
    pub ttl_min: Duration,
    /// An answer holds at most this long.
    pub ttl_max: Duration,
    /// How long the last addresses are used on while lookups fail.
    pub keep: Duration,
}

impl DnsPolicy {
    /// The machine's name servers, and what they say, within bounds.
    pub const DEFAULT: Self = Self {
        servers: Vec::new(),
        search: None,
        family: Family::Any,
        ttl_min: Duration::from_secs(1),
        ttl_max: Duration::from_mins(1),
        keep: Duration::from_hours(24),
    };

    /// How long an answer holds that says so itself.
    pub fn holds(&self, ttl: Duration) -> Duration {
        ttl.min(self.ttl_max).max(self.ttl_min)
    }
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// All alike.
    Any,
    /// Those of IPv6 only when none of IPv4 can be had.
    Ipv4First,
    /// Those of IPv4 only when none of IPv6 can be had.
    Ipv6First,
    /// Those of IPv6 never.
    Ipv4Only,
    /// Those of IPv4 never.
    Ipv6Only,
}

impl Family {
    /// Whether an address is used at all.
    pub fn takes(self, address: Address) -> bool {
        match (self, address.is_ipv6()) {
            (Self::Ipv4Only, Some(is_ipv6)) => !is_ipv6,
            (Self::Ipv6Only, Some(is_ipv6)) => is_ipv6,
            (Self::Any | Self::Ipv4First | Self::Ipv6First, _) | (_, None) => true,
        }
    }

    /// Whether an address is used only when others cannot be had.
    pub(crate) fn puts_back(self, address: Address) -> bool {
        match (self, address.is_ipv6()) {
            (Self::Ipv4First, Some(is_ipv6)) => is_ipv6,
            (Self::Ipv6First, Some(is_ipv6)) => !is_ipv6,
            (Self::Any | Self::Ipv4Only | Self::Ipv6Only, _) | (_, None) => false,
        }
    }
}

/// One address that an entry of `backends` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundAddress {
    /// Where it is.
    pub address: Address,
    /// Zero: it takes its turn. One: it is used only when none of level zero can be had, and so on.
    pub level: u16,
    /// Its share as the DNS has it, at most [`crate::BackendSpec::WEIGHT_MAX`]; none: the entry's.
    pub weight: Option<NonZeroU16>,
}

impl FoundAddress {
    /// An address of which nothing else is said.
    pub const fn plain(address: Address) -> Self {
        Self { address, level: 0, weight: None }
    }
}

/// How it stands with an entry's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They are known: written in the configuration, or the last lookup gave them.
    Known,
    /// Lookups have failed since then, the last one for this cause; the last addresses are used on.
    Kept {
        /// The first failure.
        since: Instant,
        /// Of the last failure.
        cause: Cause,
    },
    /// There is none, and why.
    Unresolved(Cause),
}

/// What a failed lookup has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// There was no address, and there is none.
    Still,
    /// The last addresses are used on from now on.
    KeptFromNow,
    /// They are used on as before.
    Kept,
    /// They have been used on for as long as they may: they have left.
    RanOut,
}

/// A name at one moment, for metrics and the admin side.
#[derive(Clone, Debug)]
pub struct NameView {
    /// As written in the configuration.
    pub name: BackendAddress,
    /// How it stands with its addresses.
    pub standing: Standing,
    /// What it stands for.
    pub addresses: Vec<Address>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_as_its_ttl_says_within_bounds() {
        let second = Duration::from_secs;
        let policy = DnsPolicy {
            servers: Vec::new(),
            search: None,
            family: Family::Any,
            ttl_min: second(2),
            ttl_max: second(60),
            keep: Duration::ZERO,
        };
        for (ttl, holds) in [(0, 2), (2, 2), (30, 30), (60, 60), (u64::from(u32::MAX), 60)] {
            assert_eq!(policy.holds(second(ttl)), second(holds), "{ttl}");
        }
    }

    #[test]
    fn families_are_left_out_or_put_back() {
        let [four, six] = ["127.0.0.1:80", "[::1]:80"].map(|text| Address::Ip(text.parse().unwrap()));
        let unix = Address::unix("/run/a.sock");
        let of = |family: Family| {
            [four, six, unix].map(|address| (family.takes(address), family.puts_back(address)))
        };
        let (used, back, out) = ((true, false), (true, true), (false, false));
        assert_eq!(of(Family::Any), [used, used, used]);
        assert_eq!(of(Family::Ipv4First), [used, back, used]);
        assert_eq!(of(Family::Ipv6First), [back, used, used]);
        assert_eq!(of(Family::Ipv4Only), [used, out, used]);
        assert_eq!(of(Family::Ipv6Only), [out, used, used]);
    }
}
