//! The tasks that watch: four for each upstream name, as long as the name is configured, and one for all probes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_telemetry::{Metrics, UpstreamMetrics, backend_changed};
use goodgate_upstream::{Address, Alarm, Upstream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::certificates::Certificates;
use crate::check::ProbeConnector;
use crate::names::Names;
use crate::probes::Probes;
use crate::revival::{Revival, places};

/// How often at least a task looks whether its upstream has become another one.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Keeps DNS and probes of all upstreams going.
#[derive(Debug)]
pub struct Watcher {
    connector: ProbeConnector,
    probes: Arc<Probes>,
    /// The task of the probes, once something is watched.
    probing: Mutex<Option<JoinHandle<()>>>,
    /// Those of connections to who could not be reached.
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    upstreams: Arc<Mutex<Vec<Arc<Upstream>>>>,
    tasks: Mutex<HashMap<String, [JoinHandle<()>; 4]>>,
    /// Names of upstreams to come that were looked up already.
    primed: Mutex<HashMap<String, Names>>,
}

impl Watcher {
    /// A watcher that watches nothing yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let connector = ProbeConnector::new();
        Self {
            probes: Probes::new(connector.clone(), Arc::clone(&metrics)),
            probing: Mutex::default(),
            connector,
            places: places(),
            metrics,
            upstreams: Arc::default(),
            tasks: Mutex::default(),
            primed: Mutex::default(),
        }
    }

    /// Looks up every name of the upstreams that has no address yet, for at most `limit`: before they are
    /// put in force, so that the first requests find backends.
    pub async fn prime(&self, upstreams: &[Arc<Upstream>], limit: Duration) {
        let unresolved = upstreams.iter().filter(|upstream| !upstream.names().is_empty());
        let mut lookups = tokio::task::JoinSet::new();
        for upstream in unresolved.filter(|upstream| upstream.has_unresolved_names()) {
            let mut names = Names::new(self.series(upstream));
            let upstream = Arc::clone(upstream);
            lookups.spawn(async move {
                names.round(&upstream).await;
                while names.is_waiting() {
                    names.round(&upstream).await;
                }
                (upstream.spec().name.clone(), names)
            });
        }
        let all = async {
            while let Some(primed) = lookups.join_next().await {
                self.primed.lock().extend(primed);
            }
        };
        // A name that takes longer is looked up again by its task.
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// From now on these upstreams are in force. Must be called within a runtime.
    pub fn watch(&self, upstreams: &[Arc<Upstream>]) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|name, handles| {
            let stays = upstreams.iter().any(|upstream| upstream.spec().name == *name);
            if !stays {
                handles.iter().for_each(JoinHandle::abort);
            }
            stays
        });
        *self.upstreams.lock() = upstreams.to_vec();
        for upstream in upstreams {
            let name = upstream.spec().name.clone();
            tasks.entry(name).or_insert_with_key(|name| self.start(name, upstream));
        }
        self.primed.lock().clear();
        let probe = || {
            let upstreams = Arc::clone(&self.upstreams);
            tokio::spawn(Arc::clone(&self.probes).run(move || upstreams.lock().clone()))
        };
        self.probing.lock().get_or_insert_with(probe);
        self.probes.changed();
    }

    fn start(&self, name: &str, upstream: &Upstream) -> [JoinHandle<()>; 4] {
        let current = {
            let upstreams = Arc::clone(&self.upstreams);
            let name = name.to_owned();
            move || upstreams.lock().iter().find(|upstream| upstream.spec().name == name).map(Arc::clone)
        };
        let primed = self.primed.lock().remove(name);
        let mut names = primed.unwrap_or_else(|| Names::new(self.series(upstream)));
        let probes = Arc::clone(&self.probes);
        let key: Arc<str> = name.into();
        let mut certificates = Certificates::default();
        let (look_up, show, probe) = (current.clone(), current.clone(), current.clone());
        let resolving = tokio::spawn(async move {
            let mut is_hurried = false;
            while let Some(upstream) = look_up() {
                let due = names.round(&upstream).await;
                if is_hurried && !names.is_waiting() {
                    is_hurried = false;
                    upstream.lookups_ended();
                }
                if !rest_until(due, upstream.name_alarm()).await.is_empty() {
                    is_hurried = true;
                    names.hurry();
                }
            }
        });
        let probing = tokio::spawn(async move {
            while let Some(upstream) = probe() {
                let suspects = rest_until(Instant::now() + LOOK_AGAIN, upstream.probe_alarm()).await;
                if !suspects.is_empty() {
                    probes.suspect(&key, &suspects);
                }
            }
        });
        let looking = tokio::spawn(async move {
            while let Some(upstream) = show() {
                rest(certificates.round(&upstream).await).await;
            }
        });
        [resolving, probing, looking, self.judge(current, upstream)]
    }

    /// Tries who could not be reached, and compares backends with each other.
    fn judge(
        &self,
        current: impl Fn() -> Option<Arc<Upstream>> + Send + 'static,
        upstream: &Upstream,
    ) -> JoinHandle<()> {
        let metrics = self.series(upstream);
        let mut revival =
            Revival::new(self.connector.clone(), Arc::clone(&metrics), Arc::clone(&self.places));
        tokio::spawn(async move {
            let mut compared = Instant::now();
            let mut revived = compared;
            while let Some(upstream) = current() {
                let now = Instant::now();
                if revived <= now {
                    revived = revival.round(&upstream);
                }
                let compare = upstream.spec().outliers.map(|policy| compared + policy.interval);
                if compare.is_some_and(|due| due <= now) {
                    compared = now;
                    for change in upstream.compare(now) {
                        backend_changed(&upstream.spec().name, &metrics, Some(change));
                    }
                }
                rest(compare.unwrap_or(revived).min(revived)).await;
            }
        })
    }

    fn series(&self, upstream: &Upstream) -> Arc<UpstreamMetrics> {
        Arc::new(UpstreamMetrics::new(&self.metrics, &upstream.spec().name))
    }
}

/// Rests until then, or until requests have failed: at which backends.
async fn rest_until(due: Instant, alarm: &Alarm) -> Vec<Address> {
    tokio::select! {
        () = rest(due) => Vec::new(),
        suspects = poll_fn(|context| alarm.poll_suspects(context)) => suspects,
    }
}

async fn rest(due: Instant) {
    let rest = due.saturating_duration_since(Instant::now()).min(LOOK_AGAIN);
    tokio::time::sleep(rest.max(Duration::from_millis(5))).await;
}
