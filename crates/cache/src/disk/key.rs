//! Under which numbers copies are filed on disk. Unlike the hashes in memory these must mean the same in the next
//! process, and nobody must be able to choose them: a cryptographic hash.

use std::time::{Duration, SystemTime};

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use pingora_cache::key::HashBinary;

use crate::vary::VaryBy;

/// A key in 128 bits. The whole key is in the record and compared when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash(pub(super) [u8; 16]);

impl KeyHash {
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(Blake2b::<U16>::digest(key).into())
    }
}

/// The names in `Vary`; zero for none.
pub(super) fn vary_of(vary_by: &VaryBy) -> u32 {
    vary_by.names().map_or(0, |names| short(&Blake2b::<U16>::digest(names).into()).max(1))
}

/// Of both halves of a variance; zero for none.
pub(super) fn variance_of(variance: Option<HashBinary>) -> u32 {
    let folded = |variance: HashBinary| {
        let mut turned = variance;
        turned.rotate_left(variance.len() / 2);
        (short(&variance) ^ short(&turned).rotate_left(1)).max(1)
    };
    variance.map_or(0, folded)
}

fn short(hash: &[u8; 16]) -> u32 {
    let [a, b, c, d, ..] = *hash;
    u32::from_le_bytes([a, b, c, d])
}

/// A span in seconds, what is begun counted as a whole one.
pub(super) fn whole_seconds(time: Duration) -> u32 {
    let begun = u64::from(time.subsec_nanos() > 0);
    u32::try_from(time.as_secs().saturating_add(begun)).unwrap_or(u32::MAX)
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
