//! Loading the configuration anew: all of it or nothing.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use goodgate_admin::Admin;
use goodgate_config::Config;
use log::{error, info, warn};

use crate::run::Running;

/// Names that are new are looked up for at most this long before the new configuration is put in force.
const PRIME_LIMIT: Duration = Duration::from_secs(2);

/// What it takes to load the configuration anew.
pub(crate) struct Reloader {
    running: Arc<Running>,
    admin: Arc<Admin>,
    file: Option<PathBuf>,
    config: Config,
    hash: u64,
}

impl Reloader {
    pub(crate) fn new(
        running: Arc<Running>,
        admin: Arc<Admin>,
        file: Option<&Path>,
        config: &Config,
    ) -> Self {
        let hash = file.map(hash_of).unwrap_or_default();
        Self { running, admin, file: file.map(Path::to_owned), config: config.clone(), hash }
    }

    /// Identifies the text of the configuration in force.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Loads the file; a bad one changes nothing and says why.
    pub(crate) async fn reload(&mut self) {
        let Some(file) = self.file.clone() else {
            warn!("there is no configuration file to load anew");
            return;
        };
        let hash = hash_of(&file);
        match goodgate_config::load(&file) {
            Ok(config) => self.put_in_force(config, hash).await,
            Err(problems) => {
                self.running.live.metrics().config_reloaded(false);
                for problem in &problems {
                    error!("the configuration was not changed: {problem}");
                }
            }
        }
    }

    /// Opens the file of the access log again, which has been moved away.
    pub(crate) fn reopen_log(&self) {
        match self.running.live.reopen_log() {
            Ok(true) => info!("the access log was opened again"),
            Ok(false) => info!("the access log goes to no file, so there is none to open again"),
            Err(error) => {
                error!(error:% = error; "the access log cannot be opened again: the file that is open is used on");
            }
        }
    }

    async fn put_in_force(&mut self, config: Config, hash: u64) {
        for setting in needs_restart(&self.config, &config) {
            warn!(setting = setting; "changed, but takes effect only after a restart");
        }
        let running = &self.running;
        let snapshot = running.live.prepare(&config, Instant::now());
        running.watcher.prime(snapshot.upstreams(), PRIME_LIMIT).await;
        let upstreams = snapshot.upstreams().to_vec();
        running.live.swap(snapshot);
        self.admin.reconfigure(&config.admin);
        running.watcher.watch(&upstreams);
        let metrics = running.live.metrics();
        metrics.config_in_force(hash, SystemTime::now());
        metrics.config_reloaded(true);
        self.config = config;
        self.hash = hash;
        info!(upstreams = self.config.upstreams.len(), routes = self.config.routes.len(); "the configuration was loaded anew");
    }
}

/// Identifies the text of a configuration file; zero if it cannot be read.
pub(crate) fn hash_of(file: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    match goodgate_files::read_bounded(file, goodgate_config::FILE_BYTES_MAX as u64) {
        Ok(bytes) => bytes.hash(&mut hasher),
        Err(_) => return 0,
    }
    hasher.finish()
}

/// The settings that a running gateway cannot change.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let addresses =
        |config: &Config| config.listeners.iter().map(|listener| listener.address).collect::<Vec<_>>();
    let mut settings = Vec::new();
    let mut compare = |setting, differs| {
        if differs {
            settings.push(setting);
        }
    };
    compare("listeners", addresses(old) != addresses(new));
    compare("admin.address", old.admin.address != new.admin.address);
    compare("server.threads", old.server.threads != new.server.threads);
    compare("server.upstream_keepalive", old.server.upstream_keepalive != new.server.upstream_keepalive);
    compare("server.state_dir", old.server.state_dir != new.server.state_dir);
    compare("server.spool", old.server.spool != new.server.spool);
    compare(
        "server.shutdown",
        old.server.shutdown_drain != new.server.shutdown_drain
            || old.server.shutdown_delay != new.server.shutdown_delay,
    );
    let collector = |config: &Config| config.tracing.as_ref().map(|tracing| tracing.otlp.clone());
    compare("tracing.otlp", collector(old) != collector(new));
    compare("access_log.path", old.access_log.target != new.access_log.target);
    settings
}
