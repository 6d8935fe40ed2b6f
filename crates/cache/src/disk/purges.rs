//! The purges of many copies at once, so that none of them comes back with a restart: one entry of fixed size each.
//!
//! When there are more entries than records in memory could be, the file is written anew from those. An entry that
//! cannot be read may have been any purge: everything older than what is known then counts as gone.

use std::fs::File;
use std::io::{self, Read, Write};

use super::bytes::Take;
use super::files::Files;
use crate::purge::{PurgeEntry, PurgeMode, Purges, Reach};

/// Bytes of one entry.
const ENTRY_BYTES: usize = 24;
/// How many there may be before the file is written anew.
const ENTRIES_MAX: usize = 1 << 18;
/// A longer file was not written by this code; one entry more may be torn.
const FILE_BYTES_MAX: u64 = ((ENTRIES_MAX + 1) * ENTRY_BYTES) as u64;

/// The file.
#[derive(Debug)]
pub(super) struct PurgeFile {
    file: File,
    entries: usize,
}

impl PurgeFile {
    /// Reads what is there into `purges`. How many entries are damaged.
    pub(super) fn open(files: &Files, purges: &Purges) -> io::Result<(Self, u64)> {
        let mut file = files.open_purges()?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        let (whole, torn) = bytes.as_chunks::<ENTRY_BYTES>();
        // What is behind the last entry that can be there was not read: it may be any purge.
        let mut damaged = u64::from(bytes.len() as u64 > FILE_BYTES_MAX);
        for entry in whole {
            if let Some(entry) = decode(entry) {
                purges.restore(&entry);
            } else {
                damaged += 1;
            }
        }
        if damaged > 0 {
            purges.add_unknown();
        }
        let mut this = Self { file, entries: whole.len() };
        // A torn entry would set all that follow it off by its length.
        if damaged > 0 || !torn.is_empty() {
            this.rewrite(files, purges)?;
        }
        Ok((this, damaged))
    }

    /// Adds a purge.
    pub(super) fn note(&mut self, files: &Files, entry: &PurgeEntry, purges: &Purges) -> io::Result<()> {
        if self.entries >= ENTRIES_MAX {
            self.rewrite(files, purges)?;
        }
        self.file.write_all(&encode(entry))?;
        self.entries += 1;
        // What must never be seen again stays gone after a loss of power, too.
        if entry.mode == PurgeMode::Hard { self.file.sync_data() } else { Ok(()) }
    }

    fn rewrite(&mut self, files: &Files, purges: &Purges) -> io::Result<()> {
        let entries = purges.entries();
        let bytes: Vec<u8> = entries.iter().flat_map(encode).collect();
        files.replace_purges(&bytes)?;
        self.file = files.open_purges()?;
        self.entries = entries.len();
        Ok(())
    }
}

fn encode(entry: &PurgeEntry) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    let reach = match entry.reach {
        Reach::Everything => 1,
        Reach::Prefix => 2,
        Reach::Other => 3,
        Reach::Change => 4,
    };
    let mode = match entry.mode {
        PurgeMode::Soft => 1,
        PurgeMode::Hard => 2,
    };
    let body =
        [&[reach, mode, 0, 0], entry.number.to_le_bytes().as_slice(), &entry.mark.to_le_bytes()].concat();
    let crc = crc32fast::hash(&body);
    for (to, from) in bytes.iter_mut().zip(body.into_iter().chain(crc.to_le_bytes())) {
        *to = from;
    }
    bytes
}

fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<PurgeEntry> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return None;
    }
    let mut take = Take::new(body);
    let reach = match take.u8()? {
        1 => Reach::Everything,
        2 => Reach::Prefix,
        3 => Reach::Other,
        4 => Reach::Change,
        _ => return None,
    };
    let mode = match take.u8()? {
        1 => PurgeMode::Soft,
        2 => PurgeMode::Hard,
        _ => return None,
    };
    take.u16()?;
    Some(PurgeEntry { reach, mode, number: take.u64()?, mark: take.u64()? })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Folder;
    use super::*;
    use crate::PurgeScope;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_a_damaged_one_not_at_all() {
        for reach in [Reach::Everything, Reach::Prefix, Reach::Other] {
            for mode in [PurgeMode::Soft, PurgeMode::Hard] {
                let entry = PurgeEntry { reach, mode, number: 1 << 50, mark: 77 };
                let bytes = encode(&entry);
                assert_eq!(decode(&bytes), Some(entry));
                for at in 0..ENTRY_BYTES {
                    let mut broken = bytes;
                    broken[at] ^= 4;
                    assert_eq!(decode(&broken), None, "{at}");
                }
            }
        }
    }

    #[test]
    fn what_was_purged_stays_purged_for_the_next_process() {
        let folder = Folder::new();
        let files = Files::take(&folder.0).map_err(|_| "taken").unwrap();
        let key = crate::Key::new("http", b"a.example", b"/x");
        let scope = PurgeScope::Tag("news".to_owned());
        let tags = crate::purge::tags(&crate::tests::headers(&[("cache-tag", "news")]));
        let purges = Purges::default();
        let (mut file, _) = PurgeFile::open(&files, &purges).unwrap();
        let before = purges.newest();
        file.note(&files, &purges.add(&scope, PurgeMode::Hard), &purges).unwrap();
        let after = purges.newest();
        for is_torn in [false, true] {
            if is_torn {
                file.file.write_all(&[7; 5]).unwrap();
            }
            let next = Purges::default();
            let (_, damaged) = PurgeFile::open(&files, &next).unwrap();
            assert_eq!((damaged, next.newest()), (0, after));
            assert_eq!(next.verdict(before, key.bytes(), &tags), Some(PurgeMode::Hard));
            assert_eq!(next.verdict(after, key.bytes(), &tags), None);
            assert_eq!(next.verdict(before, key.bytes(), &[]), None);
        }
        let path = folder.0.join("copies/purges");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let next = Purges::default();
        assert_eq!(PurgeFile::open(&files, &next).unwrap().1, 1);
        assert_eq!(
            next.verdict(after, key.bytes(), &[]),
            Some(PurgeMode::Hard),
            "it may have been any purge"
        );
        assert_eq!(next.verdict(next.newest(), key.bytes(), &tags), None);
    }
}
