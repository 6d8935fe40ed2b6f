//! The body of a large copy, in a file of its own: blocks of 64 KiB, each followed by its checksum.
//!
//! The checksum also covers the file's number and the block's place, so that a block of another body is noticed. Such
//! a body is never in memory as a whole: who reads it, from any place, reads block after block.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::key::KeyHash;
use super::read::Patience;
use super::shared::Shared;

/// Bytes of a block, the last excepted.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
const CRC_BYTES: usize = 4;
const STRIDE: u64 = (BLOCK_BYTES + CRC_BYTES) as u64;

/// How long the file of such a body is.
pub(super) fn file_len(body_len: u64) -> Option<u64> {
    body_len.div_ceil(BLOCK_BYTES as u64).checked_mul(CRC_BYTES as u64)?.checked_add(body_len)
}

/// Writes a body block by block.
#[derive(Debug)]
pub(super) struct BodyFile {
    file: File,
    id: u64,
    block: Vec<u8>,
    blocks: u64,
    /// Bytes of the body so far.
    pub(super) len: u64,
}

impl BodyFile {
    pub(super) fn new(file: File, id: u64) -> Self {
        Self { file, id, block: Vec::with_capacity(BLOCK_BYTES + CRC_BYTES), blocks: 0, len: 0 }
    }

    pub(super) fn push(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            self.len += now.len() as u64;
            data = later;
            if self.block.len() == BLOCK_BYTES {
                self.write_block()?;
            }
        }
        Ok(())
    }

    /// Writes what is left; the body's length.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        Ok(self.len)
    }

    fn write_block(&mut self) -> io::Result<()> {
        let crc = crc(self.id, self.blocks, &self.block);
        self.block.extend(crc.to_le_bytes());
        self.file.write_all_at(&self.block, self.blocks * STRIDE)?;
        self.block.clear();
        self.blocks += 1;
        Ok(())
    }
}

fn crc(id: u64, block: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_le_bytes());
    crc.update(&block.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// A complete body on disk. It stays readable while somebody holds it, whatever becomes of its file's name.
pub(crate) struct LargeBody {
    file: Arc<File>,
    /// The number of its file.
    pub(super) id: u64,
    pub(crate) len: u64,
    /// The record that names it.
    record: (KeyHash, u64),
    shared: Arc<Shared>,
    /// It could not be read: nobody is to begin with it any more.
    is_bad: AtomicBool,
}

impl LargeBody {
    pub(super) fn new(
        file: File,
        (id, len): (u64, u64),
        record: (KeyHash, u64),
        shared: &Arc<Shared>,
    ) -> Self {
        let is_bad = AtomicBool::new(false);
        Self { file: Arc::new(file), id, len, record, shared: Arc::clone(shared), is_bad }
    }

    /// Whether nothing has gone wrong with it so far, nor is about to: a body that is begun while the disk hangs would
    /// be cut.
    pub(crate) fn is_sound(&self) -> bool {
        !self.is_bad.load(Ordering::Relaxed) && !self.shared.waiting.hangs()
    }

    /// The bytes from `start` to the end of their block, checked. None beyond the end.
    pub(crate) async fn read(&self, start: u64) -> io::Result<Option<Bytes>> {
        if start >= self.len {
            return Ok(None);
        }
        let block = start / BLOCK_BYTES as u64;
        let skip = usize::try_from(start % BLOCK_BYTES as u64).unwrap_or(BLOCK_BYTES);
        let left = self.len - block * BLOCK_BYTES as u64;
        let len = usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        let read =
            self.shared.waiting.read(&self.file, block * STRIDE, len + CRC_BYTES, Patience::Much).await;
        let buffer = read.map_err(|error| {
            self.shared.read_failed(&error);
            self.give_up(error)
        })?;
        let mut bytes = Bytes::from_owner(buffer);
        let stored = bytes.split_off(len);
        if stored.as_ref() != crc(self.id, block, &bytes).to_le_bytes() {
            self.shared.counters.corrupt("a block of a large body");
            return Err(self.give_up(io::ErrorKind::InvalidData.into()));
        }
        Ok(Some(bytes.slice(skip..)))
    }

    /// A disk that was only slow may do better next time; the rest will not.
    fn give_up(&self, error: io::Error) -> io::Error {
        if !matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
            self.is_bad.store(true, Ordering::Relaxed);
            self.shared.forget(self.record);
        }
        error
    }
}
