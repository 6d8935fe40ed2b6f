//! Random requests, changes, purges, failures, restarts and clock changes against a reference model, which knows of each
//! response who may see it and until when.
//!
//! Every page says what its backend was told, so that a response is right exactly if it says what the backend would be
//! told of this request: a response for another client, variant or host says something else. Every page has a version and
//! a serial number, so that the model knows whether it was made before a change, before a purge, or too long ago.
//! `GOODGATE_MODEL_STEPS` and `GOODGATE_MODEL_SEED` choose the length and the seed.

mod visitor;
mod world;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use crate::harness::backend::Gate;
use crate::harness::gateway::folder;
use crate::harness::{Answer, Connection, Gateway, eventually};
use visitor::Visit;
use world::{Mood, World};

fn steps() -> u32 {
    std::env::var("GOODGATE_MODEL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(12_000)
}

fn seed() -> u64 {
    let given = std::env::var("GOODGATE_MODEL_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

/// A GET whose backend has made its page and waits.
struct Held {
    visit: Visit,
    asked: Asked,
    gate: Gate,
    answer: JoinHandle<std::io::Result<Answer>>,
}

/// What the model knows when a request is sent.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    /// The version of the address after the last change that its client has seen confirmed.
    version: u64,
    /// What is older was purged.
    serial: usize,
    /// The newest version that was kept for an outage.
    kept: u64,
}

struct Model {
    random: fastrand::Rng,
    world: Arc<World>,
    folder: PathBuf,
    config: String,
    gateway: Gateway,
    clients: HashMap<bool, Connection>,
    changed: HashMap<String, u64>,
    purged: HashMap<String, usize>,
    confirmed: HashMap<String, Instant>,
    /// The newest version that was kept for an outage, of each request.
    kept: HashMap<String, u64>,
    held: Vec<Held>,
    sides: Vec<String>,
    counts: HashMap<&'static str, u64>,
    log: Vec<String>,
}

fn config(backends: &[SocketAddr], folder: &std::path::Path) -> String {
    let cache = "key: { cookies: [lang], query: { only: [page_id] } }, cookies: { ignore: [ga] }, purge: { allow: [127.0.0.1, 127.0.0.2] }";
    format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: off }}\n\
         trusted_proxies: [127.0.0.1]\n\
         caches: {{ main: {{ memory: 32MiB, disk: {{ path: {}, size: 256MiB }} }} }}\n\
         upstreams:\n  app: {{ backends: ['{}', '{}'], max_fails: 0, sticky: {{ cookie: side_app }} }}\n  \
         next: {{ backends: ['{}'], max_fails: 0, sticky: {{ cookie: side_next }} }}\n\
         routes:\n  - {{ name: writes, upstream: next, match: {{ methods: [PUT, DELETE] }} }}\n  \
         - {{ name: pages, upstream: app, split: {{ shares: {{ next: 20% }} }}, retry: {{ tries: 1 }}, \
         cache: {{ mode: standard, last_good: true, {cache} }} }}\n  \
         - {{ name: kept, upstream: app, match: {{ path: /f }}, retry: {{ tries: 1 }}, cache: {{ mode: fallback, {cache} }} }}\n",
        folder.join("disk").display(),
        backends[0],
        backends[1],
        backends[2]
    )
}

impl Model {
    async fn new(seed: u64) -> Self {
        let world = World::new();
        let backends = [world.backend().await, world.backend().await, world.backend().await];
        let folder = folder();
        let config = config(&backends, &folder);
        let gateway = start(&config, "+0").await;
        Self {
            random: fastrand::Rng::with_seed(seed),
            world,
            folder,
            config,
            gateway,
            clients: HashMap::new(),
            changed: HashMap::new(),
            purged: HashMap::new(),
            confirmed: HashMap::new(),
            kept: HashMap::new(),
            held: Vec::new(),
            sides: Vec::new(),
            counts: HashMap::new(),
            log: Vec::new(),
        }
    }

    async fn step(&mut self) {
        if *self.world.mood.lock() != Mood::Well && self.random.u8(..20) == 0 {
            self.log.push("Well".to_owned());
            *self.world.mood.lock() = Mood::Well;
        }
        match self.random.u32(..1000) {
            0 => self.restart().await,
            1..=2 => self.set_clock(),
            3..=14 => self.change_mood(),
            15..=39 => self.hold().await,
            40..=79 => self.release().await,
            80..=119 => self.change().await,
            120..=134 => self.purge().await,
            135..=154 => {
                let visit = self.visit("HEAD");
                self.send(&visit).await;
                // The response to a HEAD may make the one to a GET fresh again (RFC 9111 section 4.3.5).
                self.confirmed.insert(visit.target(), Instant::now());
            }
            _ => {
                let visit = self.visit("GET");
                self.get(visit).await;
            }
        }
    }

