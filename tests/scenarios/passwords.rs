//! Routes for those who have a password.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::backend::page;
use crate::harness::gateway::folder;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually};
use crate::upstream;

/// The password is `open sesame`; the costs are 4 and 11, and 5000 rounds.
const CHEAP: &str = "$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";
const DEAR: &str = "$2y$11$abcdefghijklmnopqrstuu74xmB/NJkGNKfoNHO3z5FV3/sM3pMe.";
const SHA: &str =
    "$6$Pj4dPq9sX$Ho0RC1.nQXKhkbBPDVGBQPJqrFH1xwnMwZipyS3OCpeHmabWdtcNQ0kAekSZxHWUm2XLWKmwJn8K21YAJv5Fh/";

async fn gateway(backend: &Backend, users: &str, routes: &str) -> Gateway {
    let folder = folder();
    std::fs::write(folder.join("users"), users).unwrap();
    let log = folder.join("access.log");
    let config = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\n{}routes:\n{routes}",
        log.display(),
        upstream(&[backend], "")
    );
    Gateway::start_in(folder, &config).await
}

/// The field that a browser sends.
fn basic(credentials: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in credentials.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(piece.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit > piece.len() { '=' } else { char::from(DIGITS[index]) });
        }
    }
    format!("Authorization: Basic {text}\r\n")
}

async fn ask(gateway: &Gateway, path: &str, fields: &str) -> Answer {
    Connection::open(gateway.address).await.unwrap().get_with(path, fields).await.unwrap()
}

