//! The segments: append-only files of records, a journal beside each, and large bodies in files of their own.
//!
//! Only the disk thread is here. Everything is written at places that this file keeps count of, so that what an
//! error left half-written is written over. Room is made by giving up the oldest segment as a whole; copies in
//! it that are in use or were asked for again go to the young end, up to the share that is theirs.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::body::{BodyFile, file_len};
use super::counters::Operation;
use super::files::{self, Files, Kind};
use super::index::{Marks, Slot};
use super::journal::{self, Deed, ENTRY_BYTES, Entry};
use super::purges::PurgeFile;
use super::queue::Job;
use super::shared::Shared;
use crate::purge::PurgeEntry;

/// For so long it is believed that a full disk takes no more.
const CEILING_LASTS: Duration = Duration::from_mins(5);

/// Up to this share of a segment, in percent, what is in use is spared at least when it goes.
const SPARED_PERCENT_MIN: u8 = 50;

/// Whether what is in use is spared when a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mercy {
    SpareUsed,
    None,
}

/// A segment's two files.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) data: Arc<File>,
    pub(super) journal: File,
    pub(super) data_len: u64,
    pub(super) journal_len: u64,
    /// Bytes of large bodies whose records are in it.
    pub(super) charged: u64,
}

/// A large body on disk.
#[derive(Clone, Copy, Debug)]
struct BodyUse {
    bytes: u64,
    records: u32,
}

/// All that is in the directory.
pub(super) struct Segments {
    pub(super) files: Files,
    pub(super) shared: Arc<Shared>,
    pub(super) list: VecDeque<Segment>,
    purges: PurgeFile,
    /// Which record's body has a file of its own.
    large: HashMap<u64, u64>,
    bodies: HashMap<u64, BodyUse>,
    /// Bodies that are being written, with the bytes they have taken.
    drafts: HashMap<u64, BodyFile>,
    /// Bytes of all files.
    bytes: u64,
    /// More does not fit on the disk, whatever the limit says, and since when that is known.
    ceiling: Option<(u64, Instant)>,
}

impl Segments {
    pub(super) fn new(files: Files, purges: PurgeFile, shared: Arc<Shared>) -> Self {
        Self {
            files,
            purges,
            shared,
            list: VecDeque::new(),
            large: HashMap::new(),
            bodies: HashMap::new(),
            drafts: HashMap::new(),
            bytes: 0,
            ceiling: None,
        }
    }

    /// Writes down a purge of many copies.
    pub(super) fn note_purge(&mut self, entry: &PurgeEntry) -> io::Result<()> {
        self.purges.note(&self.files, entry, &self.shared.purges)
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.shared.bytes.store(self.bytes, Ordering::Relaxed);
    }

    fn subtract(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.shared.bytes.store(self.bytes, Ordering::Relaxed);
    }

    /// Takes over a segment that was found.
    pub(super) fn adopt(&mut self, segment: Segment) {
        self.add(segment.data_len + segment.journal_len);
        self.shared.files.write().insert(segment.id, Arc::clone(&segment.data));
        self.list.push_back(segment);
    }

    /// What the journal of the segment taken over last has turned out to be, and the bytes of the large bodies in it.
    pub(super) fn has_journal(&mut self, bytes: u64, charged: u64) {
        if let Some(segment) = self.list.back_mut() {
            segment.journal_len = bytes;
            segment.charged = charged;
        }
        self.add(bytes);
    }

    pub(super) fn has_body(&self, id: u64) -> bool {
        self.bodies.contains_key(&id)
    }

    /// Whether the journal that is written to still has a name.
    pub(super) fn check(&self) -> io::Result<()> {
        self.list.back().map_or(Ok(()), |segment| files::is_there(&segment.journal))
    }

    /// Appends a record and its entry, and files it. The entry comes without its place.
    pub(super) fn append(&mut self, mut entry: Entry, record: &[u8]) -> io::Result<()> {
        self.make_room((record.len() + ENTRY_BYTES) as u64)?;
        let id = self.write(&mut entry, record)?;
        self.note(&entry)?;
        self.file(id, &entry);
        Ok(())
    }

    /// Notes what takes copies away. A damaged entry must not undo it: there are two.
    pub(super) fn note_deed(&mut self, entry: &Entry) -> io::Result<()> {
        self.make_room(2 * ENTRY_BYTES as u64)?;
        self.begin_if_full()?;
        self.note(entry)?;
        self.note(entry)
    }

    /// Appends to the journal.
    fn note(&mut self, entry: &Entry) -> io::Result<()> {
        let segment = self.last()?;
        segment.journal.write_all_at(&entry.encode(), segment.journal_len)?;
        segment.journal_len += ENTRY_BYTES as u64;
        self.add(ENTRY_BYTES as u64);
        Ok(())
    }