    fn visit(&mut self, method: &'static str) -> Visit {
        Visit::random(&mut self.random, method, &self.sides)
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn asked(&self, visit: &Visit) -> Asked {
        let target = visit.target();
        Asked {
            at: Instant::now(),
            version: self.changed.get(&target).copied().unwrap_or_default(),
            serial: self.purged.get(&target).copied().unwrap_or_default(),
            kept: self.kept.get(&request_of(visit)).copied().unwrap_or_default(),
        }
    }

    async fn send(&mut self, visit: &Visit) -> Answer {
        let (head, is_trusted) = (visit.head(), visit.is_trusted);
        self.exchange(&head, is_trusted).await
    }

    async fn exchange(&mut self, head: &str, is_trusted: bool) -> Answer {
        self.log.push(head.replace("\r\n", " | "));
        let to_head = head.starts_with("HEAD");
        for _ in 0..2 {
            let mut connection = match self.clients.remove(&is_trusted) {
                Some(connection) => connection,
                None => connect(self.gateway.address, is_trusted).await,
            };
            if connection.send(head).await.is_err() {
                continue;
            }
            if let Ok(answer) = connection.answer(to_head).await {
                let closes = answer.header("connection").is_some_and(|value| value.contains("close"));
                if !closes && !head.contains("Connection:") {
                    self.clients.insert(is_trusted, connection);
                }
                return answer;
            }
        }
        panic!("no answer to {head}");
    }

    async fn get(&mut self, visit: Visit) {
        let asked = self.asked(&visit);
        let answer = self.send(&visit).await;
        self.note_side(&answer);
        self.judge(&visit, asked, &answer);
    }

    fn note_side(&mut self, answer: &Answer) {
        if let Some(cookie) = answer.header("set-cookie") {
            let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
            let name = cookie.split('=').next().unwrap_or_default().to_owned();
            self.sides.retain(|side| !side.starts_with(&name));
            self.sides.push(cookie);
        }
    }

    /// The heart of it: may this client see this response now?
    fn judge(&mut self, visit: &Visit, asked: Asked, answer: &Answer) {
        let status = answer.header("cache-status").unwrap_or("none").to_owned();
        if answer.status != 200 {
            assert!(matches!(answer.status, 502..=504), "{}", self.story(visit, answer));
            return self.count("errors");
        }
        let text = answer.text();
        let mut parts = text.splitn(3, ' ');
        let version: u64 = parts.next().unwrap().parse().unwrap();
        let serial: usize = parts.next().unwrap().parse().unwrap();
        let said = parts.next().unwrap();
        let is_stale = status.contains("detail=stale");
        let is_hit = status.contains("; hit");
        self.count(if is_stale {
            "stale"
        } else if is_hit {
            "hits"
        } else {
            "misses"
        });
        assert_eq!(
            said,
            visit.expected(status != "none"),
            "for another request: {}",
            self.story(visit, answer)
        );
        assert!(serial >= asked.serial, "purged: {}", self.story(visit, answer));
        if status.ends_with("fwd=bypass; stored") {
            let kept = self.kept.entry(request_of(visit)).or_default();
            *kept = version.max(*kept);
        }
        if is_stale {
            assert!(version >= asked.kept, "an older one was kept: {}", self.story(visit, answer));
        } else {
            assert!(version >= asked.version, "from before a change: {}", self.story(visit, answer));
        }
        if is_hit && !is_stale {
            let confirmed = self.confirmed.get(&visit.target()).copied();
            let made = confirmed.into_iter().fold(self.world.made_at(serial), Instant::max);
            let age = asked.at.saturating_duration_since(made);
            let limit = Duration::from_secs(visit.kind.lifetime() + 1);
            assert!(age <= limit, "too old by {:?}: {}", age - limit, self.story(visit, answer));
        }
    }

    fn story(&self, visit: &Visit, answer: &Answer) -> String {
        let log = &self.log[self.log.len().saturating_sub(150)..];
        let text = answer.text();
        let answer = format!("{} {:?} {text}", answer.status, answer.headers);
        let serial = text.split(' ').nth(1).and_then(|serial| serial.parse().ok());
        let made_for = serial.map(|serial| self.world.made_for(serial)).unwrap_or_default();
        format!("{visit:?}\n=> {answer}\nmade for {made_for}\nbefore:\n{}", log.join("\n"))
    }

    /// A GET for which the backend has made the page, and which goes on later.
    async fn hold(&mut self) {
        if self.held.len() >= 3 || *self.world.mood.lock() != Mood::Well {
            return;
        }
        let mut visit = self.visit("GET");
        while !visit.is_trusted {
            visit = self.visit("GET");
        }
        let (gate, before) = (Gate::shut(), self.world.held.load(Ordering::SeqCst));
        *self.world.hold.lock() = Some(gate.clone());
        let (head, asked, address) = (visit.head(), self.asked(&visit), self.gateway.address);
        self.log.push(format!("held: {}", head.replace("\r\n", " | ")));
        let answer = tokio::spawn(async move {
            let mut connection = connect(address, true).await;
            connection.send(head).await?;
            connection.answer(false).await
        });
        let world = Arc::clone(&self.world);
        let is_held = || world.held.load(Ordering::SeqCst) > before;
        eventually("the request is held or answered", || async { is_held() || answer.is_finished() }).await;
        *self.world.hold.lock() = None;
        if self.random.bool() {
            // What overtakes it is newer.
            self.send_change(&visit.as_change()).await;
            self.get(visit.clone()).await;
        }
        self.held.push(Held { visit, asked, gate, answer });
        self.count("held");
    }

    async fn release(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.random.usize(..self.held.len());
        let Held { visit, asked, gate, answer } = self.held.swap_remove(at);
        self.log.push(format!("released: {}", visit.path));
        gate.open();
        let answer = answer.await.unwrap().unwrap();
        self.judge(&visit, asked, &answer);
        if self.random.bool() {
            let mood = std::mem::replace(&mut *self.world.mood.lock(), Mood::Closing);
            self.get(visit).await;
            *self.world.mood.lock() = mood;
        }
    }

    async fn change(&mut self) {
        let method = *self.random.choice(["POST", "PUT", "DELETE"].iter()).unwrap();
        let visit = self.visit(method);
        self.send_change(&visit).await;
    }

    async fn send_change(&mut self, visit: &Visit) {
        let answer = self.send(visit).await;
        if answer.status == 200 {
            self.changed.insert(visit.target(), self.world.version(&visit.target()));
            self.count("changes");
        }
    }

    async fn purge(&mut self) {
        let visit = self.visit("PURGE");
        let is_hard = self.random.bool();
        let mode = if is_hard { "hard" } else { "soft" };
        let text = visit.bare("PURGE").replace("\r\n\r\n", &format!("\r\nPurge-Mode: {mode}\r\n\r\n"));
        let made_before = self.world.serial();
        let answer = self.exchange(&text, visit.is_trusted).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        if is_hard {
            self.purged.insert(visit.target(), made_before);
            self.count("purges");
        }
    }

    fn change_mood(&mut self) {
        let mood = *self.random.choice([Mood::Closing, Mood::Failing].iter()).unwrap();
        self.log.push(format!("{mood:?}"));
        *self.world.mood.lock() = mood;
    }

    fn set_clock(&mut self) {
        let offset = *self.random.choice(["+0", "-2h", "+2h"].iter()).unwrap();
        self.log.push(format!("clock {offset}"));
        std::fs::write(self.gateway.folder.join("clock"), offset).unwrap();
        self.count("clocks");
    }

    async fn restart(&mut self) {
        while !self.held.is_empty() {
            self.release().await;
        }
        self.log.push("restart".to_owned());
        // The disk may have been spared the newest (`caches.*.disk.refresh`).
        self.kept.clear();
        self.gateway.signal(Signal::SIGTERM);
        assert_eq!(self.gateway.ends(Duration::from_secs(20)).await, Some(0));
        self.clients.clear();
        let offset = *self.random.choice(["+0", "-2h"].iter()).unwrap();
        self.gateway = start(&self.config, offset).await;
        self.count("restarts");
    }
}

/// What the cache keeps a response under.
fn request_of(visit: &Visit) -> String {
    format!("{} {}", visit.target(), visit.expected(true))
}

async fn start(config: &str, clock: &str) -> Gateway {
    let folder = folder();
    std::fs::write(folder.join("clock"), clock).unwrap();
    Gateway::start_with_clock(folder, config).await
}

/// A connection from the trusted proxy, or from another address.
async fn connect(to: SocketAddr, is_trusted: bool) -> Connection {
    let socket = TcpSocket::new_v4().unwrap();
    let from = if is_trusted { "127.0.0.1:0" } else { "127.0.0.2:0" };
    socket.bind(from.parse().unwrap()).unwrap();
    let stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Connection::of(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_is_one_that_its_client_may_see_now() {
    let seed = seed();
    eprintln!("repeat with GOODGATE_MODEL_SEED={seed}");
    let mut model = Model::new(seed).await;
    for _ in 0..steps() {
        model.step().await;
    }
    let count = |what| model.counts.get(what).copied().unwrap_or_default();
    eprintln!("{:?}, {} made", model.counts, model.world.serial());
    for what in ["hits", "stale", "misses", "held", "changes", "purges"] {
        assert!(count(what) > u64::from(steps()) / 1000, "{what} hardly happened: {:?}", model.counts);
    }
    let _ = std::fs::remove_dir_all(&model.folder);
}
