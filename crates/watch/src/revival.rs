//! Who could not be reached is tried by a connection of ours every second, so that it gets its trial as soon as there
//! is something to try, and no client has to find out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_telemetry::{UpstreamMetrics, backend_changed};
use goodgate_upstream::{Address, Backend, ProbeKind, Probed, Upstream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::check::{Place, ProbeConnector, Question, ask};

/// Time between two connections to one backend.
const EVERY: Duration = Duration::from_secs(1);
/// Connections of one upstream that are being made at a time.
const IN_FLIGHT_MAX: usize = 64;
/// Those of all upstreams.
const IN_FLIGHT_IN_ALL_MAX: usize = 512;

/// Places for the connections of all upstreams.
pub(crate) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(IN_FLIGHT_IN_ALL_MAX))
}

/// The connections to backends of one upstream that could not be reached.
pub(crate) struct Revival {
    connector: ProbeConnector,
    metrics: Arc<UpstreamMetrics>,
    places: Arc<Semaphore>,
    running: JoinSet<Address>,
    tried: HashSet<Address>,
}

impl Revival {
    pub(crate) fn new(
        connector: ProbeConnector,
        metrics: Arc<UpstreamMetrics>,
        places: Arc<Semaphore>,
    ) -> Self {
        Self { connector, metrics, places, running: JoinSet::new(), tried: HashSet::new() }
    }

    /// Tries all that are not being tried; when to come again.
    pub(crate) fn round(&mut self, upstream: &Arc<Upstream>) -> Instant {
        let next = Instant::now() + EVERY;
        while let Some(done) = self.running.try_join_next() {
            if let Ok(address) = done {
                self.tried.remove(&address);
            }
        }
        if self.running.is_empty() {
            // Whatever became of those who panicked.
            self.tried.clear();
        }
        for backend in upstream.unreachable() {
            if self.running.len() >= IN_FLIGHT_MAX {
                break;
            }
            // Who finds no place is tried a second later.
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { break };
            if self.tried.insert(backend.address) {
                self.try_one(upstream, &backend, place);
            }
        }
        next
    }

    fn try_one(&mut self, upstream: &Arc<Upstream>, backend: &Backend, held: OwnedSemaphorePermit) {
        let spec = upstream.spec();
        let question = Question {
            kind: ProbeKind::Tcp,
            tls: spec.tls.clone(),
            timeout: spec.timeouts.connect,
            drain_header: None,
        };
        let address = backend.address;
        let place = Place { address, tls_name: backend.tls_name.clone(), host: None };
        let (upstream, metrics) = (Arc::clone(upstream), Arc::clone(&self.metrics));
        let connector = self.connector.clone();
        self.running.spawn(async move {
            if ask(&connector, &question, &place).await.probed == Probed::Passed {
                let change = upstream.reachable(address, Instant::now());
                backend_changed(&upstream.spec().name, &metrics, change);
            }
            drop(held);
            address
        });
    }
}
