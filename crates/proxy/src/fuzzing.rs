//! Doors for the fuzz targets in `tests/fuzz`, and for nothing else: what reads the bytes that clients send.

use goodgate_config::Limits;

use crate::chunks::Chunks;
use crate::head::{self, Framing};

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// By its length.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Not HTTP any more.
    Upgrade,
}

/// Where a head ends that comes in pieces of this many bytes; none if it has not come whole. The error is the
/// status that it is refused with.
pub fn head_end(bytes: &[u8], piece: usize) -> Result<Option<usize>, u16> {
    let mut seen = 0;
    while seen < bytes.len() {
        let until = (seen + piece.max(1)).min(bytes.len());
        let come = bytes.get(..until).unwrap_or_default();
        if let Some(end) = head::find_end(come, seen).map_err(|malformed| malformed.status)? {
            return Ok(Some(end));
        }
        seen = until;
    }
    Ok(None)
}

/// Checks a whole head. The error is the status that it is refused with.
pub fn framing(head: &[u8], limits: &Limits) -> Result<Body, u16> {
    match head::check(head, limits) {
        Ok(Framing::Length(length)) => Ok(Body::Length(length)),
        Ok(Framing::Chunked) => Ok(Body::Chunked),
        Ok(Framing::Upgrade) => Ok(Body::Upgrade),
        Err(malformed) => Err(malformed.status),
    }
}

/// How many bytes belong to a chunked body that comes in pieces of this many bytes, and whether it has ended. The
/// error is how many were good.
pub fn chunked(bytes: &[u8], piece: usize) -> Result<(usize, bool), usize> {
    let mut chunks = Chunks::behind(0);
    let mut taken = 0;
    for piece in bytes.chunks(piece.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() && !chunks.is_end() {
            let count = chunks.take(rest).map_err(|_| taken)?;
            taken += count;
            rest = rest.get(count..).unwrap_or_default();
        }
    }
    Ok((taken, chunks.is_end()))
}