    /// Files a record that is on disk.
    pub(super) fn file(&mut self, segment: u64, entry: &Entry) {
        if entry.body_id != 0 {
            self.large.insert(entry.seq, entry.body_id);
            let bytes = file_len(entry.body_len).unwrap_or(entry.body_len);
            let body = self.bodies.entry(entry.body_id).or_insert(BodyUse { bytes, records: 0 });
            body.records += 1;
            if body.records == 1 {
                self.add(bytes);
            }
        }
        let slot = Slot {
            seq: entry.seq,
            segment: u32::try_from(segment).unwrap_or(u32::MAX),
            offset: entry.offset,
            len: entry.len,
            stored: entry.at,
            expired: 0,
            vary: entry.vary,
            variance: entry.variance,
            terms: entry.terms,
            marks: Marks::of_new(entry.is_proven),
        };
        let displaced = self.shared.index.insert(entry.key, slot);
        self.release(&displaced);
    }

    /// These records are out of the index: a body that no other needs goes.
    pub(super) fn release(&mut self, seqs: &[u64]) {
        for seq in seqs {
            let Some(id) = self.large.remove(seq) else { continue };
            let Some(body) = self.bodies.get_mut(&id) else { continue };
            body.records = body.records.saturating_sub(1);
            if body.records == 0 {
                let bytes = body.bytes;
                self.bodies.remove(&id);
                self.remove_file(Kind::Body, id);
                self.subtract(bytes);
            }
        }
    }

