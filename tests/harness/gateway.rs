//! The gateway: the real binary with a configuration of the scenario's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::client::{Answer, get, get_admin};
use super::eventually;
use super::programs::free_address;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_goodgate");

/// A running gateway with a folder of its own.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub folder: PathBuf,
    child: Child,
    errors: Arc<Mutex<Vec<String>>>,
    reading: watch::Sender<bool>,
}

/// A folder that no other scenario has.
pub fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("goodgate-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The sections that most scenarios share: free ports, and the access log in a file, with more settings of it.
fn preamble(folder: &Path, log: &str) -> String {
    format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"127.0.0.1:0\" }}\naccess_log: {{ path: {}{log} }}\n",
        folder.join("access.log").display()
    )
}

/// The library of the Debian package `faketime`.
fn library_of_clocks() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let library = |folder: PathBuf| folder.join("faketime/libfaketimeMT.so.1");
    folders.map(library).find(|library| library.exists()).expect("the package faketime is installed")
}

impl Gateway {
    /// Starts with a configuration that has no `listeners`, `admin` and `access_log`: those are added.
    pub async fn start(config: &str) -> Self {
        Self::start_logging("", config).await
    }

    /// The same with more settings of the access log, each behind a comma: `, format: text`.
    pub async fn start_logging(log: &str, config: &str) -> Self {
        let folder = folder();
        let text = preamble(&folder, log) + config;
        Self::start_in(folder, &text).await
    }

    /// The same on addresses that are written in the file, so that commands find the gateway by it.
    pub async fn start_listening(config: &str) -> Self {
        let folder = folder();
        let [listener, admin] = [free_address(), free_address()];
        let text = format!(
            "listeners: [{{ address: \"{listener}\" }}]\nadmin: {{ address: \"{admin}\" }}\naccess_log: {{ path: off }}\n"
        );
        Self::start_in(folder, &(text + config)).await
    }

