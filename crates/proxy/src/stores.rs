//! The stores of the process: one for each name, made once and never dropped.
//!
//! Pingora wants stores and locks `'static`. A reload changes a store's limits; a name that leaves the
//! configuration keeps its store, emptied to nothing, in case it comes back.

use std::time::{Duration, Instant};

use goodgate_cache::{FILL_WAIT, PurgeMode, PurgeScope, Store, StoreSpec};
use goodgate_telemetry::{StoreUsage, disk_event};
use parking_lot::Mutex;
use pingora_cache::lock::CacheLock;

/// A store with the lock that makes identical misses wait for one fetch.
pub(crate) struct StoreRoom {
    pub(crate) name: String,
    pub(crate) store: Store,
    pub(crate) lock: CacheLock,
}

impl StoreRoom {
    /// Takes over the limits and the disk of a configuration.
    fn set(&'static self, spec: &StoreSpec) {
        self.store.set_limits(spec);
        self.store.use_disk(spec, Box::new(|event| disk_event(&self.name, event)));
    }
}

impl std::fmt::Debug for StoreRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreRoom").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All stores.
#[derive(Debug, Default)]
pub(crate) struct Stores(Mutex<Vec<&'static StoreRoom>>);

impl Stores {
    /// The stores of a configuration, in its order.
    pub(crate) fn open(&self, specs: &[StoreSpec]) -> Vec<&'static StoreRoom> {
        let mut known = self.0.lock();
        for room in known.iter().filter(|room| specs.iter().all(|spec| spec.name != room.name)) {
            let nothing = StoreSpec {
                name: room.name.clone(),
                memory_bytes: 0,
                object_bytes_max: 0,
                last_good_percent: 0,
                disk: None,
            };
            room.set(&nothing);
        }
        specs.iter().map(|spec| open(&mut known, spec)).collect()
    }

    /// Purges copies, of one store or all; the names of those where it was done.
    pub(crate) fn purge(
        &self,
        name: Option<&str>,
        scopes: &[PurgeScope],
        mode: PurgeMode,
    ) -> Vec<&'static str> {
        let rooms = self.all().into_iter();
        let meant: Vec<_> = rooms.filter(|room| name.is_none_or(|name| name == room.name)).collect();
        for room in &meant {
            for scope in scopes {
                room.store.purge_scope(scope, mode);
            }
        }
        meant.iter().map(|room| room.name.as_str()).collect()
    }

    /// Waits until all indices on disk are read, but no longer than this. It blocks.
    pub(crate) fn wait_for_disks(&self, limit: Duration) {
        let until = Instant::now() + limit;
        for room in self.all() {
            room.store.wait_for_disk(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Waits until what is queued for the disks is written, but no longer than this. It blocks.
    pub(crate) fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        for room in self.all() {
            room.store.flush(until.saturating_duration_since(Instant::now()));
        }
    }

    fn all(&self) -> Vec<&'static StoreRoom> {
        self.0.lock().clone()
    }

    /// What each holds.
    pub(crate) fn usage(&self) -> Vec<(&'static str, StoreUsage)> {
        let usage = |room: &&'static StoreRoom| {
            let usage = room.store.usage();
            let counts = StoreUsage {
                objects: usage.objects,
                bytes: usage.bytes,
                evictions: usage.evictions,
                purges: usage.purges,
                disk: usage.disk,
            };
            (room.name.as_str(), counts)
        };
        self.0.lock().iter().map(usage).collect()
    }
}

fn open(known: &mut Vec<&'static StoreRoom>, spec: &StoreSpec) -> &'static StoreRoom {
    if let Some(room) = known.iter().find(|room| room.name == spec.name) {
        room.set(spec);
        return room;
    }
    let room =
        StoreRoom { name: spec.name.clone(), store: Store::new(spec), lock: CacheLock::new(FILL_WAIT) };
    let room: &'static StoreRoom = Box::leak(Box::new(room));
    room.set(spec);
    known.push(room);
    room
}
