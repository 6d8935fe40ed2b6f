//! The addresses of an upstream's names: looked up again whenever the last answer has run out, and kept for a while
//! when lookups fail.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use goodgate_failure::Cause;
use goodgate_telemetry::{NameMetrics, UpstreamMetrics, failed_open};
use goodgate_upstream::{BackendAddress, FoundAddress, Unresolved, Upstream};
use log::{info, warn};
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;
use tokio::task::{JoinError, JoinSet};

use crate::discovery::{AGAIN_AFTER, Last, Late, NameDiscovery};
use crate::resolver::{RESOLV_CONF, Resolver};

/// A round waits for lookups at most this long.
const ROUND_MAX: Duration = Duration::from_millis(250);
/// So many addresses of a name are in a line of the log.
const ADDRESSES_SHOWN: usize = 16;

/// The names of one upstream, each with the time of its next lookup.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Option<Resolver>,
    metrics: Arc<UpstreamMetrics>,
    due: HashMap<BackendAddress, Name>,
    lookups: JoinSet<Lookup>,
    /// Those of which one family is missing. What there is of them is in use.
    late: JoinSet<(BackendAddress, Option<Late>)>,
    /// Whom the last round was for. A reload makes another one.
    of: Weak<Upstream>,
    /// Whether the gauge says that last addresses are used.
    shows_stale: bool,
}

#[derive(Debug)]
struct Name {
    discovery: Arc<NameDiscovery>,
    due: Instant,
    /// A lookup is under way.
    is_asked: bool,
    looked_up: Option<Instant>,
    /// What the last good lookup gave.
    found: Vec<FoundAddress>,
    failing: bool,
    /// The last addresses are used on although lookups fail: since then, the last one for this cause.
    kept: Option<(Instant, Cause)>,
    /// What the log has been told is wrong with the answers.
    complaint: (usize, Vec<String>),
}

/// What a lookup gave.
struct Lookup {
    address: BackendAddress,
    found: Option<BTreeSet<Backend>>,
    /// Addresses of the other family may follow.
    is_half: bool,
    last: Last,
}

impl Names {
    pub(crate) fn new(metrics: Arc<UpstreamMetrics>) -> Self {
        Self {
            resolver: None,
            metrics,
            due: HashMap::new(),
            lookups: JoinSet::new(),
            late: JoinSet::new(),
            of: Weak::new(),
            shows_stale: false,
        }
    }

    /// Begins the lookups that are due, all at the same time, and takes in those that have ended; when to come again. One
    /// that takes long holds up none of the others.
    pub(crate) async fn round(&mut self, upstream: &Arc<Upstream>) -> Instant {
        self.adopt(upstream);
        self.begin();
        let over = tokio::time::Instant::now() + ROUND_MAX;
        while let Ok(Some(lookup)) = tokio::time::timeout_at(over, self.lookups.join_next()).await {
            self.take_in(upstream, lookup);
        }
        self.take_in_late(upstream);
        self.run_out(upstream);
        if !self.due.is_empty() || self.shows_stale {
            self.shows_stale = self.due.values().any(Name::is_stale);
            self.metrics.names().stale(self.shows_stale);
        }
        if self.is_waiting() {
            return Instant::now();
        }
        let next = self.due.values().map(|name| name.due).min();
        let next = next.into_iter().chain(self.next_to_run_out(upstream)).min();
        next.unwrap_or_else(|| Instant::now() + AGAIN_AFTER)
    }

