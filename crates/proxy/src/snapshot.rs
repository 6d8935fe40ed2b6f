//! The rooms built from one configuration, and what outlives them all.
//!
//! A reload builds a new [`Snapshot`] beside the old one and swaps it in; a request that has begun keeps
//! its route of the old. Stores, metrics, the log and the backends' vitals live on.

mod build;

use goodgate_failure::Networks;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use goodgate_cache::{PurgeMode, PurgeScope};
use goodgate_config::{Certificate, Config, Limits, Listener, RouteSpec};
use goodgate_telemetry::{
    AccessLog, LogPolicy, Metrics, Ring, RouteMetrics, SpoolMetrics, StoreUsage, Traces,
};
use goodgate_upstream::{StickyKey, Upstream};

use crate::gate::Verifier;
use crate::hops::Trail;
use crate::http2::StalledResponses;
use crate::kept::KeptConnections;
use crate::listener::Entrance;
use crate::places::Places;
use crate::replay::Spool;
use crate::route::{Route, Router};
use crate::route_state::RouteStates;
use crate::stores::Stores;
use crate::ties;
use build::build;

/// At the start this long is waited for the indices of copies on disk, at the end for what is being written.
const DISKS_LIMIT: Duration = Duration::from_secs(10);

/// What one configuration says, ready for use. Immutable.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) router: Router,
    pub(crate) limits: Arc<Limits>,
    pub(crate) trusted_proxies: Networks,
    pub(crate) log: LogPolicy,
    /// The share of requests traced where the client does not decide.
    pub(crate) trace_share: f64,
    pub(crate) has_caches: bool,
    upstreams: Vec<Arc<Upstream>>,
    /// Those that clients stay with by a cookie.
    pub(crate) sticky: Vec<Arc<Upstream>>,
    listeners: Vec<Listener>,
    routes: Arc<[RouteSpec]>,
}

/// What snapshots are built on and what outlives them.
#[derive(Debug)]
struct Lasting {
    stores: Stores,
    verifier: Arc<Verifier>,
    sticky_key: StickyKey,
    route_states: RouteStates,
}

/// The running gateway: the snapshot in force, and what no reload touches.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    lasting: Lasting,
    metrics: Arc<Metrics>,
    pub(crate) no_route: RouteMetrics,
    pub(crate) access_log: AccessLog,
    pub(crate) ring: Ring,
    pub(crate) kept: Arc<KeptConnections>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) traces: Option<Traces>,
    pub(crate) trail: Trail,
    pub(crate) places: Arc<Places>,
    pub(crate) stalled: StalledResponses,
    entrances: Vec<Arc<Entrance>>,
    draining: AtomicBool,
    requests: AtomicUsize,
}

