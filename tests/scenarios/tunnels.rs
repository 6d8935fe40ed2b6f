//! WebSockets through the gateway: what is said at either end arrives at the other, once, in order, and at once; and
//! how tunnels end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::backend::Gate;
use crate::harness::gateway::folder;
use crate::harness::script::Scripted;
use crate::harness::tls::{Authority, shake_hands, valid};
use crate::harness::websocket::{self, ACCEPT, BINARY, CLOSE, TEXT, handshake, read_head, switch};
use crate::harness::{Gateway, PATIENCE, eventually};

/// A backend that shakes hands and sends every message back.
async fn echo() -> Scripted {
    Scripted::start(|mut stream| async move {
        if shake(&mut stream).await.is_some() {
            websocket::echo(&mut stream).await;
        }
    })
    .await
}

/// The backend's side of the handshake.
async fn shake(stream: &mut TcpStream) -> Option<String> {
    let head = read_head(stream).await?;
    stream.write_all(switch(&head).as_bytes()).await.ok()?;
    Some(head)
}

/// A client's tunnel.
async fn tunnel(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let head = websocket::connect(&mut stream, "/socket").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// Whether a message comes back. An error is told by its name.
async fn echoes(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), opcode: u8, message: &[u8]) {
    websocket::send(stream, opcode, message, true).await.unwrap();
    let back = tokio::time::timeout(PATIENCE, websocket::receive(stream)).await.expect("in time");
    let (code, payload) = back.expect("a message, not the end");
    assert!(code == opcode && payload == message, "{code}: {} bytes", payload.len());
}

/// All that still comes, until the end.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "it does not end");
    rest
}

