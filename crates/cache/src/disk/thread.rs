//! The disk thread: the only one that writes. It does what is queued, in order, and never ends for an error.
//!
//! After an error nothing is written for a while: copies are dropped and counted, purges are kept to be written
//! first when the directory can be used again. Then it is opened anew, as at the start, whatever was the matter.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::counters::{DiskEvent, DiskState, Operation};
use super::files::Refused;
use super::journal::{Deed, Entry};
use super::key::{KeyHash, seconds, variance_of, vary_of};
use super::queue::{Job, Next, Stream};
use super::segments::{Mercy, Segments};
use super::shared::Shared;
use super::terms::Terms;
use super::{head, record, recover};
use crate::kept::Kept;
use crate::store::{Body, Object};

/// How often an idle thread looks whether its directory is still there.
const TICK: Duration = Duration::from_secs(1);
/// How often a directory that another process has is asked for.
const LOCKED_RETRY: Duration = Duration::from_millis(50);
/// Purges that are remembered while nothing can be written. If there are more, all copies on disk are dropped.
const PENDING_MAX: usize = 100_000;

/// The thread's state besides the directory.
struct Worker {
    shared: Arc<Shared>,
    /// What takes copies away and is not in a journal yet.
    pending: VecDeque<Job>,
    /// Not all of that could be kept.
    must_empty: bool,
    pause: Duration,
}

pub(super) fn run(shared: Arc<Shared>) {
    let pause = shared.retry.0;
    let mut worker = Worker { shared, pending: VecDeque::new(), must_empty: false, pause };
    while worker.round() {}
}

impl Worker {
    /// Opens the directory and works until something comes in the way; false at the end.
    fn round(&mut self) -> bool {
        let started = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| self.work()));
        let (operation, error) = match done {
            Ok(Ok(())) => return false,
            Ok(Err((_, Refused::Locked))) => {
                if self.shared.counters.state() != DiskState::Locked {
                    self.shared.set_state(DiskState::Locked);
                    self.shared.counters.report(&DiskEvent::Locked);
                }
                return self.wait(LOCKED_RETRY);
            }
            Ok(Err((operation, Refused::Failed(error)))) => (operation, error),
            Err(_) => (Operation::Write, io::Error::other("the disk thread panicked")),
        };
        let (least, most) = self.shared.retry;
        let is_new = self.shared.counters.state() != DiskState::Degraded && started.elapsed() > most;
        self.pause = if is_new { least } else { self.pause };
        self.shared.counters.count_error(operation);
        self.shared.set_state(DiskState::Degraded);
        let retry = self.pause;
        self.shared.counters.report(&DiskEvent::Degraded { operation, error: &error, retry });
        self.pause = (2 * self.pause).min(most);
        self.wait(retry)
    }

    fn work(&mut self) -> Result<(), (Operation, Refused)> {
        let mut segments = recover::open(&self.shared).map_err(|refused| (Operation::Open, refused))?;
        let failed = |error| (Operation::Write, Refused::Failed(error));
        self.catch_up(&mut segments).map_err(failed)?;
        self.shared.queue.rest();
        self.shared.set_state(DiskState::Working);
        self.serve(&mut segments).map_err(failed)
    }

    /// Writes what could not be written before.
    fn catch_up(&mut self, segments: &mut Segments) -> io::Result<()> {
        if std::mem::take(&mut self.must_empty) {
            while !segments.list.is_empty() {
                segments.evict(Mercy::None)?;
            }
        }
        while let Some(job) = self.pending.front() {
            perform(segments, job)?;
            self.pending.pop_front();
        }
        self.shared.purges_waiting.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn serve(&mut self, segments: &mut Segments) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        loop {
            match shared.queue.next(TICK) {
                Next::Job(job) => {
                    if let Err(error) = segments.check().and_then(|()| attempt(segments, &job)) {
                        self.set_aside(job);
                        return Err(error);
                    }
                    shared.moves_on();
                }
                Next::Idle => {
                    segments.check()?;
                    segments.make_room(0)?;
                    shared.moves_on();
                }
                Next::Closed => return Ok(()),
            }
        }
    }

    /// Waits; what comes meanwhile is not written. False if the end has come.
    fn wait(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let shared = Arc::clone(&self.shared);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match shared.queue.next(left.min(TICK)) {
                Next::Job(job) => self.set_aside(job),
                Next::Idle if left.is_zero() || shared.is_hurried.swap(false, Ordering::Relaxed) => {
                    return true;
                }
                Next::Idle => {}
                Next::Closed => return false,
            }
        }
    }

    fn set_aside(&mut self, job: Job) {
        if job.is_purge() && self.shared.purges_waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.shared.counters.report(&DiskEvent::PurgesWait);
        }
        if !job.takes_away() {
            self.shared.lost(&job);
        } else if self.pending.len() < PENDING_MAX {
            self.pending.push_back(job);
        } else {
            self.must_empty = true;
        }
    }
}

