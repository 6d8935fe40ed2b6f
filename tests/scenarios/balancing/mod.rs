//! Who gets the next request: every way of balancing, through the real binary.

mod limits;
mod mirrors;
mod splits;
mod sticky;

use std::time::Duration;

use crate::harness::backend::Gate;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, backends, eventually};
use crate::site;

/// The port of the backend that has answered.
fn from(answer: &Answer) -> u16 {
    let text = answer.text();
    let address = text.split(' ').nth(2).unwrap_or_else(|| panic!("{text:?} names no backend"));
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// An answer that waits for a gate.
fn held(gate: &Gate) -> Act {
    Act::Gated { first: Vec::new(), gate: gate.clone(), rest: Box::new(Act::Answer(200)) }
}

/// Sends a request on a connection of its own; the answer can be read later.
async fn send(gateway: &Gateway, path: &str) -> Connection {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await.unwrap();
    connection
}

/// Sends requests one by one, each when the one before has reached a backend.
async fn send_all(gateway: &Gateway, paths: &[&str], backends: &[&Backend]) -> Vec<Connection> {
    let reached = || backends.iter().map(|backend| backend.requests()).sum::<u64>();
    let mut sent = Vec::new();
    for path in paths {
        let before = reached();
        sent.push(send(gateway, path).await);
        eventually("it has reached a backend", || async { reached() > before }).await;
    }
    sent
}

async fn all_succeed(sent: Vec<Connection>) {
    for mut connection in sent {
        assert_eq!(connection.answer(false).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn least_conn_fills_backends_evenly_and_by_weight() {
    let gate = Gate::shut();
    let [a, b, c] = backends([held(&gate), held(&gate), held(&gate)]).await;
    let config = format!(
        "upstreams:\n  web:\n    balance: least_conn\n    backends: [{{ address: {}, weight: 2 }}, {}, {}]\nroutes: [{{ upstream: web }}]\n",
        a.address, b.address, c.address
    );
    let gateway = Gateway::start(&config).await;
    let sent = send_all(&gateway, &["/"; 12], &[&a, &b, &c]).await;
    assert_eq!([a.requests(), b.requests(), c.requests()], [6, 3, 3]);
    gate.open();
    all_succeed(sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_the_one_with_less_under_way_is_taken() {
    for balance in ["random_two", "least_conn"] {
        let gate = Gate::shut();
        let [stuck, quick] = backends([held(&gate), Act::Answer(200)]).await;
        let settings = format!("    balance: {balance}\n");
        let gateway = Gateway::start(&site(&[&stuck, &quick], &settings, "")).await;
        // Until one request hangs, either may be taken.
        let mut waiting = Vec::new();
        while stuck.requests() == 0 {
            waiting.extend(send_all(&gateway, &["/"], &[&stuck, &quick]).await);
        }
        let before = quick.requests();
        let mut connection = Connection::open(gateway.address).await.unwrap();
        for _ in 0..20 {
            let in_flight = "goodgate_backend_requests_in_flight";
            eventually("only one is under way", || async { gateway.metric(in_flight).await == 1.0 }).await;
            assert_eq!(from(&connection.get("/").await.unwrap()), quick.address.port(), "{balance}");
        }
        assert_eq!((stuck.requests(), quick.requests()), (1, before + 20), "{balance}");
        gate.open();
        all_succeed(waiting).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn least_time_leaves_the_slow_backend_alone() {
    let slow = Act::Slow(Duration::from_millis(300), Box::new(Act::Answer(200)));
    let [slow, quick] = backends([slow, Act::Answer(200)]).await;
    let gateway = Gateway::start(&site(&[&slow, &quick], "    balance: least_time\n", "")).await;
    // As long as one of them is not known they are drawn.
    while slow.requests() == 0 || quick.requests() == 0 {
        gateway.get("/").await;
    }
    let in_flight = "goodgate_backend_requests_in_flight";
    let before = slow.requests();
    for _ in 0..30 {
        eventually("nothing is under way", || async { gateway.metric(in_flight).await == 0.0 }).await;
        assert_eq!(from(&gateway.get("/").await), quick.address.port());
    }
    assert_eq!(slow.requests(), before);
}

/// The backend of each of so many paths.
async fn owners(gateway: &Gateway, paths: usize) -> Vec<u16> {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let mut owners = Vec::new();
    for path in 0..paths {
        owners.push(from(&connection.get(&format!("/{path}")).await.unwrap()));
    }
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_backend_leaves_its_own_keys_move_and_come_back_with_it() {
    let [a, b, mut c] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let settings = "    balance: consistent_hash\n    max_fails: 1\n    fail_timeout: 200ms\n";
    let gateway = Gateway::start(&site(&[&a, &b, &c], settings, "")).await;
    let before = owners(&gateway, 60).await;
    assert_eq!(owners(&gateway, 60).await, before, "the same to the same");
    for backend in [&a, &b, &c] {
        assert!(before.contains(&backend.address.port()), "{before:?}");
    }
    c.die().await;
    let gone = c.address.port();
    let without = owners(&gateway, 60).await;
    for (before, without) in before.iter().zip(&without) {
        assert!(if *before == gone { *without != gone } else { without == before });
    }
    c.revive().await;
    eventually("it is back in rotation", || async {
        gateway.get("/").await;
        gateway.state(c.address).await == "up"
    })
    .await;
    assert_eq!(owners(&gateway, 60).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_gateways_agree_about_a_key_whatever_the_order_of_their_backends() {
    let [a, b, c] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let settings = "    balance: consistent_hash\n";
    let one = Gateway::start(&site(&[&a, &b, &c], settings, "")).await;
    let other = Gateway::start(&site(&[&c, &a, &b], settings, "")).await;
    assert_eq!(owners(&one, 40).await, owners(&other, 40).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_is_made_of_what_the_upstream_says() {
    /// Makes the target and the fields of a request of its number.
    type Make = fn(usize) -> (String, String);
    let cases: [(&str, &str, Make); 5] = [
        ("uri", "    hash_on: uri\n", |n| (format!("/same?{}", n % 2), String::new())),
        ("path", "    hash_on: path\n", |n| (format!("/{}?{n}", n % 2), String::new())),
        ("header", "    hash_on: header:X-User\n", |n| (format!("/{n}"), format!("X-User: {}\r\n", n % 2))),
        ("cookie", "    hash_on: cookie:user\n", |n| {
            (format!("/{n}"), format!("Cookie: a={n}; user={}\r\n", n % 2))
        }),
        ("client_ip", "    hash_on: client_ip\n", |n| {
            (format!("/{n}"), format!("X-Forwarded-For: 10.0.0.{}\r\n", n % 2))
        }),
    ];
    for (name, hash_on, request) in cases {
        let [a, b, c] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
        let settings = format!("    balance: consistent_hash\n{hash_on}");
        let config = format!("trusted_proxies: [127.0.0.1]\n{}", site(&[&a, &b, &c], &settings, ""));
        let gateway = Gateway::start(&config).await;
        let mut connection = Connection::open(gateway.address).await.unwrap();
        let mut seen = [Vec::new(), Vec::new()];
        for n in 0..20 {
            let (path, fields) = request(n);
            seen[n % 2].push(from(&connection.get_with(&path, &fields).await.unwrap()));
        }
        for seen in &seen {
            assert!(seen.iter().all(|port| *port == seen[0]), "{name}: {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_key_fills_its_backend_to_the_factor_and_not_beyond() {
    let gate = Gate::shut();
    let acts = [held(&gate), held(&gate), held(&gate), held(&gate)];
    let [a, b, c, d] = backends(acts).await;
    let settings = "    balance: consistent_hash\n    hash_balance_factor: 150%\n";
    let all = [&a, &b, &c, &d];
    let gateway = Gateway::start(&site(&all, settings, "")).await;
    let sent = send_all(&gateway, &["/hot"; 16], &all).await;
    let mut loads = all.map(|backend| backend.requests());
    loads.sort_unstable();
    assert_eq!(loads[3], 6, "1.5 times the mean of 4: {loads:?}");
    gate.open();
    all_succeed(sent).await;
}
