//! One fetch for many that comes to no good end: whoever waits behind it is not held up by it.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::harness::backend::{Gate, page};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually};
use crate::site;

/// How long requests wait for another one's fetch.
const EXPIRY: Duration = Duration::from_secs(5);
/// What else may take time on a busy machine.
const MARGIN: Duration = Duration::from_secs(2);
const CROWD: usize = 50;
/// How long a backend takes its time, so that everybody is waiting for it.
const AWHILE: Duration = Duration::from_millis(500);
/// Of an answer that goes on with three bytes more.
const BEGINNING: &[u8] = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nbegin ";
const GET: &str = "GET /page HTTP/1.1\r\nHost: test\r\n\r\n";

/// A gateway over one backend that hangs for longer than anybody should wait.
async fn gateway(backend: &Backend) -> Gateway {
    let settings = "    max_fails: 0\n    timeouts: { first_byte: 60s, read: 60s }\n";
    Gateway::start(&site(&[backend], settings, "    cache: standard\n")).await
}

/// The one whose request fills the cache: asked, and with the backend.
async fn filler(gateway: &Gateway, backend: &Backend) -> Connection {
    let (mut filler, before) = (Connection::open(gateway.address).await.unwrap(), backend.requests());
    filler.send(GET).await.unwrap();
    eventually("the backend is asked", || async { backend.requests() > before }).await;
    filler
}

/// Many who ask for the same at once: their answers, and how long the slowest took.
struct Crowd(Instant, JoinSet<std::io::Result<Answer>>);

impl Crowd {
    async fn gather(gateway: &Gateway) -> Self {
        let mut clients = JoinSet::new();
        let mut connections = Vec::new();
        for _ in 0..CROWD {
            connections.push(Connection::open(gateway.address).await.unwrap());
        }
        for mut connection in connections {
            clients.spawn(async move { connection.get("/page").await });
        }
        Self(Instant::now(), clients)
    }

    async fn disperse(mut self) -> (Vec<Answer>, Duration) {
        let mut answers = Vec::new();
        while let Some(client) = self.1.join_next().await {
            answers.push(client.unwrap().expect("an answer"));
        }
        (answers, self.0.elapsed())
    }
}

fn assert_all(answers: &[Answer], text: &str) {
    for answer in answers {
        assert_eq!((answer.status, answer.complete, answer.text().as_str()), (200, true, text), "{answer:?}");
    }
}

