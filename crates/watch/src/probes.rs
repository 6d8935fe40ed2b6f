//! Active health checks of one upstream, on a schedule.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_failure::Cause;
use goodgate_telemetry::{UpstreamMetrics, backend_changed};
use goodgate_upstream::{Address, Backend, ProbePolicy, Probed, State, Upstream};
use tokio::task::JoinSet;

use crate::check::{Check, ProbeConnector, cause};

/// Probes of one upstream under way at a time.
const IN_FLIGHT_MAX: usize = 64;

/// The probes of one upstream.
pub(crate) struct Probes {
    connector: ProbeConnector,
    metrics: Arc<UpstreamMetrics>,
    due: HashMap<Address, Instant>,
    /// The policy that the schedule was made for: another one starts it anew.
    policy: Option<ProbePolicy>,
}

impl Probes {
    pub(crate) fn new(connector: ProbeConnector, metrics: Arc<UpstreamMetrics>) -> Self {
        Self { connector, metrics, due: HashMap::new(), policy: None }
    }

    /// Probes what is due; when to come again.
    pub(crate) async fn round(&mut self, upstream: &Arc<Upstream>) -> Instant {
        let Some(policy) = upstream.spec().probe.clone() else {
            self.due.clear();
            return Instant::now() + Duration::from_secs(1);
        };
        if self.policy.as_ref() != Some(&policy) {
            self.due.clear();
            self.policy = Some(policy.clone());
        }
        let mut backends = upstream.backends();
        backends.retain(|backend| backend.is_probed());
        self.due.retain(|address, _| backends.iter().any(|backend| backend.address == *address));
        let now = Instant::now();
        let is_due = |backend: &Arc<Backend>| self.due.get(&backend.address).is_none_or(|due| *due <= now);
        let due: Vec<Arc<Backend>> = backends.into_iter().filter(is_due).collect();
        self.run(upstream, &policy, &due, 1).await;
        for view in &upstream.views() {
            let probed = due.iter().any(|probed| probed.address == view.address);
            if probed || !self.due.contains_key(&view.address) {
                let interval = if is_out(view.state) { policy.interval_down } else { policy.interval };
                self.due.insert(view.address, now + jittered(interval));
            }
        }
        self.due.values().min().copied().unwrap_or(now + policy.interval)
    }

    /// Looks at backends that have just failed: each is probed again and again until it passes, or is down.
    pub(crate) async fn verify(&mut self, upstream: &Arc<Upstream>, suspects: &[Address]) {
        let Some(policy) = upstream.spec().probe.clone() else { return };
        let suspects: Vec<Arc<Backend>> = upstream
            .backends()
            .into_iter()
            .filter(|backend| suspects.contains(&backend.address) && backend.view().state != State::Down)
            .collect();
        self.run(upstream, &policy, &suspects, policy.fall.get()).await;
        let now = Instant::now();
        for backend in &suspects {
            self.due.insert(backend.address, now + jittered(policy.interval_down));
        }
    }

    /// Probes each of them until it passes, but no more often than this.
    async fn run(&self, upstream: &Arc<Upstream>, policy: &ProbePolicy, due: &[Arc<Backend>], times: u32) {
        let mut running = JoinSet::new();
        for backend in due {
            if running.len() >= IN_FLIGHT_MAX {
                running.join_next().await;
            }
            let check = Check {
                connector: self.connector.clone(),
                policy: policy.clone(),
                tls: upstream.spec().tls.clone(),
                drain_header: upstream.spec().drain_header.clone(),
                backend: Arc::clone(backend),
            };
            let (upstream, metrics) = (Arc::clone(upstream), Arc::clone(&self.metrics));
            running.spawn(async move {
                let started = Instant::now();
                for _ in 0..times {
                    let found = one(&check).await;
                    metrics.checked(found);
                    let change = upstream.probed(check.backend.address, found, Instant::now());
                    backend_changed(&upstream.spec().name, &metrics, change);
                    // One that hangs must not keep the others from their turn.
                    if found.failure().is_none() || started.elapsed() >= check.policy.timeout {
                        break;
                    }
                }
            });
        }
        while running.join_next().await.is_some() {}
    }
}

/// One probe.
async fn one(check: &Check) -> Probed {
    match tokio::time::timeout(check.policy.timeout, check.probe()).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => Probed::Failed(cause(&error)),
        Err(_) => Probed::Failed(Cause::HttpResponseTimeout),
    }
}

/// Whether it is asked more often, to be back soon.
fn is_out(state: State) -> bool {
    matches!(state, State::Down | State::Checking | State::Draining)
}

/// A tenth more or less, so that many gateways do not probe in step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() * 0.2)
}