impl Live {
    /// Starts with a first configuration.
    pub fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        access_log: AccessLog,
        traces: Option<Traces>,
        now: Instant,
    ) -> Self {
        let lasting = Lasting {
            stores: Stores::default(),
            verifier: Arc::new(Verifier::new(now)),
            sticky_key: ties::draw_key(),
            route_states: RouteStates::default(),
        };
        let snapshot = build(config, None, &lasting, &metrics, now);
        lasting.stores.wait_for_disks(DISKS_LIMIT);
        let spool = &config.server.spool;
        let spool = Spool::new(&spool.path, spool.bytes_max, SpoolMetrics::new(&metrics));
        Self {
            ring: Ring::new(snapshot.upstream_names(), now),
            snapshot: ArcSwap::from_pointee(snapshot),
            no_route: RouteMetrics::new(&metrics, "none", "none"),
            lasting,
            metrics,
            access_log,
            kept: KeptConnections::new(now),
            spool,
            traces,
            trail: Trail::new(fastrand::u64(..)),
            places: Arc::default(),
            stalled: StalledResponses::default(),
            entrances: Entrance::of_all(&config.listeners),
            draining: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
        }
    }

    /// Builds the snapshot of a new configuration; running state comes from the one in force.
    pub fn prepare(&self, config: &Config, now: Instant) -> Snapshot {
        build(config, Some(&self.snapshot.load()), &self.lasting, &self.metrics, now)
    }

    /// Puts a prepared snapshot in force for all requests that begin from now on.
    pub fn swap(&self, snapshot: Snapshot) {
        self.ring.hold(snapshot.upstream_names());
        for entrance in &self.entrances {
            entrance.change(&snapshot.listeners);
        }
        let snapshot = Arc::new(snapshot);
        let old = self.snapshot.swap(Arc::clone(&snapshot));
        for upstream in &old.upstreams {
            let name = &upstream.spec().name;
            let next = snapshot.upstreams.iter().find(|next| next.spec().name == *name);
            upstream.hand_over(next.map(AsRef::as_ref));
        }
    }

    /// The upstreams in force.
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.snapshot.load().upstreams.clone()
    }

    /// The certificates that clients are shown, each once.
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        let mut all: Vec<_> = self.entrances.iter().flat_map(|entrance| entrance.certificates()).collect();
        all.sort_by(|a, b| (a.cert(), a.key()).cmp(&(b.cert(), b.key())));
        all.dedup_by(|a, b| (a.cert(), a.key()) == (b.cert(), b.key()));
        all
    }

    /// From the next handshake on clients are shown this certificate instead of the one from the same files.
    pub fn renew(&self, certificate: &Arc<Certificate>) {
        for entrance in &self.entrances {
            entrance.renew(certificate);
        }
    }

    /// The terms of the listener that stands at this place in the configuration of the start.
    pub(crate) fn entrance(&self, at: usize) -> Option<&Arc<Entrance>> {
        self.entrances.get(at)
    }

    /// Purges copies, of one store or all, at once; the names of the stores where it was done.
    pub fn purge(&self, store: Option<&str>, scopes: &[PurgeScope], mode: PurgeMode) -> Vec<&'static str> {
        let snapshot = self.snapshot();
        let scopes: Vec<_> = scopes.iter().flat_map(|scope| snapshot.counted(scope)).collect();
        self.lasting.stores.purge(store, &scopes, mode)
    }

    /// What each store holds.
    pub fn store_usage(&self) -> Vec<(&'static str, StoreUsage)> {
        self.lasting.stores.usage()
    }

    /// Writes out what waits for the disks of the caches. It blocks, for a few seconds at most.
    pub fn flush_stores(&self, limit: Duration) {
        self.lasting.stores.flush(limit.min(DISKS_LIMIT));
    }

    /// Closes backend connections that have lain idle for as long as they may; to be called every `RETIRE_EVERY`.
    pub fn retire_idle(&self, now: Instant) {
        self.kept.retire(now);
    }

    /// From now on every answer announces that its connection closes.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the gateway is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Requests under way, with those that are being read.
    pub fn requests_in_flight(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// The last failures and rescues.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The largest response header that a backend may send, in bytes.
    pub fn response_header_bytes_max(&self) -> usize {
        self.snapshot.load().limits.response_header_bytes_max
    }

    /// What a request may take.
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.snapshot.load().limits)
    }

    /// The routes as configured.
    pub fn routes(&self) -> Arc<[RouteSpec]> {
        Arc::clone(&self.snapshot.load().routes)
    }

    /// Opens the file of the access log again; false if it goes to none.
    pub fn reopen_log(&self) -> io::Result<bool> {
        self.access_log.reopen()
    }

    /// Writes out what the access log still holds, and sends the last spans.
    pub fn close_log(&self) {
        self.access_log.close();
        if let Some(traces) = &self.traces {
            traces.close();
        }
    }

    /// The metrics of the process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Whether any route has copies.
    pub(crate) fn has_caches(&self) -> bool {
        self.snapshot.load().has_caches
    }

    pub(crate) fn request_begins(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ends(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Snapshot {
    /// Its upstreams, in the order of the configuration.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// The scope as the keys of the routes have it that cache the address: of a query only what counts.
    fn counted(&self, scope: &PurgeScope) -> Vec<PurgeScope> {
        let PurgeScope::Url { host, target } = scope else {
            return vec![scope.clone()];
        };
        let counted = |route: &Arc<Route>| route.cache.as_ref().map(|(policy, _)| policy.key.target(target));
        let mut targets: Vec<_> = self.routes_of(host, target).iter().filter_map(counted).collect();
        targets.push(target.clone());
        targets.sort_unstable();
        targets.dedup();
        targets.into_iter().map(|target| PurgeScope::Url { host: host.clone(), target }).collect()
    }

    /// The routes that requests for an address can take.
    pub(crate) fn routes_of(&self, host: &str, target: &str) -> Vec<Arc<Route>> {
        let path = target.split('?').next().unwrap_or_default();
        self.router.reachable(host, if path == "*" { "/" } else { path })
    }

    fn upstream_names(&self) -> impl Iterator<Item = &str> {
        self.upstreams.iter().map(|upstream| upstream.spec().name.as_str())
    }
}
