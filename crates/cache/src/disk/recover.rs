//! Opening a directory: the index is built from the journals, no body is read.
//!
//! What a journal announces must be there in full length; whether it is what was written, its checksum says when it
//! is read. Files that nothing announces are removed.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::body::file_len;
use super::counters::DiskEvent;
use super::files::{Files, Kind, Refused};
use super::journal::{self, Deed, Entry};
use super::key::seconds;
use super::purges::PurgeFile;
use super::segments::{Segment, Segments};
use super::shared::Shared;
use crate::clock;

const BUFFER_BYTES: usize = 256 << 10;
/// More than any head and inline body: no memory is taken for what claims to be larger.
const RECORD_BYTES_MAX: u32 = 16 << 20;
/// Twice the largest segment: no journal that was written is as long.
const JOURNAL_BYTES_MAX: u64 = 2 << 30;

/// Takes the directory and reads its index.
pub(super) fn open(shared: &Arc<Shared>) -> Result<Segments, Refused> {
    let started = Instant::now();
    let files = Files::take(&shared.path)?;
    let is_known = files.is_of_this_version()?;
    if !is_known {
        shared.counters.report(&DiskEvent::Emptied);
    }
    shared.index.clear();
    *shared.folder.write() = Some(Arc::clone(files.folder()));
    shared.files.write().clear();
    let found = found(&files)?;
    // Before a copy can be found that one of them concerns.
    let (purges, mut damaged) = PurgeFile::open(&files, &shared.purges)?;
    let mut segments = Segments::new(files, purges, Arc::clone(shared));
    for (id, (has_data, has_journal)) in &found.segments {
        if *has_data && *has_journal {
            damaged += read(&mut segments, *id, &found.bodies)?;
        } else {
            segments.remove_file(Kind::Journal, *id);
            segments.remove_file(Kind::Data, *id);
        }
        shared.segments_seen(*id);
    }
    for id in found.bodies.keys().filter(|id| !segments.has_body(**id)) {
        segments.remove_file(Kind::Body, *id);
        shared.seq_seen(*id);
    }
    segments.make_room(0)?;
    let event = DiskEvent::Opened {
        objects: shared.index.objects(),
        bytes: shared.bytes.load(Ordering::Relaxed),
        damaged,
        took: started.elapsed(),
    };
    shared.counters.report(&event);
    Ok(segments)
}

struct Found {
    /// Which of its two files each has.
    segments: BTreeMap<u64, (bool, bool)>,
    /// Their lengths.
    bodies: BTreeMap<u64, u64>,
}

fn found(files: &Files) -> io::Result<Found> {
    let mut found = Found { segments: BTreeMap::new(), bodies: BTreeMap::new() };
    for (kind, id) in files.list()? {
        match kind {
            Kind::Data => found.segments.entry(id).or_default().0 = true,
            Kind::Journal => found.segments.entry(id).or_default().1 = true,
            Kind::Body => {
                found.bodies.insert(id, files.len(kind, id)?);
            }
        }
    }
    Ok(found)
}

/// Reads one segment's journal; how many of its entries are damaged. Each entry is applied as it is read: all of them
/// at once would be as much memory as the index.
fn read(segments: &mut Segments, id: u64, bodies: &BTreeMap<u64, u64>) -> io::Result<u64> {
    let data = segments.files.open(Kind::Data, id)?;
    let journal = segments.files.open(Kind::Journal, id)?;
    let data_len = data.metadata()?.len();
    if journal.metadata()?.len() > JOURNAL_BYTES_MAX {
        return Err(io::Error::other(format!(
            "the journal of segment {id:016x} is too long; remove the file"
        )));
    }
    let from = BufReader::with_capacity(BUFFER_BYTES, journal.try_clone()?);
    segments.adopt(Segment { id, data: Arc::new(data), journal, data_len, journal_len: 0, charged: 0 });
    let mut large = BTreeMap::new();
    let (damaged, journal_len) = journal::replay(from, |entry| {
        segments.shared.seq_seen(entry.seq.max(entry.body_id));
        segments.shared.purges.go_on_behind(entry.seq);
        apply(segments, id, &entry, is_there(&entry, data_len, bodies));
        if entry.body_id != 0 {
            large.insert(entry.body_id, entry.body_len);
        }
    })?;
    segments.has_journal(journal_len, large.values().sum());
    Ok(damaged)
}

fn is_there(entry: &Entry, data_len: u64, bodies: &BTreeMap<u64, u64>) -> bool {
    let is_record_there =
        entry.len <= RECORD_BYTES_MAX && u64::from(entry.offset) + u64::from(entry.len) <= data_len;
    let is_body_there = entry.body_id == 0
        || file_len(entry.body_len).is_some_and(|len| bodies.get(&entry.body_id) == Some(&len));
    is_record_there && is_body_there
}

fn apply(segments: &mut Segments, segment: u64, entry: &Entry, is_there: bool) {
    let index = Arc::clone(&segments.shared);
    let index = &index.index;
    let gone = match entry.deed {
        Deed::Kept if is_there && !index.is_purged(entry.key) => {
            segments.file(segment, entry);
            return;
        }
        Deed::Kept => return,
        Deed::Purged => index.purge_settled(entry.key, entry.seq),
        Deed::Dropped => index.drop_variant(entry.key, entry.variance),
        Deed::Expired => {
            // A clock that was ahead of ours must not leave it fresh until then.
            index.expire(entry.key, entry.at.min(seconds(clock::now())));
            return;
        }
    };
    segments.release(&gone);
}
