//! What becomes of bodies that are kept to be sent again.

use prometheus::{IntCounter, IntGauge};

use crate::Metrics;
use crate::metrics::SpoolFamilies;

/// Whether a body could be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolResult {
    /// It was, for as long as that made sense.
    Kept,
    /// It is longer than the route allows.
    TooLarge,
    /// The files of all bodies together are as large as they may be.
    Full,
    /// Its file could not be written or read.
    Failed,
}

impl SpoolResult {
    const ALL: [Self; 4] = [Self::Kept, Self::TooLarge, Self::Full, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::TooLarge => "too_large",
            Self::Full => "full",
            Self::Failed => "failed",
        }
    }
}

/// The series of the spool; they exist at zero.
#[derive(Debug)]
pub struct SpoolMetrics {
    bytes: IntGauge,
    bodies: [IntCounter; SpoolResult::ALL.len()],
}

impl SpoolMetrics {
    /// Resolves them.
    pub fn new(metrics: &Metrics) -> Self {
        let SpoolFamilies { bytes, bodies } = &metrics.spool;
        Self {
            bytes: bytes.with_label_values::<&str>(&[]),
            bodies: SpoolResult::ALL.map(|result| bodies.with_label_values(&[result.name()])),
        }
    }

    /// So many more bytes are on disk.
    pub fn holds(&self, bytes: u64) {
        self.bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many bytes less are on disk.
    pub fn releases(&self, bytes: u64) {
        self.bytes.sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts a body.
    pub fn count(&self, result: SpoolResult) {
        if let Some(counter) = self.bodies.get(result as usize) {
            counter.inc();
        }
    }
}