    /// Whether lookups are under way.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.lookups.is_empty()
    }

    fn begin(&mut self) {
        let now = Instant::now();
        for (address, name) in self.due.iter_mut().filter(|(_, name)| name.due <= now && !name.is_asked) {
            name.is_asked = true;
            let (address, discovery) = (address.clone(), Arc::clone(&name.discovery));
            self.lookups.spawn(async move {
                let found = discovery.discover().await.ok().map(|(backends, _)| backends);
                let is_half = discovery.has_rest().await;
                Lookup { address, found, is_half, last: discovery.last() }
            });
        }
    }

    fn take_in_late(&mut self, upstream: &Upstream) {
        while let Some(lookup) = self.late.try_join_next() {
            if let Ok((address, Some(late))) = lookup
                && let Some(name) = self.due.get_mut(&address)
            {
                name.completed(&address, upstream, late, self.metrics.names());
            }
        }
    }

    /// Addresses leave when `dns.keep` is over, whatever lookups are in progress.
    fn run_out(&mut self, upstream: &Upstream) {
        let now = Instant::now();
        for (address, name) in &mut self.due {
            if let Some((since, cause)) = name.kept
                && now.saturating_duration_since(since) >= upstream.spec().dns.keep
            {
                name.failed(address, upstream, (cause, "lookups still fail"), self.metrics.names(), now);
            }
        }
    }

    fn next_to_run_out(&self, upstream: &Upstream) -> Option<Instant> {
        let end = |name: &Name| Some(name.kept?.0 + upstream.spec().dns.keep);
        self.due.values().filter_map(end).min()
    }

    fn take_in(&mut self, upstream: &Upstream, lookup: Result<Lookup, JoinError>) {
        match lookup {
            Ok(lookup) => {
                if let Some(name) = self.due.get_mut(&lookup.address) {
                    if lookup.is_half {
                        let (address, discovery) = (lookup.address.clone(), Arc::clone(&name.discovery));
                        self.late.spawn(async move { (address, discovery.rest().await) });
                    }
                    name.looked_up(upstream, lookup, self.metrics.names());
                }
            }
            // It does not say whose it was: all are asked again when their time comes.
            Err(_) => self.due.values_mut().for_each(|name| name.is_asked = false),
        }
    }

    /// Makes the names those of the upstream. What was found for the one before a reload holds for the one after it;
    /// if other servers are asked now, all are asked at once.
    fn adopt(&mut self, upstream: &Arc<Upstream>) {
        let wanted = upstream.names();
        self.due.retain(|address, _| wanted.contains(address));
        if wanted.is_empty() {
            return;
        }
        let (policy, conf) = (&upstream.spec().dns, Path::new(RESOLV_CONF));
        let is_another = !std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(upstream));
        let current = self.resolver.take().filter(|resolver| resolver.is_current(policy, conf));
        let is_new = current.is_none();
        let resolver = current.unwrap_or_else(|| Resolver::new(policy, conf));
        if is_new {
            (self.lookups, self.late) = (JoinSet::new(), JoinSet::new());
        }
        for (address, name) in self.due.iter_mut().filter(|_| is_another || is_new) {
            name.discovery = Arc::new(name.discovery.renewed(resolver.clone(), policy));
            if is_another && !name.failing && !name.found.is_empty() {
                upstream.resolved(address, &name.found, Instant::now());
            }
            if is_new {
                (name.due, name.is_asked) = (Instant::now(), false);
            }
        }
        for address in wanted {
            self.due.entry(address).or_insert_with_key(|address| {
                Name::new(NameDiscovery::new(resolver.clone(), policy, address))
            });
        }
        self.of = Arc::downgrade(upstream);
        self.resolver = Some(resolver);
    }

    /// Requests have failed: addresses may have changed before their time was up. Who was asked within the last second
    /// is not asked again.
    pub(crate) fn hurry(&mut self) {
        let now = Instant::now();
        let is_old = |name: &&mut Name| {
            name.looked_up.is_none_or(|at| now.saturating_duration_since(at) >= AGAIN_AFTER)
        };
        self.due.values_mut().filter(is_old).for_each(|name| name.due = now);
    }
}

impl Name {
    fn new(discovery: NameDiscovery) -> Self {
        Self {
            discovery: Arc::new(discovery),
            due: Instant::now(),
            is_asked: false,
            looked_up: None,
            found: Vec::new(),
            failing: false,
            kept: None,
            complaint: (0, Vec::new()),
        }
    }

    /// Whether addresses are used on that lookups do not give any more: all, or those of a target.
    fn is_stale(&self) -> bool {
        self.kept.is_some() || !self.complaint.1.is_empty()
    }

