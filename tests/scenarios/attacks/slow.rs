//! Clients that are slow on purpose. Each has its deadline, and nobody else notices them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::CLOSES;
use crate::harness::{Act, Backend, Connection, Gateway, eventually};
use crate::site;

const SECOND: Duration = Duration::from_secs(1);

async fn started(act: Act, limits: &str) -> (Backend, Gateway) {
    let backend = Backend::start(act).await;
    let gateway = Gateway::start(&format!("limits: {{ {limits} }}\n{}", site(&[&backend], "", ""))).await;
    (backend, gateway)
}

/// One byte after another, for ever; what comes back in the end.
async fn trickle(gateway: &Gateway, begin: &str, again: &str) -> (u16, Duration) {
    let mut client = Connection::open(gateway.address).await.unwrap();
    let start = Instant::now();
    let _ = client.send(begin).await;
    for byte in again.bytes().cycle() {
        tokio::select! {
            biased;
            answer = client.answer(false) => return (answer.map_or(0, |answer| answer.status), start.elapsed()),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        if client.send([byte]).await.is_err() || start.elapsed() > CLOSES {
            break;
        }
    }
    (0, start.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_is_408_wherever_it_is() {
    let (backend, gateway) = started(Act::Answer(200), "header_timeout: 500ms").await;
    let cases = [
        ("in the method", "", "G"),
        ("in the target", "GET /", "x"),
        ("in the version", "GET / HTTP/1", "1"),
        ("in a name", "GET / HTTP/1.1\r\nHost: a\r\n", "X"),
        ("in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: ", "y"),
        ("in fields", "GET / HTTP/1.1\r\nHost: a\r\n", "X: y\r\n"),
        ("before the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\r", ""),
        ("with nothing more", "GET / HTTP/1.1", ""),
    ];
    let runs = cases
        .iter()
        .map(|(_, begin, again)| trickle(&gateway, begin, if again.is_empty() { " " } else { again }));
    let ends = futures(runs).await;
    for ((name, _, again), (status, time)) in cases.iter().zip(ends) {
        // One that goes on with a blank is refused for that.
        let expected = if again.is_empty() { [400, 408] } else { [408, 408] };
        assert!(expected.contains(&status) && time < 3 * SECOND, "{name}: {status} after {time:?}");
    }
    assert_eq!(backend.requests(), 0);
}

/// All at once, in order.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in waiting.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_408_and_the_backend_is_free() {
    let (_backend, gateway) = started(Act::Answer(200), "body_timeout: 500ms").await;
    let framings = [
        ("a length", "Content-Length: 1000\r\n\r\n", "b"),
        ("chunks", "Transfer-Encoding: chunked\r\n\r\n", "1\r\nb\r\n"),
        ("one endless chunk", "Transfer-Encoding: chunked\r\n\r\nffff\r\n", "b"),
        ("a burst before", &format!("Content-Length: 90000\r\n\r\n{}", "b".repeat(50_000)), "b"),
    ];
    for (name, framing, again) in framings {
        let begin = format!("POST /{} HTTP/1.1\r\nHost: a\r\n{framing}", name.replace(' ', "-"));
        let (status, time) = trickle(&gateway, &begin, again).await;
        assert!(status == 408 && time >= SECOND / 2 && time < 4 * SECOND, "{name}: {status} after {time:?}");
    }
    let slow = |record: &serde_json::Value| record["status"] == 408;
    let record = gateway.record_where("the slow one", slow).await;
    assert_eq!(
        (&record["cause"], &record["origin"]),
        (&"http_request_error".into(), &"goodgate".into()),
        "{record}"
    );
    assert_eq!(record["detail"], "The request body came too slowly.");
    let counted = "goodgate_gateway_errors_total{status=\"408\",cause=\"http_request_error\"}";
    assert_eq!(gateway.metric(counted).await, 4.0);
    eventually("nothing is under way", || async {
        gateway.metric("goodgate_backend_requests_in_flight").await == 0.0
            && gateway.metric("goodgate_client_connections").await == 0.0
    })
    .await;
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "the backend is not to blame");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_slow_where_that_is_allowed_and_for_what_the_backend_takes() {
    let (_backend, gateway) = started(Act::Answer(200), "body_timeout: 300ms, min_body_rate: 0").await;
    let begin = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n";
    let (status, time) = trickle(&gateway, begin, "b").await;
    assert!(status == 200 && time > SECOND / 2, "{status} after {time:?}");
    // The body is there at once; only the backend takes its time.
    let (_backend, gateway) =
        started(Act::Slow(SECOND, Box::new(Act::Answer(200))), "body_timeout: 300ms").await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    client.send(format!("{begin}{}", "b".repeat(50))).await.unwrap();
    assert_eq!(client.answer(false).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_given_up_and_the_backend_is_free() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: ";
    let by_length = Act::Bytes(format!("{head}30000000\r\n\r\n{}", "b".repeat(30_000_000)).into_bytes());
    let endless = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "400\r\n".to_owned() + &"b".repeat(1024) + "\r\n"
    );
    let chunk = format!("400\r\n{}\r\n", "b".repeat(1024));
    let storm = Act::Gated {
        first: endless.into_bytes(),
        gate: open_gate(),
        rest: Box::new(Act::Storm(chunk.into_bytes())),
    };
    let (backend, gateway) = started(by_length.clone(), "write_timeout: 1s").await;
    for (at, act) in [by_length, storm].into_iter().enumerate() {
        backend.set(act);
        let mut client = Connection::open(gateway.address).await.unwrap();
        let start = Instant::now();
        client.send(format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
        let path = format!("/{at}");
        let record = gateway.record_where("it is given up", |record| record["path"] == *path).await;
        assert!(start.elapsed() > SECOND / 2 && start.elapsed() < 8 * SECOND, "{:?}", start.elapsed());
        assert_eq!(record["cause"], "client_disconnected", "{record}");
        eventually("the backend is free", || async {
            gateway.metric("goodgate_backend_requests_in_flight").await == 0.0
        })
        .await;
        eventually("and the client gone", || async {
            gateway.metric("goodgate_client_connections").await == 0.0
        })
        .await;
        assert!(!client.answer(false).await.is_ok_and(|answer| answer.complete), "a part is not the whole");
    }
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "the backend is not to blame");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_few_bytes_at_a_time_is_given_up_too() {
    let body = Act::Bytes(
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "b".repeat(1_000_000)).into(),
    );
    let (backend, gateway) = started(body, "write_timeout: 1s").await;
    let mut client = Reader::open(gateway.address).await;
    client.ask("/few").await;
    let start = Instant::now();
    while client.take(100).await && start.elapsed() < CLOSES {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() > SECOND / 2 && start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
    let record = gateway.record_where("it is given up", |record| record["path"] == "/few").await;
    assert_eq!(
        (&record["status"], &record["cause"]),
        (&200.into(), &"client_disconnected".into()),
        "{record}"
    );
    assert_eq!(record["detail"], "The client did not take the answer in time.");
    eventually("the backend is free", || async { backend.connections() == 0 }).await;

    let mut steady = Reader::open(gateway.address).await;
    steady.ask("/steady").await;
    while steady.taken < 1_000_000 && steady.take(64 << 10).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(steady.taken >= 1_000_000, "who keeps up gets all of it: {}", steady.taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_and_again_and_reads_nothing_is_given_up() {
    let (_backend, gateway) =
        started(crate::harness::backend::page("", &"b".repeat(10_000)), "write_timeout: 1s").await;
    let mut client = Reader::open(gateway.address).await;
    let start = Instant::now();
    while client.tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok() && start.elapsed() < CLOSES
    {
    }
    assert!(start.elapsed() < 6 * SECOND, "{:?}", start.elapsed());
    eventually("it is gone", || async { gateway.metric("goodgate_client_connections").await == 0.0 }).await;
}

/// A client far away that reads little: small segments, so that our side keeps little for it as well.
pub(super) struct Reader {
    pub(super) tcp: TcpStream,
    pub(super) taken: usize,
}

impl Reader {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpMaxSeg, &1400).unwrap();
        Self { tcp: socket.connect(address).await.unwrap(), taken: 0 }
    }

    pub(super) async fn ask(&mut self, path: &str) {
        self.tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    }

    /// Takes up to so many bytes; whether there were any.
    pub(super) async fn take(&mut self, count: usize) -> bool {
        let mut bytes = vec![0; count];
        let read = tokio::time::timeout(CLOSES, self.tcp.read(&mut bytes)).await;
        let count = read.map_or(0, |read| read.unwrap_or(0));
        self.taken += count;
        count > 0
    }
}

fn open_gate() -> crate::harness::backend::Gate {
    let gate = crate::harness::backend::Gate::shut();
    gate.open();
    gate
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_idle_clients_are_gone_in_time_and_disturb_nobody() {
    let (_backend, gateway) =
        started(Act::Answer(200), "header_timeout: 2s, body_timeout: 2s, keepalive_timeout: 2s").await;
    let mut crowd = Vec::new();
    for at in 0..500 {
        let mut client = Connection::open(gateway.address).await.unwrap();
        let begin = match at % 5 {
            0 => "GET / HTTP/1.1\r\nHost: a\r\nX: ",
            1 => "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
            // The others say nothing.
            _ => "",
        };
        client.send(begin).await.unwrap();
        crowd.push(client);
    }
    eventually("all are in", || async { gateway.metric("goodgate_client_connections").await >= 500.0 }).await;
    let start = Instant::now();
    let mut good = Connection::open(gateway.address).await.unwrap();
    let mut slowest = Duration::ZERO;
    while start.elapsed() < SECOND {
        let asked = Instant::now();
        assert_eq!(good.get("/").await.expect("no error beside the slow ones").status, 200);
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(slowest < SECOND, "{slowest:?}");
    drop(good);
    eventually("all are gone", || async { gateway.metric("goodgate_client_connections").await == 0.0 }).await;
    for (at, mut client) in crowd.into_iter().enumerate() {
        let all = client.rest(CLOSES).await.unwrap();
        let answer = String::from_utf8_lossy(&all);
        let is_right = if at % 5 < 2 { answer.starts_with("HTTP/1.1 408 ") } else { answer.is_empty() };
        assert!(is_right, "{at}: {answer}");
    }
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
}
