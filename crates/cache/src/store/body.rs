//! The body of a copy: in memory, small or in pieces, or in a file.

use std::sync::Arc;

use bytes::Bytes;

use crate::disk::LargeBody;

/// A complete body, which all readers share.
#[derive(Clone)]
pub(crate) enum Body {
    /// In memory, in one piece and with nothing around it.
    Small(Box<[u8]>),
    /// In memory, in chunks of which none is empty.
    Memory { chunks: Arc<[Bytes]>, len: usize },
    /// On disk.
    File(Arc<LargeBody>),
}

impl Body {
    /// Joins what came in small pieces, so that a hit is few writes. Large pieces stay as they are.
    pub(crate) fn of(pieces: Vec<Bytes>) -> Self {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        if len <= SMALL_BYTES_MAX {
            return Self::Small(pieces.concat().into());
        }
        let is_large_in_large_pieces =
            len > BLOCK_BYTES && len.checked_div(pieces.len()).is_some_and(|mean| mean >= BLOCK_BYTES / 4);
        let is_as_it_should_be = pieces.len() == 1 || is_large_in_large_pieces;
        let chunks = if is_as_it_should_be { pieces } else { join(&pieces, len) };
        Self::Memory { chunks: chunks.into(), len }
    }

    /// Whether it can be read, as far as is known.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Small(_) | Self::Memory { .. } => true,
            Self::File(body) => body.is_sound(),
        }
    }

    /// Whether it can be read without waiting.
    pub(crate) fn is_in_memory(&self) -> bool {
        !matches!(self, Self::File(_))
    }

    /// What is in memory of it, in its pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (small, chunks): (&[u8], &[Bytes]) = match self {
            Self::Small(body) => (body, &[]),
            Self::Memory { chunks, .. } => (&[], chunks),
            Self::File(_) => (&[], &[]),
        };
        let small = (!small.is_empty()).then_some(small);
        small.into_iter().chain(chunks.iter().map(AsRef::as_ref))
    }

    /// The piece of this number, if it is in memory.
    pub(super) fn piece(&self, number: usize) -> Option<&[u8]> {
        match self {
            Self::Small(body) => (number == 0).then_some(body),
            Self::Memory { chunks, .. } => chunks.get(number).map(AsRef::as_ref),
            Self::File(_) => None,
        }
    }

    /// The same from there on, for others to keep.
    pub(super) fn share(&self, number: usize, skip: usize) -> Option<Bytes> {
        match self {
            Self::Small(body) => body.get(skip..).filter(|_| number == 0).map(Bytes::copy_from_slice),
            Self::Memory { chunks, .. } => {
                chunks.get(number).map(|chunk| chunk.slice(skip.min(chunk.len())..))
            }
            Self::File(_) => None,
        }
    }

    /// What it takes of the memory of a store.
    pub(crate) fn weight(&self) -> u64 {
        if self.is_in_memory() { self.len() as u64 } else { FILE_BYTES }
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Small(body) => body.len(),
            Self::Memory { len, .. } => *len,
            Self::File(body) => usize::try_from(body.len).unwrap_or(usize::MAX),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

/// What an open file weighs in memory, so that there is a bound to their number.
const FILE_BYTES: u64 = 16 << 10;

/// Up to this size a body is kept as it is: counted references to it would take more than copying it saves.
const SMALL_BYTES_MAX: usize = 4 << 10;

/// The size of a joined piece, and up to which a body is one piece.
const BLOCK_BYTES: usize = 64 * 1024;

fn join(pieces: &[Bytes], len: usize) -> Vec<Bytes> {
    let mut blocks = Vec::with_capacity(len.div_ceil(BLOCK_BYTES));
    let mut block = Vec::with_capacity(len.min(BLOCK_BYTES));
    let mut left = len;
    for piece in pieces {
        let mut rest = piece.as_ref();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES - block.len()));
            block.extend_from_slice(now);
            rest = later;
            left -= now.len();
            if block.len() == BLOCK_BYTES || left == 0 {
                let next = Vec::with_capacity(left.min(BLOCK_BYTES));
                blocks.push(Bytes::from(std::mem::replace(&mut block, next)));
            }
        }
    }
    blocks
}