fn fresh(body: &str) -> Act {
    page("Cache-Control: max-age=60\r\n", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_hangs_is_replaced_when_its_time_is_up() {
    let backend = Backend::start(Act::Hang).await;
    let gateway = gateway(&backend).await;
    let _filler = filler(&gateway, &backend).await;
    backend.set(fresh("page"));
    let crowd = Crowd::gather(&gateway).await;
    let (answers, took) = crowd.disperse().await;
    eprintln!("all {CROWD} were answered after {took:?}");
    assert_all(&answers, "page");
    assert!(took < EXPIRY + MARGIN, "{took:?}");
    assert_eq!(backend.requests(), 2, "one more for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_hangs_is_joined_no_more_when_its_time_is_up() {
    let backend = Backend::start(Act::BytesThenHang(BEGINNING.to_vec())).await;
    let gateway = gateway(&backend).await;
    let mut filler = filler(&gateway, &backend).await;
    filler.sees(b"begin ").await;
    let hangs_since = Instant::now();
    backend.set(fresh("page"));
    // Who asks at once gets the beginning, and shares the rest of its way.
    let mut joined = Connection::open(gateway.address).await.unwrap();
    joined.send(GET).await.unwrap();
    joined.sees(b"begin ").await;
    let answer = loop {
        let mut late = Connection::open(gateway.address).await.unwrap();
        late.send(GET).await.unwrap();
        match tokio::time::timeout(Duration::from_millis(100), late.answer(false)).await {
            Ok(answer) => break answer.unwrap(),
            Err(_) => assert!(hangs_since.elapsed() < EXPIRY + MARGIN, "the key is wedged"),
        }
    };
    eprintln!("the next fetch after {:?}", hangs_since.elapsed());
    assert_all(&[answer], "page");
    let (answers, _) = Crowd::gather(&gateway).await.disperse().await;
    assert_all(&answers, "page");
    assert_eq!(backend.requests(), 2, "one more for all");
    assert!(!joined.closes(Duration::from_millis(1)).await, "who has the beginning still waits for the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_nobody_with_it() {
    let whole = [BEGINNING, b"end".as_slice()].concat();
    for is_reset in [false, true] {
        for (place, first, rest) in
            [("header", b"".as_slice(), whole.as_slice()), ("body", BEGINNING, b"end")]
        {
            let gate = Gate::shut();
            let rest = Box::new(Act::Slow(AWHILE, Box::new(Act::Bytes(rest.to_vec()))));
            let act = Act::Gated { first: first.to_vec(), gate: gate.clone(), rest };
            let backend = Backend::start(act).await;
            let gateway = gateway(&backend).await;
            let mut filler = filler(&gateway, &backend).await;
            if place == "body" {
                filler.sees(b"begin ").await;
            }
            let crowd = Crowd::gather(&gateway).await;
            if is_reset {
                filler.reset()
            } else {
                drop(filler)
            }
            gate.open();
            let (answers, took) = crowd.disperse().await;
            assert_all(&answers, "begin end");
            assert!(took < AWHILE + MARGIN, "{place}: {took:?}");
            assert_eq!(backend.requests(), 1, "{place}: the fetch goes on for those who wait");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_dies_within_a_header_costs_those_who_wait_nothing() {
    for end in [Act::Close, Act::Reset] {
        let gate = Gate::shut();
        let rest = Box::new(Act::Slow(AWHILE, Box::new(end)));
        let first = b"HTTP/1.1 200 OK\r\nCache-Con".to_vec();
        let backend = Backend::start(Act::Gated { first, gate: gate.clone(), rest }).await;
        let gateway = gateway(&backend).await;
        let mut filler = filler(&gateway, &backend).await;
        let crowd = Crowd::gather(&gateway).await;
        backend.set(fresh("page"));
        gate.open();
        let (answers, took) = crowd.disperse().await;
        assert_all(&answers, "page");
        assert!(took < AWHILE + MARGIN, "{took:?}");
        assert_eq!(backend.requests(), 2, "one more for all");
        assert_eq!(filler.answer(false).await.unwrap().status, 502, "it was the only backend");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_dies_within_a_body_frees_the_key_at_once() {
    for end in [Act::Close, Act::Reset] {
        let gate = Gate::shut();
        let first = BEGINNING.to_vec();
        let backend = Backend::start(Act::Gated { first, gate: gate.clone(), rest: Box::new(end) }).await;
        let gateway = gateway(&backend).await;
        let mut filler = filler(&gateway, &backend).await;
        filler.sees(b"begin ").await;
        backend.set(fresh("page"));
        gate.open();
        let answer = filler.answer(false).await.unwrap();
        assert_eq!((answer.status, answer.complete), (200, false));
        let (answers, took) = Crowd::gather(&gateway).await.disperse().await;
        assert_all(&answers, "page");
        assert!(took < MARGIN, "{took:?}");
        assert_eq!(backend.requests(), 2, "one more for all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_answers_those_who_have_waited_long_enough() {
    let backend = Backend::start(page("Cache-Control: max-age=1\r\n", "old")).await;
    let gateway = gateway(&backend).await;
    assert_eq!(gateway.get("/page").await.text(), "old");
    let kept = Instant::now();
    backend.set(Act::Hang);
    eventually("the copy is stale", || async { kept.elapsed() > Duration::from_millis(2100) }).await;
    let _filler = filler(&gateway, &backend).await;
    let (answers, took) = Crowd::gather(&gateway).await.disperse().await;
    eprintln!("all {CROWD} got the old copy after {took:?}");
    assert_all(&answers, "old");
    assert!(took < EXPIRY + MARGIN, "{took:?}");
    let said = answers[0].header("cache-status").unwrap();
    assert!(said.ends_with("detail=stale-http_response_timeout"), "{said}");
    // From now on it is known: of those who come one in a second asks, and the others are served at once.
    let mut at_once = 0;
    for _ in 0..20 {
        let answer = tokio::time::timeout(MARGIN, gateway.get("/page")).await;
        at_once += usize::from(answer.is_ok_and(|answer| answer.text() == "old"));
    }
    assert!(at_once >= 15, "{at_once} of 20 were served at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_must_not_be_kept_lets_all_ask_at_once() {
    let private = Box::new(page("Cache-Control: no-store\r\n", "page"));
    let backend = Backend::start(Act::Slow(AWHILE, private)).await;
    let gateway = gateway(&backend).await;
    let mut filler = filler(&gateway, &backend).await;
    let (answers, took) = Crowd::gather(&gateway).await.disperse().await;
    assert_all(&answers, "page");
    assert_eq!(filler.answer(false).await.unwrap().text(), "page");
    // One after the other it would be half a minute.
    assert!(took < 2 * AWHILE + MARGIN, "{took:?}");
    assert_eq!(backend.requests(), 1 + CROWD as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_more_than_three_fetches_that_hang() {
    let backend = Backend::start(Act::Hang).await;
    let gateway = gateway(&backend).await;
    let _filler = filler(&gateway, &backend).await;
    let crowd = Crowd::gather(&gateway).await;
    let (began, limit) = (Instant::now(), 3 * EXPIRY + MARGIN);
    eventually("each asks for itself", || async { backend.requests() > CROWD as u64 }).await;
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
    drop(crowd);
}