async fn record(gateway: &Gateway) -> serde_json::Value {
    gateway.record_where("the tunnel's record", |record| record["path"] == "/socket").await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_and_the_record_counts_them() {
    let backend = echo().await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let start = Instant::now();
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let head = websocket::connect(&mut socket, "/socket").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")), "{head}");
    for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        echoes(&mut socket, TEXT, "x".repeat(size).as_bytes()).await;
        echoes(&mut socket, BINARY, &vec![0xff; size]).await;
    }
    echoes(&mut socket, TEXT, b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n").await;
    echoes(&mut socket, CLOSE, b"\x03\xe8").await;
    assert_eq!(rest(&mut socket).await, b"");
    drop(socket);
    let record = record(&gateway).await;
    let (sent, received) =
        (record["bytes_sent"].as_u64().unwrap(), record["bytes_received"].as_u64().unwrap());
    assert_eq!(record["status"], 101, "{record}");
    assert_eq!(record["cause"], serde_json::Value::Null, "{record}");
    // A mask is four bytes.
    assert_eq!(received, sent + 4 * 16, "{record}");
    assert!(sent > 800_000, "{record}");
    let took = record["duration_ms"].as_f64().unwrap();
    assert!(took > 0.0 && took <= start.elapsed().as_secs_f64() * 1e3, "{record}");
    assert_eq!(backend.accepted(), 1);
    eventually("the backend's connection ends", || async { backend.open() == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_over_tls() {
    let backend = echo().await;
    let (authority, folder) = (Authority::new(), folder());
    authority.write(&folder, "site", valid("site.test"));
    let log = folder.join("access.log");
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', tls: {{ certificates: [{{ cert: site.crt, key: site.key }}] }} }}]\n\
         admin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\n{}",
        log.display(),
        backend.site("", "")
    );
    let gateway = Gateway::start_in(folder, &text).await;
    let client = Arc::new(authority.client(None));
    let mut socket = shake_hands(gateway.address, &client, "site.test").await.unwrap();
    // What is sent before the answer comes waits for it.
    let early = [handshake("/socket").into_bytes(), websocket::frame(TEXT, b"early", true)].concat();
    socket.write_all(&early).await.unwrap();
    let head = read_head(&mut socket).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(websocket::receive(&mut socket).await, Some((TEXT, b"early".to_vec())));
    for size in [1, 20_000, 1 << 20] {
        echoes(&mut socket, BINARY, &vec![0xa5; size]).await;
    }
    let (mut reader, mut writer) = tokio::io::split(socket);
    flood(&mut reader, &mut writer, 4 << 20).await;
    websocket::send(&mut writer, CLOSE, b"", true).await.unwrap();
    assert_eq!(websocket::receive(&mut reader).await, Some((CLOSE, Vec::new())));
    assert_eq!(rest(&mut reader).await, b"", "closed by the letter of TLS");
    let record = record(&gateway).await;
    assert_eq!((&record["status"], &record["cause"]), (&101.into(), &serde_json::Value::Null), "{record}");
}

/// Sends so many bytes in large messages, and reads them back meanwhile.
async fn flood(reader: &mut (impl AsyncRead + Unpin), writer: &mut (impl AsyncWrite + Unpin), bytes: usize) {
    let message: Vec<u8> = (0..1_u32 << 20).map(|at| (at % 251) as u8).collect();
    let sending = async {
        for _ in 0..bytes >> 20 {
            websocket::send(writer, BINARY, &message, true).await.unwrap();
        }
    };
    let receiving = async {
        for _ in 0..bytes >> 20 {
            let (_, payload) = websocket::receive(reader).await.expect("a message");
            assert!(payload == message, "what comes back is what was sent");
        }
    };
    let both = async { tokio::join!(sending, receiving) };
    tokio::time::timeout(PATIENCE, both).await.expect("no deadlock");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_pass_in_both_directions_at_once() {
    let message = Arc::new(vec![0x5a; 8 << 20]);
    let expected = Arc::clone(&message);
    let backend = Scripted::start(move |mut stream| {
        let message = Arc::clone(&expected);
        async move {
            shake(&mut stream).await;
            let (mut reader, mut writer) = stream.split();
            let sending = websocket::send(&mut writer, BINARY, &message, false);
            let (sent, received) = tokio::join!(sending, websocket::receive(&mut reader));
            assert!(sent.is_ok() && received.is_some_and(|(_, payload)| payload == *message));
            // What it says last proves that it has had everything.
            let _ = websocket::send(&mut writer, CLOSE, b"all", false).await;
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "    max_body_bytes: 1KiB\n")).await;
    let mut socket = tunnel(&gateway).await;
    let (mut reader, mut writer) = socket.split();
    let sending = websocket::send(&mut writer, BINARY, &message, true);
    let both = async { tokio::join!(sending, websocket::receive(&mut reader)) };
    let (sent, received) = tokio::time::timeout(PATIENCE, both).await.expect("no deadlock");
    assert!(sent.is_ok() && received.is_some_and(|(_, payload)| payload == *message));
    assert_eq!(websocket::receive(&mut reader).await, Some((CLOSE, b"all".to_vec())), "no limit of bodies");

    let echo = echo().await;
    let gateway = Gateway::start(&echo.site("", "")).await;
    let mut socket = tunnel(&gateway).await;
    let (mut reader, mut writer) = socket.split();
    // An end that does not read while it writes: that goes well as far as the buffers in between reach.
    flood(&mut reader, &mut writer, 3 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_one_piece_with_the_switch_is_delivered() {
    let backend = Scripted::start(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let first = websocket::frame(TEXT, b"first", false);
            let answer = [switch(&head).into_bytes(), first].concat();
            stream.write_all(&answer).await.unwrap();
            websocket::echo(&mut stream).await;
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    for _ in 0..50 {
        let mut socket = tunnel(&gateway).await;
        assert_eq!(websocket::receive(&mut socket).await, Some((TEXT, b"first".to_vec())));
        echoes(&mut socket, TEXT, b"second").await;
    }
    assert_eq!(backend.accepted(), 50, "a tunnel's connection is never used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_comes_before_the_request_is_a_tunnel_or_a_failure() {
    let backend = Scripted::start(|mut stream| async move {
        let _ = stream.write_all(switch(&handshake("/")).as_bytes()).await;
        if read_head(&mut stream).await.is_some() {
            websocket::echo(&mut stream).await;
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("    max_fails: 0\n", "")).await;
    for _ in 0..50 {
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        let head = websocket::connect(&mut socket, "/socket").await.unwrap();
        if head.starts_with("HTTP/1.1 101 ") {
            echoes(&mut socket, TEXT, b"hello").await;
        } else {
            assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        }
    }
}

/// What a client sends right behind its request, before the answer: in one piece with it, and in another.
fn early(in_one_piece: bool, bytes: &[u8]) -> [Vec<u8>; 2] {
    let head = handshake("/socket").into_bytes();
    if in_one_piece { [[&head, bytes].concat(), Vec::new()] } else { [head, bytes.to_vec()] }
}

const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_before_the_switch_reaches_the_backend_once() {
    let gate = Arc::new(Mutex::new(Gate::shut()));
    let shared = Arc::clone(&gate);
    let backend = Scripted::start(move |mut stream| {
        let gate = shared.lock().clone();
        async move {
            let Some(head) = read_head(&mut stream).await else { return };
            gate.passed().await;
            stream.write_all(switch(&head).as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let large = vec![b'e'; 200_000];
    for (at, (in_one_piece, bytes)) in
        [(true, SMUGGLED), (false, SMUGGLED), (true, &large), (false, &large)].into_iter().enumerate()
    {
        *gate.lock() = Gate::shut();
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        let [first, second] = early(in_one_piece, bytes);
        let (mut reader, mut writer) = socket.split();
        let sending = async {
            writer.write_all(&first).await.unwrap();
            eventually("the request is there", || async { backend.accepted() == at + 1 }).await;
            writer.write_all(&second).await.unwrap();
            writer.write_all(b"late").await.unwrap();
        };
        let receiving = async {
            eventually("the request is there", || async { backend.accepted() == at + 1 }).await;
            gate.lock().open();
            let head = read_head(&mut reader).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            let mut back = vec![0; bytes.len() + 4];
            reader.read_exact(&mut back).await.unwrap();
            assert!(back == [bytes, b"late"].concat(), "{} bytes, {in_one_piece}", bytes.len());
        };
        let both = async { tokio::join!(sending, receiving) };
        tokio::time::timeout(PATIENCE, both).await.expect("in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_before_a_refused_switch_is_no_request() {
    for answer in ["200 OK", "403 Forbidden", "426 Upgrade Required"] {
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        let backend = Scripted::start(move |mut stream| {
            let seen = Arc::clone(&seen);
            async move {
                while read_head(&mut stream).await.is_some() {
                    seen.fetch_add(1, Ordering::SeqCst);
                    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 5\r\n\r\nplain");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        })
        .await;
        let gateway = Gateway::start(&backend.site("", "")).await;
        for in_one_piece in [true, false] {
            let before = requests.load(Ordering::SeqCst);
            let mut socket = TcpStream::connect(gateway.address).await.unwrap();
            let [first, second] = early(in_one_piece, SMUGGLED);
            socket.write_all(&first).await.unwrap();
            socket.write_all(&second).await.unwrap();
            let all = String::from_utf8(rest(&mut socket).await).unwrap();
            assert!(all.starts_with(&format!("HTTP/1.1 {answer}\r\n")), "{all}");
            assert!(all.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{all}");
            assert_eq!(all.matches("HTTP/1.1").count(), 1, "{all}");
            assert_eq!(requests.load(Ordering::SeqCst), before + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_a_half_close_arrives_and_may_be_replied_to() {
    let backend = Scripted::start(|mut stream| async move {
        shake(&mut stream).await;
        match websocket::receive(&mut stream).await {
            // The client goes first: it still hears the reply.
            Some((TEXT, _)) => {
                websocket::send(&mut stream, CLOSE, b"reply", false).await.unwrap();
                rest(&mut stream).await;
            }
            // The backend goes first.
            _ => {
                websocket::send(&mut stream, CLOSE, &vec![b'l'; 100_000], false).await.unwrap();
                stream.shutdown().await.unwrap();
                rest(&mut stream).await;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let mut socket = tunnel(&gateway).await;
    websocket::send(&mut socket, TEXT, b"bye", true).await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(websocket::receive(&mut socket).await, Some((CLOSE, b"reply".to_vec())));
    assert_eq!(rest(&mut socket).await, b"");
    eventually("the backend hears of it", || async { backend.open() == 0 }).await;

    let mut socket = tunnel(&gateway).await;
    websocket::send(&mut socket, BINARY, b"you first", true).await.unwrap();
    let (_, last) = websocket::receive(&mut socket).await.expect("its last words");
    assert_eq!((last.len(), rest(&mut socket).await), (100_000, Vec::new()));
    eventually("the backend hears of it", || async { backend.open() == 0 }).await;
    eventually("both have their record", || async { gateway.records().len() == 2 }).await;
    for record in gateway.records() {
        assert_eq!(
            (&record["status"], &record["cause"]),
            (&101.into(), &serde_json::Value::Null),
            "{record}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_dies_ends_its_tunnels_and_is_named() {
    let gate = Gate::shut();
    let shared = gate.clone();
    let backend = Scripted::start(move |mut stream| {
        let gate = shared.clone();
        async move {
            shake(&mut stream).await;
            websocket::send(&mut stream, TEXT, b"here", false).await.unwrap();
            gate.passed().await;
            let _ = stream.set_zero_linger();
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let mut socket = tunnel(&gateway).await;
    assert_eq!(websocket::receive(&mut socket).await, Some((TEXT, b"here".to_vec())));
    gate.open();
    let mut left = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut left)).await;
    assert!(ended.is_ok() && left.is_empty(), "{ended:?} {left:?}");
    let record = record(&gateway).await;
    assert_eq!(
        (&record["status"], &record["cause"]),
        (&101.into(), &"http_response_incomplete".into()),
        "{record}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_tunnel() {
    let backend = echo().await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let mut socket = tunnel(&gateway).await;
    echoes(&mut socket, TEXT, b"hello").await;
    socket.set_zero_linger().unwrap();
    drop(socket);
    eventually("a reset reaches the backend", || async { backend.open() == 0 }).await;
    let socket = tunnel(&gateway).await;
    drop(socket);
    eventually("and so does a close", || async { backend.open() == 0 }).await;
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_tunnel_in_which_nothing_moves_is_idle() {
    // Whoever speaks says something five times a second; the limit is one second, and those of bodies are shorter.
    const PACE: Duration = Duration::from_millis(200);
    let backend = Scripted::start(|mut stream| async move {
        let head = shake(&mut stream).await.unwrap_or_default();
        if head.starts_with("GET /backend ") {
            while websocket::send(&mut stream, TEXT, b"tick", false).await.is_ok() {
                tokio::time::sleep(PACE).await;
            }
        } else {
            rest(&mut stream).await;
        }
    })
    .await;
    let timeouts = "    timeouts: { tunnel: 1s, read: 300ms, first_byte: 300ms }\n";
    let limits = "limits: { body_timeout: 300ms, keepalive_timeout: 300ms }\n";
    let gateway = Gateway::start(&(limits.to_owned() + &backend.site(timeouts, ""))).await;
    let open = async |path: &str| {
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        let head = websocket::connect(&mut socket, path).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    };
    let (mut idle, mut talking, mut listening) =
        (open("/idle").await, open("/client").await, open("/backend").await);
    let start = Instant::now();
    let silence = async {
        assert_eq!(rest(&mut idle).await, b"");
        start.elapsed()
    };
    let talk = async {
        for _ in 0..15 {
            websocket::send(&mut talking, TEXT, b"tick", true).await.expect("not idle");
            tokio::time::sleep(PACE).await;
        }
        assert_eq!(backend.open(), 2, "the idle one has ended, the others have not");
    };
    let listen = async {
        for _ in 0..15 {
            assert_eq!(websocket::receive(&mut listening).await, Some((TEXT, b"tick".to_vec())));
        }
    };
    let (idle_for, (), ()) = tokio::join!(silence, talk, listen);
    assert!(idle_for >= Duration::from_millis(950) && idle_for < Duration::from_secs(3), "{idle_for:?}");
    let record = gateway.record_where("the idle one", |record| record["path"] == "/idle").await;
    assert_eq!((&record["status"], &record["cause"]), (&101.into(), &serde_json::Value::Null), "{record}");
    assert!(record["detail"].as_str().is_some_and(|detail| detail.contains("timeouts.tunnel")), "{record}");
    // The one that talked falls silent, and ends as well.
    assert_eq!(rest(&mut talking).await, b"");
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0);
    let failed = gateway.metric("goodgate_attempt_failures_total").await;
    assert_eq!(failed, 0.0, "nobody has failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_a_switch_has_the_limits_of_any_answer() {
    let backend = Scripted::start(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap_or_default();
        let framing = if head.starts_with("GET /length ") { "Content-Length: 50\r\n" } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\npart");
        stream.write_all(answer.as_bytes()).await.unwrap();
        rest(&mut stream).await;
    })
    .await;
    let timeouts = "    timeouts: { tunnel: 1h, read: 500ms }\n";
    let gateway = Gateway::start(&backend.site(timeouts, "")).await;
    for path in ["/length", "/close"] {
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        let head = websocket::connect(&mut socket, path).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let left = String::from_utf8(rest(&mut socket).await).unwrap();
        assert!(left.contains("part") && !left.contains("0\r\n\r\n"), "it does not look complete: {left:?}");
        let record = gateway.record_where("its record", |record| record["path"] == path).await;
        assert_eq!(record["cause"], "connection_read_timeout", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tunnels_survive_reloads_and_end_with_the_drain_at_a_stop() {
    let backend = echo().await;
    let more = "server: { shutdown: { drain: 2s } }\n";
    let mut gateway = Gateway::start(&(more.to_owned() + &backend.site("", ""))).await;
    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(tunnel(&gateway).await);
    }
    assert_eq!(gateway.metric("goodgate_client_connections{state=\"active\"}").await, 200.0);
    let other = echo().await;
    gateway.write_config(&(more.to_owned() + &other.site("", "    name: renamed\n")));
    gateway.reload("ok").await;
    let mut late = tunnel(&gateway).await;
    assert_eq!((backend.open(), other.open()), (200, 1), "who is connected stays where it is");
    for socket in &mut sockets {
        echoes(socket, TEXT, b"still here").await;
    }
    gateway.signal(Signal::SIGTERM);
    eventually("it stops", || async { gateway.errors().contains("goodgate stops") }).await;
    let stopping = Instant::now();
    for socket in &mut sockets {
        echoes(socket, BINARY, b"in the drain").await;
    }
    // Half of them end by themselves.
    for socket in sockets.drain(100..) {
        drop(socket);
    }
    assert_eq!(gateway.ends(PATIENCE).await, Some(0));
    let took = stopping.elapsed();
    assert!(took >= Duration::from_millis(1500) && took < Duration::from_secs(6), "{took:?}");
    for socket in sockets.iter_mut().chain([&mut late]) {
        let mut left = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut left)).await;
        assert!(ended.is_ok() && left.is_empty());
    }
    eventually("the backends hear of it", || async { backend.open() + other.open() == 0 }).await;
}
