//! Kept connections to backends that close them when idle: the most reported 502 of all proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::chaos::length;
use crate::harness::backend::{page, read_head};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, PATIENCE, eventually};
use crate::site;

const POST: &str = "POST /order HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";

/// One POST on a kept connection to the gateway; the connection stays for the next.
async fn post(connection: &mut Connection) -> Answer {
    connection.send(POST).await.unwrap();
    connection.answer(false).await.expect("an answer")
}

/// Posts at this pace until the time is over; what did not go well.
async fn pace(gateway: std::net::SocketAddr, every: Duration, until: Instant) -> Vec<String> {
    let mut connection = Connection::open(gateway).await.unwrap();
    let mut wrong = Vec::new();
    while Instant::now() < until {
        let answer = post(&mut connection).await;
        if answer.status != 200 {
            wrong.push(format!("{every:?}: {answer:?}"));
            connection = Connection::open(gateway).await.unwrap();
        }
        tokio::time::sleep(every).await;
    }
    wrong
}

/// Each backend meets one client whose pace is just about its idle limit: the worst that there is.
#[tokio::test(flavor = "multi_thread")]
async fn posts_at_the_pace_of_the_backends_idle_limit_never_fail() {
    let paces = (1960..=2040).step_by(4).map(Duration::from_millis);
    let until = Instant::now() + length();
    let mut clients = JoinSet::new();
    for every in paces {
        clients.spawn(async move {
            let backend = Backend::start(Act::Answer(200)).await;
            backend.close_idle_after(Duration::from_secs(2));
            let gateway = Gateway::start(&site(&[&backend], "", "")).await;
            let wrong = pace(gateway.address, every, until).await;
            assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
            (wrong, backend.requests())
        });
    }
    let mut requests = 0;
    while let Some(client) = clients.join_next().await {
        let (wrong, seen) = client.unwrap();
        assert_eq!(wrong, Vec::<String>::new());
        requests += seen;
    }
    assert!(requests >= 42, "{requests} requests reached a backend");
}

