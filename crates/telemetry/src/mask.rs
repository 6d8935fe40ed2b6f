//! What is kept out of records: the values of query parameters that are secrets, and the last part of client
//! addresses. A user and password in a target or in `Host` never come here: such a request is refused.
//!
//! A parameter begins behind `&` or `;`, since backends differ in what parts one from the next; a masked value
//! ends only at `&`. So what one of them would read as a secret is never written.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

/// What stands for a masked value.
const MASKED: &str = "***";
/// The part of an address that is kept: an IPv4 /24, an IPv6 /48.
const V4_KEPT: u32 = u32::MAX << 8;
const V6_KEPT: u128 = u128::MAX << 80;

/// What is masked.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    /// In their [`plain`] form.
    query: Vec<Name>,
    /// How names begin, in the same form.
    prefixes: Vec<Name>,
    /// A bit for each length that is among them.
    lengths: u128,
    cuts_client: bool,
}

/// The form in which names are compared.
type Name = SmallVec<[u8; 64]>;

impl Mask {
    /// Masks the values of these query parameters, and with `cuts_client` all of a client's address but its network.
    /// `token*` is every name that begins so. Neither case nor `-`, `_` and `.` in a name matter, and `a[token]` is a `token`.
    pub fn new(query: &[String], cuts_client: bool) -> Self {
        let prefixes = query.iter().filter_map(|name| name.strip_suffix('*'));
        let prefixes = prefixes.map(|prefix| plain(prefix.bytes())).collect();
        let names = query.iter().filter(|name| !name.ends_with('*'));
        let query: Vec<Name> = names.map(|name| plain(name.bytes())).collect();
        let lengths = query.iter().fold(0, |lengths, name| lengths | length_bit(name.len()));
        Self { query, prefixes, lengths, cuts_client }
    }

    /// A query, without its `?`. Copied only if something in it is masked.
    pub fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let mut masked = String::new();
        let mut kept = query;
        let mut rest = query;
        while let Some(end) = rest.find(['=', '&', ';']) {
            let (name, tail) = rest.split_at(end);
            if tail.starts_with('=') && self.is_secret(name) {
                let before = kept.len() - tail.len() + 1;
                masked.push_str(kept.get(..before).unwrap_or_default());
                masked.push_str(MASKED);
                rest = tail.find('&').map_or("", |end| tail.split_at(end).1);
                kept = rest;
                rest = rest.strip_prefix('&').unwrap_or_default();
            } else {
                let next = tail.find(['&', ';']).map_or("", |end| tail.split_at(end).1);
                rest = next.get(1..).unwrap_or_default();
            }
        }
        if masked.is_empty() {
            return Cow::Borrowed(query);
        }
        masked.push_str(kept);
        Cow::Owned(masked)
    }

    /// A client's address.
    pub fn client(&self, client: IpAddr) -> IpAddr {
        match client {
            _ if !self.cuts_client => client,
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & V4_KEPT).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & V6_KEPT).into(),
        }
    }

    fn is_secret(&self, name: &str) -> bool {
        if self.lengths == 0 && self.prefixes.is_empty() {
            return false;
        }
        let name: Name = decoded(name).collect();
        name.split(|byte| matches!(byte, b'[' | b']')).any(|part| {
            let part = plain(part.iter().copied());
            (self.lengths & length_bit(part.len()) != 0 && self.query.contains(&part))
                || self.prefixes.iter().any(|prefix| part.starts_with(prefix))
        })
    }
}

/// A name without what its spellings differ in.
fn plain(name: impl Iterator<Item = u8>) -> Name {
    let kept = name.filter(|byte| !matches!(byte, b'-' | b'_' | b'.' | b'+' | b' ' | b'\t' | 0));
    kept.map(|byte| byte.to_ascii_lowercase()).collect()
}

/// Lengths of 127 and more share a bit.
const fn length_bit(length: usize) -> u128 {
    1 << if length < 127 { length } else { 127 }
}

