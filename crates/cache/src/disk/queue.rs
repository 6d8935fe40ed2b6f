//! What the disk thread still has to do: in order, bounded by the bytes it holds.
//!
//! Copies beyond the bound are not taken, so that a slow disk costs copies and never memory or time. What takes
//! copies away is always taken: it is small, and must not be lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::key::KeyHash;
use crate::kept::Kept;
use crate::purge::PurgeEntry;
use crate::store::Object;

/// Nothing that is done takes this long on a disk that works.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// One thing to do.
pub(super) enum Job {
    /// Write a copy, which may differ from the one before in its times alone.
    Keep { key: Arc<[u8]>, object: Arc<Object>, is_update: bool, seq: u64 },
    /// Write that a family is gone; the index knows already. The numbers are those of the records that were it.
    Purge { key: KeyHash, seq: u64, gone: Vec<u64> },
    /// The same of one variant.
    Drop { key: KeyHash, variance: u32, seq: u64, gone: Vec<u64> },
    /// Write that a family is stale.
    Expire { key: KeyHash, seq: u64, at: u32 },
    /// Write down a purge of many copies.
    Note(PurgeEntry),
    /// These records are out of the index.
    Release(Vec<u64>),
    /// A part of a large body.
    Piece(Arc<Stream>, Bytes),
    /// The end of one.
    Finish { stream: Arc<Stream>, key: Arc<[u8]>, kept: Box<Kept>, seq: u64 },
    /// It did not come to an end.
    Abandon(Arc<Stream>),
}

impl Job {
    fn bytes(&self) -> u64 {
        match self {
            Self::Keep { object, .. } => object.weight(),
            Self::Piece(_, data) => data.len() as u64,
            Self::Purge { .. }
            | Self::Drop { .. }
            | Self::Expire { .. }
            | Self::Note(_)
            | Self::Release(_)
            | Self::Finish { .. }
            | Self::Abandon(_) => 0,
        }
    }

    /// Whether it is a purge, or a request that changed what the copies show.
    pub(super) fn is_purge(&self) -> bool {
        matches!(self, Self::Purge { .. } | Self::Expire { .. } | Self::Note(_))
    }

    /// Whether it takes something away, so that it must not be lost.
    pub(super) fn takes_away(&self) -> bool {
        match self {
            Self::Purge { .. }
            | Self::Drop { .. }
            | Self::Expire { .. }
            | Self::Note(_)
            | Self::Release(_) => true,
            Self::Keep { .. } | Self::Piece(..) | Self::Finish { .. } | Self::Abandon(_) => false,
        }
    }
}

/// A large body on its way to the disk.
#[derive(Debug)]
pub(super) struct Stream {
    /// The number of its file.
    pub(super) id: u64,
    /// Bytes that wait.
    pub(super) waiting: AtomicU64,
    /// It was given up.
    pub(super) is_lost: AtomicBool,
}

/// The queue of one disk thread.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    news: Condvar,
    limit: AtomicU64,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    bytes: u64,
    is_closed: bool,
    /// Since when the thread has had something in hand.
    busy: Option<Instant>,
}

/// What the thread found.
pub(super) enum Next {
    Job(Job),
    /// Nothing came in time.
    Idle,
    /// There will be no more.
    Closed,
}

impl Queue {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit: AtomicU64::new(limit), ..Self::default() }
    }

    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes a job if there is room for it.
    pub(super) fn push(&self, job: Job) -> bool {
        let bytes = job.bytes();
        let mut inner = self.inner.lock();
        if inner.is_closed || bytes > 0 && inner.bytes + bytes > self.limit.load(Ordering::Relaxed) {
            return false;
        }
        inner.bytes += bytes;
        inner.jobs.push_back(job);
        drop(inner);
        self.news.notify_all();
        true
    }

    /// The next job, if it comes within this time.
    pub(super) fn next(&self, limit: Duration) -> Next {
        let until = Instant::now() + limit;
        let mut inner = self.inner.lock();
        inner.busy = None;
        loop {
            if let Some(job) = inner.jobs.pop_front() {
                inner.bytes -= job.bytes();
                inner.busy = Some(Instant::now());
                return Next::Job(job);
            }
            self.news.notify_all();
            if inner.is_closed {
                return Next::Closed;
            }
            if self.news.wait_until(&mut inner, until).timed_out() {
                return Next::Idle;
            }
        }
    }

    /// The thread has nothing in hand.
    pub(super) fn rest(&self) {
        self.inner.lock().busy = None;
    }

    /// Whether the thread has had one thing in hand for too long.
    pub(super) fn is_stuck(&self) -> bool {
        self.inner.lock().busy.is_some_and(|since| since.elapsed() > STUCK_AFTER)
    }

    /// Nothing more is taken; what is there is still done.
    pub(super) fn close(&self) {
        self.inner.lock().is_closed = true;
        self.news.notify_all();
    }

    /// Waits until everything is done, but no longer than this.
    pub(super) fn drain(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut inner = self.inner.lock();
        while (!inner.jobs.is_empty() || inner.busy.is_some())
            && !self.news.wait_until(&mut inner, until).timed_out()
        {}
    }
}
