//! Thousands of slow clients at the same time: slow headers, slow bodies, slow readers. Each is gone at its
//! deadline and comes back at once; those who behave do not notice.
//!
//! `GOODGATE_ATTACK_SECONDS` makes the attack longer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::slow::Reader;
use crate::harness::backend::page;
use crate::harness::{Act, Backend, Connection, Gateway, eventually};
use crate::site;

/// Slow clients of each kind.
const EACH: usize = 2000;
/// Open files of this process for all of them, and for what the gateway asks of the backend for them.
const FILES: u64 = 5 * EACH as u64 + 1000;
/// The gateway's limits.
const LIMIT: Duration = Duration::from_secs(12);
/// They come in the course of this.
const ARRIVAL: Duration = Duration::from_secs(6);
/// Between two bytes of a slow client.
const PAUSE: Duration = Duration::from_secs(2);
/// Those who behave, and their pause.
const GOOD: usize = 4;
const GOOD_PAUSE: Duration = Duration::from_millis(5);
/// What the slowest in a hundred may take in any case: the clients share two cores with the gateway.
const FLOOR: Duration = Duration::from_millis(30);
/// Resident memory that may stay, beside what there was before.
const MEMORY_LEFT_MAX: u64 = 64 << 20;

#[derive(Clone, Copy, Debug)]
enum Slow {
    Header,
    Body,
    Reader,
}

/// What the slow clients have in common.
struct Crowd {
    address: SocketAddr,
    ended: AtomicBool,
    here: AtomicUsize,
    given_up: AtomicUsize,
    longest: Mutex<Duration>,
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_slow_clients_are_gone_in_time_and_nobody_else_notices() {
    let Some(each) = raised_limit() else { return };
    let seconds = std::env::var("GOODGATE_ATTACK_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(4));
    let limits = "header_timeout: 12s, body_timeout: 12s, write_timeout: 12s, max_connections_per_ip: 0";
    let backend = Backend::start(page("", &"b".repeat(150_000))).await;
    backend.set_on("/good", Act::Answer(200));
    let config = format!("limits: {{ {limits} }}\n{}", site(&[&backend], "", ""));
    let (gateway, unharmed) = (Gateway::start(&config).await, Gateway::start(&config).await);

    let (good, beside) = (Good::start(gateway.address), Good::start(unharmed.address));
    good.measure(Duration::from_secs(1)).await;
    let (memory, before) = (resident(&gateway), good.measure(Duration::from_secs(3)).await);

    let crowd = Arc::new(Crowd::of(gateway.address));
    let clients = crowd.send(each);
    eventually("all are here", || async { crowd.here.load(Ordering::SeqCst) >= 3 * each }).await;
    // Crowd and gateway share the machine with other tests: one that is not attacked tells what that costs, and
    // another look whether it was only for a moment.
    let (mut during, mut elsewhere) = tokio::join!(good.measure(length), beside.measure(length));
    for _ in 0..3 {
        if is_unnoticed(before, during, elsewhere) {
            break;
        }
        (during, elsewhere) = tokio::join!(good.measure(length), beside.measure(length));
    }
    let peak = resident(&gateway);
    crowd.ended.store(true, Ordering::SeqCst);
    let end = Instant::now();
    clients.join_all().await;
    let gone = || async { gateway.metric("goodgate_client_connections").await <= GOOD as f64 };
    eventually("all are gone", gone).await;
    let gone = end.elapsed();
    eventually("the backend is free", || async {
        gateway.metric("goodgate_backend_requests_in_flight").await <= GOOD as f64
    })
    .await;
    eventually("memory is back", || async { resident(&gateway) <= memory + MEMORY_LEFT_MAX }).await;
    let (after, left) = (good.measure(Duration::from_secs(2)).await, resident(&gateway));
    let (answers, failures) = good.stop().await;
    beside.stop().await;
    let longest = *crowd.longest.lock();
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "p99 {before:?} before, {during:?} during ({elsewhere:?} beside it), {after:?} after; {} given up, the longest after {longest:?}, all \
         gone {gone:?} after the end; resident {} MiB before, {} during, {} after; {answers} good answers",
        crowd.given_up.load(Ordering::SeqCst),
        mib(memory),
        mib(peak),
        mib(left),
    );
    assert_eq!(failures, Vec::<String>::new(), "who behaves sees no error");
    let is_unnoticed = is_unnoticed(before, during, elsewhere);
    assert!(is_unnoticed, "{during:?}, {before:?} before, {elsewhere:?} beside it");
    assert!(longest <= 2 * LIMIT + PAUSE, "{longest:?}");
    assert!(crowd.given_up.load(Ordering::SeqCst) >= 3 * each);
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "the backend is not to blame");
}

fn is_unnoticed(before: Duration, during: Duration, elsewhere: Duration) -> bool {
    during <= 2 * before.max(elsewhere) + FLOOR
}

