//! Starting: configuration, listeners, workers, watchers; then waiting for signals.

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use goodgate_admin::{Admin, Subject};
use goodgate_cache::{PurgeMode, PurgeScope};
use goodgate_config::{Config, Limits, Loaded, LogTarget, RouteSpec, Tracing};
use goodgate_files::Unreadable;
use goodgate_proxy::{Door, Live, Proxy, RETIRE_EVERY};
use goodgate_telemetry::{AccessLog, BuildInfo, Metrics, Ring, StoreUsage, Target, Traces};
use goodgate_upstream::Upstream;
use goodgate_watch::{Memory, Watcher};
use log::{info, warn};
use pingora::server::configuration::ServerConf;
use pingora_runtime::Runtime;
use pingora_rustls::{RootCertStore, load_platform_certs_incl_env_into_store};
use tokio::sync::{mpsc, watch};

use crate::control_socket::{self, Request};
use crate::reload::Reloader;
use crate::{bind, certificates, logging, signals, stop, warnings};

/// Names are looked up for at most this long before the first request is accepted.
const PRIME_LIMIT: Duration = Duration::from_secs(2);
/// What is known of backends is written down so often at most.
const REMEMBER_EVERY: Duration = Duration::from_secs(1);
/// The largest file of certificates that the machine trusts.
const TRUSTED_BYTES_MAX: u64 = 64 << 20;
/// Reloads that wait for the one in progress.
const RELOADS_QUEUED: usize = 8;
/// Attempts that Pingora's loop allows; how many are made is ours to decide, long before.
const ATTEMPTS_MAX: usize = 4096;

/// The running gateway, as its parts share it.
pub(crate) struct Running {
    pub(crate) live: Arc<Live>,
    pub(crate) watcher: Watcher,
    /// What outlives the process; none: nothing does.
    pub(crate) memory: Option<Memory>,
    pub(crate) ready: AtomicBool,
}

impl Running {
    /// Writes down what is known of backends. Blocking.
    pub(crate) fn remember(&self) {
        if let Some(memory) = &self.memory {
            memory.write(&self.live.upstreams());
        }
    }
}

impl Subject for Running {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.live.upstreams()
    }

    fn stores(&self) -> Vec<(&'static str, StoreUsage)> {
        self.live.store_usage()
    }

    fn certificates(&self) -> Vec<(String, SystemTime)> {
        let certificates = self.live.certificates();
        certificates.iter().map(|one| (one.cert().display().to_string(), one.expires())).collect()
    }

    fn purge(&self, store: Option<&str>, scopes: &[PurgeScope], mode: PurgeMode) -> Vec<&'static str> {
        self.live.purge(store, scopes, mode)
    }

    fn metrics(&self) -> &Metrics {
        self.live.metrics()
    }

    fn ring(&self) -> &Ring {
        self.live.ring()
    }

    fn response_header_bytes_max(&self) -> usize {
        self.live.response_header_bytes_max()
    }

    fn limits(&self) -> Arc<Limits> {
        self.live.limits()
    }

    fn routes(&self) -> Arc<[RouteSpec]> {
        self.live.routes()
    }
}

/// Runs the gateway with a configuration file until a signal ends it.
pub(crate) fn run(file: &Path) -> Result<ExitCode> {
    logging::start();
    let loaded = crate::control::load(file)?;
    start(&loaded, Some(file), &|_| {})
}

