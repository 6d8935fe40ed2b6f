//! Lists of addresses and networks: `trusted_proxies`, `allow`, `deny`, `exempt` and `purge.allow`.
//!
//! Clients are compared in canonical form, in which an IPv4-mapped address (`::ffff:192.0.2.1`) is the IPv4 address.
//! A network of mapped addresses is read as the IPv4 network. One that covers only a part of the mapped prefix
//! would never match and is refused. Bits behind the prefix are ignored, as in nginx and HAProxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use goodgate_failure::Networks;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::kind::text_as;
use crate::view::Map;

/// Length of the prefix of IPv4-mapped addresses, `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;
/// Those of its bits that are ones.
const MAPPED_ONES: u128 = 0xffff << 32;

/// Addresses and networks under a key; none if it is absent.
pub(super) fn networks(map: &Map<'_>, key: &str) -> Networks {
    let networks = map.get(key).and_then(|view| view.list_of(text_as(parse_network)));
    networks.unwrap_or_default().into_iter().collect()
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| one());
    match network.map_err(|_| "an IP address or a network, like `10.0.0.0/8`".to_owned())? {
        IpNet::V4(network) => Ok(network.trunc().into()),
        IpNet::V6(network) => canonical(network),
    }
}

fn canonical(network: Ipv6Net) -> Result<IpNet, String> {
    let bits = network.addr().to_bits();
    if bits >> 48 != 0 || bits & MAPPED_ONES == 0 {
        return Ok(network.trunc().into());
    }
    if let Some(prefix) = network.prefix_len().checked_sub(MAPPED_PREFIX) {
        return match network.addr().to_ipv4_mapped() {
            Some(ip) => v4(ip, prefix),
            None => Ok(network.trunc().into()),
        };
    }
    if network.contains(&Ipv6Addr::from_bits(MAPPED_ONES)) {
        let allowed = "an IPv4 network, like `10.0.0.0/8` (IPv4-mapped addresses are read as IPv4; \
            all of IPv4 is `0.0.0.0/0`)";
        return Err(allowed.to_owned());
    }
    Ok(network.trunc().into())
}

fn v4(ip: Ipv4Addr, prefix: u8) -> Result<IpNet, String> {
    let network = Ipv4Net::new(ip, prefix).map_err(|error| error.to_string())?;
    Ok(network.trunc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_mapped_addresses_are_ipv4_networks() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("::/96", "::/96"),
            ("::1.2.3.4", "::102:304/128"),
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:127.0.0.1", "127.0.0.1/32"),
            ("::ffff:7f00:1/128", "127.0.0.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::fffe:0:0/96", "::fffe:0:0/96"),
            ("64:ff9b::/96", "64:ff9b::/96"),
        ] {
            assert_eq!(parse_network(text).map(|it| it.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in
            ["::ffff:0:0/95", "::ffff:0:0/90", "::ffff:127.0.0.1/80", "::ffc0:0:0/90", "::ffff:1.2.3.4/0"]
        {
            let refused = parse_network(text).unwrap_err();
            assert!(refused.starts_with("an IPv4 network, like"), "{text}: {refused}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "a", "::/129", "10.0.0.1:80", "fe80::1%eth0"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }
}
