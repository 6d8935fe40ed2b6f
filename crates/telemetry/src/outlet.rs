//! A buffer that anybody appends lines to and a thread that writes them out.
//!
//! Who appends never waits for the target: if it has not kept up and the buffer is full, the line is dropped and
//! counted. The thread takes the whole buffer at once, so a busy gateway makes few large writes; an idle one
//! sleeps. A line is written whole or not at all, as far as the target allows it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

/// How long the end of the process waits for the last lines to be written.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Pause before a target that is not ready and does not block is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What the thread writes to.
#[derive(Debug)]
pub(crate) enum Out {
    /// Standard error, which both logs may go to: locked for a whole batch, so that lines stay whole.
    Stderr,
    /// A file, a pipe, standard output.
    File(File),
}

impl Out {
    /// Standard output.
    pub(crate) fn stdout() -> io::Result<Self> {
        Ok(Self::File(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// The end of a file, which is made if there is none.
    pub(crate) fn append_to(path: &Path) -> io::Result<Self> {
        Ok(Self::File(goodgate_files::append_to(path)?))
    }
}

/// How an outlet behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// The thread's name.
    pub(crate) name: &'static str,
    /// Bytes kept while the target is slow.
    pub(crate) bytes_max: usize,
    /// How long lines gather before they are written: what a reader notices at most.
    pub(crate) gather: Duration,
    /// What to say of lines that were dropped, in the place where they are missing.
    pub(crate) notice: Option<fn(u64) -> String>,
    /// Called when writing begins to fail.
    pub(crate) failed: fn(&io::Error),
}

/// The way out for lines. Dropping it leaves the thread waiting; [`Outlet::close`] ends it.
#[derive(Debug)]
pub(crate) struct Outlet {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
    /// Where dropped lines are counted, if anywhere.
    dropped: Option<IntCounter>,
}

impl Shared {
    fn lose(&self, lines: u64) {
        if let Some(dropped) = &self.dropped {
            dropped.inc_by(lines);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// Where to write from now on.
    next: Option<Out>,
    /// Lines dropped since that was last said.
    untold: u64,
    /// Bytes that have been appended, and those of them that are written or lost.
    appended: u64,
    done: u64,
    closed: bool,
}

impl Outlet {
    /// Starts the thread.
    pub(crate) fn open(out: Out, manner: Manner, dropped: Option<IntCounter>) -> io::Result<Self> {
        let shared =
            Shared { state: Mutex::default(), filled: Condvar::new(), drained: Condvar::new(), dropped };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(manner.name.into())
            .spawn(move || write_out(&theirs, out, &manner))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)), bytes_max: manner.bytes_max })
    }

    /// Appends what `write` adds to the buffer: one line, with its end. It is dropped if it cannot be kept.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        let mut state = self.shared.state.lock();
        let before = state.buffer.len();
        if before >= self.bytes_max || write(&mut state.buffer).is_err() {
            state.buffer.truncate(before);
            state.untold += 1;
            self.shared.lose(1);
            return;
        }
        let after = state.buffer.len();
        state.appended += (after - before) as u64;
        // Half a buffer is written without more gathering.
        let half = self.bytes_max / 2;
        if before == 0 || (before < half && after >= half) {
            self.shared.filled.notify_one();
        }
    }

    /// Writes to this from the next batch on.
    pub(crate) fn replace(&self, out: Out) {
        self.shared.state.lock().next = Some(out);
        self.shared.filled.notify_one();
    }

    /// Waits until what has been appended so far is written; not for longer than the limit.
    pub(crate) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state.lock();
        let wanted = state.appended;
        while state.done < wanted {
            if self.shared.drained.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Writes out what is left and ends the thread. Does not wait for a target that is stuck.
    pub(crate) fn close(&self) {
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        self.shared.state.lock().closed = true;
        self.shared.filled.notify_one();
        self.flush(CLOSE_LIMIT);
        let state = self.shared.state.lock();
        if state.done < state.appended {
            self.shared.lose(lines(&state.buffer));
            return;
        }
        drop(state);
        // Everything is written: the thread is on its last steps, and a panic of it has been told.
        drop(thread.join());
    }
}

