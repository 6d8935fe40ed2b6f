//! What the stores of copies hold, their disks above all: series at the scrape, lines in the error log.

use goodgate_cache::{DiskEvent, DiskState, DiskUsage, Operation};
use log::{info, warn};

use crate::metrics::CacheFamilies;

/// What a store holds, for the cache metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreUsage {
    /// Objects held.
    pub objects: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Objects evicted since the start.
    pub evictions: u64,
    /// Purges since the start.
    pub purges: u64,
    /// The same of the disk under it, and more.
    pub disk: Option<DiskUsage>,
}

impl CacheFamilies {
    /// Forgets what it showed, before the scrape writes it anew.
    pub(crate) fn reset_disks(&self) {
        self.disk_limit.reset();
        self.disk_state.reset();
        for counter in [&self.disk_reads, &self.disk_writes, &self.disk_dropped, &self.disk_corrupt] {
            counter.reset();
        }
        self.disk_errors.reset();
    }

    /// Writes down what one disk holds and did.
    pub(crate) fn write_disk(&self, cache: &str, usage: &DiskUsage) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.disk_limit.with_label_values(&[cache]).set(gauge(usage.limit));
        for state in DiskState::ALL {
            let series = self.disk_state.with_label_values(&[cache, state.name()]);
            series.set(i64::from(state == usage.state));
        }
        self.disk_reads.with_label_values(&[cache]).inc_by(usage.reads);
        self.disk_writes.with_label_values(&[cache]).inc_by(usage.writes);
        self.disk_dropped.with_label_values(&[cache]).inc_by(usage.dropped);
        self.disk_corrupt.with_label_values(&[cache]).inc_by(usage.corrupt);
        for (operation, count) in Operation::ALL.iter().zip(usage.errors) {
            self.disk_errors.with_label_values(&[cache, operation.name()]).inc_by(count);
        }
    }
}

/// Something about a disk tier that an operator wants to know.
pub fn disk_event(cache: &str, event: &DiskEvent<'_>) {
    match event {
        DiskEvent::Opened { objects, bytes, damaged, took } => {
            info!(cache = cache, objects = objects, bytes = bytes, damaged = damaged, took:? = took; "the disk cache is in use");
        }
        DiskEvent::Locked => {
            warn!(cache = cache; "another process has the disk cache: memory only until that one ends");
        }
        DiskEvent::Emptied => {
            warn!(cache = cache; "the disk cache is of another version: its copies were removed");
        }
        DiskEvent::Degraded { operation, error, retry } => {
            warn!(cache = cache, operation = operation.name(), error:% = error, retry:? = retry; "the disk cache failed: nothing is written to it until it is tried again");
        }
        DiskEvent::Stuck => {
            warn!(cache = cache; "the disk cache hangs: nothing more is written to it until it goes on");
        }
        DiskEvent::MovesOn => info!(cache = cache; "the disk cache goes on"),
        DiskEvent::PurgesWait => {
            warn!(cache = cache; "purges wait for the disk cache: if the process is killed before it is in use again, what they took comes back with the disk");
        }
        DiskEvent::PurgesLost { purges } => {
            warn!(cache = cache, purges = purges; "purges could not be written to the disk cache: empty its directory before it is used again, or purge again");
        }
        DiskEvent::Failed { operation, error } => {
            warn!(cache = cache, operation = operation.name(), error:% = error; "the disk cache had an error (more of them in a minute are only counted)");
        }
        DiskEvent::Corrupt { what } => {
            warn!(cache = cache, what = what; "the disk cache has something else than was written: it is not served (more of it in a minute is only counted)");
        }
    }
}
