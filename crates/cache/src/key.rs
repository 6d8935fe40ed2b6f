//! The cache key: scheme, host, port, path and query.
//!
//! The parts are framed by their lengths, so that no two requests share a key. The 128-bit hash that goes with it
//! is keyed anew in each process and only finds the shelf: the store compares the whole key.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pingora_cache::CacheKey;
use pingora_cache::key::HashBinary;

use crate::PurgeScope;

/// What a copy is filed under. A clone is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    bytes: Arc<[u8]>,
    bin: u128,
}

impl Key {
    /// The key of a request. `authority` is the `Host` as sent: see [`canonical_host`].
    pub fn new(scheme: &str, authority: &[u8], path_and_query: &[u8]) -> Self {
        let host = canonical_host(scheme, authority);
        let mut bytes =
            Vec::with_capacity(2 * LENGTH_BYTES + scheme.len() + host.len() + path_and_query.len());
        push_framed(&mut bytes, scheme.as_bytes());
        push_framed(&mut bytes, &host);
        bytes.extend_from_slice(path_and_query);
        Self { bin: bin_of(&bytes), bytes: bytes.into() }
    }

    /// Host, and path with query, as they count.
    pub fn address(&self) -> (String, String) {
        let (host, target) = host_and_target(&self.bytes);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(host), text(target))
    }

    /// All copies of this address.
    pub fn scope(&self) -> PurgeScope {
        let (host, target) = self.address();
        PurgeScope::Url { host, target }
    }

    /// The same key for Pingora, with the hash already in it.
    pub fn to_pingora(&self) -> CacheKey {
        let mut key = CacheKey::new(self.bytes.to_vec(), String::new());
        key.set_primary_bin_override(self.bin.to_be_bytes());
        key
    }

    /// The hash in memory of a key's bytes.
    pub(crate) fn bin_of(bytes: &[u8]) -> HashBinary {
        bin_of(bytes).to_be_bytes()
    }

    pub(crate) fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    pub(crate) fn bin(&self) -> HashBinary {
        self.bin.to_be_bytes()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.bin);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.bytes.escape_ascii())
    }
}

/// Host, and path with query, of a key's bytes, without what else counts. Of bytes that are no key they are empty.
pub(crate) fn host_and_target(bytes: &[u8]) -> (&[u8], &[u8]) {
    let parts = || {
        let (_, rest) = framed(bytes)?;
        let (host, rest) = framed(rest)?;
        Some((host, rest.split(|byte| *byte == 0).next()?))
    };
    parts().unwrap_or_default()
}

/// The part in front, and what follows it.
fn framed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
}

/// Whether a key has nothing besides scheme, host and target. Everything else follows the target behind a byte that no
/// target has.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    let target = || framed(framed(bytes)?.1).map(|(_, target)| target);
    target().is_some_and(|target| memchr::memchr(0, target).is_none())
}

/// An address as a client names it.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port, as in `Host`.
    pub authority: &'a [u8],
    /// Path and query.
    pub target: &'a str,
}

impl Address<'_> {
    /// Whether another authority is the same host and port.
    pub fn is_of_host(&self, authority: &[u8]) -> bool {
        canonical_host(self.scheme, self.authority) == canonical_host(self.scheme, authority)
    }
}

const LENGTH_BYTES: usize = size_of::<u64>();

/// Appends a part in lower case, its length before it.
fn push_framed(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend(part.iter().map(u8::to_ascii_lowercase));
}

/// The one form of a host and its port (RFC 9110 section 4.2.3): in lower case, without the dot that ends a full name, the
/// port without leading zeros, and none where it says nothing (empty, or the scheme's own). An authority that is no host with a
/// port is only put into lower case: its form has the same form.
pub fn canonical_host<'a>(scheme: &str, authority: &'a [u8]) -> Cow<'a, [u8]> {
    // Without an early exit, so that it is a few vector instructions.
    let is_lower = !authority.iter().fold(false, |found, byte| found | byte.is_ascii_uppercase());
    let colon = memchr::memrchr(b':', authority).filter(|_| authority.last() != Some(&b']'));
    if is_lower && colon.is_none() && authority.last() != Some(&b'.') {
        return authority.into();
    }
    let (host, port) = host_and_port(authority, colon).unwrap_or((authority, b""));
    let significant = port.iter().position(|digit| *digit != b'0').unwrap_or(port.len());
    let port = port.get(significant..).filter(|port| *port != default_port(scheme)).unwrap_or_default();
    let is_same = host.len() + if port.is_empty() { 0 } else { port.len() + 1 } == authority.len();
    if is_same && is_lower {
        return authority.into();
    }
    let colon: &[u8] = if port.is_empty() { b"" } else { b":" };
    [host, colon, port].concat().to_ascii_lowercase().into()
}

