//! Loading the configuration again: all of it or nothing.
//!
//! The file is read once, on a thread of its own with a deadline; what was checked is what is applied. Settings that only
//! a restart changes are compared with those that the process was started with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use goodgate_admin::Admin;
use goodgate_config::{Config, Loaded, Problems};
use goodgate_proxy::Snapshot;
use log::{error, info, warn};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::control_socket::Request;
use crate::offload::Offload;
use crate::run::Running;

/// Names that are new are looked up for at most this long before the new configuration is put in force.
const PRIME_LIMIT: Duration = Duration::from_secs(2);
/// How long the files of a configuration may take to be read.
const LOAD_LIMIT: Duration = Duration::from_secs(5);

/// What it takes to load the configuration again.
pub(crate) struct Reloader {
    running: Arc<Running>,
    admin: Arc<Admin>,
    file: Option<PathBuf>,
    /// The configuration of the start: what a restart would change is compared with it.
    started: Config,
    offload: Offload,
}

/// What came of a reload, for the log and for the command that asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Why nothing was changed; empty if the new configuration is in force.
    pub(crate) problems: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// Settings that differ from those that the process runs with.
    pub(crate) restart: Vec<String>,
}

impl Outcome {
    fn failed(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()], ..Self::default() }
    }

    pub(crate) fn json(&self) -> String {
        let Self { problems, warnings, restart } = self;
        json!({"problems": problems, "warnings": warnings, "restart": restart}).to_string()
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let list = |key: &str| {
            let items = value.get(key)?.as_array()?.iter();
            items.map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        Some(Self { problems: list("problems")?, warnings: list("warnings")?, restart: list("restart")? })
    }
}

impl Reloader {
    pub(crate) fn new(
        running: Arc<Running>,
        admin: Arc<Admin>,
        file: Option<&Path>,
        config: &Config,
    ) -> Self {
        let file = file.map(Path::to_owned);
        Self { running, admin, file, started: config.clone(), offload: Offload::default() }
    }

    /// Reloads one after another as they are asked for, until the process ends.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            let outcome = Arc::new(self.reload().await);
            if let Some(waiting) = request {
                // The command may have left.
                let _ = waiting.send(outcome);
            }
        }
    }

    /// Loads the file; a bad one changes nothing and says why.
    async fn reload(&self) -> Outcome {
        let Some(file) = self.file.clone() else {
            warn!("there is no configuration file to load again");
            return Outcome::failed("there is no configuration file to load again");
        };
        match self.prepare(file).await {
            Ok((loaded, snapshot)) => self.apply(&loaded, snapshot).await,
            Err(problems) => {
                self.running.live.metrics().config_reloaded(false);
                for problem in &problems {
                    error!("the configuration was not changed: {problem}");
                }
                Outcome { problems, ..Outcome::default() }
            }
        }
    }

    /// Reads the file and builds its snapshot beside the runtime. The error says why there is none.
    async fn prepare(&self, file: PathBuf) -> Result<(Loaded, Snapshot), Vec<String>> {
        let shown = file.display().to_string();
        let waits = |which: &str| {
            let seconds = LOAD_LIMIT.as_secs();
            let hint = "is a disk or network share away?";
            vec![format!("{shown}: {which} load waits for a file for more than {seconds} s: {hint}")]
        };
        let is_late = Arc::new(AtomicBool::new(false));
        let (live, gave_up) = (Arc::clone(&self.running.live), Arc::clone(&is_late));
        let job = move || -> Result<Option<(Loaded, Snapshot)>, Problems> {
            let loaded = goodgate_config::load(&file)?;
            // What comes too late changes nothing.
            let is_wanted = !gave_up.load(Ordering::Acquire);
            let snapshot = is_wanted.then(|| live.prepare(&loaded.config, Instant::now()));
            Ok(snapshot.map(|snapshot| (loaded, snapshot)))
        };
        let Some(result) = self.offload.start(job) else { return Err(waits("the previous")) };
        match tokio::time::timeout(LOAD_LIMIT, result).await {
            Ok(Ok(Ok(Some(prepared)))) => Ok(prepared),
            Ok(Ok(Err(problems))) => Err(problems.iter().map(ToString::to_string).collect()),
            Ok(Ok(Ok(None)) | Err(_)) => Err(vec![format!("{shown}: the load ended without a result")]),
            Err(_) => {
                is_late.store(true, Ordering::Release);
                Err(waits("the"))
            }
        }
    }

    async fn apply(&self, loaded: &Loaded, snapshot: Snapshot) -> Outcome {
        let Loaded { config, hash, .. } = loaded;
        let running = &self.running;
        running.watcher.prime(snapshot.upstreams(), PRIME_LIMIT).await;
        let upstreams = snapshot.upstreams().to_vec();
        running.live.swap(snapshot);
        self.admin.reconfigure(&config.admin);
        running.watcher.watch(&upstreams);
        let restart = needs_restart(&self.started, config);
        for setting in &restart {
            warn!(setting = *setting; "changed, but takes effect only after a restart");
        }
        let warnings = crate::warnings::log(loaded);
        let metrics = running.live.metrics();
        metrics.config_in_force(*hash, SystemTime::now());
        metrics.config_reloaded(true);
        info!(upstreams = config.upstreams.len(), routes = config.routes.len(); "the configuration was loaded again");
        Outcome { problems: Vec::new(), warnings, restart: restart.into_iter().map(str::to_owned).collect() }
    }
}

/// The settings that a running gateway cannot change, as the documentation names them.
pub(crate) const RESTART_ONLY: [&str; 9] = [
    "listeners",
    "admin.address",
    "server.threads",
    "server.upstream_keepalive",
    "server.state_dir",
    "server.spool",
    "server.shutdown",
    "tracing.otlp",
    "access_log.path",
];

/// Those of them that differ.
fn needs_restart(started: &Config, new: &Config) -> Vec<&'static str> {
    RESTART_ONLY.into_iter().filter(|setting| differs(setting, started, new)).collect()
}

fn differs(setting: &str, old: &Config, new: &Config) -> bool {
    let addresses =
        |config: &Config| config.listeners.iter().map(|listener| listener.address).collect::<Vec<_>>();
    let shutdown = |config: &Config| (config.server.shutdown_drain, config.server.shutdown_delay);
    let collector = |config: &Config| config.tracing.as_ref().map(|tracing| tracing.otlp.clone());
    match setting {
        "listeners" => addresses(old) != addresses(new),
        "admin.address" => old.admin.address != new.admin.address,
        "server.threads" => old.server.threads != new.server.threads,
        "server.upstream_keepalive" => old.server.upstream_keepalive != new.server.upstream_keepalive,
        "server.state_dir" => old.server.state_dir != new.server.state_dir,
        "server.spool" => old.server.spool != new.server.spool,
        "server.shutdown" => shutdown(old) != shutdown(new),
        "tracing.otlp" => collector(old) != collector(new),
        "access_log.path" => old.access_log.target != new.access_log.target,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_the_socket() {
        let outcome = Outcome {
            problems: vec!["a\n\"b\"".to_owned()],
            warnings: vec!["c".to_owned()],
            restart: vec!["listeners".to_owned()],
        };
        assert_eq!(Outcome::read(&outcome.json()), Some(outcome));
        assert_eq!(Outcome::read("{}"), None);
        assert_eq!(Outcome::read("x"), None);
    }
}