    /// Gives up the oldest segments until so many bytes more are within the limit.
    pub(super) fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let limit = self.shared.limit.load(Ordering::Relaxed);
        self.ceiling = self.ceiling.filter(|(_, since)| since.elapsed() < CEILING_LASTS);
        let limit = self.ceiling.map_or(limit, |(ceiling, _)| ceiling.min(limit));
        let mut rounds = self.list.len() + 1;
        while self.bytes + bytes > limit && rounds > 0 && !self.list.is_empty() {
            self.evict(Mercy::SpareUsed)?;
            rounds -= 1;
        }
        Ok(())
    }

    /// The disk is full: what is there is all that fits. Whether giving something up may help.
    pub(super) fn shrink(&mut self) -> io::Result<bool> {
        if self.list.len() < 2 {
            return Ok(false);
        }
        self.ceiling = Some((self.bytes, Instant::now()));
        self.evict(Mercy::None)?;
        Ok(true)
    }

    /// Gives up the oldest segment.
    pub(super) fn evict(&mut self, mercy: Mercy) -> io::Result<()> {
        let Some(segment) = self.list.pop_front() else {
            return Ok(());
        };
        self.shared.files.write().remove(&segment.id);
        let spared = self.rescue(&segment, mercy);
        self.remove_file(Kind::Journal, segment.id);
        self.remove_file(Kind::Data, segment.id);
        self.subtract(segment.data_len + segment.journal_len);
        spared
    }

    /// Takes what is in use out of a segment that goes, and the rest out of the index.
    fn rescue(&mut self, segment: &Segment, mercy: Mercy) -> io::Result<()> {
        let mut entries = Vec::new();
        let journal = BufReader::new(segment.journal.try_clone()?);
        rewind(&segment.journal)?;
        journal::replay(journal, |entry| entries.push(entry))?;
        let share = u64::from(self.shared.last_good_percent().max(SPARED_PERCENT_MIN));
        let mut budget = if mercy == Mercy::SpareUsed { segment.data_len / 100 * share } else { 0 };
        let mut result = Ok(());
        for entry in entries.into_iter().filter(|entry| entry.deed == Deed::Kept) {
            let Some(slot) = self.slot_in(segment, &entry) else { continue };
            let record = self.worth_keeping(segment, &slot, budget);
            let moved = record.map(|record| {
                budget -= record.len() as u64;
                self.move_on(entry, &slot, &record)
            });
            if !matches!(moved, Some(Ok(()))) {
                // After an error nothing is spared, but all of it leaves the index.
                if let Some(Err(error)) = moved {
                    budget = 0;
                    result = Err(error);
                }
                self.shared.index.remove(entry.key, entry.seq);
                self.release(&[entry.seq]);
                self.shared.counters.evictions.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }

    fn slot_in(&self, segment: &Segment, entry: &Entry) -> Option<Slot> {
        let slot = self.shared.index.of_record(entry.key, entry.seq)?;
        (u64::from(slot.segment) == segment.id && slot.offset == entry.offset).then_some(slot)
    }

    /// The record as it is, if it was used since it was written or is in memory, or was ever asked for again while
    /// such copies have no more than their share.
    fn worth_keeping(&self, segment: &Segment, slot: &Slot, budget: u64) -> Option<Vec<u8>> {
        if u64::from(slot.len) > budget {
            return None;
        }
        let mut record = vec![0; usize::try_from(slot.len).ok()?];
        segment.data.read_exact_at(&mut record, u64::from(slot.offset)).ok()?;
        let has_share = || !self.shared.index.is_share_exceeded(self.shared.last_good_percent());
        if slot.marks.is_used() || slot.marks.is_proven() && has_share() {
            return Some(record);
        }
        let key = super::record::key_of(&record)?;
        (self.shared.is_held)(key).then_some(record)
    }

    fn move_on(&mut self, mut entry: Entry, slot: &Slot, record: &[u8]) -> io::Result<()> {
        let id = self.write(&mut entry, record)?;
        entry.is_proven = slot.marks.is_proven();
        self.note(&entry)?;
        if self.shared.index.relocate(entry.key, entry.seq, id, entry.offset) && slot.expired != 0 {
            let seq = self.shared.next_seq();
            self.note(&Entry { deed: Deed::Expired, seq, at: slot.expired, ..entry })?;
        }
        Ok(())
    }

    /// Writes a record at the end and its place into the entry; the segment's number.
    fn write(&mut self, entry: &mut Entry, record: &[u8]) -> io::Result<u64> {
        self.begin_if_full()?;
        let segment = self.last()?;
        entry.offset = u32::try_from(segment.data_len).map_err(io::Error::other)?;
        entry.len = u32::try_from(record.len()).map_err(io::Error::other)?;
        segment.data.write_all_at(record, segment.data_len)?;
        segment.data_len += record.len() as u64;
        segment.charged += entry.body_len;
        let id = segment.id;
        self.add(record.len() as u64);
        Ok(id)
    }

    /// Begins another segment if the last is full, so that an entry follows its record into the same.
    fn begin_if_full(&mut self) -> io::Result<()> {
        let full = self.shared.segment_bytes();
        let is_full = |segment: &Segment| segment.data_len + segment.journal_len + segment.charged >= full;
        if self.list.back().is_none_or(is_full) {
            let id = self.shared.next_segment();
            let data = Arc::new(self.files.create(Kind::Data, id)?);
            let journal = self.files.create(Kind::Journal, id)?;
            self.shared.files.write().insert(id, Arc::clone(&data));
            let segment = Segment { id, data, journal, data_len: 0, journal_len: 0, charged: 0 };
            self.list.push_back(segment);
        }
        Ok(())
    }

    /// The segment that is written to.
    fn last(&mut self) -> io::Result<&mut Segment> {
        self.list.back_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A part of a large body.
    pub(super) fn push_body(&mut self, id: u64, data: &[u8]) -> io::Result<()> {
        self.make_room(data.len() as u64)?;
        if !self.drafts.contains_key(&id) {
            let file = self.files.create(Kind::Body, id)?;
            self.drafts.insert(id, BodyFile::new(file, id));
        }
        self.add(data.len() as u64);
        self.drafts.get_mut(&id).map_or(Ok(()), |draft| draft.push(data))
    }

    /// The end of one: the body's length; none if nothing of it has come.
    pub(super) fn finish_body(&mut self, id: u64) -> io::Result<Option<u64>> {
        let Some(draft) = self.drafts.remove(&id) else {
            return Ok(None);
        };
        // From here on it counts as the body that its record announces.
        self.subtract(draft.len);
        draft.finish().map(Some)
    }

    /// A job has failed in the middle: what it wrote of a body goes.
    pub(super) fn abandon(&mut self, job: &Job) {
        let id = match job {
            Job::Keep { seq, .. } => *seq,
            Job::Piece(stream, _) | Job::Finish { stream, .. } | Job::Abandon(stream) => stream.id,
            Job::Purge { .. } | Job::Drop { .. } | Job::Expire { .. } | Job::Note(_) | Job::Release(_) => {
                return;
            }
        };
        self.abandon_body(id);
    }

    pub(super) fn abandon_body(&mut self, id: u64) {
        if let Some(draft) = self.drafts.remove(&id) {
            self.subtract(draft.len);
        }
        if !self.bodies.contains_key(&id) {
            self.remove_file(Kind::Body, id);
        }
    }

    pub(super) fn remove_file(&self, kind: Kind, id: u64) {
        if let Err(error) = self.files.remove(kind, id) {
            self.shared.counters.failed(Operation::Remove, &error);
        }
    }
}

fn rewind(mut file: &File) -> io::Result<()> {
    io::Seek::rewind(&mut file)
}
