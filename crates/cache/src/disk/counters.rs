//! What the disk tier did, and what of it is worth a line in the log. Who counts and logs is above this room: it
//! reads the numbers, and hands a function in for the events.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What was done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The directory was opened and its index read.
    Open,
    /// A copy was read.
    Read,
    /// A copy, or what became of one, was written.
    Write,
    /// A file was removed.
    Remove,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Open, Self::Read, Self::Write, Self::Remove];

    /// The word for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Remove => "remove",
        }
    }
}

/// Whether copies are written to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskState {
    /// The index is being read.
    #[default]
    Opening,
    /// Another process has the directory.
    Locked,
    /// Copies are written and read.
    Working,
    /// An error has stopped the writing; what can be read is read.
    Degraded,
}

impl DiskState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Opening, Self::Locked, Self::Working, Self::Degraded];

    /// The word for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Locked => "locked",
            Self::Working => "working",
            Self::Degraded => "degraded",
        }
    }
}

/// Something about a disk tier that an operator wants to know.
#[derive(Debug)]
pub enum DiskEvent<'a> {
    /// The directory is in use, with what was found in it.
    Opened {
        /// Copies found.
        objects: u64,
        /// Bytes found.
        bytes: u64,
        /// Journal entries that could not be read.
        damaged: u64,
        /// How long it took.
        took: Duration,
    },
    /// Another process has the directory.
    Locked,
    /// What was there is of another version and was removed.
    Emptied,
    /// An error has stopped the writing.
    Degraded {
        /// What was done.
        operation: Operation,
        /// What came of it.
        error: &'a io::Error,
        /// When it is tried again.
        retry: Duration,
    },
    /// Something that is being written does not come to an end: nothing more is until it does.
    Stuck,
    /// It has come to its end.
    MovesOn,
    /// Purges cannot be written: they are kept, and gone if the process is killed now.
    PurgesWait,
    /// The process ends, or the disk is given up, with so many purges unwritten.
    PurgesLost {
        /// How many.
        purges: usize,
    },
    /// A copy could not be read, or a file not be removed; at most one such line a minute.
    Failed {
        /// What was done.
        operation: Operation,
        /// What came of it.
        error: &'a io::Error,
    },
    /// Something on disk is not what was written; at most one such line a minute.
    Corrupt {
        /// What it is.
        what: &'static str,
    },
}

/// What is done with an event.
pub type Report = Box<dyn Fn(&DiskEvent<'_>) + Send + Sync>;

/// What a disk tier holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Complete copies.
    pub objects: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that they may have.
    pub limit: u64,
    /// Copies given up for room.
    pub evictions: u64,
    /// Copies read.
    pub reads: u64,
    /// Copies written.
    pub writes: u64,
    /// Copies not written: the disk was too slow, or is out of use.
    pub dropped: u64,
    /// Errors, in the order of [`Operation::ALL`].
    pub errors: [u64; 4],
    /// Records or blocks that were not what had been written.
    pub corrupt: u64,
    /// Whether copies are written.
    pub state: DiskState,
}

/// The numbers behind it.
pub(super) struct Counters {
    report: Report,
    pub(super) evictions: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) dropped: AtomicU64,
    errors: [AtomicU64; 4],
    corrupt: AtomicU64,
    state: AtomicU8,
    /// When the last line was written about a single failure.
    last_line: Mutex<Option<Instant>>,
}

/// One line about single failures in so much time.
const LINE_EVERY: Duration = Duration::from_mins(1);

impl Counters {
    pub(super) fn new(report: Report) -> Self {
        Self {
            report,
            evictions: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            errors: Default::default(),
            corrupt: AtomicU64::new(0),
            state: AtomicU8::new(0),
            last_line: Mutex::new(None),
        }
    }

    pub(super) fn report(&self, event: &DiskEvent<'_>) {
        (self.report)(event);
    }

    pub(super) fn state(&self) -> DiskState {
        let at = usize::from(self.state.load(Ordering::Acquire));
        DiskState::ALL.get(at).copied().unwrap_or_default()
    }

    pub(super) fn set_state(&self, state: DiskState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// A single failure: counted, and now and then a line.
    pub(super) fn failed(&self, operation: Operation, error: &io::Error) {
        self.count_error(operation);
        if self.is_line_due() {
            self.report(&DiskEvent::Failed { operation, error });
        }
    }

    pub(super) fn count_error(&self, operation: Operation) {
        if let Some(count) = self.errors.get(operation as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn corrupt(&self, what: &'static str) {
        self.corrupt.fetch_add(1, Ordering::Relaxed);
        if self.is_line_due() {
            self.report(&DiskEvent::Corrupt { what });
        }
    }

    fn is_line_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.last_line.lock();
        let is_due = last.is_none_or(|last| now.duration_since(last) >= LINE_EVERY);
        if is_due {
            *last = Some(now);
        }
        is_due
    }

    /// Everything but what the index and the files say.
    pub(super) fn usage(&self) -> DiskUsage {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DiskUsage {
            evictions: load(&self.evictions),
            reads: load(&self.reads),
            writes: load(&self.writes),
            dropped: load(&self.dropped),
            errors: std::array::from_fn(|at| self.errors.get(at).map_or(0, load)),
            corrupt: load(&self.corrupt),
            state: self.state(),
            ..DiskUsage::default()
        }
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.usage().fmt(f)
    }
}