/// The bytes that a name in a query stands for.
fn decoded(name: &str) -> impl Iterator<Item = u8> {
    let mut rest = name.as_bytes();
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        if let (b'%', [high, low, tail @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            rest = tail;
            return Some(high << 4 | low);
        }
        rest = tail;
        Some(if first == b'+' { b' ' } else { first })
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> Mask {
        Mask::new(&["token".to_owned(), "Key".to_owned(), "access_token".to_owned()], true)
    }

    #[test]
    fn only_the_values_of_named_parameters_are_masked() {
        for (query, masked) in [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("token=x", "token=***"),
            ("a=1&token=x&b=2", "a=1&token=***&b=2"),
            ("TOKEN=x&kEy=y", "TOKEN=***&kEy=***"),
            ("token=x&token=y", "token=***&token=***"),
            ("%74oken=x&to%6Ben=y&%74%6F%6b%65%6e=z", "%74oken=***&to%6Ben=***&%74%6F%6b%65%6e=***"),
            ("token=", "token=***"),
            ("token&b=1", "token&b=1"),
            ("token=a=b&c", "token=***&c"),
            ("a=1;token=x;y&b=2", "a=1;token=***&b=2"),
            ("csrf_token=x&tokens=y&mytoken=z", "csrf_token=x&tokens=y&mytoken=z"),
            ("a=token=x", "a=token=x"),
            ("%zz=1&%=2&token%=3", "%zz=1&%=2&token%=3"),
            ("&&token=x&", "&&token=***&"),
            (
                "accessToken=x&access-token=y&Access.Token=z",
                "accessToken=***&access-token=***&Access.Token=***",
            ),
            ("a[token]=x&token[]=y&%5Bkey%5d=z&a[b]=1", "a[token]=***&token[]=***&%5Bkey%5d=***&a[b]=1"),
        ] {
            assert_eq!(mask().query(query), masked, "{query}");
        }
    }

    #[test]
    fn nothing_is_copied_unless_something_is_masked() {
        assert!(matches!(mask().query("a=1&csrf_token=2"), Cow::Borrowed(_)));
        assert!(matches!(Mask::default().query("token=x"), Cow::Borrowed("token=x")));
    }

    #[test]
    fn a_client_is_cut_to_its_network() {
        let cut = |text: &str| mask().client(text.parse().unwrap()).to_string();
        assert_eq!(cut("192.0.2.77"), "192.0.2.0");
        assert_eq!(cut("2001:db8:1:2:3::4"), "2001:db8:1::");
        let whole = Mask::new(&[], false);
        assert_eq!(whole.client("192.0.2.77".parse().unwrap()).to_string(), "192.0.2.77");
    }

    #[test]
    fn no_input_brings_a_secret_through() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let names = ["token", "tOKEN", "%74oken", "to%6ben", "key", "K%45y"];
        let noise = ["a", "=", "%", "%2", "&", ";", "+", "token", "key=", "é", "%26", "\u{7f}", "?", "\0"];
        for _ in 0..20_000 {
            let mut query = String::new();
            for _ in 0..random.usize(0..6) {
                for _ in 0..random.usize(0..4) {
                    query.push_str(noise[random.usize(0..noise.len())]);
                }
                if query.is_empty() || random.bool() {
                    if !query.is_empty() {
                        query.push(if random.bool() { '&' } else { ';' });
                    }
                    query.push_str(names[random.usize(0..names.len())]);
                    query.push_str("=SECRET");
                }
            }
            let masked = mask().query(&query).into_owned();
            assert!(!masked.contains("SECRET"), "seed {seed}: {query:?} became {masked:?}");
        }
    }

    #[test]
    fn any_bytes_are_taken() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            let text = String::from_utf8_lossy(&bytes);
            let masked = mask().query(&text);
            assert_eq!(masked == text, !masked.contains(MASKED) || text.contains(MASKED), "seed {seed}");
        }
    }
}