/// Runs the gateway. `ready` is called once it listens.
pub(crate) fn start(loaded: &Loaded, file: Option<&Path>, ready: &dyn Fn(&Config)) -> Result<ExitCode> {
    let config = &loaded.config;
    raise_file_limit();
    check_trusted_certificates()?;
    let listeners = bind_all(config)?;
    let admin = bind::bind(config.admin.address, "admin.address")?;
    let revision = option_env!("GOODGATE_REVISION").unwrap_or("unknown");
    let metrics = Metrics::new(BuildInfo { version: env!("CARGO_PKG_VERSION"), revision });
    let metrics = Arc::new(metrics.context("the metrics cannot be declared")?);
    logging::count_panics(&metrics);
    let access_log = AccessLog::open(target(&config.access_log.target), metrics.log_dropped.clone());
    let access_log = access_log
        .with_context(|| format!("access_log.path: cannot write to {:?}", config.access_log.target))?;
    let open =
        |to: &Tracing| Traces::open(&to.otlp, env!("CARGO_PKG_VERSION"), metrics.spans_dropped.clone());
    let traces = config.tracing.as_ref().map(open).transpose().context("tracing: cannot be started")?;
    let now = Instant::now();
    let live = Arc::new(Live::new(config, Arc::clone(&metrics), access_log, traces, now));
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let ended = main.block_on(async {
        let watcher = Watcher::new(Arc::clone(&metrics));
        let memory =
            config.server.state_dir.as_deref().map(|folder| Memory::new(folder, Arc::clone(&metrics)));
        let running = Arc::new(Running { live, watcher, memory, ready: AtomicBool::new(false) });
        serve(loaded, file, running, listeners, admin, ready).await
    });
    // A thread that waits for a disk does not hold up the end.
    main.shutdown_background();
    ended
}

async fn serve(
    loaded: &Loaded,
    file: Option<&Path>,
    running: Arc<Running>,
    listeners: Vec<TcpListener>,
    admin: TcpListener,
    ready: &dyn Fn(&Config),
) -> Result<ExitCode> {
    let config = &loaded.config;
    warnings::log(loaded);
    let (stopping, shutdown) = watch::channel(false);
    let pages = Arc::new(Admin::new(Arc::clone(&running) as _, &config.admin));
    let admin = tokio::net::TcpListener::from_std(admin).context("admin.address: cannot be used")?;
    let admin_address = admin.local_addr().context("admin.address: has no address")?;
    tokio::spawn(goodgate_admin::serve(admin, Arc::clone(&pages), shutdown.clone()));

    let signals = signals::listen().context("signals cannot be received")?;
    let upstreams = running.live.upstreams();
    let recalled = running.memory.as_ref().map(Memory::read).unwrap_or_default();
    recalled.orders(&upstreams);
    running.watcher.prime(&upstreams, PRIME_LIMIT).await;
    recalled.health(&upstreams);
    running.watcher.watch(&upstreams);
    tokio::spawn(remember(Arc::clone(&running)));
    tokio::spawn(certificates::watch(Arc::clone(&running)));
    tokio::spawn(retire_idle(Arc::clone(&running)));
    let reloads = control(&running, pages, file, config);

    let workers = workers(config);
    let conf = Arc::new(server_conf(config));
    let proxy = Proxy::new(&running.live, &conf);
    let mut addresses = Vec::new();
    for (at, listener) in listeners.into_iter().enumerate() {
        let address = listener.local_addr().context("a listener has no address")?;
        let door = Door::new(&proxy, &running.live, shutdown.clone(), at, address);
        let door = door.context("a listener is not in the configuration")?;
        // The registration with the reactor must happen on the runtime that accepts.
        workers.get_handle().spawn(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => door.accept(listener).await,
                Err(error) => log::error!(error:% = error; "a listener cannot be used"),
            }
        });
        addresses.push(address);
    }
    running.live.metrics().config_in_force(loaded.hash, SystemTime::now());
    running.ready.store(true, Ordering::Relaxed);
    info!(listeners:? = addresses, admin:% = admin_address, threads = conf.threads, version = env!("CARGO_PKG_VERSION"); "goodgate is ready");
    ready(config);
    signals.obey(&running.live, &reloads).await;
    stop::stop(&running, config, &stopping).await;
    workers.shutdown_timeout(Duration::ZERO);
    Ok(ExitCode::SUCCESS)
}

