//! The way of the error log to standard error. A worker that has something to say never waits for whoever reads
//! there: what does not fit is dropped, and how much that was is said in its place.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::outlet::{Manner, Out, Outlet};

const MANNER: Manner = Manner {
    name: "error-log",
    bytes_max: 1 << 20,
    gather: Duration::ZERO,
    notice: Some(|count| format!("({count} lines of this log were dropped: nobody read it)\n")),
    failed: |_| {},
};

/// How long the end of the process waits for what has been said last.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Lines for standard error. Clones write to the same buffer.
#[derive(Clone, Debug)]
pub struct ErrorLog(Arc<Outlet>);

impl ErrorLog {
    /// Starts the writing thread. Fails if there can be none.
    pub fn open() -> io::Result<Self> {
        Ok(Self(Arc::new(Outlet::open(Out::Stderr, MANNER, None)?)))
    }

    /// Waits until everything said so far is written, for a second at most.
    pub fn wait(&self) {
        self.0.flush(FLUSH_LIMIT);
    }
}

impl Write for ErrorLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(|buffer| buffer.write_all(line));
        Ok(line.len())
    }

    /// Does nothing: see [`ErrorLog::wait`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
