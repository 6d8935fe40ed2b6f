//! The cache key: scheme, host, port, path and query.
//!
//! The parts are framed by their lengths, so that no two requests share a key. The 128-bit hash that goes with it
//! is keyed anew in each process and only finds the shelf: the store compares the whole key.

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
    /// The key of a request. `authority` is the `Host` as sent: its case and a default port do not matter.
    pub fn new(scheme: &str, authority: &[u8], path_and_query: &[u8]) -> Self {
        let host = without_default_port(authority, scheme);
        let mut bytes =
            Vec::with_capacity(2 * LENGTH_BYTES + scheme.len() + host.len() + path_and_query.len());
        push_framed(&mut bytes, scheme.as_bytes());
        push_framed(&mut bytes, host);
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

/// Whether two authorities of one scheme are the same host and port (RFC 9110 section 4.2.3).
pub fn is_same_authority(scheme: &str, one: &[u8], other: &[u8]) -> bool {
    without_default_port(one, scheme).eq_ignore_ascii_case(without_default_port(other, scheme))
}

const LENGTH_BYTES: usize = size_of::<u64>();

/// Appends a part in lower case, its length before it.
fn push_framed(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend(part.iter().map(u8::to_ascii_lowercase));
}

/// The authority without a port that says nothing: empty, or the scheme's own (RFC 9110 section 4.2.3).
fn without_default_port<'a>(authority: &'a [u8], scheme: &str) -> &'a [u8] {
    let Some(colon) = authority.iter().rposition(|byte| *byte == b':') else {
        return authority;
    };
    let (host, port) = authority.split_at(colon);
    let default = if scheme.eq_ignore_ascii_case("https") { b":443".as_slice() } else { b":80" };
    if port == b":" || port == default { host } else { authority }
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
        ];
        for (left_at, left) in all.iter().enumerate() {
            for (right_at, right) in all.iter().enumerate() {
                assert_eq!(left == right, left_at == right_at, "{left:?} {right:?}");
            }
        }
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
