//! Streams: every piece of an answer or a request is passed on when it comes, however it is framed and whatever is
//! cached on the route; and who leaves in the middle of one is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::harness::script::Scripted;
use crate::harness::websocket::read_head;
use crate::harness::{Connection, Gateway, eventually};

/// How a stream of events is framed and what it says of itself.
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const TO_CLOSE: &str = "";

/// A backend each of whose streams has as many events as it is told, and ends when nobody can tell any more.
async fn events(fields: &'static str, framing: &'static str) -> (Scripted, watch::Sender<usize>) {
    let (allow, allowed) = watch::channel(0);
    let backend = Scripted::start(move |mut stream| {
        let mut allowed = allowed.clone();
        async move {
            let Some(_) = read_head(&mut stream).await else { return };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{fields}{framing}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let mut waste = [0; 64];
            let sending = async {
                for number in 1.. {
                    if allowed.wait_for(|allowed| *allowed >= number).await.is_err() {
                        break;
                    }
                    let event = format!("data: {number}\n\n");
                    let piece =
                        if framing == CHUNKED { format!("{:x}\r\n{event}\r\n", event.len()) } else { event };
                    if writer.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                }
                if framing == CHUNKED {
                    let _ = writer.write_all(b"0\r\n\r\n").await;
                }
            };
            // It hears of the end of its connection at once.
            tokio::select! {
                () = sending => {}
                _ = reader.read(&mut waste) => {}
            }
        }
    })
    .await;
    (backend, allow)
}

