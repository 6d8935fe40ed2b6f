//! Who could not be reached is tried by a connection of ours every second, so that it gets its trial as soon as there
//! is something to try, and no client has to find out.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_telemetry::{UpstreamMetrics, backend_changed};
use goodgate_upstream::{Address, Backend, ProbeKind, ProbePolicy, Upstream};
use tokio::task::JoinSet;

use crate::check::{Check, ProbeConnector};

/// Time between two connections to one backend.
const EVERY: Duration = Duration::from_secs(1);
/// Connections of one upstream that are being made at a time.
const IN_FLIGHT_MAX: usize = 64;

/// The connections to backends of one upstream that could not be reached.
pub(crate) struct Revival {
    connector: ProbeConnector,
    metrics: Arc<UpstreamMetrics>,
    running: JoinSet<Address>,
    tried: HashSet<Address>,
}

impl Revival {
    pub(crate) fn new(connector: ProbeConnector, metrics: Arc<UpstreamMetrics>) -> Self {
        Self { connector, metrics, running: JoinSet::new(), tried: HashSet::new() }
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
            if self.tried.insert(backend.address) {
                self.try_one(upstream, backend);
            }
        }
        next
    }

    fn try_one(&mut self, upstream: &Arc<Upstream>, backend: Arc<Backend>) {
        let spec = upstream.spec();
        let policy = ProbePolicy {
            kind: ProbeKind::Tcp,
            port: None,
            interval: EVERY,
            interval_down: EVERY,
            timeout: spec.timeouts.connect,
            rise: NonZeroU32::MIN,
            fall: NonZeroU32::MIN,
            starts_checking: false,
        };
        let check = Check {
            connector: self.connector.clone(),
            policy,
            tls: spec.tls.clone(),
            drain_header: None,
            backend,
        };
        let (upstream, metrics) = (Arc::clone(upstream), Arc::clone(&self.metrics));
        self.running.spawn(async move {
            let address = check.backend.address;
            let made = tokio::time::timeout(check.policy.timeout, check.probe()).await;
            if matches!(made, Ok(Ok(_))) {
                let change = upstream.reachable(address, Instant::now());
                backend_changed(&upstream.spec().name, &metrics, change);
            }
            address
        });
    }
}
