//! The address of a client behind trusted proxies, read from `X-Forwarded-For` or, if there is none, from
//! `Forwarded` (RFC 7239).
//!
//! The fields are read as bytes, from the last hop to the first. The first hop that is not a trusted proxy is the
//! client. A hop that cannot be read ends the search with an unknown client: hops before it may be forged, and
//! the proxy that sent the field is not the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use goodgate_failure::Networks;
use http::header::{FORWARDED, HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of a client, as access rules, limits and logs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAddress {
    Known(IpAddr),
    /// The trusted proxy `peer` sent a chain of addresses that cannot be read up to the client.
    Unknown {
        peer: IpAddr,
    },
}

impl ClientAddress {
    /// Reads the address of the client that `peer` forwards for, if `peer` is a trusted proxy.
    pub(crate) fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> Self {
        let mut client = peer;
        let found = if headers.contains_key(FORWARDED_FOR) {
            let values = headers.get_all(FORWARDED_FOR).iter().rev();
            let hops = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
            last_untrusted(hops.map(node), trusted, &mut client)
        } else {
            let values = headers.get_all(FORWARDED).iter().rev();
            let hops = values.flat_map(|value| elements(value.as_bytes()).into_iter().rev());
            last_untrusted(hops.map(forwarded_for), trusted, &mut client)
        };
        found.map_or(Self::Unknown { peer }, |()| Self::Known(client))
    }

    /// The address, unless it is unknown.
    pub(crate) const fn known(self) -> Option<IpAddr> {
        match self {
            Self::Known(ip) => Some(ip),
            Self::Unknown { .. } => None,
        }
    }

    /// Whether the address is known and in one of the networks.
    pub(crate) fn is_in(self, networks: &Networks) -> bool {
        self.known().is_some_and(|ip| is_among(ip, networks))
    }
}

/// Whether a canonical address is in one of the networks.
pub(crate) fn is_among(address: IpAddr, networks: &Networks) -> bool {
    networks.contains(address)
}

/// Follows the hops, last one first, to the first one that is not trusted. None: a hop cannot be read.
fn last_untrusted(
    hops: impl Iterator<Item = Option<IpAddr>>,
    trusted: &Networks,
    client: &mut IpAddr,
) -> Option<()> {
    for hop in hops {
        *client = hop?;
        if !is_among(*client, trusted) {
            break;
        }
    }
    Some(())
}

/// The elements of a `Forwarded` field. A comma in a quoted string separates none. A client may leave a quoted string open,
/// so that it swallows what a proxy appends: then the field has one element, which cannot be read.
fn elements(value: &[u8]) -> Vec<&[u8]> {
    if has_sound_quotes(value) { split_outside_quotes(value, b',') } else { vec![b""] }
}

/// Whether each quoted string is a whole value: it begins behind `=` and ends before a separator or the end.
fn has_sound_quotes(value: &[u8]) -> bool {
    let (mut is_quoted, mut is_escaped, mut before) = (false, false, b',');
    for (at, byte) in value.iter().enumerate() {
        if is_quoted {
            let ends = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            if ends {
                is_quoted = false;
                let behind = value.get(at + 1..).unwrap_or_default().trim_ascii_start().first();
                if !matches!(behind, None | Some(b',' | b';')) {
                    return false;
                }
            }
        } else if *byte == b'"' {
            if before != b'=' {
                return false;
            }
            is_quoted = true;
        }
        before = *byte;
    }
    !is_quoted
}

/// The address in the only `for` parameter of an element.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for parameter in split_outside_quotes(element, b';') {
        let equals = memchr::memchr(b'=', parameter)?;
        let (name, value) = parameter.split_at(equals);
        if name.trim_ascii().eq_ignore_ascii_case(b"for") && found.replace(value.get(1..)?).is_some() {
            return None;
        }
    }
    node(found?)
}

/// The parts of a value between separators. An unfinished quoted string reaches to the end.
fn split_outside_quotes(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = value.split(|byte| {
        let is_separator = *byte == separator && !is_quoted;
        if *byte == b'"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = is_quoted && *byte == b'\\' && !is_escaped;
        is_separator
    });
    parts.collect()
}

/// Reads one hop: `IPv4`, `IPv4:port`, `IPv6`, `[IPv6]`, `[IPv6]:port`, or one of these in quotes.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let text = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    let ip = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            is_port_or_nothing(port).then_some(())?;
            ip.parse::<Ipv6Addr>().ok()?.into()
        }
        None => match text.split_once(':') {
            Some((ip, port)) if !port.contains(':') => {
                is_port(port).then_some(())?;
                ip.parse::<Ipv4Addr>().ok()?.into()
            }
            Some(_) | None => text.parse::<IpAddr>().ok()?,
        },
    };
    Some(ip.to_canonical())
}

fn is_port_or_nothing(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(is_port)
}