/// Does a job. Where the disk is full there is room for it when something older has gone.
fn attempt(segments: &mut Segments, job: &Job) -> io::Result<()> {
    let error = match perform(segments, job) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => error,
        done => return done,
    };
    segments.abandon(job);
    if !segments.shrink()? {
        return Err(error);
    }
    segments.shared.counters.failed(Operation::Write, &error);
    match job {
        Job::Piece(..) | Job::Finish { .. } => {
            segments.shared.lost(job);
            Ok(())
        }
        Job::Keep { .. }
        | Job::Purge { .. }
        | Job::Drop { .. }
        | Job::Expire { .. }
        | Job::Note(_)
        | Job::Release(_)
        | Job::Abandon(_) => perform(segments, job),
    }
}

fn perform(segments: &mut Segments, job: &Job) -> io::Result<()> {
    match job {
        // What was queued while the one before it was being written may have become superfluous.
        Job::Keep { key, object, is_update, .. }
            if segments.shared.will_do(KeyHash::of(key), object, *is_update) =>
        {
            Ok(())
        }
        Job::Keep { key, object, seq, .. } => keep(segments, key, object, *seq),
        Job::Purge { key, seq, gone } => {
            segments.release(gone);
            segments.note_deed(&deed(Deed::Purged, *key, 0, *seq, 0))?;
            let gone = segments.shared.index.purge_settled(*key, *seq);
            segments.release(&gone);
            Ok(())
        }
        Job::Drop { key, variance, seq, gone } => {
            segments.release(gone);
            segments.note_deed(&deed(Deed::Dropped, *key, *variance, *seq, 0))?;
            let gone = segments.shared.index.drop_variant(*key, *variance);
            segments.release(&gone);
            Ok(())
        }
        Job::Expire { key, seq, at } => {
            segments.note_deed(&deed(Deed::Expired, *key, 0, *seq, *at))?;
            segments.shared.index.expire(*key, *at);
            Ok(())
        }
        Job::Note(entry) => segments.note_purge(entry),
        Job::Release(gone) => {
            segments.release(gone);
            Ok(())
        }
        Job::Piece(stream, data) => piece(segments, stream, data),
        Job::Finish { stream, key, kept, seq } => finish(segments, stream, key, kept, *seq),
        Job::Abandon(stream) => {
            segments.abandon_body(stream.id);
            Ok(())
        }
    }
}

fn deed(deed: Deed, key: KeyHash, variance: u32, seq: u64, at: u32) -> Entry {
    Entry {
        deed,
        terms: Terms::NONE,
        is_proven: false,
        key,
        vary: 0,
        variance,
        seq,
        offset: 0,
        len: 0,
        body_id: 0,
        body_len: 0,
        at,
    }
}

/// The entry of a copy, without its place.
fn entry(key: &[u8], kept: &Kept, seq: u64, (body_id, body_len): (u64, u64)) -> Entry {
    Entry {
        terms: Terms::of(&kept.standing()),
        vary: vary_of(kept.vary_by()),
        body_id,
        body_len,
        ..deed(Deed::Kept, KeyHash::of(key), variance_of(kept.variance()), seq, seconds(kept.info().stored))
    }
}

fn keep(segments: &mut Segments, key: &[u8], object: &Object, seq: u64) -> io::Result<()> {
    let len = object.body.len() as u64;
    let head = head::encode(key, &object.kept);
    match &object.body {
        body @ (Body::Small(_) | Body::Memory { .. }) if len <= segments.shared.inline_bytes_max() => {
            let mut crc = crc32fast::Hasher::new();
            body.pieces().for_each(|piece| crc.update(piece));
            let mut record = record::front(seq, &head, len, 0, crc.finalize());
            body.pieces().for_each(|piece| record.extend_from_slice(piece));
            segments.append(entry(key, &object.kept, seq, (0, 0)), &record)?;
        }
        body @ (Body::Small(_) | Body::Memory { .. }) => {
            for piece in body.pieces() {
                segments.push_body(seq, piece)?;
            }
            segments.finish_body(seq)?;
            append_large(segments, key, &object.kept, seq, (seq, len))?;
        }
        Body::File(body) if segments.has_body(body.id) => {
            append_large(segments, key, &object.kept, seq, (body.id, len))?;
        }
        Body::File(_) => return Ok(()),
    }
    segments.shared.counters.writes.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn append_large(
    segments: &mut Segments,
    key: &[u8],
    kept: &Kept,
    seq: u64,
    body: (u64, u64),
) -> io::Result<()> {
    let record = record::front(seq, &head::encode(key, kept), body.1, body.0, 0);
    segments.append(entry(key, kept, seq, body), &record)
}

fn piece(segments: &mut Segments, stream: &Stream, data: &[u8]) -> io::Result<()> {
    if !stream.is_lost.load(Ordering::Relaxed) {
        segments.push_body(stream.id, data)?;
    }
    stream.waiting.fetch_sub(data.len() as u64, Ordering::Relaxed);
    Ok(())
}

fn finish(segments: &mut Segments, stream: &Stream, key: &[u8], kept: &Kept, seq: u64) -> io::Result<()> {
    if stream.is_lost.load(Ordering::Relaxed) {
        segments.abandon_body(stream.id);
        return Ok(());
    }
    if let Some(len) = segments.finish_body(stream.id)? {
        append_large(segments, key, kept, seq, (stream.id, len))?;
        segments.shared.counters.writes.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