const CACHES: [&str; 4] = [
    "",
    "    cache: standard\n",
    "    cache: fallback\n",
    "    cache: { mode: standard, last_good: true, ttl: { \"200\": 10m } }\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_next_is_sent() {
    for cache in CACHES {
        for (fields, framing) in [
            ("", CHUNKED),
            ("Cache-Control: no-cache\r\n", CHUNKED),
            ("Cache-Control: no-store\r\n", TO_CLOSE),
            ("Cache-Control: max-age=60\r\n", CHUNKED),
            ("", TO_CLOSE),
        ] {
            let (backend, allow) = events(fields, framing).await;
            let gateway = Gateway::start(&backend.site("", cache)).await;
            let mut clients = Vec::new();
            for version in ["1.1", "1.0", "1.1"] {
                let mut client = Connection::open(gateway.address).await.unwrap();
                client.send(format!("GET /events HTTP/{version}\r\nHost: a\r\n\r\n")).await.unwrap();
                client.sees(b"\r\n\r\n").await;
                clients.push(client);
            }
            for number in 1..=5 {
                allow.send(number).unwrap();
                for client in &mut clients {
                    client.sees(format!("data: {number}\n\n").as_bytes()).await;
                }
            }
            drop(allow);
            for (at, client) in clients.iter_mut().enumerate() {
                let answer = client.answer(false).await.unwrap();
                assert_eq!((answer.status, answer.complete), (200, true), "{cache}{fields}{framing}");
                let body: String = (1..=5).map(|number| format!("data: {number}\n\n")).collect();
                assert_eq!(answer.text(), body);
                assert_eq!(answer.header("transfer-encoding").is_some(), at != 1, "HTTP/1.0 knows no chunks");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_in_the_middle_of_a_stream_ends_it_at_the_backend() {
    for cache in CACHES {
        for fields in ["", "Cache-Control: no-cache\r\n", "Cache-Control: max-age=60\r\n"] {
            let (backend, allow) = events(fields, CHUNKED).await;
            let gateway = Gateway::start(&backend.site("", cache)).await;
            for goes_with_reset in [true, false] {
                let mut client = Connection::open(gateway.address).await.unwrap();
                client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
                allow.send_replace(1);
                client.sees(b"data: 1\n\n").await;
                assert_eq!(backend.open(), 1);
                let left = Instant::now();
                if goes_with_reset {
                    client.reset()
                } else {
                    drop(client)
                }
                eventually("the backend hears of it", || async { backend.open() == 0 }).await;
                assert!(left.elapsed() < Duration::from_secs(4), "{:?} {cache}{fields}", left.elapsed());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_is_passed_on_as_it_comes() {
    let received = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&received);
    let backend = Scripted::start(move |mut stream| {
        let received = Arc::clone(&shared);
        async move {
            let Some(_) = read_head(&mut stream).await else { return };
            let mut seen = Vec::new();
            while !String::from_utf8_lossy(&seen).contains("the end") {
                if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                    return;
                }
                let text = String::from_utf8_lossy(&seen);
                received.store(text.matches("piece").count(), Ordering::SeqCst);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    for cache in CACHES {
        let gateway = Gateway::start(&backend.site("", cache)).await;
        for framing in ["Transfer-Encoding: chunked", "Content-Length: 32"] {
            let is_chunked = framing.starts_with('T');
            let piece = |text: &str| {
                if is_chunked { format!("{:x}\r\n{text}\r\n", text.len()) } else { text.to_owned() }
            };
            received.store(0, Ordering::SeqCst);
            let mut client = Connection::open(gateway.address).await.unwrap();
            client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await.unwrap();
            for count in 1..=5 {
                client.send(piece("piece")).await.unwrap();
                eventually("the piece is there", || async { received.load(Ordering::SeqCst) == count }).await;
            }
            client.send(piece("the end")).await.unwrap();
            if is_chunked {
                client.send("0\r\n\r\n").await.unwrap();
            }
            assert_eq!(client.answer(false).await.unwrap().text(), "ok");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_begins_before_the_request_has_ended() {
    let backend = Scripted::start(|mut stream| async move {
        let Some(_) = read_head(&mut stream).await else { return };
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let (mut reader, mut writer) = stream.split();
        let mut line = [0; 5];
        // Each chunk of two bytes is answered by one that says it in other words.
        while reader.read_exact(&mut line).await.is_ok() && line.starts_with(b"2\r\n") {
            let echo = format!("3\r\n<{}\r\n", &String::from_utf8_lossy(&line[3..5]));
            let _ = writer.write_all(echo.as_bytes()).await;
            let _ = reader.read_exact(&mut line[..2]).await;
        }
        let _ = writer.write_all(b"0\r\n\r\n").await;
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    client.send("POST /both HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    client.sees(b"\r\n\r\n").await;
    for number in 10..20 {
        client.send(format!("2\r\n{number}\r\n")).await.unwrap();
        client.sees(format!("<{number}").as_bytes()).await;
    }
    client.send("0\r\n\r\n").await.unwrap();
    let answer = client.answer(false).await.unwrap();
    assert!(answer.complete && answer.text().starts_with("<10<11"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_answer_harm_nothing() {
    let backend = Scripted::start(|mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                          5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    for cache in CACHES {
        let before = backend.accepted();
        let gateway = Gateway::start(&backend.site("", cache)).await;
        let mut client = Connection::open(gateway.address).await.unwrap();
        for _ in 0..3 {
            let answer = client.get("/").await.unwrap();
            assert!(answer.status == 200 && answer.complete && answer.text() == "hello", "{answer:?}");
            assert_eq!(answer.header("x-sum"), None, "no field of the header");
            assert_eq!(answer.header("trailer"), None, "nothing is announced that does not come");
        }
        assert_eq!(backend.accepted(), before + 1, "the connection is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drip_may_last_for_longer_than_the_first_byte_may_take() {
    let backend = Scripted::start(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap_or_default();
        let framing = if head.starts_with("GET /length ") { "Content-Length: 6\r\n" } else { TO_CLOSE };
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n").as_bytes()).await;
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let _ = stream.write_all(b".").await;
        }
    })
    .await;
    let timeouts = "    timeouts: { first_byte: 300ms, read: 2s }\n";
    let gateway = Gateway::start(&backend.site(timeouts, "    timeout: 1s\n")).await;
    for path in ["/length", "/close"] {
        let mut client = Connection::open(gateway.address).await.unwrap();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
        let start = Instant::now();
        client.sees(b".").await;
        assert!(
            start.elapsed() < Duration::from_millis(1500),
            "the first is not kept back: {:?}",
            start.elapsed()
        );
        let answer = client.answer(false).await.unwrap();
        assert!(answer.complete && answer.text() == "......", "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_expected_to_be_refused_need_not_be_sent() {
    let bodies = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&bodies);
    let backend = Scripted::start(move |mut stream| {
        let bodies = Arc::clone(&shared);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                assert!(head.to_ascii_lowercase().contains("\r\nexpect: 100-continue\r\n"), "{head}");
                if head.starts_with("PUT /no ") {
                    let _ = stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await;
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
                let mut body = [0; 5];
                if stream.read_exact(&mut body).await.is_ok() {
                    bodies.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes").await;
                }
            }
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let put = |path: &str| {
        format!("PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    for _ in 0..2 {
        client.write_all(put("/yes").as_bytes()).await.unwrap();
        assert_eq!(read_head(&mut client).await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hello").await.unwrap();
        assert!(read_head(&mut client).await.unwrap().starts_with("HTTP/1.1 200 "));
        client.read_exact(&mut [0; 3]).await.unwrap();
    }
    assert_eq!(bodies.load(Ordering::SeqCst), 2);
    client.write_all(put("/no").as_bytes()).await.unwrap();
    let head = read_head(&mut client).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{head}");
    let mut body = [0; 2];
    client.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"no");
    drop(client);
    let record = gateway.record_where("its record", |record| record["path"] == "/no").await;
    assert_eq!(record["status"], 403, "{record}");
}
