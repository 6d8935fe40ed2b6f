//! The access log: a buffer that workers append to and a thread that writes it out.
//!
//! A worker never waits for the target: it appends to memory under a short lock, and if the target has
//! not kept up and the buffer is full the record is dropped and counted. The thread takes the whole
//! buffer at once, so a busy gateway makes few large writes; an idle one sleeps.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::error;
use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

use crate::AccessRecord;

/// Bytes kept while the target is slow.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// How long records gather before they are written: what a reader of the log notices at most.
const GATHER: Duration = Duration::from_millis(20);

/// How long the end of the process waits for the last records to be written.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
const CLOSE_POLL: Duration = Duration::from_millis(2);

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// Appended to a file.
    File(PathBuf),
}

impl Target {
    fn open(&self) -> io::Result<Option<Box<dyn Write + Send>>> {
        let append =
            |path: &PathBuf| -> io::Result<File> { OpenOptions::new().create(true).append(true).open(path) };
        Ok(match self {
            Self::Off => None,
            Self::Stdout => Some(Box::new(io::stdout())),
            Self::Stderr => Some(Box::new(io::stderr())),
            Self::File(path) => Some(Box::new(append(path)?)),
        })
    }
}

/// The access log of the process.
#[derive(Debug)]
pub struct AccessLog {
    shared: Option<Arc<Shared>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    closed: bool,
}

impl AccessLog {
    /// Opens the target and starts the writing thread. Fails if the file cannot be opened.
    pub fn open(target: &Target, dropped: IntCounter) -> io::Result<Self> {
        let Some(out) = target.open()? else {
            return Ok(Self { shared: None, thread: Mutex::new(None), dropped });
        };
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let lost = dropped.clone();
        let thread =
            thread::Builder::new().name("access-log".into()).spawn(move || write_out(&theirs, out, &lost))?;
        Ok(Self { shared: Some(shared), thread: Mutex::new(Some(thread)), dropped })
    }

    /// Whether records are wanted at all.
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Appends a record. Never waits for the target.
    pub fn write(&self, record: &AccessRecord<'_>) {
        let Some(shared) = &self.shared else {
            return;
        };
        let mut state = shared.state.lock();
        let before = state.buffer.len();
        if before >= BUFFER_BYTES_MAX || serde_json::to_writer(&mut state.buffer, record).is_err() {
            state.buffer.truncate(before);
            self.dropped.inc();
            return;
        }
        state.buffer.push(b'\n');
        if before == 0 {
            shared.filled.notify_one();
        }
    }

    /// Writes out what is left and ends the thread. Waits for it, but not for a target that is stuck.
    pub fn close(&self) {
        if let Some(shared) = &self.shared {
            shared.state.lock().closed = true;
            shared.filled.notify_one();
        }
        if let Some(thread) = self.thread.lock().take() {
            let start = Instant::now();
            while !thread.is_finished() && start.elapsed() < CLOSE_LIMIT {
                thread::sleep(CLOSE_POLL);
            }
        }
    }
}

fn write_out(shared: &Shared, mut out: Box<dyn Write + Send>, lost: &IntCounter) {
    let mut batch = Vec::new();
    let mut failing = false;
    loop {
        let mut state = shared.state.lock();
        while state.buffer.is_empty() && !state.closed {
            shared.filled.wait(&mut state);
        }
        if !state.closed {
            shared.filled.wait_for(&mut state, GATHER);
        }
        std::mem::swap(&mut batch, &mut state.buffer);
        let closed = state.closed;
        drop(state);
        let result = out.write_all(&batch).and_then(|()| out.flush());
        if let (Err(problem), false) = (&result, failing) {
            error!(error:% = problem; "the access log cannot be written");
        }
        failing = result.is_err();
        if failing {
            lost.inc_by(memchr::memchr_iter(b'\n', &batch).count() as u64);
        }
        batch.clear();
        if closed && shared.state.lock().buffer.is_empty() {
            return;
        }
    }
}