fn write_out(shared: &Shared, mut out: Out, manner: &Manner) {
    let mut batch = Vec::new();
    let mut failing = false;
    let mut is_cut = false;
    loop {
        let mut state = shared.state.lock();
        while state.buffer.is_empty() && state.next.is_none() && !state.closed {
            shared.filled.wait(&mut state);
        }
        if !state.closed && !manner.gather.is_zero() {
            shared.filled.wait_for(&mut state, manner.gather);
        }
        std::mem::swap(&mut batch, &mut state.buffer);
        let taken = batch.len() as u64;
        if let Some(next) = state.next.take() {
            (out, is_cut) = (next, false);
        }
        if let (Some(notice), 1..) = (manner.notice, state.untold) {
            batch.extend_from_slice(notice(std::mem::take(&mut state.untold)).as_bytes());
        }
        drop(state);
        let (written, result) = write_lines(&mut out, &batch, &mut is_cut);
        if let (Err(problem), false) = (&result, failing) {
            (manner.failed)(problem);
        }
        failing = result.is_err();
        shared.lose(lines(batch.get(written..).unwrap_or_default()));
        batch.clear();
        let mut state = shared.state.lock();
        state.done += taken;
        shared.drained.notify_all();
        if state.closed && state.buffer.is_empty() {
            return;
        }
    }
}

/// How many bytes of the lines were written, and why not all. `is_cut`: the last one was cut in the middle.
fn write_lines(out: &mut Out, lines: &[u8], is_cut: &mut bool) -> (usize, io::Result<()>) {
    match out {
        Out::Stderr => write_all(&mut io::stderr().lock(), lines, is_cut),
        Out::File(file) => write_all(file, lines, is_cut),
    }
}

fn write_all(out: &mut impl Write, lines: &[u8], is_cut: &mut bool) -> (usize, io::Result<()>) {
    if *is_cut && let Err(error) = write_some(out, b"\n") {
        return (0, Err(error));
    }
    let mut left = lines;
    let mut result = Ok(());
    while !left.is_empty() {
        match write_some(out, left) {
            Ok(count) => left = left.get(count..).unwrap_or_default(),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    let written = lines.len() - left.len();
    *is_cut = lines.get(..written).is_some_and(|written| !written.is_empty() && !written.ends_with(b"\n"));
    (written, result)
}

fn write_some(out: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Somebody who shares the target has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(BUSY_PAUSE),
            result => return result,
        }
    }
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes this many bytes in each call, then fails.
    struct Narrow(Vec<usize>, Vec<u8>);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            let count = self.0.remove(0).min(bytes.len());
            self.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn manner(notice: Option<fn(u64) -> String>) -> Manner {
        Manner { name: "test", bytes_max: 64, gather: Duration::ZERO, notice, failed: |_| {} }
    }

    #[test]
    fn what_was_cut_is_counted_and_ends_before_the_next_line_begins() {
        let mut out = Narrow(vec![2, 4], Vec::new());
        let mut is_cut = false;
        let (written, result) = write_all(&mut out, b"one\ntwo\nsix\n", &mut is_cut);
        assert!(result.is_err() && is_cut, "`two` is cut behind its second letter");
        assert_eq!((written, lines(&b"one\ntwo\nsix\n"[written..])), (6, 2));
        out.0 = vec![100, 100];
        let (written, result) = write_all(&mut out, b"ten\n", &mut is_cut);
        assert!(result.is_ok() && !is_cut && written == 4);
        assert_eq!(out.1, b"one\ntw\nten\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_never_time() {
        let (mut reader, writer) = io::pipe().unwrap();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let out = Out::File(File::from(std::os::fd::OwnedFd::from(writer)));
        let told = |count: u64| format!("{count} lost\n");
        let outlet = Outlet::open(out, manner(Some(told)), Some(dropped.clone())).unwrap();
        let line = |bytes: &mut Vec<u8>| -> io::Result<()> {
            bytes.extend_from_slice(b"a line\n");
            Ok(())
        };
        // The kernel keeps 64 KiB for a pipe; then the writer is stuck, and the buffer fills up.
        while dropped.get() < 100 {
            outlet.append(line);
        }
        let start = Instant::now();
        outlet.flush(Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(10), "it gives up");
        let lost = dropped.get();
        let reading = thread::spawn(move || {
            let mut text = String::new();
            io::Read::read_to_string(&mut reader, &mut text).map(|_| text)
        });
        outlet.flush(Duration::from_secs(10));
        outlet.append(line);
        outlet.close();
        drop(outlet);
        let text = reading.join().unwrap().unwrap();
        assert!(text.ends_with("a line\n"), "what comes later is written");
        assert!(text.contains(&format!("{lost} lost\n")), "what is missing is said");
        assert_eq!(dropped.get(), lost);
    }

    #[test]
    fn closing_waits_for_the_last_line() {
        let path = std::env::temp_dir().join(format!("goodgate-outlet-{}", std::process::id()));
        let outlet = Outlet::open(Out::append_to(&path).unwrap(), manner(None), None).unwrap();
        outlet.append(|bytes| bytes.write_all(b"last\n"));
        outlet.close();
        assert_eq!(std::fs::read(&path).unwrap(), b"last\n");
        std::fs::remove_file(path).unwrap();
    }
}
