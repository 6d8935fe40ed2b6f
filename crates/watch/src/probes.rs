//! Active health checks of one upstream: Pingora's checks on a schedule of our own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_failure::{Cause, ReceivedStatus};
use goodgate_telemetry::{UpstreamMetrics, backend_changed};
use goodgate_upstream::{BackendView, ProbeKind, ProbePolicy, State, Upstream};
use pingora_error::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use tokio::task::JoinSet;

use crate::resolver::backend;

/// Probes of one upstream under way at a time.
const IN_FLIGHT_MAX: usize = 64;

/// The probes of one upstream.
pub(crate) struct Probes {
    metrics: Arc<UpstreamMetrics>,
    due: HashMap<SocketAddr, Instant>,
    /// The policy that the schedule was made for: another one starts it anew.
    policy: Option<ProbePolicy>,
}

impl Probes {
    pub(crate) fn new(metrics: Arc<UpstreamMetrics>) -> Self {
        Self { metrics, due: HashMap::new(), policy: None }
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
        let views = upstream.views();
        self.due.retain(|address, _| views.iter().any(|view| view.address == *address));
        let now = Instant::now();
        let due: Vec<&BackendView> =
            views.iter().filter(|view| self.due.get(&view.address).is_none_or(|due| *due <= now)).collect();
        self.probe(upstream, &policy, &due).await;
        for view in &upstream.views() {
            let probed = due.iter().any(|probed| probed.address == view.address);
            if probed || !self.due.contains_key(&view.address) {
                let interval = if view.state == State::Down { policy.interval_down } else { policy.interval };
                self.due.insert(view.address, now + jittered(interval));
            }
        }
        self.due.values().min().copied().unwrap_or(now + policy.interval)
    }

    async fn probe(&self, upstream: &Arc<Upstream>, policy: &ProbePolicy, due: &[&BackendView]) {
        let mut running = JoinSet::new();
        for view in due {
            if running.len() >= IN_FLIGHT_MAX {
                running.join_next().await;
            }
            let (address, written) = (view.address, Arc::clone(&view.written));
            let (upstream, policy, metrics) =
                (Arc::clone(upstream), policy.clone(), Arc::clone(&self.metrics));
            running.spawn(async move {
                let failure = one(&policy, address, &written).await;
                metrics.checked(failure);
                let change = upstream.probed(address, failure, Instant::now());
                backend_changed(&upstream.spec().name, &metrics, change);
            });
        }
        while running.join_next().await.is_some() {}
    }
}

/// One probe; why it failed, if it did.
async fn one(policy: &ProbePolicy, address: SocketAddr, written: &str) -> Option<Cause> {
    let Ok(check) = check(policy, written) else {
        return Some(Cause::ProxyConfigurationError);
    };
    let mut target = address;
    if let Some(port) = policy.port {
        target.set_port(port.get());
    }
    match tokio::time::timeout(policy.timeout, check.check(&backend(target))).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(cause(&error)),
        Err(_) => Some(Cause::HttpResponseTimeout),
    }
}

fn check(policy: &ProbePolicy, written: &str) -> pingora_error::Result<Box<dyn HealthCheck + Send + Sync>> {
    match &policy.kind {
        ProbeKind::Tcp => {
            let mut check = TcpHealthCheck::new();
            check.peer_template.options.connection_timeout = Some(policy.timeout);
            Ok(check)
        }
        ProbeKind::Http { path, host, expect_status } => {
            let host = host.as_deref().unwrap_or(written);
            let mut check = HttpHealthCheck::new("goodgate", false);
            check.req = RequestHeader::build("GET", path.as_bytes(), None)?;
            check.req.insert_header("Host", host)?;
            check.req.insert_header("User-Agent", "goodgate-health-check")?;
            check.req.insert_header("Connection", "close")?;
            check.peer_template.options.connection_timeout = Some(policy.timeout);
            check.peer_template.options.read_timeout = Some(policy.timeout);
            let expected = expect_status.clone();
            check.validator = Some(Box::new(move |response: &ResponseHeader| {
                let status = response.status.as_u16();
                if expected.iter().any(|range| range.contains(&status)) {
                    Ok(())
                } else {
                    Error::e_explain(ErrorType::CustomCode("unexpected status", status), "health check")
                }
            }));
            Ok(Box::new(check))
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a probe that failed otherwise ended without an answer")]
fn cause(error: &Error) -> Cause {
    match error.etype() {
        ErrorType::ConnectTimedout => Cause::ConnectionTimeout,
        ErrorType::ConnectRefused => Cause::ConnectionRefused,
        ErrorType::ConnectNoRoute => Cause::DestinationIpUnroutable,
        ErrorType::ReadTimedout => Cause::HttpResponseTimeout,
        ErrorType::CustomCode(_, status) => {
            ReceivedStatus::from_code(*status).map_or(Cause::HttpProtocolError, Cause::Received)
        }
        ErrorType::InvalidHTTPHeader => Cause::HttpProtocolError,
        _ => Cause::ConnectionTerminated,
    }
}

/// A tenth more or less, so that many gateways do not probe in step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() * 0.2)
}