    fn looked_up(&mut self, upstream: &Upstream, lookup: Lookup, metrics: &NameMetrics) {
        let Lookup { address, found, is_half, last } = lookup;
        let now = Instant::now();
        (self.looked_up, self.is_asked) = (Some(now), false);
        let found: Option<Vec<FoundAddress>> =
            found.map(|found| found.iter().filter_map(|backend| backend.ext.get().copied()).collect());
        // A family that is not wanted may be all that there is.
        let is_of_use = |found: &Vec<FoundAddress>| {
            found.iter().any(|found| upstream.spec().dns.family.takes(found.address))
        };
        if let Some(found) = found.filter(is_of_use) {
            metrics.looked_up(None);
            self.complain(&address, upstream, &last);
            let found = if is_half { self.with_other_family(&found) } else { found };
            self.found(&address, upstream, found, metrics, now);
        } else {
            let ruled_out = || "there are only addresses of a family that dns.family rules out".to_owned();
            let (cause, why) = last.failure.unwrap_or_else(|| (Cause::DnsError, ruled_out()));
            metrics.looked_up(Some(cause));
            self.failed(&address, upstream, (cause, &why), metrics, now);
        }
        // A tenth earlier at random, so that many names are not asked for at one moment.
        self.due = now + last.holds.mul_f64(1.0 - fastrand::f64() * 0.1);
    }

    /// Of one family is known what it has now, and of the other one what it had.
    fn with_other_family(&self, found: &[FoundAddress]) -> Vec<FoundAddress> {
        let is_ipv6 = found.first().and_then(|found| found.address.is_ipv6());
        let others = self.found.iter().filter(|known| known.address.is_ipv6() != is_ipv6);
        found.iter().chain(others).copied().collect()
    }

    /// The lookup of the other family has ended, too.
    fn completed(
        &mut self,
        address: &BackendAddress,
        upstream: &Upstream,
        late: Late,
        metrics: &NameMetrics,
    ) {
        let others = self.found.iter().filter(|known| known.address.is_ipv6() != Some(late.is_ipv6));
        let found: Vec<FoundAddress> = others.copied().chain(late.found).collect();
        if !self.failing && found != self.found && !found.is_empty() {
            self.found(address, upstream, found, metrics, Instant::now());
        }
    }

    fn found(
        &mut self,
        address: &BackendAddress,
        upstream: &Upstream,
        found: Vec<FoundAddress>,
        metrics: &NameMetrics,
        now: Instant,
    ) {
        if upstream.resolved(address, &found, now) {
            let some: Vec<_> = found.iter().map(|found| found.address).take(ADDRESSES_SHOWN).collect();
            info!(upstream = upstream.spec().name.as_str(), name:% = address, count = found.len(), addresses:? = some; "name has new addresses");
            if let Some(length) = upstream.failed_open_for() {
                failed_open(&upstream.spec().name, length);
            }
        } else if self.failing {
            info!(upstream = upstream.spec().name.as_str(), name:% = address; "name resolves again");
        }
        if self.kept.is_some() {
            metrics.kept_ended();
        }
        (self.found, self.failing, self.kept) = (found, false, None);
    }

    fn failed(
        &mut self,
        address: &BackendAddress,
        upstream: &Upstream,
        (cause, why): (Cause, &str),
        metrics: &NameMetrics,
        now: Instant,
    ) {
        let outcome = upstream.unresolved(address, cause, now);
        let name = upstream.spec().name.as_str();
        match outcome {
            Unresolved::KeptFromNow => metrics.kept(),
            Unresolved::RanOut => {
                if self.kept.is_none() {
                    metrics.kept();
                }
                metrics.kept_ran_out();
                self.found.clear();
                warn!(upstream = name, name:% = address, cause = cause.name(); "the last addresses of a name were used for as long as dns.keep allows: they leave");
            }
            Unresolved::Kept | Unresolved::Still => {}
        }
        self.kept = match outcome {
            Unresolved::KeptFromNow => Some((now, cause)),
            Unresolved::Kept => Some((self.kept.map_or(now, |(since, _)| since), cause)),
            Unresolved::RanOut | Unresolved::Still => None,
        };
        if !std::mem::replace(&mut self.failing, true) {
            warn!(upstream = name, name:% = address, cause = cause.name(), why = why, kept = self.kept.is_some(); "name does not resolve");
        }
    }

    /// Says once what of a good answer is not good.
    fn complain(&mut self, address: &BackendAddress, upstream: &Upstream, last: &Last) {
        let complaint = (last.left_out, last.unresolved.clone());
        if complaint == self.complaint {
            return;
        }
        let name = upstream.spec().name.as_str();
        if last.left_out > 0 {
            warn!(upstream = name, name:% = address, left_out = last.left_out; "addresses of a name are not used: too many, or none to connect to");
        }
        if !last.unresolved.is_empty() {
            warn!(upstream = name, name:% = address, targets:? = last.unresolved; "targets of a service do not resolve");
        }
        self.complaint = complaint;
    }
}
