//! Places for connections to the admin listener.
//!
//! The number of connections is bounded. When all places are taken, the oldest connection that has not sent a
//! complete request head gives way: connections that are idle or half-sent never keep a scraper or a health check
//! out. If all others are being answered, a few more places are left for the health pages alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Connections at a time: scrapers and people, not the public.
const CONNECTIONS_MAX: usize = 256;
/// Connections besides, for `/livez` and `/readyz`.
const RESERVED: usize = 16;

/// All connections of the listener.
#[derive(Debug, Default)]
pub(crate) struct AdminPlaces(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Connections without a complete head, by when that began.
    headless: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct AdminPlace {
    places: Arc<AdminPlaces>,
    /// It is for the health pages alone.
    pub(crate) is_reserved: bool,
    headless: Option<u64>,
    leave: Arc<Notify>,
}

impl AdminPlaces {
    /// A place for a new connection; none if there is not even a reserved one.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<AdminPlace> {
        let mut taken = self.0.lock();
        let is_full = taken.count >= CONNECTIONS_MAX;
        let gives_way = if is_full { taken.headless.pop_first() } else { None };
        // A connection that gives way on a reserved place leaves a reserved one.
        let is_reserved = is_full && (gives_way.is_none() || taken.count > CONNECTIONS_MAX);
        if let Some((_, leave)) = gives_way {
            leave.notify_one();
        } else if taken.count >= CONNECTIONS_MAX + RESERVED {
            return None;
        }
        taken.count += 1;
        drop(taken);
        let leave = Arc::new(Notify::new());
        let mut place = AdminPlace { places: Arc::clone(self), is_reserved, headless: None, leave };
        place.waits_for_head();
        Some(place)
    }
}

impl AdminPlace {
    /// From now on the connection may have to give way.
    pub(crate) fn waits_for_head(&mut self) {
        let mut taken = self.places.0.lock();
        let number = taken.next;
        taken.next += 1;
        taken.headless.insert(number, Arc::clone(&self.leave));
        self.headless = Some(number);
    }

    /// A request is being answered. False: the connection was told to give way before.
    pub(crate) fn has_head(&mut self) -> bool {
        let number = self.headless.take();
        number.is_some_and(|number| self.places.0.lock().headless.remove(&number).is_some())
    }

    /// Ready when the connection must give way.
    pub(crate) async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for AdminPlace {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        taken.count -= 1;
        if let Some(number) = self.headless {
            taken.headless.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_connection_without_a_head_gives_way_and_health_pages_have_places_of_their_own() {
        let places = Arc::new(AdminPlaces::default());
        let mut all: Vec<_> = (0..CONNECTIONS_MAX).map(|_| places.enter().unwrap()).collect();
        assert!(all[0].has_head());
        let late = places.enter().unwrap();
        assert!(!late.is_reserved);
        all[1].must_leave().await;
        assert!(!all[1].has_head(), "its place is promised to another");
        drop(all.remove(1));
        all.push(late);
        for place in &mut all {
            place.has_head();
        }
        let reserved: Vec<_> = (0..RESERVED).map(|_| places.enter().unwrap()).collect();
        assert!(reserved.iter().all(|place| place.is_reserved));
        let next = places.enter();
        assert!(next.is_some_and(|place| place.is_reserved), "in place of the oldest reserved one");
        drop((all, reserved));
        assert!(places.0.lock().count == 0 && places.0.lock().headless.is_empty());
    }
}
