//! The access log: which records are written, in which format, and where to.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use log::error;
use prometheus::IntCounter;

use crate::mask::Mask;
use crate::outlet::{Manner, Out, Outlet};
use crate::{AccessRecord, text};

const MANNER: Manner = Manner {
    name: "access-log",
    bytes_max: 4 << 20,
    gather: Duration::from_millis(20),
    notice: None,
    failed: |problem| error!(error:% = problem; "the access log cannot be written"),
};

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
    fn open(&self) -> io::Result<Option<Out>> {
        Ok(match self {
            Self::Off => None,
            Self::Stdout => Some(Out::stdout()?),
            Self::Stderr => Some(Out::Stderr),
            Self::File(path) => Some(Out::append_to(path)?),
        })
    }
}

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As a JSON object.
    Json,
    /// As a line for people.
    Text,
}

/// What is recorded of requests, by one configuration.
#[derive(Clone, Debug)]
pub struct LogPolicy {
    /// What is kept out of records.
    pub mask: Mask,
    /// How they are written.
    pub format: Format,
    /// The share of requests that are recorded though nothing failed: 0 to 1.
    pub sample_ok: f64,
}

impl LogPolicy {
    /// Whether a request is recorded. `draw` gives a random number from 0 to 1, which is not asked for in vain.
    pub fn wants(&self, is_of_interest: bool, draw: impl FnOnce() -> f64) -> bool {
        is_of_interest || self.sample_ok >= 1.0 || (self.sample_ok > 0.0 && draw() < self.sample_ok)
    }
}

/// The access log of the process.
#[derive(Debug)]
pub struct AccessLog {
    target: Target,
    outlet: Option<Outlet>,
}

impl AccessLog {
    /// Opens the target and starts the writing thread. Fails if the file cannot be opened.
    pub fn open(target: Target, dropped: IntCounter) -> io::Result<Self> {
        let outlet = target.open()?.map(|out| Outlet::open(out, MANNER, Some(dropped))).transpose()?;
        Ok(Self { target, outlet })
    }

    /// Whether records are wanted at all.
    pub fn is_on(&self) -> bool {
        self.outlet.is_some()
    }

    /// Appends a record. Never waits for the target.
    pub fn write(&self, record: &AccessRecord<'_>, format: Format) {
        let Some(outlet) = &self.outlet else {
            return;
        };
        outlet.append(|line| {
            match format {
                Format::Json => serde_json::to_writer(&mut *line, record)?,
                Format::Text => text::write(line, record)?,
            }
            line.write_all(b"\n")
        });
    }

    /// Opens the file again, which may be another one under the same name by now; the rest of the records go
    /// there. Fails if it cannot be opened, and the old one is kept then. Whether there is a file at all.
    pub fn reopen(&self) -> io::Result<bool> {
        let (Target::File(path), Some(outlet)) = (&self.target, &self.outlet) else {
            return Ok(false);
        };
        outlet.replace(Out::append_to(path)?);
        Ok(true)
    }

    /// Writes out what is left and ends the thread. Waits for it, but not for a target that is stuck.
    pub fn close(&self) {
        if let Some(outlet) = &self.outlet {
            outlet.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_went_well_is_sampled() {
        let policy = |sample_ok| LogPolicy { mask: Mask::default(), format: Format::Json, sample_ok };
        let never = || -> f64 { unreachable!("nothing to draw for") };
        assert!(policy(0.0).wants(true, never));
        assert!(!policy(0.0).wants(false, never));
        assert!(policy(1.0).wants(false, never));
        assert!(policy(0.25).wants(false, || 0.2499));
        assert!(!policy(0.25).wants(false, || 0.25));
    }
}
