//! The front door: which requests are let in, which route they take, what a backend and a client are shown.

use std::time::Duration;

use serde_json::Value;

use crate::harness::backend::{page, response};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, backends, eventually, request};
use crate::{site, upstream};

async fn plain() -> (Backend, Gateway) {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    (backend, gateway)
}

/// The value of a field in a head that a backend saw; panics if it is there twice.
fn field(head: &str, name: &str) -> Option<String> {
    let is_it = |line: &&str| line.split(':').next().is_some_and(|key| key.eq_ignore_ascii_case(name));
    let lines: Vec<&str> = head.lines().filter(is_it).collect();
    assert!(lines.len() < 2, "{name} twice: {head}");
    lines.first().and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
}

async fn asked(gateway: &Gateway, method: &str, host: &str, path: &str) -> Answer {
    request(
        gateway.address,
        &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_route_wins() {
    let five = backends(["www", "wild", "api", "write", "rest"].map(|name| page("", name))).await;
    let [www, wild, api, write, rest] = five.each_ref().map(|backend| backend.address);
    let config = format!(
        "upstreams: {{ www: ['{www}'], wild: ['{wild}'], api: ['{api}'], write: ['{write}'], rest: ['{rest}'] }}\nroutes:\n\
         \x20 - {{ upstream: rest, match: {{ host: [www.example.com, '*.example.net'], path: /rest }} }}\n\
         \x20 - {{ upstream: api, match: {{ path: /api }} }}\n\
         \x20 - {{ upstream: wild, match: {{ host: '*.example.net' }} }}\n\
         \x20 - {{ upstream: www, match: {{ host: www.example.com }} }}\n\
         \x20 - {{ upstream: write, match: {{ path: /api/items, methods: [POST, PUT] }} }}\n"
    );
    let gateway = Gateway::start(&config).await;
    let cases = [
        ("GET", "www.example.com", "/", "www"),
        ("GET", "WWW.Example.COM:8080", "/x", "www"),
        ("GET", "www.example.com.", "/api", "www"),
        ("GET", "www.example.com", "/rest/x", "rest"),
        ("GET", "www.example.com", "/restless", "www"),
        ("GET", "a.example.net", "/", "wild"),
        ("GET", "a.b.example.net", "/rest?q=1", "rest"),
        ("GET", "other", "/api", "api"),
        ("GET", "other", "/api/x", "api"),
        ("GET", "other", "/api?x", "api"),
        ("GET", "other", "/api/items/1", "api"),
        ("POST", "other", "/api/items/1", "write"),
        ("DELETE", "other", "/api/items/1", "api"),
    ];
    for (method, host, path, name) in cases {
        assert_eq!(asked(&gateway, method, host, path).await.text(), name, "{method} {host} {path}");
    }
    for (host, path) in
        [("other", "/"), ("other", "/apis"), ("example.net", "/"), ("www.example.org", "/rest")]
    {
        let answer = asked(&gateway, "GET", host, path).await;
        assert_eq!(answer.status, 404, "{host} {path}");
        assert!(
            answer.header("proxy-status").unwrap().starts_with("goodgate; error=http_request_error"),
            "{answer:?}"
        );
        assert_eq!(gateway.record(&answer).await["route"], "none");
    }
    for (host, path, name) in [("www.example.com", "/", "www"), ("other", "/api/x?y", "api")] {
        let absolute =
            request(gateway.address, &format!("GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
                .await
                .unwrap();
        assert_eq!(absolute.text(), name, "{absolute:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_told_who_asks_and_forgeries_are_replaced() {
    let (backend, gateway) = plain().await;
    let forged = "GET /x?y=1 HTTP/1.1\r\nHost: shop.test:81\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n\
                  X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nForwarded: for=1.2.3.4\r\nX-Request-Id: forged\r\n\r\n";
    let answer = request(gateway.address, forged).await.unwrap();
    let heads = backend.heads();
    let seen = |name: &str| field(&heads[0], name);
    assert!(heads[0].starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{}", heads[0]);
    assert_eq!(seen("host").unwrap(), "shop.test:81");
    assert_eq!(seen("x-forwarded-for").unwrap(), "127.0.0.1");
    assert_eq!(seen("x-forwarded-proto").unwrap(), "http");
    assert_eq!(seen("x-forwarded-host").unwrap(), "shop.test:81");
    assert_eq!(seen("forwarded"), None);
    let id = seen("x-request-id").unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "the client can name it");
    assert_eq!(gateway.record(&answer).await["client"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refreshes_a_copy_does_not_pass_on_what_a_client_says_of_itself() {
    let backend =
        Backend::start(page("Cache-Control: max-age=0, stale-while-revalidate=60\r\n", "page")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    assert_eq!(gateway.get("/").await.text(), "page");
    eventually("a refresh on behalf of such a client", || async {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        let forged = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.test\r\n";
        connection.get_with("/", forged).await.unwrap();
        backend.requests() >= 2
    })
    .await;
    for head in backend.heads() {
        assert_eq!(field(&head, "x-forwarded-host").as_deref(), Some("test"), "{head}");
        assert!(!head.contains("1.2.3.4"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway =
        Gateway::start(&("trusted_proxies: [127.0.0.0/8]\n".to_owned() + &site(&[&backend], "", ""))).await;
    let forwarded = "GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 6.6.6.6, 1.2.3.4, 127.0.0.9\r\n\
                     X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\nX-Request-Id: abc-1\r\n\r\n";
    let answer = request(gateway.address, forwarded).await.unwrap();
    let heads = backend.heads();
    let seen = |name: &str| field(&heads[0], name).unwrap_or_default();
    assert_eq!(seen("x-forwarded-for"), "6.6.6.6, 1.2.3.4, 127.0.0.9, 127.0.0.1");
    assert_eq!(seen("x-forwarded-proto"), "https");
    assert_eq!(seen("x-forwarded-host"), "shop.test");
    assert_eq!(seen("x-request-id"), "abc-1");
    assert_eq!(answer.header("x-request-id"), Some("abc-1"));
    assert_eq!(gateway.record(&answer).await["client"], "1.2.3.4", "the last one that is not trusted itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_a_backend_sees_is_a_choice() {
    let backend = Backend::start(Act::Answer(200)).await;
    let address = backend.address.to_string();
    for (setting, expected) in
        [("client", "shop.test"), ("backend", address.as_str()), ("app.internal", "app.internal")]
    {
        let gateway = Gateway::start(&site(&[&backend], &format!("    host: {setting}\n"), "")).await;
        assert_eq!(asked(&gateway, "GET", "shop.test", "/").await.status, 200);
        let head = backend.heads().pop().unwrap();
        assert_eq!(field(&head, "host").as_deref(), Some(expected), "{setting}");
        assert_eq!(field(&head, "x-forwarded-host").as_deref(), Some("shop.test"), "{setting}");
    }
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    assert_eq!(request(gateway.address, "GET / HTTP/1.0\r\n\r\n").await.unwrap().status, 200);
    assert_eq!(
        field(&backend.heads().pop().unwrap(), "host").as_deref(),
        Some(address.as_str()),
        "there must be one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_one_connection_do_not_cross_to_the_other() {
    let hop_by_hop = "Connection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
                      Upgrade: h2c\r\nTE: trailers\r\n";
    let backend =
        Backend::start(page(&hop_by_hop.replace("TE: trailers", "Proxy-Authenticate: Basic"), "page")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let text =
        format!("GET / HTTP/1.1\r\nHost: a\r\n{hop_by_hop}Proxy-Authorization: Basic x\r\nX-Kept: 1\r\n\r\n");
    let answer = request(gateway.address, &text).await.unwrap();
    assert_eq!(answer.text(), "page");
    let head = backend.heads().pop().unwrap();
    for name in ["x-secret", "keep-alive", "proxy-connection", "upgrade", "te", "proxy-authorization"] {
        assert_eq!(field(&head, name), None, "{head}");
    }
    assert_eq!(field(&head, "x-kept").as_deref(), Some("1"));
    for name in ["x-secret", "keep-alive", "proxy-connection", "upgrade", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_readings_is_refused() {
    let (backend, gateway) = plain().await;
    let cases = [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: folded\r\n on\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http:/\\a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 400),
    ];
    for (text, status) in cases {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        connection.send(text).await.unwrap();
        let answer = connection.answer(false).await.unwrap();
        assert_eq!(answer.status, status, "{text:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{text:?}");
        assert!(answer.header("proxy-status").unwrap().contains("error=http_request_error"), "{text:?}");
        assert_eq!(gateway.record(&answer).await["status"], status, "{text:?}");
        assert!(
            connection.closes(Duration::from_secs(5)).await,
            "{text:?}: what follows is not read as a request"
        );
    }
    assert_eq!(backend.requests(), 0, "none of it reaches a backend");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_head_hold() {
    let backend = Backend::start(Act::Answer(200)).await;
    let limits = "limits: { max_header_bytes: 4KiB, max_headers: 10, max_uri_bytes: 1KiB }\n";
    let gateway = Gateway::start(&(limits.to_owned() + &site(&[&backend], "", ""))).await;
    let fields = |count: usize| (0..count).map(|at| format!("X-{at}: y\r\n")).collect::<String>();
    let head = |path: &str, fields: &str| format!("GET /{path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let cases = [
        (head("", &fields(9)), 200),
        (head("", &fields(10)), 431),
        (head(&"p".repeat(1023), ""), 200),
        (head(&"p".repeat(1024), ""), 414),
        (head("", &format!("X: {}\r\n", "y".repeat(4000))), 200),
        (head("", &format!("X: {}\r\n", "y".repeat(4100))), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(20_000)), 431),
    ];
    for (text, status) in cases {
        let answer = request(gateway.address, &text).await.unwrap();
        assert_eq!(answer.status, status, "{:.60}", text);
        assert_eq!(gateway.record(&answer).await["status"], status);
    }
    assert_eq!(backend.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_by_its_length_or_on_the_way() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    max_body_bytes: 1KiB\n")).await;
    let by_length = |size: usize| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{}", "x".repeat(size))
    };
    let by_chunks = |size: usize| {
        let chunk = format!("100\r\n{}\r\n", "x".repeat(256));
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunk.repeat(size / 256)
        )
    };
    for (text, status) in [
        (by_length(1024), 200),
        (by_length(1025), 413),
        (by_length(100_000), 413),
        (by_chunks(1024), 200),
        (by_chunks(1280), 413),
    ] {
        let answer = request(gateway.address, &text).await.unwrap();
        assert_eq!(answer.status, status, "{:.70}", text);
        let record = gateway.record(&answer).await;
        assert_eq!(
            (&record["status"], record["cause"].as_str()),
            (&Value::from(status), (status == 413).then_some("http_request_error"))
        );
    }
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "no backend is to blame");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_answered_408_and_an_idle_connection_closed() {
    let backend = Backend::start(Act::Answer(200)).await;
    let limits = "limits: { header_timeout: 400ms, keepalive_timeout: 1s, body_timeout: 500ms }\n";
    let gateway = Gateway::start(&(limits.to_owned() + &site(&[&backend], "", ""))).await;
    let mut slow = Connection::open(gateway.address).await.unwrap();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").await.unwrap();
    let start = std::time::Instant::now();
    let trickle = async {
        // Each byte in time does not help: the limit is on the whole head.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if slow.send("y").await.is_err() || start.elapsed() > Duration::from_millis(1000) {
                break;
            }
        }
    };
    trickle.await;
    assert_eq!(slow.answer(false).await.unwrap().status, 408);
    let mut idle = Connection::open(gateway.address).await.unwrap();
    assert_eq!(idle.get("/").await.unwrap().status, 200);
    let start = std::time::Instant::now();
    assert!(idle.closes(Duration::from_secs(10)).await);
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    let mut body = Connection::open(gateway.address).await.unwrap();
    body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
    assert_eq!(body.answer(false).await.unwrap().status, 408, "a body that stops");
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_passes_bytes_both_ways() {
    let backend = Backend::start(Act::Echo).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut socket = Connection::open(gateway.address).await.unwrap();
    let upgrade = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n";
    socket.send(upgrade).await.unwrap();
    let answer = socket.answer(false).await.unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    for text in ["hello", "\0\x01binary\u{7f}", "GET / HTTP/1.1\r\n\r\n"] {
        socket.send(text).await.unwrap();
        assert_eq!(socket.exactly(text.len()).await, text.as_bytes());
    }
    let head = backend.heads().pop().unwrap();
    assert_eq!(field(&head, "upgrade").as_deref(), Some("websocket"));
    assert_eq!(field(&head, "sec-websocket-version").as_deref(), Some("13"));
    backend.die().await;
    assert!(socket.closes(Duration::from_secs(5)).await, "the end of one side is the end of the other");
    let record = gateway.record_where("its record", |record| record["path"] == "/socket").await;
    assert_eq!(record["status"], 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unasked_upgrade_is_an_error_of_the_backend() {
    let backend = Backend::start(Act::Echo).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.header("proxy-status").unwrap().contains("error=http_protocol_error"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_clients_are_served() {
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec();
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut plain = Connection::open(gateway.address).await.unwrap();
    plain.send("GET /old HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = plain.answer(false).await.unwrap();
    assert!(answer.status == 200 && answer.text().ends_with(" for /old\n"), "{answer:?}");
    assert!(plain.closes(Duration::from_secs(5)).await, "it closes unless asked otherwise");
    let mut kept = Connection::open(gateway.address).await.unwrap();
    for _ in 0..2 {
        kept.send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
        let answer = kept.answer(false).await.unwrap();
        assert_eq!(answer.status, 200);
        if !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")) {
            break;
        }
    }
    backend.set(Act::Bytes(chunks));
    let answer = request(gateway.address, "GET /chunked HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(
        (answer.header("transfer-encoding"), answer.text().as_str()),
        (None, "hello"),
        "it knows no chunks"
    );
    assert_eq!(gateway.record(&answer).await["version"], "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let (backend, gateway) = plain().await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let all: String = (0..20).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    connection.send(all).await.unwrap();
    for at in 0..20 {
        let answer = connection.answer(false).await.unwrap();
        assert!(answer.text().ends_with(&format!(" for /{at}\n")), "{at}: {}", answer.text());
    }
    let post = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    connection.send(post).await.unwrap();
    for path in ["/post", "/next"] {
        assert!(connection.answer(false).await.unwrap().text().ends_with(&format!(" for {path}\n")));
    }
    assert_eq!(backend.bodies()[20], b"hello");
    assert_eq!(backend.requests(), 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_expects_100_continue_gets_it_before_the_body() {
    let (backend, gateway) = plain().await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection
        .send("POST /big HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await
        .unwrap();
    connection.sees(b"HTTP/1.1 100").await;
    connection.send("hello").await.unwrap();
    let answer = connection.answer(false).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(backend.bodies(), [b"hello".to_vec()]);
    if answer.header("connection") != Some("close") {
        assert_eq!(
            connection.get("/next").await.expect("the connection was not announced closed").status,
            200
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_in_the_form_that_was_asked_for() {
    let dead = Backend::refusing().await;
    let gateway = Gateway::start(&site(&[&dead], "", "")).await;
    let cases = [
        ("Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n", "text/html; charset=utf-8"),
        ("Accept: application/json\r\n", "application/problem+json"),
        ("Accept: application/problem+json\r\n", "application/problem+json"),
        ("Accept: */*\r\n", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
    ];
    for (accept, media_type) in cases {
        let answer =
            request(gateway.address, &format!("GET / HTTP/1.1\r\nHost: a\r\n{accept}\r\n")).await.unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (502, Some(media_type)), "{accept}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let (text, id) = (answer.text(), answer.header("x-request-id").unwrap());
        assert!(text.contains(id) && text.contains("502"), "{text}");
        assert!(!text.contains(&dead.address.to_string()), "no internals: {text}");
        if media_type == "application/problem+json" {
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&problem["status"], &problem["cause"]),
                (&Value::from(502), &Value::from("connection_refused"))
            );
        }
        if media_type.starts_with("text/html") {
            assert!(text.starts_with("<!doctype html>"), "{text}");
        }
    }
    let head = request(gateway.address, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(head.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_close_is_honoured_by_both_sides() {
    let (backend, gateway) = plain().await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let answer = connection.get_with("/", "Connection: close\r\n").await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(connection.closes(Duration::from_secs(5)).await);
    // A backend's wish to close is its own affair: the client's connection is kept.
    backend.set(page("Connection: close\r\n", "bye"));
    let mut kept = Connection::open(gateway.address).await.unwrap();
    for _ in 0..3 {
        assert_eq!(kept.get("/").await.unwrap().text(), "bye");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_keep_the_connection() {
    let (backend, gateway) = plain().await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for status in [204, 304] {
        backend.set(Act::Bytes(format!("HTTP/1.1 {status} X\r\nETag: \"a\"\r\n\r\n").into_bytes()));
        assert_eq!(connection.get_with("/", "If-None-Match: \"a\"\r\n").await.unwrap().status, status);
    }
    backend.set(Act::Answer(200));
    connection.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let head = connection.answer(true).await.unwrap();
    assert!(head.header("content-length").is_some_and(|length| length != "0"), "{head:?}");
    assert_eq!(connection.get("/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_exactly_one_record() {
    fn by_path(head: &str) -> String {
        response(if head.contains("/missing") { 404 } else { 200 }, "", "page", false)
    }
    let good = Backend::start(Act::Reply(by_path)).await;
    let config =
        format!("{}routes:\n  - {{ upstream: web, match: {{ host: [test, a] }} }}\n", upstream(&[&good], ""));
    let gateway = Gateway::start(&config).await;
    let mut ids = Vec::new();
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for path in ["/", "/missing", "/quoted\"path", "/query?token=secret"] {
        let answer = connection.get(path).await.unwrap();
        ids.push((answer.header("x-request-id").unwrap().to_owned(), answer.status));
    }
    let others = [
        "GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nUser-Agent: \"quoted\" \u{e9}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    ];
    for text in others {
        let answer = request(gateway.address, text).await.unwrap();
        ids.push((answer.header("x-request-id").unwrap().to_owned(), answer.status));
    }
    eventually("all records", || async { gateway.records().len() >= ids.len() }).await;
    good.set(Act::Hang);
    let mut leaver = Connection::open(gateway.address).await.unwrap();
    let before = good.requests();
    leaver.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("it is under way", || async { good.requests() > before }).await;
    drop(leaver);
    let left = gateway.record_where("the one who left", |record| record["path"] == "/left").await;
    assert_eq!((&left["status"], &left["cause"]), (&Value::from(499), &Value::from("client_disconnected")));
    let text = std::fs::read_to_string(gateway.folder.join("access.log")).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(records.len(), ids.len() + 1, "no more and no less: {text}");
    for (id, status) in ids {
        let of_it: Vec<&Value> =
            records.iter().filter(|record| record["request_id"] == id.as_str()).collect();
        assert_eq!(of_it.len(), 1, "{id}");
        assert_eq!(of_it[0]["status"], status);
    }
    assert!(!text.contains("secret"), "a query may hold secrets");
}
