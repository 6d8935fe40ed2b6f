//! How much of what a client sends belongs to the request under way.

use std::io;

use crate::chunks::{Broken, Chunks};

/// What of the incoming bytes belongs to the request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// This many bytes.
    Bytes(u64),
    /// Those of a chunked body, as far as it has been read.
    Chunked(Chunks),
    /// All: what follows is no HTTP (upgraded), or is not read any more.
    Everything,
}

impl Grant {
    /// Takes bytes in; how many of them are covered. Only a chunked body can be wrong.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                return Ok(count);
            }
            Self::Chunked(chunks) => {
                let count = chunks.take(bytes).map_err(|Broken| io::ErrorKind::InvalidData)?;
                if chunks.is_end() {
                    *self = Self::Bytes(0);
                }
                return Ok(count);
            }
            Self::Everything => {}
        }
        Ok(bytes.len())
    }
}
