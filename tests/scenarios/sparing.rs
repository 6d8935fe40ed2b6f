//! A backend in trouble is spared: while it is down each object asks it once in a second, whatever the crowd, and
//! whoever does not ask is served at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::harness::backend::page;
use crate::harness::{Act, Backend, Connection, Gateway, eventually};
use crate::site;

const CLIENTS: usize = 50;
const LASTS: Duration = Duration::from_secs(4);
/// When an attempt is given up that gets no answer.
const HANGS: Duration = Duration::from_secs(2);
/// Longer than this takes only what waits for an attempt, on a busy machine, too.
const AT_ONCE: Duration = Duration::from_secs(1);

const FALLBACK: &str = "fallback";
const STANDARD: &str = "standard";
const UPDATING: &str = "{ mode: standard, use_stale: [error, timeout, http_503, updating] }";

/// Clients that ask for one page without a pause: how many answers there were, and how many of them took their time.
async fn crowd(gateway: &Gateway) -> (usize, usize) {
    let (answers, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (address, answers, is_over) = (gateway.address, Arc::clone(&answers), Arc::clone(&is_over));
        clients.spawn(async move {
            let (mut connection, mut slow) = (None, 0);
            while !is_over.load(Ordering::Relaxed) {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => Connection::open(address).await.unwrap(),
                };
                let asked = Instant::now();
                let answer = open.get("/page").await.unwrap();
                assert_eq!((answer.status, answer.text().as_str()), (200, "good"), "{answer:?}");
                slow += usize::from(asked.elapsed() > AT_ONCE);
                answers.fetch_add(1, Ordering::Relaxed);
                if answer.header("connection") != Some("close") {
                    connection = Some(open);
                }
            }
            slow
        });
    }
    let began = Instant::now();
    eventually("it lasts long enough", || async { began.elapsed() >= LASTS }).await;
    is_over.store(true, Ordering::Relaxed);
    let slow = clients.join_all().await.into_iter().sum();
    (answers.load(Ordering::Relaxed), slow)
}

async fn is_spared(trouble: Option<Act>) {
    for mode in [FALLBACK, STANDARD, UPDATING] {
        let backend = Backend::start(page("Cache-Control: max-age=1\r\n", "good")).await;
        // Nothing is ejected: what spares the backend is what the object knows.
        let settings = format!("    max_fails: 0\n    timeouts: {{ first_byte: {}s }}\n", HANGS.as_secs());
        let gateway = Gateway::start(&site(&[&backend], &settings, &format!("    cache: {mode}\n"))).await;
        assert_eq!(gateway.get("/page").await.text(), "good");
        let kept = Instant::now();
        match &trouble {
            Some(act) => backend.set(act.clone()),
            None => backend.die().await,
        }
        eventually("the copy is stale", || async { kept.elapsed() > Duration::from_millis(2100) }).await;
        if mode == FALLBACK {
            // Where the backend is asked each time, all who ask before the first failure is known ask it.
            assert_eq!(gateway.get("/page").await.text(), "good");
        }
        let attempts = async || gateway.metric("goodgate_attempt_failures_total").await;
        let (began, before) = (Instant::now(), attempts().await);
        let (answers, slow) = crowd(&gateway).await;
        let (took, asked) = (began.elapsed(), attempts().await - before);
        eprintln!(
            "{trouble:?} {mode}: asked {asked} times in {took:?} by {answers} requests, {slow} of them slow"
        );
        assert!(asked >= 1.0 && asked <= took.as_secs_f64().ceil() + 1.0, "{mode}: {asked} in {took:?}");
        let may_wait = match (mode, &trouble) {
            (_, None | Some(Act::Answer(_))) | (UPDATING, _) => 0.0,
            // All who wait for the first one's attempt, and then the one in a second whose turn it is to ask.
            (STANDARD, _) => CLIENTS as f64 + took.as_secs_f64().ceil(),
            _ => asked,
        };
        assert!(slow as f64 <= may_wait, "{mode}: {slow} requests were slow, {asked} asked");
        assert!(answers > 10 * CLIENTS, "{mode}: only {answers} answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_says_503_is_asked_once_in_a_while() {
    is_spared(Some(Act::Answer(503))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_is_asked_once_in_a_while() {
    is_spared(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_hangs_is_asked_once_in_a_while() {
    is_spared(Some(Act::Hang)).await;
}
