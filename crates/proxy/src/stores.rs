//! The stores of the process: one for each name, made once and never dropped.
//!
//! Pingora wants stores and locks `'static`. A reload changes a store's limits; a name that leaves the
//! configuration keeps its store, emptied to nothing, in case it comes back.

use std::time::Duration;

use goodgate_cache::{PurgeMode, PurgeScope, Store, StoreSpec};
use goodgate_telemetry::StoreUsage;
use parking_lot::Mutex;
use pingora_cache::lock::CacheLock;

/// How long identical misses wait for the one that asks before another may ask too.
const FILL_WAIT: Duration = Duration::from_secs(5);

/// A store with the lock that makes identical misses wait for one fetch.
pub(crate) struct StoreRoom {
    pub(crate) name: String,
    pub(crate) store: Store,
    pub(crate) lock: CacheLock,
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
            let nothing = StoreSpec { name: room.name.clone(), memory_bytes: 0, object_bytes_max: 0 };
            room.store.set_limits(&nothing);
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
        let rooms = self.0.lock().clone();
        let meant: Vec<_> =
            rooms.into_iter().filter(|room| name.is_none_or(|name| name == room.name)).collect();
        for room in &meant {
            for scope in scopes {
                room.store.purge_scope(scope, mode);
            }
        }
        meant.iter().map(|room| room.name.as_str()).collect()
    }

    /// What each holds.
    pub(crate) fn usage(&self) -> Vec<(&'static str, StoreUsage)> {
        let usage = |room: &&'static StoreRoom| {
            let usage = room.store.usage();
            let (evictions, purges) = (usage.evictions, usage.purges);
            let counts = StoreUsage { objects: usage.objects, bytes: usage.bytes, evictions, purges };
            (room.name.as_str(), counts)
        };
        self.0.lock().iter().map(usage).collect()
    }
}

fn open(known: &mut Vec<&'static StoreRoom>, spec: &StoreSpec) -> &'static StoreRoom {
    if let Some(room) = known.iter().find(|room| room.name == spec.name) {
        room.store.set_limits(spec);
        return room;
    }
    let room =
        StoreRoom { name: spec.name.clone(), store: Store::new(spec), lock: CacheLock::new(FILL_WAIT) };
    let room: &'static StoreRoom = Box::leak(Box::new(room));
    known.push(room);
    room
}