/// The idle time of the kept connection that the attempt used, if it used one.
async fn idle_of(gateway: &Gateway, answer: &Answer) -> Option<f64> {
    gateway.record(answer).await["attempts"][0]["connection_idle_ms"].as_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_retires_connections_before_the_backend_closes_them() {
    let backend = Backend::start(page("Keep-Alive: timeout=1\r\n", "x")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.get("/").await.unwrap();
    let quick = connection.get("/").await.unwrap();
    assert!(idle_of(&gateway, &quick).await.is_some(), "used at once, it is used again");
    for _ in 0..2 {
        // The backend itself never closes: only the hint can make the gateway take a new connection.
        tokio::time::sleep(Duration::from_millis(950)).await;
        let late = connection.get("/").await.unwrap();
        assert_eq!(idle_of(&gateway, &late).await, None, "950 ms of 1 s are too near");
    }
    let shown = gateway.record(&quick).await;
    assert_eq!(shown["attempts"][0]["reused"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_limit_of_a_backend_is_learned_from_its_closes() {
    let backend = Backend::start(Act::Answer(200)).await;
    backend.close_idle_after(Duration::from_millis(400));
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..2 {
        connection.get("/").await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let learned = || async {
        let text = crate::harness::get_admin(gateway.admin, "/api/v1/backends").await.unwrap().text();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        document[0]["idle_close_ms"].as_f64()
    };
    eventually("it is known", || async { learned().await.is_some() }).await;
    let limit = learned().await.unwrap();
    assert!((380.0..600.0).contains(&limit), "{limit}");
    backend.close_idle_after(Duration::from_secs(60));
    connection.get("/").await.unwrap();
    tokio::time::sleep(Duration::from_millis(390)).await;
    let late = connection.get("/").await.unwrap();
    assert_eq!(idle_of(&gateway, &late).await, None, "retired before the limit that was learned");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_repeated_goes_out_on_a_connection_used_a_moment_ago() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.get("/").await.unwrap();
    // A connection is back in the pool a moment after its answer, unless the answer overtook the request's end.
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "no POST takes a kept connection, or no GET an old one");
        if idle_of(&gateway, &post(&mut connection).await).await.is_none() {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let get = connection.get("/").await.unwrap();
        if idle_of(&gateway, &get).await.is_some_and(|idle| idle > 1000.0) {
            break;
        }
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let late = post(&mut connection).await;
    assert_eq!(idle_of(&gateway, &late).await, None);
    assert_eq!(gateway.metric("goodgate_retries_total").await, 0.0, "that is no retry");
    let record = gateway.record(&late).await;
    assert_eq!(record["attempts"].as_array().unwrap().len(), 1, "{record}");
    assert_eq!(record["rescue"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_burst_one_request_does_not_have_to_clear_the_whole_pool() {
    let backend = Backend::start(Act::Slow(Duration::from_millis(300), Box::new(Act::Answer(200)))).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut burst = JoinSet::new();
    for _ in 0..60 {
        let address = gateway.address;
        burst.spawn(async move { crate::harness::get(address, "/").await.unwrap().status });
    }
    while let Some(status) = burst.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let answer = post(&mut connection).await;
    assert_eq!((answer.status, idle_of(&gateway, &answer).await), (200, None), "on a new connection");
    assert!(backend.connections() > 40, "most of the others are still kept: {}", backend.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_by_us_when_its_time_is_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = format!(
        "upstreams:\n  web: {{ backends: ['{address}'], timeouts: {{ idle: 700ms }} }}\nroutes:\n  - upstream: web\n"
    );
    let gateway = Gateway::start(&config).await;
    let backend = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        let answered = Instant::now();
        let more = stream.read(&mut head).await.unwrap();
        (more, answered.elapsed())
    });
    assert_eq!(gateway.get("/").await.text(), "ok");
    let (more, idle) = tokio::time::timeout(Duration::from_secs(10), backend).await.unwrap().unwrap();
    assert_eq!(more, 0, "the connection ends, and nothing was sent on it");
    assert!(idle >= Duration::from_millis(690), "not before its time: {idle:?}");
    assert!(idle < Duration::from_millis(700 + 1000), "one of the next sweeps closes it: {idle:?}");
}

/// Serves one connection. When the number changes, it sends a response that belongs to no request.
async fn serve_and_speak(mut stream: TcpStream, mut speak: watch::Receiver<u32>, spoken: Arc<AtomicUsize>) {
    // Else the kernel holds the bytes back until the response before them is acknowledged, by the next request.
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    speak.mark_unchanged();
    loop {
        tokio::select! {
            head = read_head(&mut stream, &mut buffer) => {
                let good = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
                if head.is_none() || stream.write_all(good).await.is_err() {
                    return;
                }
            }
            changed = speak.changed() => {
                let surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
                let is_sent = changed.is_ok() && stream.write_all(surplus).await.is_ok();
                spoken.fetch_add(1, Ordering::SeqCst);
                if !is_sent {
                    return;
                }
            }
        }
    }
}

/// The gateway stands still while the bytes and the next requests arrive, so that it learns of both at once. Its threads
/// have event loops of their own: the one with the request may run before the one with the idle connection.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_on_an_idle_connection_are_never_the_response_to_the_next_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let (speak, spoken, connections) =
        (watch::channel(0).0, Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (speaks, all, of_all) = (speak.clone(), Arc::clone(&spoken), Arc::clone(&connections));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (speaks, spoken, connections) = (speaks.subscribe(), Arc::clone(&all), Arc::clone(&of_all));
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                serve_and_speak(stream, speaks, spoken).await;
                connections.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let config = format!(
        "server: {{ threads: 4 }}\nupstreams: {{ web: ['{backend}'] }}\nroutes: [{{ upstream: web }}]\n"
    );
    let gateway = Gateway::start(&config).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Connection::open(gateway.address).await.unwrap());
    }
    for round in 0..20 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.answer(false).await.unwrap().text(), "good", "{round}");
        }
        gateway.signal(Signal::SIGSTOP);
        let (idle, before) = (connections.load(Ordering::SeqCst), spoken.load(Ordering::SeqCst));
        speak.send_modify(|number| *number += 1);
        eventually("the bytes have been sent", || async { spoken.load(Ordering::SeqCst) >= before + idle })
            .await;
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        }
        gateway.signal(Signal::SIGCONT);
        for client in &mut clients {
            assert_eq!(client.answer(false).await.unwrap().text(), "good", "{round}");
        }
    }
}
