//! An upstream gets so many requests at a time, and what is above waits: `breaker`.

mod leaving;
mod limits;
mod ramp;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::harness::backend::{read_head, response};
use crate::harness::script::Scripted;
use crate::harness::{Answer, Gateway, eventually, get};

/// A backend that holds every request until it is let go, and counts how many it has at a time.
struct Turnstile {
    backend: Scripted,
    seen: Arc<Seen>,
}

struct Seen {
    passes: Semaphore,
    /// How long an answer takes once it is let go.
    takes: Duration,
    /// Requests are left without an answer, and not counted.
    is_down: AtomicBool,
    now: AtomicUsize,
    /// Paths in the order of their requests, with how many were there then, itself included, and when.
    log: Mutex<Vec<(String, usize, Instant)>>,
}

impl Turnstile {
    async fn start(takes: Duration) -> Self {
        let seen = Arc::new(Seen {
            passes: Semaphore::new(0),
            takes,
            is_down: AtomicBool::new(false),
            now: AtomicUsize::new(0),
            log: Mutex::default(),
        });
        let shared = Arc::clone(&seen);
        let backend = Scripted::start(move |stream| serve(stream, Arc::clone(&shared))).await;
        Self { backend, seen }
    }

    /// So many more requests are answered.
    fn let_go(&self, requests: usize) {
        self.seen.passes.add_permits(requests);
    }

    fn paths(&self) -> Vec<String> {
        self.seen.log.lock().iter().map(|(path, ..)| path.clone()).collect()
    }

    /// The most that it had at a time.
    fn peak(&self) -> usize {
        self.seen.log.lock().iter().map(|(_, now, _)| *now).max().unwrap_or(0)
    }

    /// Waits until it has had so many requests.
    async fn has_had(&self, requests: usize) {
        eventually("the backend is asked", || async { self.paths().len() >= requests }).await;
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Seen>) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        if seen.is_down.load(Ordering::SeqCst) {
            return;
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.log.lock().push((path, now, Instant::now()));
        seen.passes.acquire().await.unwrap().forget();
        tokio::time::sleep(seen.takes).await;
        seen.now.fetch_sub(1, Ordering::SeqCst);
        if stream.write_all(response(200, "", "done", false).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Settings of an upstream: this breaker.
fn breaker(settings: &str) -> String {
    format!("    breaker: {{ {settings} }}\n")
}

const QUEUE: &str = "goodgate_upstream_queue_length";

/// Waits until so many wait.
async fn queue_is(gateway: &Gateway, length: usize) {
    let length = f64::from(u32::try_from(length).unwrap());
    eventually("so many wait", || async { gateway.metric(QUEUE).await == length }).await;
}

/// A GET in the background.
fn ask(gateway: &Gateway, path: &str) -> JoinHandle<Answer> {
    let (address, path) = (gateway.address, path.to_owned());
    tokio::spawn(async move { get(address, &path).await.expect("an answer") })
}

/// Sends GETs that are to wait, each once the one before it does.
async fn enqueue(gateway: &Gateway, paths: &[&str]) -> Vec<JoinHandle<Answer>> {
    let mut sent = Vec::new();
    for path in paths {
        sent.push(ask(gateway, path));
        queue_is(gateway, sent.len()).await;
    }
    sent
}

async fn statuses(sent: Vec<JoinHandle<Answer>>) -> HashMap<u16, usize> {
    let mut counts = HashMap::new();
    for answer in sent {
        *counts.entry(answer.await.unwrap().status).or_default() += 1;
    }
    counts
}

async fn shed(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("goodgate_upstream_requests_shed_total{{reason=\"{reason}\"}}")).await
}
