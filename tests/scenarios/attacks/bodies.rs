//! Bodies over the limit, in pieces, or given up half way: the backend never takes a part for the whole.

use std::time::{Duration, Instant};

use super::{CLOSES, Case, LIMITS, SMUGGLED, run};
use crate::harness::{Connection, Gateway, eventually};

use super::recorder::{Received, Recorder};

async fn recorded(config: &str) -> (Recorder, Gateway) {
    let recorder = Recorder::start().await;
    let config =
        format!("{config}upstreams: {{ web: ['{}'] }}\nroutes: [{{ upstream: web }}]\n", recorder.address);
    let gateway = Gateway::start(&config).await;
    (recorder, gateway)
}

fn by_length(size: usize) -> String {
    format!("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{}", "b".repeat(size))
}

fn by_chunks(size: usize, chunk: usize) -> String {
    let mut text = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let mut left = size;
    while left > 0 {
        let data = left.min(chunk);
        text += &format!("{data:x}\r\n{}\r\n", "b".repeat(data));
        left -= data;
    }
    text + "0\r\n\r\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_within_the_limit_arrives_whole_and_one_over_it_never_does() {
    let mut cases = Vec::new();
    for size in [1, 2, 1023, 4095, 4096] {
        let body = "b".repeat(size);
        let received = [("POST /b", body.as_str()), ("GET /smuggled", "")];
        cases.push(Case::accepted(format!("{size} by length"), by_length(size) + SMUGGLED, &received));
        for chunk in [1, 7, 4096] {
            let name = format!("{size} in chunks of {chunk}");
            cases.push(Case::accepted(name, by_chunks(size, chunk) + SMUGGLED, &received));
        }
    }
    for size in [4097, 5000, 100_000] {
        cases.push(Case::refused(format!("{size} by length"), by_length(size) + SMUGGLED, 413));
        for chunk in [100, 4096, 8192] {
            let name = format!("{size} in chunks of {chunk}");
            cases.push(Case::refused(name, by_chunks(size, chunk) + SMUGGLED, 413));
        }
    }
    cases.push(Case::refused(
        "a length over the limit is refused before the body",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4097\r\n\r\n",
        413,
    ));
    cases.push(Case::refused(
        "and before 100 Continue",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4097\r\n\r\n",
        413,
    ));
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_length_over_the_limit_costs_the_backend_nothing() {
    let (recorder, gateway) = recorded(LIMITS).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4097\r\n\r\n").await.unwrap();
    assert_eq!(client.answer(false).await.unwrap().status, 413);
    assert_eq!(recorder.bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_408_and_one_that_trickles_in_time_arrives() {
    let (recorder, gateway) = recorded(LIMITS).await;
    for framing in ["Content-Length: 10\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\na\r\n"] {
        let mut stalled = Connection::open(gateway.address).await.unwrap();
        let start = Instant::now();
        stalled.send(format!("POST /b HTTP/1.1\r\nHost: a\r\n{framing}12345")).await.unwrap();
        assert_eq!(stalled.answer(false).await.unwrap().status, 408, "{framing:?}");
        assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
        assert_eq!(stalled.rest(CLOSES).await.unwrap(), b"");
    }
    assert_eq!(recorder.took(&[]).await, Ok(()));
    let mut slow = Connection::open(gateway.address).await.unwrap();
    slow.send("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        slow.send([b'b'; 100]).await.unwrap();
    }
    assert_eq!(slow.answer(false).await.unwrap().status, 200);
    assert_eq!(recorder.took(&[Received::new("POST /b", &"b".repeat(1000))]).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_that_nothing_more_comes_still_gets_the_answer() {
    let whole = [
        ("GET", SMUGGLED.to_owned(), Received::new("GET /smuggled", "")),
        ("a length", by_length(5), Received::new("POST /b", "bbbbb")),
        ("chunks", by_chunks(5, 2), Received::new("POST /b", "bbbbb")),
        ("HTTP/1.0", "GET /old HTTP/1.0\r\n\r\n".to_owned(), Received::new("GET /old", "")),
    ];
    let (recorder, gateway) = recorded(LIMITS).await;
    for (name, bytes, received) in whole {
        let mut client = Connection::open(gateway.address).await.unwrap();
        client.send(&bytes).await.unwrap();
        client.half_close().await.unwrap();
        let answer = client.answer(false).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{name}");
        assert_eq!(recorder.took(&[received]).await, Ok(()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resets_at_any_stage_leaves_nothing_under_way() {
    let (recorder, gateway) = recorded(LIMITS).await;
    let request = by_length(4096);
    let head = request.find("\r\n\r\n").unwrap() + 4;
    let stages = [0, 1, 10, head - 1, head, head + 1, head + 2000, head + 4095, request.len()];
    for stage in stages {
        for pause in [0, 20] {
            let mut client = Connection::open(gateway.address).await.unwrap();
            client.send(&request.as_bytes()[..stage]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(pause)).await;
            client.reset();
        }
    }
    eventually("nothing is under way", || async {
        gateway.metric("goodgate_client_connections").await == 0.0
            && gateway.metric("goodgate_backend_requests_in_flight").await == 0.0
    })
    .await;
    assert!(recorder.total() <= 2, "only what was complete: {}", recorder.total());
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "no backend is to blame");
}
