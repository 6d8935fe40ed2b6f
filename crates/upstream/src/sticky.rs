//! Clients tied to the backend that they had first, by a cookie.
//!
//! The cookie holds a keyed hash of the backend's address: nobody without the key learns an address from it, or
//! can try out which one it is. It is the same for the same address and key, in any order and number of backends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use blake2::digest::consts::{U8, U32};
use blake2::digest::{FixedOutput, Mac};
use blake2::{Blake2b, Blake2bMac, Digest};

use crate::Address;

/// How clients are tied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyPolicy {
    /// The name of the cookie.
    pub cookie: String,
    /// How long a client keeps it; none: as long as its browser runs.
    pub ttl: Option<Duration>,
    /// What its values are made with; none: a key of this process.
    pub key: Option<StickyKey>,
}

/// A secret of 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct StickyKey(Arc<[u8; 32]>);

/// A backend as a cookie names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(u64);

impl StickyKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Arc::new(bytes))
    }

    /// The key made of a secret of any length.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self::new(Blake2b::<U32>::digest(secret).into())
    }

    /// What the backend at this address is called.
    pub(crate) fn id(&self, address: Address) -> BackendId {
        let mac = <Blake2bMac<U8> as Mac>::new_from_slice(&*self.0);
        let hash = mac.map(|mac| mac.chain_update(address.to_string()).finalize_fixed());
        // 32 bytes are a key that the function takes.
        BackendId(hash.map_or(0, |hash| u64::from_be_bytes(hash.into())))
    }
}

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyKey(…)")
    }
}

impl BackendId {
    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_plain.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn an_id_depends_on_key_and_address_and_shows_neither() {
        let address = |port| Address::from(SocketAddr::from(([10, 0, 0, 1], port)));
        let (one, other) = (StickyKey::new([1; 32]), StickyKey::new([2; 32]));
        let id = one.id(address(80));
        assert_eq!(id, StickyKey::new([1; 32]).id(address(80)));
        assert!(id != one.id(address(81)) && id != other.id(address(80)));
        assert_eq!(format!("{one:?}"), "StickyKey(…)");
        assert_eq!(BackendId::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn only_what_was_written_is_read() {
        let good = BackendId(0xAB).to_string();
        assert_eq!(good, "00000000000000ab");
        for bad in ["", "ab", "00000000000000AB", "0x000000000000ab", "+0000000000000ab", "00000000000000ab0"]
        {
            assert_eq!(BackendId::parse(bad), None, "{bad}");
        }
    }
}
