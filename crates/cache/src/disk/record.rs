//! One record of a segment: forty bytes of lengths and checksums, the head, and the body unless it has a file of
//! its own.
//!
//! Two checksums: one over the lengths and the head, one over the body. The number of the record is in it, so that
//! a place that holds another record by now is noticed.

use bytes::Bytes;

use super::buffer::Buffer;
use super::bytes::Take;
use super::head::{self, Head};

const MAGIC: [u8; 4] = *b"ggR1";
/// Lengths and checksums before the head.
pub(super) const FRAME_BYTES: usize = 40;

/// The lengths of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) head_len: u32,
    pub(super) body_len: u64,
    /// The file that holds the body; zero if it follows the head.
    pub(super) body_id: u64,
    /// The number of the record, never used twice.
    pub(super) seq: u64,
    body_crc: u32,
}

/// A record as read and checked.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) head: Head,
    pub(super) frame: Frame,
    /// Empty if it has a file of its own.
    pub(super) body: Bytes,
}

/// The beginning of a record: all but the body. `crc` is that of the body which follows.
pub(super) fn front(seq: u64, head: &[u8], body_len: u64, body_id: u64, crc: u32) -> Vec<u8> {
    let mut to = Vec::with_capacity(FRAME_BYTES + head.len());
    to.extend(MAGIC);
    to.extend(u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend(body_len.to_le_bytes());
    to.extend(body_id.to_le_bytes());
    to.extend(seq.to_le_bytes());
    to.extend(crc.to_le_bytes());
    to.extend(front_crc(&to, head).to_le_bytes());
    to.extend_from_slice(head);
    to
}

/// Reads a record; none if anything about it is wrong.
pub(super) fn read(record: Buffer, seq: u64) -> Option<Record> {
    let bytes = record.as_ref();
    let (frame, crc) = frame(bytes)?;
    let head_end = FRAME_BYTES.checked_add(usize::try_from(frame.head_len).ok()?)?;
    let head = bytes.get(FRAME_BYTES..head_end)?;
    if frame.seq != seq || crc != front_crc(bytes.get(..FRAME_BYTES - 4)?, head) {
        return None;
    }
    let head = head::decode(head)?;
    let body = Bytes::from_owner(record).split_off(head_end);
    let is_inline = frame.body_id == 0;
    let is_whole = if is_inline { frame.body_len == body.len() as u64 } else { body.is_empty() };
    (is_whole && crc32fast::hash(&body) == frame.body_crc).then_some(Record { head, frame, body })
}

/// The key in a record that is known to be sound, without the rest.
pub(super) fn key_of(record: &[u8]) -> Option<&[u8]> {
    head::key_of(record.get(FRAME_BYTES..)?)
}

fn frame(bytes: &[u8]) -> Option<(Frame, u32)> {
    let mut take = Take::new(bytes);
    if take.array()? != MAGIC {
        return None;
    }
    let frame = Frame {
        head_len: take.u32()?,
        body_len: take.u64()?,
        body_id: take.u64()?,
        seq: take.u64()?,
        body_crc: take.u32()?,
    };
    Some((frame, take.u32()?))
}

fn front_crc(frame: &[u8], head: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(frame);
    crc.update(head);
    crc.finalize()
}