/// The host without the dot that ends a full name, and the digits of its port behind the last colon; none if it is no such
/// thing.
fn host_and_port(authority: &[u8], colon: Option<usize>) -> Option<(&[u8], &[u8])> {
    let (host, port) = match colon {
        Some(at) => (authority.get(..at)?, authority.get(at + 1..)?),
        None => (authority, b"".as_slice()),
    };
    let is_port =
        port.iter().all(u8::is_ascii_digit) && (port.is_empty() || port.iter().any(|digit| *digit != b'0'));
    let is_host = match host {
        [b'[', .., last] => *last == b']',
        _ => memchr::memchr(b':', host).is_none(),
    };
    let full = host.strip_suffix(b".").filter(|name| !name.is_empty() && !name.ends_with(b"."));
    (is_port && is_host).then_some((full.unwrap_or(host), port))
}

fn default_port(scheme: &str) -> &'static [u8] {
    if scheme.eq_ignore_ascii_case("https") { b"443" } else { b"80" }
}

/// Two ahash values with seeds that are random per process but the same within it.
fn bin_of(bytes: &[u8]) -> u128 {
    let half = |seed| u128::from(ahash::RandomState::with_seed(seed).hash_one(bytes));
    half(1) << 64 | half(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora_cache::key::CacheHashKey;

    fn key(scheme: &str, authority: &str, path: &str) -> Key {
        Key::new(scheme, authority.as_bytes(), path.as_bytes())
    }

    #[test]
    fn case_of_host_and_default_port_do_not_matter() {
        let plain = key("http", "example.com", "/a?b");
        assert_eq!(plain, key("HTTP", "Example.COM:80", "/a?b"));
        assert_eq!(plain, key("http", "example.com:", "/a?b"));
        assert_eq!(key("https", "[2001:DB8::1]:443", "/"), key("https", "[2001:db8::1]", "/"));
        for full in ["example.com.", "example.com.:80", "EXAMPLE.com.:"] {
            assert_eq!(plain, key("http", full, "/a?b"), "{full}");
        }
        assert_eq!(key("http", "example.com.:81", "/"), key("http", "example.com:81", "/"));
    }

    #[test]
    fn everything_else_matters() {
        let all = [
            key("http", "example.com", "/"),
            key("https", "example.com", "/"),
            key("http", "example.com:443", "/"),
            key("https", "example.com:80", "/"),
            key("http", "example.org", "/"),
            key("http", "example.com", "/?"),
            key("http", "example.com", "/A"),
            key("http", "example.com", "/a"),
            key("http", "example.com/", ""),
            key("http", "[2001:db8::1]", "/"),
            key("http", "[2001:db8::1]:81", "/"),
            key("http", "example.com..", "/"),
        ];
        for (left_at, left) in all.iter().enumerate() {
            for (right_at, right) in all.iter().enumerate() {
                assert_eq!(left == right, left_at == right_at, "{left:?} {right:?}");
            }
        }
    }

    /// Otherwise a host that is made canonical twice would become another one.
    #[test]
    fn the_canonical_form_has_itself_as_its_form() {
        for (authority, form) in [
            ("h.", "h"),
            ("H..", "h.."),
            ("h..:80", "h.."),
            ("h:080", "h"),
            ("h:0081", "h:81"),
            ("h:0", "h:0"),
            ("h:80:80", "h:80:80"),
            (".", "."),
            ("[::1]:080", "[::1]"),
            ("[::1]", "[::1]"),
            ("h:x", "h:x"),
        ] {
            let once = canonical_host("http", authority.as_bytes()).into_owned();
            assert_eq!(String::from_utf8_lossy(&once), form, "{authority}");
            assert_eq!(*canonical_host("http", &once), *once, "{authority}");
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100_000 {
            let authority: Vec<u8> =
                (0..random.usize(..9)).map(|_| *random.choice(b"hH.:[]0418x").unwrap()).collect();
            let once = canonical_host("http", &authority).into_owned();
            assert_eq!(*canonical_host("http", &once), *once, "{}", authority.escape_ascii());
        }
    }

    #[test]
    fn a_key_with_more_than_an_address_is_not_plain() {
        assert!(is_plain(key("http", "example.com", "/a?b").bytes()));
        assert!(!is_plain(key("http", "example.com", "/a\0x").bytes()));
        assert!(!is_plain(b"") && !is_plain(&[0; 9]));
    }

    #[test]
    fn pingora_gets_the_same_bytes_and_hash() {
        let key = key("http", "example.com", "/");
        let pingora = key.to_pingora();
        assert_eq!(pingora.primary_key(), key.bytes().as_ref());
        assert_eq!(pingora.primary_bin(), key.bin());
        assert_eq!(pingora.primary_bin(), key.clone().to_pingora().primary_bin());
    }
}
