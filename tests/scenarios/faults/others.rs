//! Faults that need a stage of their own.

use std::time::Duration;

use tokio::net::TcpListener;

use crate::harness::backend::page;
use crate::harness::{Act, Backend, Connection, Gateway, backends, eventually, request};
use crate::site;

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_handle_the_cause_is_our_own_shortage_and_copies_help() {
    // No connection is kept whose end would free a handle.
    let backend = Backend::start(page("Connection: close\r\n", "good")).await;
    let routes =
        "routes:\n  - { match: { path: /kept }, upstream: web, cache: fallback }\n  - { upstream: web }\n";
    let config = crate::upstream(&[&backend], "") + routes;
    let gateway = Gateway::start_with_files(64, &config).await;
    assert_eq!(gateway.get("/kept").await.text(), "good");
    let mut first = Connection::open(gateway.address).await.unwrap();
    assert_eq!(first.get("/").await.unwrap().status, 200);
    let mut second = Connection::open(gateway.address).await.unwrap();
    assert_eq!(second.get("/").await.unwrap().status, 200);
    // Clients that say nothing take what is left.
    let mut crowd = Vec::new();
    while !gateway.errors().contains("a connection cannot be accepted") {
        crowd.push(Connection::open(gateway.address).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = first.get("/").await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("proxy-status").unwrap().contains("error=resource_exhausted"), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    let answer = second.get("/kept").await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "good"), "{answer:?}");
    drop(crowd);
    eventually("it is over", || async { gateway.get("/").await.status == 200 }).await;
    let record = gateway.record_where("the record", |record| record["status"] == 503).await;
    assert_eq!(record["attempts"][0]["cause"], "resource_exhausted", "{record}");
    assert!(record["attempts"][0]["detail"].as_str().unwrap().contains("open files"), "{record}");
    let blamed = "goodgate_ejections_total{cause=\"resource_exhausted\"}";
    assert_eq!(gateway.metric(blamed).await, 0.0, "no backend is blamed for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_taken_in_time_is_a_write_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!(
        "upstreams:\n  web:\n    backends: ['{}']\n    timeouts: {{ write: 300ms, first_byte: 300ms, read: 300ms }}\nroutes:\n  - upstream: web\n",
        listener.local_addr().unwrap()
    );
    let gateway = Gateway::start(&config).await;
    let deaf = tokio::spawn(async move { listener.accept().await.unwrap() });
    let mut client = Connection::open(gateway.address).await.unwrap();
    let size = 64 << 20;
    client.send(format!("PUT /x HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n")).await.unwrap();
    let piece = vec![b'x'; 1 << 20];
    let answer = loop {
        if client.send(&piece).await.is_err() {
            break client.answer(false).await;
        }
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(10), client.answer(false)).await {
            break answer;
        }
    };
    let record = gateway.record_where("the record", |record| record["path"] == "/x").await;
    assert_eq!(record["attempts"][0]["cause"], "connection_write_timeout", "{record}");
    assert_eq!(record["status"], 504, "{record}");
    assert_eq!(answer.expect("an answer").status, 504);
    assert!(record["attempts"][0]["bytes_out"].as_u64().unwrap() < size, "{record}");
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_request_is_through_reaches_the_client() {
    let early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge";
    for closes in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 512];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, early.as_bytes()).await;
            if closes {
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            }
            let mut rest = vec![0; 64 << 10];
            while tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await.is_ok_and(|count| count > 0) {}
        });
        let config = format!("upstreams:\n  web: ['{address}']\nroutes:\n  - upstream: web\n");
        let gateway = Gateway::start(&config).await;
        let mut client = Connection::open(gateway.address).await.unwrap();
        client.send("POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
        client.send(vec![b'x'; 100_000]).await.unwrap();
        let answer = client.answer(false).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.complete), (413, "large", true));
        drop(client);
        let record = gateway.record_where("the record", |record| record["path"] == "/x").await;
        assert_eq!((&record["status"], &record["origin"]), (&413.into(), &"backend".into()), "{record}");
        assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_framing_of_a_backend_is_made_safe() {
    let both =
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let backend = Backend::start(Act::Bytes(bytes(both))).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    let answer = client.get("/").await.unwrap();
    assert_eq!((answer.text().as_str(), answer.complete), ("hello", true), "framed as chunked");
    assert_eq!(answer.header("content-length"), None);
    for lengths in ["Content-Length: 2, 2\r\n", "Content-Length: 2\r\nContent-Length: 2\r\n"] {
        backend.set(Act::Bytes(bytes(&format!("HTTP/1.1 200 OK\r\n{lengths}\r\nok"))));
        let answer = gateway.get("/").await;
        assert_eq!(answer.text(), "ok");
        let told = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        assert_eq!(told.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["2"], "said once");
    }
    for (status, extra) in [("204 No Content", ""), ("304 Not Modified", "ETag: \"a\"\r\n")] {
        let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
        let length = smuggled.len();
        let answer = format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {length}\r\n\r\n{smuggled}");
        backend.set(Act::Bytes(bytes(&answer)));
        let mut client = Connection::open(gateway.address).await.unwrap();
        let answer = client.get("/").await.unwrap();
        assert_eq!(answer.status, status[..3].parse::<u16>().unwrap());
        assert_eq!(answer.header("content-length").is_some(), answer.status == 304, "{answer:?}");
        backend.set(Act::Answer(200));
        let mut next = Connection::open(gateway.address).await.unwrap();
        for connection in [&mut client, &mut next] {
            if let Ok(answer) = connection.get("/after").await {
                assert!(answer.text().ends_with("for /after\n"), "{status}: {answer:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_to_another_protocol_than_asked_is_no_upgrade() {
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
    let backend = Backend::start(Act::BytesThenHang(bytes(other))).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let upgrade = "GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = request(gateway.address, upgrade).await.unwrap();
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.header("proxy-status").unwrap().contains("error=http_upgrade_failed"), "{answer:?}");
    backend.set(Act::Answer(403));
    let answer = request(gateway.address, upgrade).await.unwrap();
    assert_eq!(answer.status, 403, "a refusal is an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_go_through_and_an_endless_row_of_them_does_not() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(20);
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let storm = Act::Storm(bytes("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"));
    let [polite, endless] = backends([Act::Bytes(bytes(&(hints + last))), storm]).await;
    let gateway = Gateway::start(&site(&[&polite], "", "")).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    client.sees(b"103 Early Hints").await;
    assert_eq!(client.answer(false).await.unwrap().text(), "ok");
    let gateway = Gateway::start(&site(&[&endless, &polite], "    max_fails: 0\n", "")).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.text(), "ok", "another backend answers");
    }
    assert!(gateway.metric("goodgate_rescues_total{cause=\"http_protocol_error\"}").await >= 1.0);
}
