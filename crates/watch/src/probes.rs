//! Active health checks of all upstreams: one task makes what the schedule says, each probe is a task of its own.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goodgate_telemetry::{Metrics, UpstreamMetrics, backend_changed};
use goodgate_upstream::{
    Address, Backend, ProbeKind, ProbePolicy, ProbeResult, ProbeTls, State, TlsPolicy, Upstream, domain_of,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::check::{Found, Place, ProbeConnector, Question, ask};
use crate::schedule::{Schedule, Start, Terms, User, Wanted};

/// How often at least it is looked whether the upstreams have other backends.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// What is due within this is made in one turn.
const TURN: Duration = Duration::from_millis(2);

/// The probes of all upstreams.
#[derive(Debug)]
pub(crate) struct Probes {
    connector: ProbeConnector,
    metrics: Arc<Metrics>,
    schedule: Mutex<Schedule<Watched>>,
    /// Other upstreams are in force.
    has_changed: AtomicBool,
    /// There is something to do before the next probe is due.
    wake: Notify,
}

/// A backend that wants to know.
#[derive(Debug)]
struct Watched {
    upstream: Arc<Upstream>,
    backend: Arc<Backend>,
    metrics: Arc<UpstreamMetrics>,
}

/// An upstream as it was when it was looked at last.
struct Seen {
    upstream: Arc<Upstream>,
    membership: u64,
    metrics: Arc<UpstreamMetrics>,
}

impl Seen {
    /// Whether the upstream has other backends now: no probe is started before that is known.
    fn is_old(&self) -> bool {
        self.upstream.membership() != self.membership
    }
}

impl Probes {
    pub(crate) fn new(connector: ProbeConnector, metrics: Arc<Metrics>) -> Arc<Self> {
        let schedule = Mutex::new(Schedule::new());
        Arc::new(Self {
            connector,
            metrics,
            schedule,
            has_changed: AtomicBool::new(false),
            wake: Notify::new(),
        })
    }

    /// Probes for good; `upstreams` tells which are in force.
    pub(crate) async fn run(self: Arc<Self>, upstreams: impl Fn() -> Vec<Arc<Upstream>> + Send) {
        let mut seen: HashMap<Arc<str>, Seen> = HashMap::new();
        let mut look = Instant::now();
        loop {
            let now = Instant::now();
            let has_changed =
                self.has_changed.swap(false, Ordering::Relaxed) || seen.values().any(Seen::is_old);
            if has_changed || look <= now {
                self.look(&upstreams(), &mut seen, now);
                look = now + LOOK_AGAIN;
            }
            let (starts, due) = self.schedule.lock().turn(now);
            for start in starts {
                tokio::spawn(UnderWay { probes: Arc::clone(&self), start }.run());
            }
            let rest = due.unwrap_or(look).min(look).max(now + TURN);
            tokio::select! {
                () = tokio::time::sleep_until(rest.into()) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Other upstreams are in force.
    pub(crate) fn changed(&self) {
        self.has_changed.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Requests have failed at these backends.
    pub(crate) fn suspect(&self, upstream: &Arc<str>, backends: &[Address]) {
        self.schedule.lock().suspect(upstream, backends);
        self.wake.notify_one();
    }

    /// Takes over what has changed since it was looked at last.
    fn look(&self, upstreams: &[Arc<Upstream>], seen: &mut HashMap<Arc<str>, Seen>, now: Instant) {
        let mut schedule = self.schedule.lock();
        if upstreams.len() < seen.len() || upstreams.iter().any(|upstream| !seen.contains_key(name(upstream)))
        {
            let names: std::collections::HashSet<&str> =
                upstreams.iter().map(|upstream| name(upstream)).collect();
            seen.retain(|name, _| {
                let stays = names.contains(&**name);
                if !stays {
                    schedule.remove(name);
                }
                stays
            });
        }
        for upstream in upstreams {
            let membership = upstream.membership();
            let known = seen.get(name(upstream));
            if known
                .is_some_and(|known| Arc::ptr_eq(&known.upstream, upstream) && known.membership == membership)
            {
                continue;
            }
            let series = || Arc::new(UpstreamMetrics::new(&self.metrics, name(upstream)));
            let metrics = known.map_or_else(series, |known| Arc::clone(&known.metrics));
            let key: Arc<str> = name(upstream).into();
            take_over(&mut schedule, &key, upstream, &metrics);
            seen.insert(key, Seen { upstream: Arc::clone(upstream), membership, metrics });
        }
        schedule.settle(now);
    }
}

fn name(upstream: &Upstream) -> &str {
    &upstream.spec().name
}

fn take_over(
    schedule: &mut Schedule<Watched>,
    key: &Arc<str>,
    upstream: &Arc<Upstream>,
    metrics: &Arc<UpstreamMetrics>,
) {
    let Some(policy) = &upstream.spec().probe else {
        schedule.remove(key);
        return;
    };
    // Of two entries with one address the vitals are the same.
    let backends: HashMap<Address, Arc<Backend>> =
        upstream.backends().into_iter().map(|backend| (backend.address, backend)).collect();
    let wanted = backends.into_values().filter(|backend| backend.is_probed()).map(|backend| Wanted {
        backend: backend.address,
        place: place(policy, &backend),
        user: Watched { upstream: Arc::clone(upstream), backend, metrics: Arc::clone(metrics) },
    });
    schedule.replace(key, terms(policy, upstream), wanted.collect());
}

fn terms(policy: &ProbePolicy, upstream: &Upstream) -> Terms {
    let tls = match &policy.tls {
        ProbeTls::AsBackend => upstream.spec().tls.clone(),
        ProbeTls::On { policy, .. } => policy.clone(),
        ProbeTls::Off => TlsPolicy { ca: None, verify: true, client: None },
    };
    let answers = policy.kind != ProbeKind::Tcp;
    let drain_header = upstream.spec().drain_header.clone().filter(|_| answers);
    let question = Question { kind: policy.kind.clone(), tls, timeout: policy.timeout, drain_header };
    Terms { question, interval: policy.interval, interval_down: policy.interval_down }
}

fn place(policy: &ProbePolicy, backend: &Backend) -> Place {
    let address = match (backend.address, policy.port) {
        (Address::Ip(mut address), Some(port)) => {
            address.set_port(port.get());
            Address::Ip(address)
        }
        (address, _) => address,
    };
    let tls_name = match &policy.tls {
        ProbeTls::AsBackend => backend.tls_name.clone(),
        ProbeTls::On { name: Some(name), .. } => Some(name.as_str().into()),
        ProbeTls::On { name: None, .. } => {
            Some(backend.tls_name.clone().unwrap_or_else(|| own_name(backend).into()))
        }
        ProbeTls::Off => None,
    };
    let needs_host = matches!(&policy.kind, ProbeKind::Http(probe) if probe.host.is_none());
    Place { address, tls_name, host: needs_host.then(|| backend.host().into()) }
}

/// The name of a backend as written, without a port.
fn own_name(backend: &Backend) -> &str {
    if let Some(service) = backend.written.strip_prefix("srv:") {
        return domain_of(service);
    }
    let host = backend.host();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.trim_matches(['[', ']'])
}

impl User for Watched {
    fn expect_probe(&self, at: Option<Instant>) {
        self.backend.expect_probe(at);
    }

    fn is_checking(&self) -> bool {
        self.backend.view().state == State::Checking
    }

    fn is_out(&self) -> bool {
        matches!(self.backend.view().state, State::Down | State::Checking | State::Draining)
    }

    fn is_down(&self) -> bool {
        self.backend.view().state == State::Down
    }
}

/// A probe that has been started. Whatever becomes of it, its place is given back.
struct UnderWay {
    probes: Arc<Probes>,
    start: Start,
}

impl UnderWay {
    async fn run(self) {
        let begun = Instant::now();
        let mut left = if self.start.is_urgent { self.most_failures() } else { 1 };
        while left > 0 {
            let started = Instant::now();
            let question = &self.start.terms.question;
            let found = ask(&self.probes.connector, question, &self.start.place).await;
            self.tell(found, started.elapsed());
            // One that hangs is not waited for again and again.
            let goes_on = found.probed.failure().is_some() && begun.elapsed() < question.timeout;
            left = if goes_on { left - 1 } else { 0 };
        }
    }

    /// How many failures take the last of those down who want to know.
    fn most_failures(&self) -> u32 {
        let schedule = self.probes.schedule.lock();
        let fall = |user: &Watched| user.upstream.spec().probe.as_ref().map(|policy| policy.fall);
        schedule.users(self.start.job).filter_map(fall).max().unwrap_or(NonZeroU32::MIN).get()
    }

    fn tell(&self, found: Found, took: Duration) {
        let users: Vec<_> = {
            let schedule = self.probes.schedule.lock();
            let of = |user: &Watched| {
                (Arc::clone(&user.upstream), Arc::clone(&user.backend), Arc::clone(&user.metrics))
            };
            schedule.users(self.start.job).map(of).collect()
        };
        let now = Instant::now();
        let result = ProbeResult { at: now, took, found: found.probed, status: found.status };
        for (upstream, backend, metrics) in users {
            metrics.checked(found.probed);
            backend.note_probe(&result);
            let change = upstream.probed(backend.address, found.probed, now);
            backend_changed(name(&upstream), &metrics, change);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.probes.schedule.lock().finished(&self.start, Instant::now());
        self.probes.wake.notify_one();
    }
}