/// How many of each kind there may be, with as many open files as it takes; none, with a word, if that is too few.
fn raised_limit() -> Option<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let files = FILES.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, files, hard).unwrap();
    let each = usize::try_from(files.saturating_sub(1000) / 5).unwrap();
    if each < EACH {
        eprintln!("only {hard} files may be open here: {each} slow clients of each kind instead of {EACH}");
    }
    (each >= 100).then_some(each)
}

fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

impl Crowd {
    fn of(address: SocketAddr) -> Self {
        Self {
            address,
            ended: AtomicBool::new(false),
            here: AtomicUsize::new(0),
            given_up: AtomicUsize::new(0),
            longest: Mutex::default(),
        }
    }

    /// So many of each kind, one after another; each comes back until the end.
    fn send(self: &Arc<Self>, each: usize) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for at in 0..each {
            for kind in [Slow::Header, Slow::Body, Slow::Reader] {
                let crowd = Arc::clone(self);
                let begin = ARRIVAL * u32::try_from(at).unwrap() / u32::try_from(each).unwrap();
                clients.spawn(async move {
                    tokio::time::sleep(begin).await;
                    while !crowd.ended.load(Ordering::SeqCst) {
                        crowd.attack(kind).await;
                    }
                });
            }
        }
        clients
    }

    /// One connection until the gateway gives it up.
    async fn attack(&self, kind: Slow) {
        let mut client = Reader::open(self.address).await;
        let start = Instant::now();
        self.here.fetch_add(1, Ordering::SeqCst);
        let begin: &[u8] = match kind {
            Slow::Header => b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
            Slow::Body => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
            Slow::Reader => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        };
        let _ = client.tcp.write_all(begin).await;
        while start.elapsed() < 5 * LIMIT {
            let is_over = match kind {
                Slow::Header | Slow::Body => {
                    let answer = tokio::time::timeout(PAUSE, client.take(100)).await;
                    answer.is_ok() || client.tcp.write_all(b"x").await.is_err()
                }
                Slow::Reader => {
                    tokio::time::sleep(PAUSE).await;
                    // What has come before a reset can be read for a long time still.
                    !client.take(1).await || client.tcp.take_error().is_ok_and(|error| error.is_some())
                }
            };
            if is_over {
                break;
            }
        }
        self.here.fetch_sub(1, Ordering::SeqCst);
        self.given_up.fetch_add(1, Ordering::SeqCst);
        let mut longest = self.longest.lock();
        *longest = start.elapsed().max(*longest);
    }
}

/// Clients that behave, on a thread of their own: what they see is the gateway, not the crowd beside them.
struct Good {
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    answers: AtomicUsize,
    times: Mutex<Vec<Duration>>,
    failures: Mutex<Vec<String>>,
}

impl Good {
    fn start(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let clients: JoinSet<()> = runtime
                .block_on(async { (0..GOOD).map(|_| Arc::clone(&of_thread).client(address)).collect() });
            runtime.block_on(clients.join_all());
        });
        Self { shared, thread }
    }

    /// The 99th percentile of what is answered in this time: the median of that of its parts, since other
    /// scenarios run beside this one.
    async fn measure(&self, length: Duration) -> Duration {
        let mut of_parts = Vec::new();
        let parts = 1 + u32::try_from(length.as_secs()).unwrap();
        for _ in 0..parts {
            self.shared.times.lock().clear();
            tokio::time::sleep(length / parts).await;
            let mut times = std::mem::take(&mut *self.shared.times.lock());
            times.sort_unstable();
            of_parts.extend(times.get(times.len() * 99 / 100));
        }
        of_parts.sort_unstable();
        *of_parts.get(of_parts.len() / 2).expect("answers")
    }

    async fn stop(self) -> (usize, Vec<String>) {
        self.shared.ended.store(true, Ordering::SeqCst);
        tokio::task::spawn_blocking(|| self.thread.join().unwrap()).await.unwrap();
        (self.shared.answers.load(Ordering::SeqCst), std::mem::take(&mut *self.shared.failures.lock()))
    }
}

impl Shared {
    async fn client(self: Arc<Self>, address: SocketAddr) {
        let mut connection = None;
        while !self.ended.load(Ordering::SeqCst) {
            let asked = Instant::now();
            match ask(&mut connection, address).await {
                Ok(()) => {
                    self.answers.fetch_add(1, Ordering::SeqCst);
                    self.times.lock().push(asked.elapsed());
                }
                Err(problem) => self.failures.lock().push(problem),
            }
            tokio::time::sleep(GOOD_PAUSE).await;
        }
    }
}

/// Every tenth request is on a connection of its own.
async fn ask(connection: &mut Option<Connection>, address: SocketAddr) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(address).await.map_err(told)?,
    };
    let answer = open.get("/good").await.map_err(told)?;
    if answer.status != 200 || !answer.complete {
        return Err(format!("{answer:?}"));
    }
    *connection = (fastrand::u8(0..10) > 0 && answer.header("connection") != Some("close")).then_some(open);
    Ok(())
}
