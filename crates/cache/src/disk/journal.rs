//! The journal of a segment: one entry of fixed size for each thing that happened, in the order in which it did.
//!
//! From journals alone the index is built, without a look at a body. An entry follows its record, so that what is
//! announced is there; a torn one at the end has no checksum and is passed over. What takes copies away is written
//! twice: a damaged entry must not bring a purged copy back.

use std::io::{self, Read};

use super::bytes::Take;
use super::key::KeyHash;
use super::terms::Terms;

/// Bytes of one entry.
pub(super) const ENTRY_BYTES: usize = 88;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A copy was written.
    Kept,
    /// The family was dropped, whatever was written of it before.
    Purged,
    /// One copy of the family was dropped.
    Dropped,
    /// The copies of the family became stale.
    Expired,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) deed: Deed,
    pub(super) terms: Terms,
    /// It was asked for again before this was written.
    pub(super) is_proven: bool,
    pub(super) key: KeyHash,
    /// Of the names in `Vary`.
    pub(super) vary: u32,
    /// Of the request's fields that these name.
    pub(super) variance: u32,
    /// The number of the record, or of the deed.
    pub(super) seq: u64,
    pub(super) offset: u32,
    pub(super) len: u32,
    /// The file that holds the body, and the body's length; zero without one.
    pub(super) body_id: u64,
    pub(super) body_len: u64,
    /// When it was stored or last confirmed, or made stale: seconds since 1970.
    pub(super) at: u32,
}

impl Entry {
    pub(super) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut to = Vec::with_capacity(ENTRY_BYTES);
        to.extend(MAGIC);
        to.push(match self.deed {
            Deed::Kept => 1,
            Deed::Purged => 2,
            Deed::Dropped => 3,
            Deed::Expired => 4,
        });
        to.push(self.terms.flags() | if self.is_proven { IS_PROVEN } else { 0 });
        to.extend(self.key.0);
        for number in [self.vary, self.variance, self.offset, self.len, self.at] {
            to.extend(number.to_le_bytes());
        }
        for number in [self.seq, self.body_id, self.body_len] {
            to.extend(number.to_le_bytes());
        }
        for span in self.terms.spans() {
            to.extend(span.to_le_bytes());
        }
        to.resize(ENTRY_BYTES - 4, 0);
        to.extend(crc32fast::hash(&to).to_le_bytes());
        to.try_into().unwrap_or([0; ENTRY_BYTES])
    }

    /// None if it is damaged.
    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (checked, crc) = bytes.split_at(ENTRY_BYTES - 4);
        if crc != crc32fast::hash(checked).to_le_bytes() {
            return None;
        }
        let mut take = Take::new(checked);
        if take.array()? != MAGIC {
            return None;
        }
        let deed = match take.u8()? {
            1 => Deed::Kept,
            2 => Deed::Purged,
            3 => Deed::Dropped,
            4 => Deed::Expired,
            _ => return None,
        };
        let flags = take.u8()?;
        let key = KeyHash(take.array()?);
        let [vary, variance, offset, len, at] =
            [take.u32()?, take.u32()?, take.u32()?, take.u32()?, take.u32()?];
        let [seq, body_id, body_len] = [take.u64()?, take.u64()?, take.u64()?];
        let terms = Terms::read(flags, &mut take)?;
        let is_proven = flags & IS_PROVEN != 0;
        Some(Self { deed, terms, is_proven, key, vary, variance, seq, offset, len, body_id, body_len, at })
    }
}

const MAGIC: [u8; 2] = *b"gj";

/// Among the flags, beside those of the terms.
const IS_PROVEN: u8 = 128;

/// Hands each sound entry over, in order; returns how many are damaged, and the bytes of whole entries.
pub(super) fn replay(mut from: impl Read, mut each: impl FnMut(Entry)) -> io::Result<(u64, u64)> {
    let (mut damaged, mut bytes) = (0, 0);
    let mut entry = [0; ENTRY_BYTES];
    while is_filled(&mut from, &mut entry)? {
        bytes += ENTRY_BYTES as u64;
        match Entry::decode(&entry) {
            Some(entry) => each(entry),
            None => damaged += 1,
        }
    }
    Ok((damaged, bytes))
}

/// Whether a whole entry was left.
fn is_filled(from: &mut impl Read, entry: &mut [u8; ENTRY_BYTES]) -> io::Result<bool> {
    match from.read_exact(entry) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    use crate::{Audience, CopyInfo, CopyKind, Forbids, Standing};

    fn entry(seq: u64) -> Entry {
        Entry {
            deed: Deed::Kept,
            terms: terms(seq),
            is_proven: seq.is_multiple_of(3),
            key: KeyHash([7; 16]),
            vary: 1,
            variance: 2,
            seq,
            offset: 4,
            len: 5,
            body_id: 6,
            body_len: u64::MAX,
            at: 8,
        }
    }

    fn terms(seq: u64) -> Terms {
        let info = CopyInfo {
            kind: if seq.is_multiple_of(2) { CopyKind::LastGood } else { CopyKind::Standard },
            audience: if seq.is_multiple_of(2) { Audience::Anonymous } else { Audience::Everyone },
            forbids: Forbids::NO_CACHE.and(Forbids::ERROR),
            stored: SystemTime::UNIX_EPOCH,
            stale_window: (seq != 3).then_some(Duration::ZERO),
        };
        let fresh_until = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        Terms::of(&Standing { info, fresh_until, epoch: SystemTime::UNIX_EPOCH })
    }

    #[test]
    fn the_terms_of_a_copy_are_those_of_its_entry() {
        for seq in 1..=3 {
            let read = replayed(&entry(seq).encode()).0[0].terms;
            let info = read.info(SystemTime::UNIX_EPOCH);
            assert_eq!(info.kind == CopyKind::LastGood, seq == 2);
            assert_eq!(info.audience == Audience::Everyone, seq != 2);
            assert_eq!(info.forbids, Forbids::NO_CACHE.and(Forbids::ERROR));
            assert_eq!(info.stale_window, (seq != 3).then_some(Duration::ZERO));
            assert_eq!({ read.fresh_for }, 2, "what is begun counts");
        }
    }

    fn replayed(bytes: &[u8]) -> (Vec<Entry>, u64) {
        let mut entries = Vec::new();
        let (damaged, _) = replay(bytes, |entry| entries.push(entry)).unwrap();
        (entries, damaged)
    }

    #[test]
    fn entries_come_back_and_a_torn_one_is_passed_over() {
        let bytes = [entry(1).encode(), entry(2).encode()].concat();
        assert_eq!(replayed(&bytes), (vec![entry(1), entry(2)], 0));
        for end in ENTRY_BYTES..bytes.len() {
            assert_eq!(replayed(&bytes[..end]), (vec![entry(1)], 0), "{end}");
        }
    }

    #[test]
    fn a_damaged_byte_costs_one_entry() {
        let bytes = [entry(1).encode(), entry(2).encode(), entry(3).encode()].concat();
        for at in ENTRY_BYTES..2 * ENTRY_BYTES {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(replayed(&bytes), (vec![entry(1), entry(3)], 1), "{at}");
        }
    }
}
