//! The net: copies served when no backend answers.

use crate::harness::backend::page;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, backends, eventually, get};
use crate::site;

fn age(answer: &Answer) -> u64 {
    answer.header("age").and_then(|age| age.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_the_copy_when_every_backend_is_down() {
    let [a, b] = backends([
        page("Cache-Control: max-age=1\r\n", "good"),
        page("Cache-Control: max-age=1\r\n", "good"),
    ])
    .await;
    let cache = "    cache: { mode: standard, use_stale: [error, timeout] }\n";
    let gateway = Gateway::start(&site(&[&a, &b], "", cache)).await;
    assert_eq!(gateway.get("/page").await.text(), "good");
    let in_rotation = "goodgate_upstream_backends_in_rotation{upstream=\"web\"}";
    assert_eq!(gateway.metric(in_rotation).await, 2.0);
    a.kill();
    b.kill();
    eventually("the copy is stale", || async { age(&gateway.get("/page").await) > 1 }).await;
    let rescues = || async { gateway.metric("goodgate_rescues_total{by=\"stale\"}").await };
    let before = rescues().await;
    for _ in 0..5 {
        let answer = gateway.get("/page").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
        assert!((1..60).contains(&age(&answer)));
        assert!(answer.header("cache-status").unwrap().starts_with("goodgate; hit"));
    }
    eventually("five more rescues", || async { rescues().await >= before + 5.0 }).await;
    let answer = gateway.get("/never-seen").await;
    assert_eq!(answer.status, 502);
    // How many attempts the old copies have spared is a matter of pace.
    eventually("both are out", || async {
        gateway.get("/never-seen").await;
        gateway.metric(in_rotation).await == 0.0
    })
    .await;
    assert!(answer.header("proxy-status").unwrap().contains("error=connection_refused"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_asks_a_backend_every_time_and_serves_the_copy_when_none_answers() {
    let backend = Backend::start(page("", "plain")).await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 1\n", "    cache: fallback\n")).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/p").await.text(), "plain");
    }
    assert_eq!(backend.requests(), 5, "with a backend up it sees every request");
    for act in [Act::Answer(503), Act::Answer(502), Act::Answer(504), Act::Close, Act::Reset] {
        backend.set(act.clone());
        let answer = gateway.get("/p").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "plain"), "{act:?}");
        assert!(answer.header("age").is_some());
    }
    backend.kill();
    let answer = gateway.get("/p").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "plain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_usable_after_a_copy_or_announced_closed() {
    let backend = Backend::start(page("", "plain")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: fallback\n")).await;
    gateway.get("/p").await;
    backend.kill();
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for path in ["/p", "/p", "/none", "/p", "/none", "/p", "/p", "/p"] {
        let answer = connection.get(path).await.expect("an answer, not a reset");
        assert_eq!(answer.status, if path == "/p" { 200 } else { 502 });
        if answer.header("connection") == Some("close") {
            assert!(connection.closes(std::time::Duration::from_secs(2)).await);
            connection = Connection::open(gateway.address).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_conditional_requests_are_rescued_too() {
    let backend = Backend::start(page("ETag: \"v1\"\r\n", "plain")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: fallback\n")).await;
    gateway.get("/p").await;
    backend.kill();
    let head =
        crate::harness::request(gateway.address, "HEAD /p HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let conditional = connection.get_with("/p", "If-None-Match: \"v1\"\r\n").await.unwrap();
    assert_eq!(conditional.status, 304);
    let range = get(gateway.address, "/p").await.unwrap();
    assert_eq!(range.text(), "plain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_behind_a_client_has_its_deadline_too() {
    let backend = Backend::start(page("Cache-Control: max-age=1\r\n", "good")).await;
    let limits = "    timeouts: { first_byte: 400ms, read: 400ms }\n";
    let gateway = Gateway::start(&site(&[&backend], limits, "    cache: standard\n")).await;
    assert_eq!(gateway.get("/page").await.text(), "good");
    let slow = format!("HTTP/1.1 200 OK\r\nX-Slow: {}", "y".repeat(1000));
    // Each byte comes well before the limit of a read.
    backend.set(Act::Drip(slow.into_bytes(), std::time::Duration::from_millis(50)));
    let late = "goodgate_attempt_failures_total{cause=\"http_response_timeout\"}";
    eventually("a refresh is cut", || async {
        assert_eq!(gateway.get("/page").await.text(), "good");
        gateway.metric(late).await >= 1.0
    })
    .await;
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_forbids_stale_copies_is_heeded_unless_the_route_overrides_it_by_name() {
    for (control, named) in [
        ("no-cache", "no_cache"),
        ("max-age=0, must-revalidate", "must_revalidate"),
        ("s-maxage=0", "must_revalidate"),
    ] {
        for mode in ["standard", "fallback"] {
            for (overrides, status) in [("[]".to_owned(), 502), (format!("[{named}]"), 200)] {
                let headers = format!("Cache-Control: {control}\r\nETag: \"a\"\r\n");
                let backend = Backend::start(page(&headers, "kept")).await;
                let cache = format!("    cache: {{ mode: {mode}, override: {overrides} }}\n");
                let gateway = Gateway::start(&site(&[&backend], "", &cache)).await;
                assert_eq!(gateway.get("/").await.text(), "kept");
                backend.kill();
                let answer = gateway.get("/").await;
                assert_eq!(answer.status, status, "{control} {mode} {overrides}: {answer:?}");
                if status == 200 {
                    let said = answer.header("cache-status").unwrap();
                    assert!(said.ends_with("-override"), "{said}");
                }
            }
        }
    }
}