/// Starts the task that reloads, and the control socket. Reloads are asked for through the sender.
fn control(
    running: &Arc<Running>,
    pages: Arc<Admin>,
    file: Option<&Path>,
    config: &Config,
) -> mpsc::Sender<Request> {
    let (reloads, requests) = mpsc::channel(RELOADS_QUEUED);
    let reloader = Reloader::new(Arc::clone(running), Arc::clone(&pages), file, config);
    tokio::spawn(reloader.run(requests));
    match control_socket::bind() {
        Ok(listener) => drop(tokio::spawn(control_socket::serve(listener, pages, reloads.clone()))),
        Err(error) => {
            warn!(error:% = format!("{error:#}"); "no control socket: `goodgate reload` does not work");
        }
    }
    reloads
}

/// Writes down what is known of backends, as long as the process runs.
async fn remember(running: Arc<Running>) {
    let mut round = tokio::time::interval(REMEMBER_EVERY);
    while running.memory.is_some() {
        round.tick().await;
        let writing = Arc::clone(&running);
        // A disk that hangs holds up nobody but this task.
        let _ = tokio::task::spawn_blocking(move || writing.remember()).await;
    }
}

/// Closes backend connections for their age, as long as the process runs.
async fn retire_idle(running: Arc<Running>) {
    let mut round = tokio::time::interval(RETIRE_EVERY);
    loop {
        running.live.retire_idle(round.tick().await.into_std());
    }
}

/// Each connection is an open file, on both sides: the soft limit is raised to the hard one.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!(error:% = error, limit = soft; "the limit of open files cannot be raised");
    }
}

/// Pingora loads the certificates that the machine trusts when it starts, and panics if one cannot be read.
fn check_trusted_certificates() -> Result<()> {
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        // The library that loads it would wait for a pipe.
        if let Err(error @ Unreadable::NotRegular(_)) =
            goodgate_files::read_bounded(Path::new(&file), TRUSTED_BYTES_MAX)
        {
            return Err(anyhow!("SSL_CERT_FILE: {} {error}", file.display()));
        }
    }
    let mut store = RootCertStore::empty();
    load_platform_certs_incl_env_into_store(&mut store).map_err(|error| {
        anyhow!(
            "the machine's trusted certificates cannot be read (see SSL_CERT_FILE, SSL_CERT_DIR): {error}"
        )
    })
}

fn bind_all(config: &Config) -> Result<Vec<TcpListener>> {
    let listeners = config.listeners.iter().enumerate();
    listeners
        .map(|(at, listener)| bind::bind(listener.address, &format!("listeners[{at}].address")))
        .collect()
}

fn threads(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.server.threads.map_or_else(cores, std::num::NonZero::get)
}

/// One runtime per worker thread: a connection stays on its thread, which saves locks and cache misses.
fn workers(config: &Config) -> Runtime {
    Runtime::new_no_steal(threads(config), "worker")
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: threads(config),
        work_stealing: false,
        upstream_keepalive_pool_size: config
            .server
            .upstream_keepalive
            .unwrap_or_else(|| kept_connections(config)),
        max_retries: ATTEMPTS_MAX,
        ..ServerConf::default()
    }
}

/// Idle backend connections that a worker keeps unless it is told: enough that each request finds one, whichever
/// backend it goes to, as far as there are files.
fn kept_connections(config: &Config) -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    const FOR_EACH: usize = 4;
    /// What a name is taken to stand for.
    const OF_A_NAME: usize = 8;
    const AT_LEAST: usize = 512;
    const AT_MOST: usize = 65_536;
    let entries = config.upstreams.iter().flat_map(|upstream| &upstream.backends);
    let backends: usize = entries.map(|entry| if entry.address.is_name() { OF_A_NAME } else { 1 }).sum();
    let files =
        getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| usize::try_from(soft).unwrap_or(AT_MOST));
    // Half of them: the others are for clients and for requests under way.
    let affordable = files / 2 / threads(config).max(1);
    (FOR_EACH * backends).min(affordable).clamp(AT_LEAST, AT_MOST)
}

fn target(log: &LogTarget) -> Target {
    match log {
        LogTarget::Stdout => Target::Stdout,
        LogTarget::Stderr => Target::Stderr,
        LogTarget::Off => Target::Off,
        LogTarget::File(path) => Target::File(path.clone()),
    }
}
