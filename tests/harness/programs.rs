//! Programs of other makers, started and stopped by a scenario: nginx, dnsmasq, Prometheus, promtool.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{eventually, get};

/// A program that ends with the scenario.
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts it; panics with the name of the Debian package if it is not installed.
    pub fn start(program: &str, package: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("{program} cannot be started ({error}): apt-get install {package}")
        });
        Self { child }
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address whose port is free, and below those that the system gives to whoever asks for any.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    let port = || 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
    std::iter::repeat_with(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port())))
        .find(|address| TcpListener::bind(address).is_ok())
        .unwrap()
}

/// Debian's nginx as a backend that serves one text on every path.
pub struct Nginx {
    pub address: SocketAddr,
    folder: PathBuf,
    program: Option<Program>,
}

impl Nginx {
    pub async fn start(text: &str) -> Self {
        let folder = super::gateway::folder();
        let address = free_address();
        let config = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
             events {{}}\nhttp {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; \
             uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
             server {{ listen {address}; location / {{ default_type text/plain; return 200 \"{text}\"; }} }} }}\n",
            folder.display()
        );
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut nginx = Self { address, folder, program: None };
        nginx.revive().await;
        nginx
    }

    pub fn kill(&mut self) {
        self.program = None;
    }

    pub async fn revive(&mut self) {
        let config = self.folder.join("nginx.conf").display().to_string();
        let prefix = self.folder.display().to_string();
        self.program = Some(Program::start("nginx", "nginx-light", &["-c", &config, "-p", &prefix]));
        let address = self.address;
        eventually("nginx listens", || async move { tokio::net::TcpStream::connect(address).await.is_ok() })
            .await;
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.program = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Debian's dnsmasq as the name server of `test`: what it is not told there does not exist. Answers hold for a second.
pub struct Dnsmasq {
    pub address: SocketAddr,
    folder: PathBuf,
    settings: Vec<String>,
    program: Option<Program>,
}

impl Dnsmasq {
    /// `hosts` are lines of an address and its name; `settings` more of its options.
    pub async fn start(hosts: &str, settings: &[&str]) -> Self {
        let (folder, address) = (super::gateway::folder(), free_address());
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut dnsmasq = Self { address, folder, settings, program: None };
        std::fs::write(dnsmasq.folder.join("hosts"), hosts).unwrap();
        dnsmasq.revive().await;
        dnsmasq
    }

    /// From now on these are the names that it knows.
    pub fn set(&self, hosts: &str) {
        std::fs::write(self.folder.join("hosts"), hosts).unwrap();
        if let Some(program) = &self.program {
            kill(Pid::from_raw(program.child.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
        }
    }

    pub fn kill(&mut self) {
        self.program = None;
    }

    pub async fn revive(&mut self) {
        let hosts = format!("--addn-hosts={}", self.folder.join("hosts").display());
        let port = format!("--port={}", self.address.port());
        let mut arguments =
            vec!["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--local=/test/"];
        arguments.extend(["--local-ttl=1", "--listen-address=127.0.0.1", "--bind-interfaces", &hosts, &port]);
        arguments.extend(self.settings.iter().map(String::as_str));
        self.program = Some(Program::start("dnsmasq", "dnsmasq-base", &arguments));
        let address = self.address;
        eventually(
            "dnsmasq listens",
            || async move { tokio::net::TcpStream::connect(address).await.is_ok() },
        )
        .await;
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.program = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Debian's Prometheus, which scrapes one gateway and evaluates its rules once a second.
pub struct Prometheus {
    address: SocketAddr,
    folder: PathBuf,
    program: Option<Program>,
}

impl Prometheus {
    /// `rules` are rule files: names and texts.
    pub fn start(gateway: SocketAddr, rules: &[(&str, String)]) -> Self {
        let folder = super::gateway::folder();
        let address = free_address();
        for (name, text) in rules {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let names: Vec<&str> = rules.iter().map(|(name, _)| *name).collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\n\
             scrape_configs:\n  - job_name: goodgate\n    static_configs: [{{ targets: [\"{gateway}\"] }}]\n",
            names.join(", ")
        );
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let arguments = [
            format!("--config.file={}", folder.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let program = Some(Program::start("prometheus", "prometheus", &arguments));
        Self { address, folder, program }
    }

    /// The value that it has for a query with one result.
    pub async fn query(&self, query: &str) -> Option<f64> {
        self.results(query).await.first()?["value"][1].as_str()?.parse().ok()
    }

    /// The series that it has for a query; none while it does not answer.
    pub async fn results(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.api(&format!("query?query={encoded}")).await.unwrap_or_default();
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The alerts that are pending or firing; none while it does not answer.
    pub async fn alerts(&self) -> Option<Vec<Value>> {
        self.api("alerts").await?["data"]["alerts"].as_array().cloned()
    }

    async fn api(&self, path: &str) -> Option<Value> {
        let answer = get(self.address, &format!("/api/v1/{path}")).await.ok()?;
        serde_json::from_str(&answer.text()).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.program = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