fn is_port(digits: &str) -> bool {
    (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn networks(list: &[&str]) -> Networks {
        list.iter().map(|text| text.parse::<ipnet::IpNet>().unwrap()).collect()
    }

    /// The client that a trusted peer forwards for; `unknown` if that cannot be read.
    fn client(fields: &[(&'static str, &[u8])]) -> String {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()));
        let trusted = networks(&["10.0.0.0/8"]);
        let address = ClientAddress::behind(ip("10.0.0.1"), &fields.collect(), &trusted);
        address.known().map_or("unknown".to_owned(), |ip| ip.to_string())
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_is_the_client() {
        for (chain, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("127.0.0.5, 8.8.8.8:1234", "8.8.8.8"),
            ("127.0.0.5,8.8.8.8:1234 ,\t10.0.0.2:80", "8.8.8.8"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("\"8.8.8.8\"", "8.8.8.8"),
            ("1.2.3.4, ::ffff:10.0.0.2", "1.2.3.4"),
            ("1.2.3.4, [::ffff:10.0.0.2]:1", "1.2.3.4"),
        ] {
            assert_eq!(client(&[("x-forwarded-for", chain.as_bytes())]), expected, "{chain}");
        }
        assert_eq!(client(&[]), "10.0.0.1", "the proxy sends a request of its own");
        let two: [(_, &[u8]); 2] =
            [("x-forwarded-for", b"6.6.6.6"), ("x-forwarded-for", b"1.2.3.4, 10.0.0.2")];
        assert_eq!(client(&two), "1.2.3.4");
        assert_eq!(client(&[("x-forwarded-for", b"\xe9, 203.0.113.5")]), "203.0.113.5");
    }

    #[test]
    fn a_hop_that_cannot_be_read_makes_the_client_unknown() {
        for hop in [
            &b""[..],
            b" ",
            b"unknown",
            b"_hidden",
            b"\xe9",
            b"1.2.3",
            b"1.2.3.4.5",
            b"01.2.3.4",
            b"1.2.3.4:",
            b"1.2.3.4:x",
            b"1.2.3.4:123456",
            b"1.2.3.4 5",
            b"1.2.3.4;",
            b"1.2.3.4/32",
            b"[1.2.3.4]",
            b"[::1",
            b"[::1]x",
            b"[::1]:",
            b"fe80::1%eth0",
            b"\"1.2.3.4",
            b"1.2.3.4\"",
            b"\"",
            b"\"\"",
            b"example.com",
            b"for=1.2.3.4",
        ] {
            let shown = hop.escape_ascii();
            let last = [b"127.0.0.5, ", hop].concat();
            assert_eq!(client(&[("x-forwarded-for", &last)]), "unknown", "{shown}");
            let before_trusted = [b"127.0.0.5, ", hop, b", 10.0.0.2"].concat();
            assert_eq!(client(&[("x-forwarded-for", &before_trusted)]), "unknown", "{shown}");
            let two: [(_, &[u8]); 2] = [("x-forwarded-for", b"127.0.0.5"), ("x-forwarded-for", hop)];
            assert_eq!(client(&two), "unknown", "{shown}");
        }
    }

    #[test]
    fn a_quoted_string_that_a_client_has_left_open_makes_the_client_unknown() {
        for field in [
            "for=127.0.0.5;host=\"a, for=8.8.8.8",
            "for=127.0.0.5;by=\"\\, for=\"8.8.8.8",
            "for=127.0.0.5;by=\", for=\"[2001:db8::1]:80\"",
            "for=127.0.0.5;by=a\"b\", for=8.8.8.8",
        ] {
            assert!(!has_sound_quotes(field.as_bytes()), "{field}");
        }
        for field in ["for=8.8.8.8", "for=\"[2001:db8::1]:80\";by=\"a,b\" , for=1.2.3.4", "by=\"a\\\"b\""] {
            assert!(has_sound_quotes(field.as_bytes()), "{field}");
        }
    }

    #[test]
    fn forwarded_is_read_if_there_is_no_x_forwarded_for() {
        for (value, expected) in [
            ("for=1.2.3.4", "1.2.3.4"),
            ("For=\"1.2.3.4:80\";proto=https;by=10.0.0.9", "1.2.3.4"),
            ("for=6.6.6.6, for=\"[2001:db8::1]:443\";host=\"a,b;for=9.9.9.9\", for=10.0.0.2", "2001:db8::1"),
            ("by=1.2.3.4", "unknown"),
            ("for=unknown", "unknown"),
            ("for=6.6.6.6, for=_hidden", "unknown"),
            ("for=6.6.6.6, proto=http", "unknown"),
            ("for=6.6.6.6, ", "unknown"),
            ("for=6.6.6.6;for=1.2.3.4", "unknown"),
            ("for=6.6.6.6, host=\"a;for=1.2.3.4", "unknown"),
            ("for=\"1.2.3.4, for=10.0.0.2", "unknown"),
            ("for", "unknown"),
        ] {
            assert_eq!(client(&[("forwarded", value.as_bytes())]), expected, "{value}");
        }
        let both: [(_, &[u8]); 2] = [("forwarded", b"for=6.6.6.6"), ("x-forwarded-for", b"1.2.3.4")];
        assert_eq!(client(&both), "1.2.3.4");
    }

    #[test]
    fn an_unknown_client_is_in_no_network() {
        let unknown = ClientAddress::Unknown { peer: ip("10.0.0.1") };
        let all = networks(&["0.0.0.0/0", "::/0"]);
        assert!(!unknown.is_in(&all));
        assert!(ClientAddress::Known(ip("10.0.0.1")).is_in(&all));
    }
}
