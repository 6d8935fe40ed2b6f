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

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn ends(&mut self) {
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
    /// The process whose network it is in; none: ours.
    network: Option<u32>,
}

impl Nginx {
    pub async fn start(text: &str) -> Self {
        Self::start_at(text, free_address(), None).await
    }

    /// In another network.
    pub async fn start_in(text: &str, network: &Network) -> Self {
        Self::start_at(text, SocketAddr::from((network.there, 8080)), Some(network.process())).await
    }

    async fn start_at(text: &str, address: SocketAddr, network: Option<u32>) -> Self {
        let folder = super::gateway::folder();
        let config = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
             events {{}}\nhttp {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; \
             uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
             server {{ listen {address}; location / {{ default_type text/plain; return 200 \"{text}\"; }} }} }}\n",
            folder.display()
        );
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut nginx = Self { address, folder, program: None, network };
        nginx.revive().await;
        nginx
    }

    pub fn kill(&mut self) {
        self.program = None;
    }

    pub fn signal(&self, signal: Signal) {
        self.program.as_ref().expect("it runs").signal(signal);
    }

    /// Ends it by a signal, and waits for that.
    pub fn stop(&mut self, signal: Signal) {
        self.signal(signal);
        self.program.take().expect("it runs").ends();
    }

    pub async fn revive(&mut self) {
        let config = self.folder.join("nginx.conf").display().to_string();
        let prefix = self.folder.display().to_string();
        let arguments = ["-c", &config, "-p", &prefix];
        self.program = Some(match self.network {
            None => Program::start("nginx", "nginx-light", &arguments),
            Some(process) => {
                let process = process.to_string();
                let there = ["-t", &process, "-n", "nginx"];
                Program::start("nsenter", "util-linux", &[&there[..], &arguments[..]].concat())
            }
        });
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

/// Another network, on a wire to this machine: what is there can become unreachable in ways that loopback cannot.
pub struct Network {
    /// Our end, and the other one.
    pub here: Ipv4Addr,
    pub there: Ipv4Addr,
    link: String,
    holder: Program,
}

impl Network {
    /// None, with a word about it, where that is not permitted.
    pub async fn new() -> Option<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number =
            (std::process::id() as u16 ^ 0x2a).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) & 0x3fff;
        // A network of RFC 2544, for tests of network devices.
        let [high, low] = (number << 2).to_be_bytes();
        let (here, there) = (Ipv4Addr::new(198, 18, high, low + 1), Ipv4Addr::new(198, 18, high, low + 2));
        let holder = Program::start("unshare", "util-linux", &["--net", "sleep", "600"]);
        let network = Self { here, there, link: format!("gg{number}"), holder };
        let process = network.process().to_string();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        eventually("the network is there", || async {
            std::fs::read_link(format!("/proc/{process}/ns/net")).map_or(true, |other| other != own)
        })
        .await;
        let (link, peer) = (network.link.as_str(), format!("{}p", network.link));
        let made =
            run("ip", &["link", "add", link, "type", "veth", "peer", "name", &peer, "netns", &process])
                .and_then(|()| run("ip", &["address", "add", &format!("{here}/30"), "dev", link]))
                .and_then(|()| run("ip", &["link", "set", link, "up"]))
                .and_then(|()| network.inside(&["address", "add", &format!("{there}/30"), "dev", &peer]))
                .and_then(|()| network.inside(&["link", "set", &peer, "up"]));
        match made {
            Ok(()) => Some(network),
            Err(why) => {
                eprintln!("skipped: another network cannot be made here ({why})");
                None
            }
        }
    }

    fn process(&self) -> u32 {
        self.holder.child.id()
    }

    /// Packets still arrive there, and nothing comes back: a firewall that drops.
    pub fn swallow(&self) {
        self.inside(&["route", "flush", "root", "198.18.0.0/15"]).unwrap();
    }

    /// As before.
    pub fn give_back(&self) {
        let (net, peer) = (self.net(), format!("{}p", self.link));
        self.inside(&["route", "add", &net, "dev", &peer]).unwrap();
    }

    /// This machine is told that there is no way there.
    pub fn forbid(&self) {
        run("ip", &["route", "add", "unreachable", &format!("{}/32", self.there)]).unwrap();
    }

    pub fn allow(&self) {
        run("ip", &["route", "del", "unreachable", &format!("{}/32", self.there)]).unwrap();
    }

    fn net(&self) -> String {
        let [a, b, c, d] = self.here.octets();
        format!("{}/30", Ipv4Addr::new(a, b, c, d & !3))
    }

    fn inside(&self, arguments: &[&str]) -> Result<(), String> {
        let process = self.process().to_string();
        run("nsenter", &[&["-t", &process, "-n", "ip"], arguments].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run("ip", &["route", "del", "unreachable", &format!("{}/32", self.there)]);
        let _ = run("ip", &["link", "del", &self.link]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
