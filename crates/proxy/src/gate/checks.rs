//! The queue of requests whose password must be checked.
//!
//! A check takes long, so that a few run at a time and the others wait: with a bound for all, a share of it for each
//! client, and a deadline. Of each client only one request at a time stands in the queue for a place, and the
//! others stand behind it, so that one client with many guesses delays the login of another by one check. A request
//! that is dropped leaves the queue at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

/// Requests that may wait for a check.
const WAITING_MAX: usize = 128;
/// Requests of one client among them.
const WAITING_OF_CLIENT_MAX: usize = 32;
/// How long a request waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a request is not checked. Each is a refusal of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// Its client has its share of requests waiting.
    Client,
    /// As many requests wait as may, or it has waited for as long as it may.
    All,
}

/// All requests that wait for a check, and the places of those that are checked.
#[derive(Debug)]
pub(super) struct Checks {
    places: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    clients: HashMap<u64, Client>,
}

#[derive(Debug)]
struct Client {
    count: usize,
    /// The one that may stand in the queue.
    head: Arc<Semaphore>,
}

/// One request that waits.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    checks: &'a Checks,
    client: u64,
    head: Arc<Semaphore>,
    deadline: Instant,
}

impl Checks {
    /// So many checks run at a time.
    pub(super) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), waiting: Mutex::default() }
    }

    /// A request of this client begins to wait.
    pub(super) fn enter(&self, client: u64, now: Instant) -> Result<Waiter<'_>, Busy> {
        let mut waiting = self.waiting.lock();
        if waiting.clients.get(&client).is_some_and(|of_client| of_client.count >= WAITING_OF_CLIENT_MAX) {
            return Err(Busy::Client);
        }
        if waiting.count >= WAITING_MAX {
            return Err(Busy::All);
        }
        waiting.count += 1;
        let new = || Client { count: 0, head: Arc::new(Semaphore::new(1)) };
        let of_client = waiting.clients.entry(client).or_insert_with(new);
        of_client.count += 1;
        Ok(Waiter { checks: self, client, head: Arc::clone(&of_client.head), deadline: now + PATIENCE })
    }
}

impl Waiter<'_> {
    /// A place for the check, which is held until that ends. None: the request has waited for too long.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, Busy> {
        let turn = async {
            let _head = self.head.acquire().await;
            Arc::clone(&self.checks.places).acquire_owned().await
        };
        match timeout_at(self.deadline.into(), turn).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Busy::All),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.checks.waiting.lock();
        waiting.count -= 1;
        if let Entry::Occupied(mut of_client) = waiting.clients.entry(self.client) {
            of_client.get_mut().count -= 1;
            if of_client.get().count == 0 {
                of_client.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_has_a_share_and_leaves_no_trace() {
        let checks = Checks::new(1);
        let now = Instant::now();
        let waiters: Vec<_> = (0..WAITING_OF_CLIENT_MAX).map(|_| checks.enter(1, now).unwrap()).collect();
        assert_eq!(checks.enter(1, now).unwrap_err(), Busy::Client);
        let others: Vec<_> = (0..WAITING_MAX - WAITING_OF_CLIENT_MAX)
            .map(|at| checks.enter(at as u64 + 2, now).unwrap())
            .collect();
        assert_eq!(checks.enter(0, now).unwrap_err(), Busy::All);
        drop((waiters, others));
        assert!(checks.waiting.lock().clients.is_empty() && checks.waiting.lock().count == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn another_client_waits_for_one_check_however_many_a_client_has_queued() {
        let checks = Arc::new(Checks::new(1));
        let (sent, mut order) = tokio::sync::mpsc::unbounded_channel();
        for client in [1, 1, 1, 1, 1, 1, 2] {
            let (checks, sent) = (Arc::clone(&checks), sent.clone());
            tokio::spawn(async move {
                let waiter = checks.enter(client, Instant::now()).unwrap();
                let place = waiter.place().await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                drop(place);
                sent.send(client).unwrap();
            });
            tokio::task::yield_now().await;
        }
        let mut seen = Vec::new();
        while seen.last() != Some(&2) {
            seen.push(order.recv().await.unwrap());
        }
        assert!(seen.len() <= 3, "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_has_an_end() {
        let checks = Checks::new(1);
        let now = Instant::now();
        let first = checks.enter(1, now).unwrap().place().await.unwrap();
        assert_eq!(checks.enter(2, now).unwrap().place().await.unwrap_err(), Busy::All);
        drop(first);
        assert!(checks.enter(2, now).unwrap().place().await.is_ok());
    }
}