    /// As [`Self::start`], with at most so many open files.
    pub async fn start_with_files(limit: u32, config: &str) -> Self {
        let folder = folder();
        let text = preamble(&folder, "") + config;
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\""), BINARY]);
        Self::spawn(shell, Stdio::null(), folder, &text).await
    }

    /// Starts with a whole configuration, by a wall clock that is as far off as the file `clock` in its folder says
    /// (`+0`, `-2h`), at any time. The monotonic clock runs as it does.
    pub async fn start_with_clock(folder: PathBuf, text: &str) -> Self {
        let mut command = Command::new(BINARY);
        command
            .env("LD_PRELOAD", library_of_clocks())
            .env("FAKETIME_TIMESTAMP_FILE", folder.join("clock"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        Self::spawn(command, Stdio::null(), folder, text).await
    }

    /// Starts with a whole configuration, in this environment.
    pub async fn start_with(
        folder: PathBuf,
        text: &str,
        environment: &[(&str, &std::ffi::OsStr)],
        stdout: Stdio,
    ) -> Self {
        let mut command = Command::new(BINARY);
        command.envs(environment.iter().copied());
        Self::spawn(command, stdout, folder, text).await
    }

    /// Starts with a configuration that comes through a named pipe, which a reload reads again; the path of the pipe.
    pub async fn start_from_pipe(config: &str) -> (Self, PathBuf) {
        let folder = folder();
        let text = preamble(&folder, "") + config;
        let pipe = folder.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Open for both, so that nothing waits for the other end.
        let mut both = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let stdin = std::fs::File::open(&pipe).unwrap();
        std::io::Write::write_all(&mut both, text.as_bytes()).unwrap();
        drop(both);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" run --config /dev/stdin", BINARY]).stdin(stdin);
        (Self::spawn(shell, Stdio::null(), folder, &text).await, pipe)
    }

    /// Starts with a whole configuration.
    pub async fn start_in(folder: PathBuf, text: &str) -> Self {
        Self::start_writing_to(Stdio::null(), folder, text).await
    }

    /// The same with this standard output.
    pub async fn start_writing_to(stdout: Stdio, folder: PathBuf, text: &str) -> Self {
        Self::spawn(Command::new(BINARY), stdout, folder, text).await
    }

    async fn spawn(mut command: Command, stdout: Stdio, folder: PathBuf, text: &str) -> Self {
        let file = folder.join("goodgate.yaml");
        std::fs::write(&file, text).unwrap();
        let mut child = command
            .args(["run", "--config"])
            .arg(&file)
            .env("RUST_LOG_STYLE", "never")
            .stdout(stdout)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let errors = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let seen = Arc::clone(&errors);
        let (reading, mut is_wanted) = watch::channel(true);
        tokio::spawn(async move {
            while is_wanted.wait_for(|is_wanted| *is_wanted).await.is_ok()
                && let Ok(Some(line)) = lines.next_line().await
            {
                seen.lock().push(line);
            }
        });
        let ready = || errors.lock().iter().find(|line| line.contains("goodgate is ready")).cloned();
        let start = std::time::Instant::now();
        let line = loop {
            if let Some(line) = ready() {
                break line;
            }
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < super::PATIENCE,
                "no start: {ended:?}\n{}",
                errors.lock().join("\n")
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let after = |key: &str| line.split(key).nth(1).unwrap().to_owned();
        let address = after("listeners=[").split([']', ',']).next().unwrap().parse().unwrap();
        let admin = after("admin=").split(' ').next().unwrap().parse().unwrap();
        Self { address, admin, folder, child, errors, reading }
    }

    /// One GET on a connection of its own; panics if there is no answer.
    pub async fn get(&self, path: &str) -> Answer {
        get(self.address, path).await.expect("an answer")
    }

    /// The lines of its error log.
    pub fn errors(&self) -> String {
        self.errors.lock().join("\n")
    }

    /// Whether its error log is read from now on.
    pub fn read_errors(&self, is_wanted: bool) {
        self.reading.send(is_wanted).unwrap();
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        get_admin(self.admin, "/metrics").await.expect("metrics").text()
    }

    /// The sum of all series of a family whose labels include the given ones:
    /// `goodgate_rescues_total{by="retry"}`.
    pub async fn metric(&self, selector: &str) -> f64 {
        sum(&self.metrics().await, selector)
    }

    /// Memory in use, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// The records of the access log so far.
    pub fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The record of the request that was answered so.
    pub async fn record(&self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id").expect("a request id").to_owned();
        self.record_where("the access record", |record| record["request_id"] == id.as_str()).await
    }

    /// The first record that fits.
    pub async fn record_where(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = || self.records().into_iter().find(|record| fits(record));
        eventually(what, || async { found().is_some() }).await;
        found().unwrap()
    }

    /// Replaces the configuration file, keeping listeners, admin and log.
    pub fn write_config(&self, config: &str) {
        self.write_config_logging("", config);
    }

    /// The same with more settings of the access log.
    pub fn write_config_logging(&self, log: &str, config: &str) {
        let text = preamble(&self.folder, log) + config;
        let temporary = self.folder.join("goodgate.yaml.new");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.folder.join("goodgate.yaml")).unwrap();
    }

    /// Replaces all but the first three lines of the configuration file: those of [`Self::start_listening`].
    pub fn replace(&self, text: &str, by: &str) {
        let file = self.folder.join("goodgate.yaml");
        let before = std::fs::read_to_string(&file).unwrap();
        assert!(before.contains(text), "{text} is not in {before}");
        std::fs::write(file, before.replace(text, by)).unwrap();
    }

    /// Writes another configuration behind the first three lines, which stay: where it listens and logs.
    pub fn rewrite(&self, config: &str) {
        let file = self.folder.join("goodgate.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let head: String = text.split_inclusive('\n').take(3).collect();
        std::fs::write(file, head + config).unwrap();
    }

    /// Sends SIGHUP and waits until the reload was counted.
    pub async fn reload(&self, result: &str) {
        let selector = format!("goodgate_config_reloads_total{{result=\"{result}\"}}");
        let before = self.metric(&selector).await;
        self.signal(Signal::SIGHUP);
        eventually("the reload", || async { self.metric(&selector).await > before }).await;
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("it runs")).unwrap()
    }

    /// Runs a command of the binary on this gateway's configuration file; its exit code and all it says.
    pub async fn command(&self, arguments: &[&str]) -> (i32, String) {
        let file = self.folder.join("goodgate.yaml");
        let output = Command::new(BINARY).args(arguments).arg(&file).output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).replace(&format!("{}/", self.folder.display()), "");
        (output.status.code().unwrap_or(-1), said)
    }

    /// What `goodgate explain` says of an answer, in one line.
    pub async fn explain(&self, answer: &super::Answer) -> String {
        let (id, address) = (answer.header("x-request-id").unwrap(), self.admin.to_string());
        let arguments = ["explain", id, "--address", &address];
        let told = || async {
            let output = Command::new(BINARY).args(arguments).output().await.unwrap();
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        super::eventually("the request is known", || async { told().await.is_some() }).await;
        told().await.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Waits for its end; the exit code.
    pub async fn ends(&mut self, limit: Duration) -> Option<i32> {
        tokio::time::timeout(limit, self.child.wait()).await.ok()?.ok()?.code()
    }

    /// The state of a backend, as the metric has it.
    pub async fn state(&self, backend: impl std::fmt::Display) -> String {
        let text = self.metrics().await;
        let prefix = format!("goodgate_backend_state{{backend=\"{backend}\",state=\"");
        let line = text.lines().find(|line| line.starts_with(&prefix) && line.ends_with(" 1"));
        line.and_then(|line| line[prefix.len()..].split('"').next()).unwrap_or("absent").to_owned()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.errors());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts the gateway with a whole configuration that must not start; its exit code and standard error.
pub fn failing_start(text: &str) -> (i32, String) {
    let folder = folder();
    let file = folder.join("goodgate.yaml");
    std::fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new(BINARY);
    command.args(["run", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let start = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > super::PATIENCE {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).replace(&format!("{}/", folder.display()), "");
    let _ = std::fs::remove_dir_all(folder);
    (output.status.code().unwrap_or(-1), errors)
}

/// The sum of all series that a selector of [`Gateway::metric`] means, in one text of `/metrics`.
pub fn sum(text: &str, selector: &str) -> f64 {
    let (family, labels) = selector.split_once('{').unwrap_or((selector, "}"));
    let wanted: Vec<&str> = labels
        .trim_end_matches('}')
        .split("\",")
        .map(|label| label.trim_end_matches('"'))
        .filter(|label| !label.is_empty())
        .collect();
    let fits = |line: &&str| {
        let rest = line.strip_prefix(family);
        rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
            && wanted.iter().all(|label| line.contains(&format!("{label}\"")))
    };
    text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
