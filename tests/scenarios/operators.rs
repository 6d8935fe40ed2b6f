//! The operator's side: who may ask, and what a web page in the operator's browser cannot.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::gateway::folder;
use crate::harness::{Act, Answer, Backend, Gateway, get_admin, request};
use crate::upstream;

async fn gateway(admin: &str) -> (Backend, Gateway) {
    let backend = Backend::start(Act::Answer(200)).await;
    let folder = folder();
    std::fs::write(folder.join("token"), "s3cret\n").unwrap();
    let config = config(&backend, admin);
    (backend, Gateway::start_in(folder, &config).await)
}

fn config(backend: &Backend, admin: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0'{admin} }}\naccess_log: {{ path: off }}\n{}routes: [{{ upstream: web }}]\n",
        upstream(&[backend], "")
    )
}

async fn ask(gateway: &Gateway, line: &str, fields: &str) -> Answer {
    let text = format!("{line} HTTP/1.1\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n");
    request(gateway.admin, &text).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_leads_its_own_name_here_reads_nothing() {
    let (_backend, gateway) = gateway(", hosts: [Gateway.internal]").await;
    let port = gateway.admin.port();
    for (host, status) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        (format!("gateway.internal:{port}"), 200),
        (format!("evil.test:{port}"), 421),
        ("127.0.0.1.evil.test".to_owned(), 421),
        ("test".to_owned(), 421),
    ] {
        for path in ["/metrics", "/api/v1/backends", "/api/v1/failures", "/"] {
            let expected = if path == "/" && status == 200 { 404 } else { status };
            let answer = ask(&gateway, &format!("GET {path}"), &format!("Host: {host}\r\n")).await;
            assert_eq!(answer.status, expected, "{host} {path}");
            assert_eq!(
                answer.text().contains("web"),
                status == 200 && path != "/" && path != "/api/v1/failures",
                "{host} {path}"
            );
        }
        for path in ["/livez", "/readyz"] {
            let answer = ask(&gateway, &format!("GET {path}"), &format!("Host: {host}\r\n")).await;
            assert_eq!(answer.status, 200, "{host} {path}");
        }
    }
    let absolute = format!(
        "GET http://evil.test/metrics HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    );
    let answer = request(gateway.admin, &absolute).await;
    assert!(
        answer.as_ref().map_or(true, |answer| answer.status == 421),
        "no answer, or none of use: {answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_needs_the_token_and_no_other_site_may_send_it() {
    let (_open_backend, open) = gateway("").await;
    let (_backend, closed) = gateway(", token_file: token").await;
    let token = "Authorization: Bearer s3cret\r\n";
    let own = |gateway: &Gateway| format!("Host: {}\r\n", gateway.admin);
    for method in ["POST", "PUT", "DELETE"] {
        let line = format!("{method} /api/v1/backends");
        assert_eq!(
            ask(&open, &line, &own(&open)).await.status,
            403,
            "{method}: without a token there are no changes"
        );
        assert_eq!(ask(&closed, &line, &own(&closed)).await.status, 403, "{method}");
        let known = own(&closed) + token;
        for foreign in ["Origin: http://evil.test\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"]
        {
            let answer = ask(&closed, &line, &format!("{known}{foreign}")).await;
            assert_eq!(
                (answer.status, answer.text().contains("another site")),
                (403, true),
                "{method} {foreign}"
            );
        }
        let origin = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", closed.admin);
        let status = ask(&closed, &line, &format!("{known}{origin}")).await.status;
        assert_eq!(status, if method == "POST" { 400 } else { 405 }, "it is heard, and says nothing");
    }
    for (fields, status) in [("", 403), ("Authorization: Bearer s3cres\r\n", 403), (token, 200)] {
        let answer = ask(&closed, "GET /api/v1/backends", &(own(&closed) + fields)).await;
        assert_eq!(answer.status, status, "{fields}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_to_make_nothing_else_of_it() {
    let (_backend, gateway) = gateway("").await;
    for path in ["/metrics", "/livez", "/readyz", "/api/v1/backends", "/api/v1/failures?limit=x", "/none"] {
        let answer = get_admin(gateway.admin, path).await.unwrap();
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_revokes_a_token_and_changes_the_names() {
    let (backend, gateway) = gateway(", token_file: token, hosts: [old.internal]").await;
    let own = format!("Host: {}\r\n", gateway.admin);
    let status = async |host: &str, token: &str| {
        let fields = format!("{host}Authorization: Bearer {token}\r\n");
        ask(&gateway, "GET /api/v1/backends", &fields).await.status
    };
    assert_eq!((status(&own, "s3cret").await, status(&own, "another").await), (200, 403));
    std::fs::write(gateway.folder.join("token"), "another\n").unwrap();
    let file = gateway.folder.join("goodgate.yaml");
    std::fs::write(&file, config(&backend, ", token_file: token, hosts: [new.internal]")).unwrap();
    gateway.reload("ok").await;
    assert_eq!((status(&own, "s3cret").await, status(&own, "another").await), (403, 200));
    assert_eq!(status("Host: old.internal\r\n", "another").await, 421);
    assert_eq!(status("Host: new.internal\r\n", "another").await, 200);
    assert!(!gateway.errors().contains("only after a restart"), "{}", gateway.errors());
    // What cannot be read changes nothing: the token in use stays.
    std::fs::remove_file(gateway.folder.join("token")).unwrap();
    gateway.reload("failed").await;
    assert_eq!((status(&own, "s3cret").await, status(&own, "another").await), (403, 200));
    // Without a token file nothing may be changed, whatever is sent.
    std::fs::write(&file, config(&backend, "")).unwrap();
    gateway.reload("ok").await;
    let fields = format!("{own}Authorization: Bearer another\r\n");
    assert_eq!(ask(&gateway, "POST /api/v1/backends", &fields).await.status, 403);
}

/// Connections that have sent this and nothing more.
async fn half_sent(gateway: &Gateway, count: usize, bytes: &str) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(gateway.admin).await.unwrap();
        // One that had to give way may be closed already.
        let _ = stream.write_all(bytes.as_bytes()).await;
        all.push(stream);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_requests_do_not_make_the_admin_listener_deaf_and_have_a_deadline() {
    let (_backend, gateway) = gateway("").await;
    let start = Instant::now();
    let mut half = half_sent(&gateway, 300, "GET /livez HTTP/1.1\r\nHost: a\r\n").await;
    half.extend(half_sent(&gateway, 300, "").await);
    for path in ["/livez", "/readyz", "/metrics", "/api/v1/backends"] {
        let answer = tokio::time::timeout(Duration::from_secs(3), get_admin(gateway.admin, path)).await;
        assert_eq!(answer.expect("an answer at once").unwrap().status, 200, "{path}");
    }
    let mut last = half.pop().unwrap();
    let end = tokio::time::timeout(Duration::from_secs(15), last.read(&mut [0; 64])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    assert!(start.elapsed() >= Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_pages_have_places_when_all_others_are_taken_by_requests() {
    let (_backend, gateway) = gateway(", token_file: token").await;
    let head = "POST /api/v1/backends HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\nContent-Length: 9\r\n\r\n";
    let mut slow = half_sent(&gateway, 256, head).await;
    let is_full =
        async || get_admin(gateway.admin, "/metrics").await.is_ok_and(|answer| answer.status == 503);
    // A connection whose head has not been read yet gives way to the next one: others take those places.
    let mut rounds = 0;
    while !is_full().await {
        rounds += 1;
        assert!(rounds < 50, "the others are refused");
        slow.extend(half_sent(&gateway, 8, head).await);
    }
    for path in ["/livez", "/readyz", "/livez"] {
        assert_eq!(get_admin(gateway.admin, path).await.unwrap().status, 200, "{path}");
    }
}
