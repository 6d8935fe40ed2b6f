//! How many connections clients have, and may have: in all, and from one address. When all places are taken,
//! the connection that has been idle for longest gives up its own.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use goodgate_config::Limits;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// All places, and who of those that have one is idle.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: AtomicUsize,
    /// Idle connections by when they became so. Only those are here that have been idle for a while, so that
    /// busy ones never meet at this lock.
    idle: Mutex<BTreeMap<(Instant, u64), Arc<Notify>>>,
    next: AtomicU64,
    of_clients: Mutex<HashMap<IpAddr, u32, ahash::RandomState>>,
}

/// Why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken, and nobody is idle.
    All,
    /// This client has as many as it may.
    Client,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    client: Option<IpAddr>,
    /// No other connection has it.
    number: u64,
}

/// A connection among the idle ones, as long as it is.
#[derive(Debug)]
pub(crate) struct Idle<'a> {
    places: &'a Places,
    since: (Instant, u64),
    leave: Arc<Notify>,
}

impl Places {
    /// Takes a place among all, and whether another connection had to give up its own.
    pub(crate) fn take(self: &Arc<Self>, limits: &Limits) -> Result<(Place, bool), Full> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = Place { places: Arc::clone(self), client: None, number };
        let is_full = self.taken.fetch_add(1, Ordering::Relaxed) >= limits.connections_max;
        if is_full && !self.free_one() { Err(Full::All) } else { Ok((place, is_full)) }
    }

    /// Asks the connection that has been idle for longest to leave; false if there is none.
    fn free_one(&self) -> bool {
        let longest = self.idle.lock().pop_first();
        longest.inspect(|(_, leave)| leave.notify_one()).is_some()
    }

    /// Lines up among the idle, by since when it is.
    pub(crate) fn idle(&self, since: Instant) -> Idle<'_> {
        let since = (since, self.next.fetch_add(1, Ordering::Relaxed));
        let leave = Arc::new(Notify::new());
        self.idle.lock().insert(since, Arc::clone(&leave));
        Idle { places: self, since, leave }
    }
}

impl Place {
    /// Counts the connection as one of this client's; if there is a limit. IPv6 clients have a network of 64
    /// bits each.
    pub(crate) fn of_client(&mut self, client: IpAddr, most: Option<NonZeroU32>) -> Result<(), Full> {
        let Some(most) = most else { return Ok(()) };
        let client = match client.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            IpAddr::V4(ip) => IpAddr::V4(ip),
        };
        let mut clients = self.places.of_clients.lock();
        let count = clients.entry(client).or_default();
        if *count >= most.get() {
            return Err(Full::Client);
        }
        *count += 1;
        self.client = Some(client);
        Ok(())
    }

    /// A number that no other connection has.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// The places that this one belongs to.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            let mut clients = self.places.of_clients.lock();
            if let Some(count) = clients.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    clients.remove(&client);
                }
            }
        }
    }
}

impl Idle<'_> {
    /// Ready when the place is needed.
    pub(crate) async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.places.idle.lock().remove(&self.since);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(most: usize) -> Limits {
        Limits { connections_max: most, ..Limits::default() }
    }

    #[tokio::test]
    async fn the_longest_idle_gives_way_and_without_one_nobody_enters() {
        let (places, limits) = (Arc::new(Places::default()), limits(2));
        let (_one, two) = (places.take(&limits).unwrap().0, places.take(&limits).unwrap().0);
        assert_eq!(places.take(&limits).unwrap_err(), Full::All);
        let now = Instant::now();
        let second = places.idle(now + Duration::from_secs(1));
        let first = places.idle(now);
        let third = places.take(&limits).unwrap().0;
        first.must_leave().await;
        drop((first, two));
        drop(second);
        assert_eq!(places.take(&limits).unwrap_err(), Full::All);
        drop(third);
        assert!(places.take(&limits).is_ok());
    }

    #[test]
    fn one_client_has_its_share_and_an_ipv6_network_is_one() {
        let (places, limits) = (Arc::new(Places::default()), limits(10));
        let enter = |client: &str| {
            let mut place = places.take(&limits).unwrap().0;
            place.of_client(client.parse().unwrap(), NonZeroU32::new(1)).map(|()| place)
        };
        let one = enter("192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").unwrap_err(), Full::Client);
        assert_eq!(enter("::ffff:192.0.2.1").unwrap_err(), Full::Client);
        let _six = enter("2001:db8::1").unwrap();
        assert_eq!(enter("2001:db8::2").unwrap_err(), Full::Client);
        assert!(enter("2001:db8:0:1::2").is_ok());
        drop(one);
        assert!(enter("192.0.2.1").is_ok());
        assert_eq!(places.of_clients.lock().len(), 1);
    }
}
