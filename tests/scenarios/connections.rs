//! Connections of clients before there is a request: how many there may be, and who is behind them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::harness::backend::Gate;
use crate::harness::gateway::folder;
use crate::harness::tls::{Authority, valid};
use crate::harness::{Act, Backend, Connection, Gateway, eventually};
use crate::{site, upstream};

/// A gateway before one backend; `listener` is more of its listener, `more` are other sections.
async fn start(listener: &str, backend: &Backend, more: &str) -> Gateway {
    let folder = folder();
    let log = folder.join("access.log");
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0'{listener} }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         access_log: {{ path: {} }}\nupstreams: {{ app: ['{}'] }}\nroutes: [{{ upstream: app }}]\n{more}",
        log.display(),
        backend.address
    );
    Gateway::start_in(folder, &text).await
}

/// A connection that has been answered once.
async fn used(gateway: &Gateway) -> Connection {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    assert_eq!(connection.get("/").await.unwrap().status, 200);
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_the_longest_idle_connection_gives_way_and_a_busy_one_never() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = start("", &backend, "limits: { max_connections: 3 }\n").await;
    let mut first = used(&gateway).await;
    // So that it has been idle for longer, and not by a hair.
    backend.set(Act::Slow(Duration::from_millis(200), Box::new(Act::Answer(200))));
    let [mut second, mut third] = [used(&gateway).await, used(&gateway).await];
    // Who has just been used does not give way at once.
    eventually("somebody gives way", || async {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        connection.get("/").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    assert!(first.closes(Duration::from_secs(5)).await, "it has been idle for longest");
    assert_eq!(gateway.metric("goodgate_client_connections_reclaimed_total").await, 1.0);
    let gate = Gate::shut();
    let rest = Box::new(Act::Bytes(b"OK".to_vec()));
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec();
    backend.set(Act::Gated { first: head, gate: gate.clone(), rest });
    let fourth = &mut Connection::open(gateway.address).await.unwrap();
    let before = backend.requests();
    for connection in [&mut second, &mut third, fourth] {
        connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    }
    eventually("all are busy", || async { backend.requests() == before + 3 }).await;
    let refusals = || gateway.metric("goodgate_client_connections_refused_total{reason=\"limit\"}");
    let refused_before = refusals().await;
    let refused = Connection::open(gateway.address).await.unwrap().answer(false).await.unwrap();
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")));
    assert!(refused.header("proxy-status").unwrap().contains("resource_exhausted"), "{refused:?}");
    assert_eq!(refusals().await, refused_before + 1.0);
    gate.open();
    for connection in [&mut second, &mut third, fourth] {
        assert_eq!(connection.answer(false).await.unwrap().status, 200);
    }
    backend.set(Act::Answer(200));
    drop((second, third));
    eventually("their places are free", || async {
        match Connection::open(gateway.address).await.unwrap().get("/").await {
            Ok(answer) => answer.status == 200,
            Err(_) => false,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_share_and_the_others_theirs() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = start("", &backend, "limits: { max_connections_per_ip: 2 }\n").await;
    let mut held = [used(&gateway).await, used(&gateway).await];
    let refused = Connection::open(gateway.address).await.unwrap().answer(false).await.unwrap();
    assert_eq!((refused.status, refused.header("connection")), (429, Some("close")));
    assert_eq!(
        gateway.metric("goodgate_client_connections_refused_total{reason=\"limit_per_ip\"}").await,
        1.0
    );
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let other = other.connect(gateway.address).await.unwrap();
    assert_eq!(Connection::of(other).get("/").await.unwrap().status, 200);
    assert_eq!(held[0].get("/").await.unwrap().status, 200);
    drop(held);
    eventually("the places are free", || async {
        Connection::open(gateway.address)
            .await
            .unwrap()
            .get("/")
            .await
            .is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_behind_its_last_request_and_says_so() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = start("", &backend, "limits: { max_requests_per_connection: 3 }\n").await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..2 {
        assert_ne!(connection.get("/").await.unwrap().header("connection"), Some("close"));
    }
    assert_eq!(connection.get("/").await.unwrap().header("connection"), Some("close"));
    assert!(connection.closes(Duration::from_secs(5)).await);
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\x0a\0\0\x01\x1f\x90\0\x50";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_names_the_client_if_the_sender_is_trusted() {
    let backend = Backend::start(Act::Answer(200)).await;
    let limits = "limits: { handshake_timeout: 500ms, max_connections_per_ip: 1 }\n";
    let gateway =
        start(", proxy_protocol: true", &backend, &format!("trusted_proxies: [127.0.0.1]\n{limits}")).await;
    for (header, client) in
        [(V1, "192.0.2.7"), (V2, "192.0.2.8"), (LOCAL, "127.0.0.1"), (UNKNOWN, "127.0.0.1")]
    {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        connection
            .send([header, b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"].concat())
            .await
            .unwrap();
        let answer = connection.answer(false).await.unwrap();
        assert_eq!(answer.status, 200, "{client}");
        let record = gateway.record(&answer).await;
        assert_eq!(record["client"], client, "{record}");
        assert!(backend.heads().pop().unwrap().contains(&format!("X-Forwarded-For: {client}\r\n")));
        if client != "127.0.0.1" {
            // The header's client has its share, its sender has no limit.
            let mut second = Connection::open(gateway.address).await.unwrap();
            second.send(header).await.unwrap();
            assert_eq!(second.answer(false).await.unwrap().status, 429);
        }
    }
    let refused = || gateway.metric("goodgate_client_connections_refused_total{reason=\"proxy_header\"}");
    let requests = backend.requests();
    for (count, bytes) in
        [(1.0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice()), (2.0, b"PROXY TCP4 1.2.3.4"), (3.0, b"")]
    {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        connection.send(bytes).await.unwrap();
        assert!(connection.closes(Duration::from_secs(5)).await, "{}", bytes.escape_ascii());
        assert_eq!(refused().await, count);
    }
    let stranger = TcpSocket::new_v4().unwrap();
    stranger.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stranger = stranger.connect(gateway.address).await.unwrap();
    let _ = stranger.write_all(&[V1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
    assert!(Connection::of(stranger).closes(Duration::from_secs(5)).await);
    assert_eq!(backend.requests(), requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_header_the_handshake_is_the_clients() {
    let backend = Backend::start(Act::Answer(200)).await;
    let authority = Authority::new();
    let certificates = folder();
    authority.write(&certificates, "site", valid("site.test"));
    let path = certificates.display();
    let tls = format!(
        ", proxy_protocol: true, tls: {{ certificates: [{{ cert: {path}/site.crt, key: {path}/site.key }}] }}"
    );
    let gateway = start(&tls, &backend, "trusted_proxies: [127.0.0.1]\n").await;
    let mut tcp = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    tcp.write_all(V2).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(authority.client(None)));
    let stream = connector.connect("site.test".try_into().unwrap(), tcp).await.unwrap();
    let answer = Connection::open_tls(stream).get("/").await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(gateway.record(&answer).await["client"], "192.0.2.8");
    std::fs::remove_dir_all(certificates).unwrap();
}

/// The bytes that come on a connection up to its end, after these were sent and no more will be.
async fn half_closed(gateway: &Gateway, bytes: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_closed_its_side_behind_a_request_gets_the_whole_response() {
    let pause = Duration::from_millis(2500);
    let slow = Backend::start(Act::Slow(pause, Box::new(Act::Answer(200)))).await;
    let body = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned();
    let drip = Backend::start(Act::Drip(body.into_bytes(), Duration::from_millis(60))).await;
    for backend in [&slow, &drip] {
        for route in ["", "    cache: standard\n"] {
            let gateway = Gateway::start(&site(&[backend], "", route)).await;
            let answer = half_closed(&gateway, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{route}: {answer}");
            assert!(backend.address != drip.address || answer.ends_with("hello"), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_and_a_403_of_ours_keep_the_connection_unless_a_body_is_unread() {
    let backend = Backend::start(Act::Answer(200)).await;
    let routes = "  - { match: { path: /closed }, upstream: web, deny: [0.0.0.0/0, '::/0'] }\n  - { match: { path: /open }, upstream: web }\n";
    let gateway = Gateway::start(&format!("{}routes:\n{routes}", upstream(&[&backend], ""))).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    for (path, status) in [("/none", 404), ("/closed", 403), ("/none", 404), ("/open", 200), ("/closed", 403)]
    {
        let answer = client.get(path).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert_ne!(answer.header("connection"), Some("close"), "{path}");
    }
    client.send("POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    let answer = client.answer(false).await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_gets_no_interim_response() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    let text = format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let backend = Backend::start(Act::Bytes(text.into_bytes())).await;
    for route in ["", "    cache: standard\n", "    cache: fallback\n"] {
        let gateway = Gateway::start(&site(&[&backend], "", route)).await;
        for expect in ["", "Expect: 100-continue\r\n"] {
            let answer = half_closed(&gateway, &format!("GET /a HTTP/1.0\r\nHost: a\r\n{expect}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{route}: {answer}");
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{route}: {answer}");
        }
    }
}
