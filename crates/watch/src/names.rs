//! The addresses of an upstream's names: looked up again whenever the last answer has run out, and kept
//! when a lookup fails.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_telemetry::UpstreamMetrics;
use goodgate_upstream::{Address, BackendAddress, Upstream};
use log::{info, warn};
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;

use crate::resolver::{HOLDS_MIN, NameDiscovery, Resolver};

/// The names of one upstream, each with the time of its next lookup.
pub(crate) struct Names {
    resolver: Resolver,
    metrics: Arc<UpstreamMetrics>,
    due: HashMap<BackendAddress, Name>,
}

struct Name {
    discovery: NameDiscovery,
    due: Instant,
    looked_up: Option<Instant>,
    failing: bool,
    /// The last addresses are used on although lookups fail.
    kept: bool,
}

impl Names {
    pub(crate) fn new(resolver: Resolver, metrics: Arc<UpstreamMetrics>) -> Self {
        Self { resolver, metrics, due: HashMap::new() }
    }

    /// Looks up what is due; when to come again.
    pub(crate) async fn round(&mut self, upstream: &Upstream) -> Instant {
        let wanted = upstream.names();
        self.due.retain(|address, _| wanted.contains(address));
        for address in &wanted {
            if let (BackendAddress::Name { host, port }, false) = (address, self.due.contains_key(address)) {
                let discovery = NameDiscovery::new(self.resolver.clone(), host, *port);
                self.due.insert(
                    address.clone(),
                    Name { discovery, due: Instant::now(), looked_up: None, failing: false, kept: false },
                );
            }
        }
        for (address, name) in &mut self.due {
            if name.due <= Instant::now() {
                name.look_up(address, upstream, &self.metrics).await;
            }
        }
        self.metrics.dns_stale(self.due.values().any(|name| name.kept));
        let next = self.due.values().map(|name| name.due).min();
        next.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))
    }
}

impl Names {
    /// Requests have failed: addresses may have changed before their time was up. Who was asked within the last second
    /// is not asked again.
    pub(crate) fn hurry(&mut self) {
        let now = Instant::now();
        let is_old =
            |name: &&mut Name| name.looked_up.is_none_or(|at| now.saturating_duration_since(at) >= HOLDS_MIN);
        self.due.values_mut().filter(is_old).for_each(|name| name.due = now);
    }
}

impl Name {
    async fn look_up(&mut self, address: &BackendAddress, upstream: &Upstream, metrics: &UpstreamMetrics) {
        let found = self.discovery.discover().await;
        self.looked_up = Some(Instant::now());
        let last = self.discovery.last();
        self.kept = match found {
            Ok((backends, _)) => {
                self.found(address, upstream, &backends);
                false
            }
            Err(_) => self.failed(address, upstream, last.failure),
        };
        metrics.looked_up(last.failure);
        // A tenth earlier at random, so that many names are not asked for at one moment.
        self.due = Instant::now() + last.holds.mul_f64(1.0 - fastrand::f64() * 0.1);
    }

    fn found(&mut self, address: &BackendAddress, upstream: &Upstream, backends: &BTreeSet<Backend>) {
        let addresses = backends.iter().filter_map(|backend| backend.addr.as_inet().copied());
        let addresses: Vec<Address> = addresses.map(Address::Ip).collect();
        if upstream.resolved(address, &addresses, Instant::now()) {
            info!(upstream = upstream.spec().name.as_str(), name:% = address, addresses:? = addresses; "name has new addresses");
        } else if self.failing {
            info!(upstream = upstream.spec().name.as_str(), name:% = address; "name resolves again");
        }
        self.failing = false;
    }

    fn failed(
        &mut self,
        address: &BackendAddress,
        upstream: &Upstream,
        cause: Option<goodgate_failure::Cause>,
    ) -> bool {
        let cause = cause.unwrap_or(goodgate_failure::Cause::DnsError);
        let kept = upstream.unresolved(address, cause);
        if !self.failing {
            warn!(upstream = upstream.spec().name.as_str(), name:% = address, cause = cause.name(), kept = kept; "name does not resolve");
        }
        self.failing = true;
        kept
    }
}
