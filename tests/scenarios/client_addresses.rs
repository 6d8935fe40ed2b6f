//! The client's address behind trusted proxies: a hop that cannot be read makes it unknown, and an unknown client
//! passes no rule that asks for an address.

use serde_json::Value;

use crate::harness::backend::page;
use crate::harness::gateway::failing_start;
use crate::harness::{Act, Answer, Backend, Connection, Gateway};
use crate::{site, upstream};

/// A GET with this chain of addresses from a trusted proxy.
async fn ask(gateway: &Gateway, method: &str, path: &str, fields: &[u8]) -> Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nPurge-Mode: soft\r\n");
    connection.send([head.as_bytes(), fields, b"\r\n"].concat()).await.unwrap();
    connection.answer(false).await.unwrap()
}

fn chain(hops: &[u8]) -> Vec<u8> {
    [b"X-Forwarded-For: ", hops, b"\r\n"].concat()
}

/// Chains whose first hop is forged, with the client that each makes.
const CHAINS: [(&[u8], &str); 12] = [
    (b"127.0.0.5, 8.8.8.8:1234", "8.8.8.8"),
    (b"127.0.0.5, [2001:db8::1]:443", "2001:db8::1"),
    (b"127.0.0.5, [2001:db8::1]", "2001:db8::1"),
    (b"127.0.0.5, \"8.8.8.8\"", "8.8.8.8"),
    (b"127.0.0.5, ::ffff:8.8.8.8", "8.8.8.8"),
    (b"\xe9, 203.0.113.5", "203.0.113.5"),
    (b"127.0.0.5, \xe9", "unknown"),
    (b"127.0.0.5, unknown", "unknown"),
    (b"127.0.0.5, 8.8.8", "unknown"),
    (b"127.0.0.5, 8.8.8.8:x, 127.0.0.1", "unknown"),
    (b"127.0.0.5,", "unknown"),
    (b"", "unknown"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_cannot_be_read_is_not_skipped() {
    let backend = Backend::start(Act::Answer(200)).await;
    let config = format!(
        "trusted_proxies: [127.0.0.1]\n{}routes:\n\
        \x20 - {{ upstream: web }}\n\
        \x20 - {{ upstream: web, match: {{ path: /allow }}, allow: [127.0.0.0/8, '2001:db8::/32'] }}\n\
        \x20 - {{ upstream: web, match: {{ path: /all }}, allow: [0.0.0.0/0, '::/0'] }}\n\
        \x20 - {{ upstream: web, match: {{ path: /deny }}, deny: [9.9.9.9] }}\n",
        upstream(&[&backend], "")
    );
    let gateway = Gateway::start(&config).await;
    for (hops, client) in CHAINS {
        let shown = hops.escape_ascii();
        let is_known = client != "unknown";
        for (path, status) in [
            ("/", 200),
            ("/allow", if client == "2001:db8::1" { 200 } else { 403 }),
            ("/all", if is_known { 200 } else { 403 }),
            ("/deny", if is_known { 200 } else { 403 }),
        ] {
            let answer = ask(&gateway, "GET", path, &chain(hops)).await;
            assert_eq!(answer.status, status, "{path}: {shown}");
            let record = gateway.record(&answer).await;
            assert_eq!(record["client"], client, "{path}: {shown}");
            let is_explained = record["detail"].is_string();
            assert_eq!(is_explained, !is_known && status == 403, "{record}");
        }
        let seen = backend.heads().pop().unwrap();
        assert!(seen.contains(", 127.0.0.1\r\n"), "the backend sees the whole chain: {seen}");
    }
    let two = [chain(b"127.0.0.5"), chain(b"oops")].concat();
    assert_eq!(ask(&gateway, "GET", "/allow", &two).await.status, 403);
    assert_eq!(ask(&gateway, "GET", "/deny", b"X-Forwarded-For:\r\n").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_client_has_no_exemption_and_one_limit_with_its_like() {
    let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "page")).await;
    let all = "['0.0.0.0/0', '::/0']";
    let config = format!(
        "trusted_proxies: [127.0.0.1]\ncaches: {{ c: {{ memory: 1MiB }} }}\n{}routes:\n\
        \x20 - {{ upstream: web, match: {{ path: /limit }}, rate_limit: {{ rate: 1/h, burst: 2 }} }}\n\
        \x20 - {{ upstream: web, match: {{ path: /exempt }}, rate_limit: {{ rate: 1/h, burst: 2, exempt: {all} }} }}\n\
        \x20 - {{ upstream: web, match: {{ path: /closed }}, maintenance: {{ allow: {all} }} }}\n\
        \x20 - {{ upstream: web, match: {{ path: /purge }}, cache: {{ store: c, mode: standard, purge: {{ allow: {all} }} }} }}\n",
        upstream(&[&backend], "")
    );
    let gateway = Gateway::start(&config).await;
    for (path, statuses) in [("/limit", [200, 200, 429]), ("/exempt", [200, 200, 429])] {
        for (hops, status) in [b"127.0.0.5, x".as_slice(), b"127.0.0.6, y", b"\xff"].iter().zip(statuses) {
            let answer = ask(&gateway, "GET", path, &chain(hops)).await;
            assert_eq!(answer.status, status, "{path}: {}", hops.escape_ascii());
        }
        let known = ask(&gateway, "GET", path, &chain(b"8.8.8.8")).await;
        assert_eq!(known.status, 200, "{path}: a known client is counted by itself");
    }
    assert_eq!(ask(&gateway, "GET", "/closed", &chain(b"127.0.0.5, x")).await.status, 503);
    assert_eq!(ask(&gateway, "GET", "/closed", &chain(b"127.0.0.5")).await.status, 200);
    assert_eq!(ask(&gateway, "PURGE", "/purge", &chain(b"127.0.0.5, x")).await.status, 403);
    assert_eq!(ask(&gateway, "PURGE", "/purge", &chain(b"127.0.0.5")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_names_the_client_where_there_is_no_x_forwarded_for() {
    let backend = Backend::start(Act::Answer(200)).await;
    let config =
        "trusted_proxies: [127.0.0.1]\n".to_owned() + &site(&[&backend], "", "    deny: [9.9.9.9]\n");
    let gateway = Gateway::start(&config).await;
    for (fields, client) in [
        ("Forwarded: for=6.6.6.6, for=\"[2001:db8::1]:443\";proto=https\r\n", "2001:db8::1"),
        ("Forwarded: for=6.6.6.6, for=_hidden\r\n", "unknown"),
        ("Forwarded: proto=https\r\n", "unknown"),
        ("Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
    ] {
        let answer = ask(&gateway, "GET", "/", fields.as_bytes()).await;
        assert_eq!(answer.status, if client == "unknown" { 403 } else { 200 }, "{fields}");
        assert_eq!(gateway.record(&answer).await["client"], Value::from(client), "{fields}");
    }
}

#[test]
fn a_list_that_would_never_match_is_refused() {
    let refused = |list: &str| {
        failing_start(&format!(
            "upstreams: {{ web: ['127.0.0.1:1'] }}\nroutes: [{{ upstream: web, deny: ['{list}'] }}]\n"
        ))
    };
    let (code, said) = refused("::ffff:0:0/90");
    assert!(
        code != 0 && said.contains("routes[0].deny[0]: found \"::ffff:0:0/90\"; allowed: an IPv4 network"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mapped_networks_in_lists_are_ipv4_networks() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    deny: ['::ffff:127.0.0.0/104']\n")).await;
    assert_eq!(gateway.get("/").await.status, 403);
    let trusted = "trusted_proxies: ['::ffff:127.0.0.1']\n".to_owned()
        + &site(&[&backend], "", "    deny: ['::ffff:9.0.0.0/104']\n");
    let gateway = Gateway::start(&trusted).await;
    assert_eq!(ask(&gateway, "GET", "/", &chain(b"9.9.9.9")).await.status, 403);
    assert_eq!(ask(&gateway, "GET", "/", &chain(b"8.8.8.8")).await.status, 200);
}