const GUARDED: &str = "  - { upstream: web, basic_auth: { users_file: users, realm: Back office } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_password_gets_an_answer() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = gateway(&backend, &format!("ann:{CHEAP}\nbob:{SHA}:on leave\n"), GUARDED).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for (credentials, status) in [
        (None, 401),
        (Some("ann:open sesame"), 200),
        (Some("ann:open sesame"), 200),
        (Some("bob:open sesame"), 200),
        (Some("ann:open sesam"), 401),
        (Some("Ann:open sesame"), 401),
        (Some("eve:open sesame"), 401),
        (Some("eve:open sesame"), 401),
        (Some(":"), 401),
        (Some("ann"), 401),
        (Some(CHEAP), 401),
    ] {
        let fields = credentials.map(basic).unwrap_or_default();
        let answer = connection.get_with("/", &fields).await.unwrap();
        assert_eq!(answer.status, status, "{credentials:?}");
        let challenge = (status == 401).then_some("Basic realm=\"Back office\", charset=\"UTF-8\"");
        assert_eq!(answer.header("www-authenticate"), challenge, "{credentials:?}");
    }
    let bearer = connection.get_with("/", "Authorization: Bearer abc\r\n").await.unwrap();
    assert_eq!(bearer.status, 401);
    let record = gateway.record(&bearer).await;
    assert_eq!(
        (&record["status"], &record["cause"]),
        (&Value::from(401), &Value::from("http_request_denied"))
    );
    let twice = connection.get_with("/", &basic("ann:open sesame").repeat(2)).await.unwrap();
    assert_eq!(twice.status, 401, "which of the two would the backend read?");
    let heads = backend.heads();
    assert_eq!(heads.len(), 3);
    assert!(heads.iter().all(|head| head.contains("uthorization: Basic ")), "as with nginx, backends see it");
    let log = std::fs::read_to_string(gateway.folder.join("access.log")).unwrap() + &gateway.errors();
    for secret in ["sesame", "$2y", "$6$", "Basic "] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_for_those_who_have_the_password() {
    let backend = Backend::start(page("Cache-Control: public, max-age=600\r\n", "secret page")).await;
    let routes = "  - { upstream: web, cache: standard, basic_auth: { users_file: users } }\n";
    let gateway = gateway(&backend, &format!("ann:{CHEAP}\n"), routes).await;
    let good = basic("ann:open sesame");
    for _ in 0..2 {
        assert_eq!(ask(&gateway, "/", &good).await.text(), "secret page");
    }
    assert_eq!(backend.requests(), 1, "the second comes from a copy");
    for fields in ["", &basic("ann:wrong")] {
        let answer = ask(&gateway, "/", fields).await;
        assert_eq!(answer.status, 401);
        assert!(!answer.text().contains("secret page"));
    }
    backend.die().await;
    assert_eq!(ask(&gateway, "/", "").await.status, 401, "in an outage, too");
    assert_eq!(ask(&gateway, "/", &good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_holds_from_the_reload_on_and_a_bad_file_changes_nothing() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = gateway(&backend, &format!("ann:{CHEAP}\n"), GUARDED).await;
    let (ann, bob) = (basic("ann:open sesame"), basic("bob:open sesame"));
    assert_eq!((ask(&gateway, "/", &ann).await.status, ask(&gateway, "/", &bob).await.status), (200, 401));
    std::fs::write(gateway.folder.join("users"), format!("bob:{SHA}\nann:plain\n")).unwrap();
    gateway.reload("failed").await;
    let told = "users, line 2: the hash of the password";
    eventually("the line is named", || async { gateway.errors().contains(told) }).await;
    assert_eq!((ask(&gateway, "/", &ann).await.status, ask(&gateway, "/", &bob).await.status), (200, 401));
    std::fs::write(gateway.folder.join("users"), format!("bob:{SHA}\n")).unwrap();
    gateway.reload("ok").await;
    assert_eq!((ask(&gateway, "/", &ann).await.status, ask(&gateway, "/", &bob).await.status), (401, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_checked_beside_the_workers_and_good_ones_are_remembered() {
    let backend = Backend::start(Act::Answer(200)).await;
    let mut routes = GUARDED.to_owned();
    writeln!(routes, "  - {{ match: {{ path: /open }}, respond: {{ body: x }} }}").unwrap();
    let gateway = gateway(&backend, &format!("ann:{DEAR}\n"), &routes).await;
    let good = basic("ann:open sesame");
    assert_eq!(ask(&gateway, "/", &good).await.status, 200);
    let wrong: Vec<_> = (0..20)
        .map(|at| {
            let address = gateway.address;
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await.unwrap();
                connection.get_with("/", &basic(&format!("ann:wrong {at}"))).await.unwrap().status
            })
        })
        .collect();
    eventually("they are being checked", || async {
        gateway.metric("goodgate_client_connections{state=\"active\"}").await >= 15.0
    })
    .await;
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(ask(&gateway, "/", &good).await.status, 200);
        assert_eq!(ask(&gateway, "/open", "").await.status, 200);
    }
    let meanwhile = start.elapsed();
    let still = wrong.iter().filter(|one| !one.is_finished()).count();
    assert!(still > 0, "a hundred requests took {meanwhile:?}, longer than twenty checks");
    for one in wrong {
        assert_eq!(one.await.unwrap(), 401);
    }
}

/// Sends wrong passwords on connections of their own, and does not wait for the answers.
async fn guess(gateway: &Gateway, count: usize, fields: &str) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for at in 0..count {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let wrong = basic(&format!("ann:guess {at}"));
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{wrong}{fields}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    streams
}

async fn check_time(gateway: &Gateway) -> Duration {
    let start = Instant::now();
    assert_eq!(ask(gateway, "/", &basic("ann:wrong")).await.status, 401);
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_whose_senders_have_left_do_not_delay_a_login() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = gateway(&backend, &format!("ann:{DEAR}\n"), GUARDED).await;
    let one_check = check_time(&gateway).await;
    let guesses = guess(&gateway, 30, "").await;
    eventually("they wait", || async {
        gateway.metric("goodgate_client_connections{state=\"active\"}").await >= 25.0
    })
    .await;
    for guess in guesses {
        guess.set_zero_linger().unwrap();
    }
    let start = Instant::now();
    assert_eq!(ask(&gateway, "/", &basic("ann:open sesame")).await.status, 200);
    assert!(start.elapsed() < one_check * 10, "{:?}, one check takes {one_check:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_many_guesses_has_a_share_of_the_queue_and_others_are_checked_between_them() {
    let backend = Backend::start(Act::Answer(200)).await;
    let folder = folder();
    std::fs::write(folder.join("users"), format!("ann:{DEAR}\n")).unwrap();
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: access.log }}\ntrusted_proxies: [127.0.0.1]\n{}routes:\n{GUARDED}",
        upstream(&[&backend], "")
    );
    let gateway = Gateway::start_in(folder, &text).await;
    let one_check = check_time(&gateway).await;
    let mut guesses = guess(&gateway, 60, "X-Forwarded-For: 2001:db8::1\r\n").await;
    eventually("the others are refused", || async {
        gateway.metric("goodgate_gateway_errors_total{status=\"429\"}").await >= 20.0
    })
    .await;
    let login = format!("{}X-Forwarded-For: 192.0.2.2\r\n", basic("ann:open sesame"));
    let start = Instant::now();
    assert_eq!(ask(&gateway, "/", &login).await.status, 200);
    assert!(start.elapsed() < one_check * 10, "{:?}, one check takes {one_check:?}", start.elapsed());
    // The first ones are checked, the last ones were refused.
    let mut refused = String::new();
    let mut last = guesses.pop().unwrap();
    let mut buffer = [0; 512];
    while !refused.contains("\r\n\r\n") {
        let count = last.read(&mut buffer).await.unwrap();
        refused.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("http_request_denied"), "{refused}");
    assert!(refused.to_ascii_lowercase().contains("retry-after: 1\r\n"), "{refused}");
}
