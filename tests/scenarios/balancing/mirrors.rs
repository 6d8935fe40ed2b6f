//! Copies of requests for another upstream.

use super::held;
use crate::harness::backend::{Gate, page};
use crate::harness::{Act, Backend, Connection, Gateway, backends, eventually, request};

/// `app`, `shadow`, and one route to `app` with this `mirror` and more settings.
fn site(app: &Backend, shadow: &Backend, mirror: &str, route: &str) -> String {
    format!(
        "upstreams:\n  app: {{ backends: ['{}'], sticky: {{ cookie: gg }} }}\n  shadow: {{ backends: ['{}'], max_fails: 0 }}\nroutes:\n  - name: site\n    upstream: app\n    mirror: {{ upstream: shadow{mirror} }}\n{route}",
        app.address, shadow.address
    )
}

async fn counts(gateway: &Gateway, result: &str, expected: f64) {
    let metric = format!("goodgate_mirrored_requests_total{{result=\"{result}\",route=\"site\"}}");
    let what = format!("{expected} {result}");
    eventually(&what, || async { gateway.metric(&metric).await == expected }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_says_what_the_request_said_and_clients_see_nothing_of_it() {
    let [app, shadow] = backends([Act::Answer(200), Act::Answer(500)]).await;
    let gateway = Gateway::start(&site(&app, &shadow, "", "")).await;
    let fields = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nCookie: gg=00000000000000ab; a=1\r\nX-Mine: 1\r\n";
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let answer = connection.get_with("/a/../b?c", fields).await.unwrap();
    assert_eq!((answer.status, answer.text().contains(&app.address.to_string())), (200, true));
    counts(&gateway, "ok", 1.0).await;
    let heads = [&app, &shadow].map(|backend| {
        let head = backend.heads().remove(0);
        let mut lines: Vec<String> = head.lines().map(str::to_lowercase).collect();
        lines.sort();
        lines
    });
    assert_eq!(heads[0], heads[1]);
    let all = heads[0].join("\n");
    assert!(all.contains("get /b?c") && all.contains("x-forwarded-for: 127.0.0.1"), "{all}");
    assert!(!all.contains("evil") && !all.contains("gg=") && all.contains("cookie: a=1"), "{all}");
    let record = gateway.record(&answer).await;
    assert_eq!((record["upstream"].as_str(), record["attempts"].as_array().unwrap().len()), (Some("app"), 1));
    assert_eq!(gateway.records().len(), 1, "the copy has no record");
    assert_eq!(gateway.metric("goodgate_responses_total{upstream=\"shadow\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_copied_whole_up_to_the_bound_and_not_at_all_beyond_it() {
    let [app, shadow] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let gateway = Gateway::start(&site(&app, &shadow, ", max_body_bytes: 1KiB", "")).await;
    let small = "x".repeat(1024);
    let framed = format!("Content-Length: {}\r\n\r\n{small}", small.len());
    let chunked =
        format!("Transfer-Encoding: chunked\r\n\r\n200\r\n{0}\r\n200\r\n{0}\r\n0\r\n\r\n", &small[..512]);
    for (at, body) in [framed, chunked].iter().enumerate() {
        let text = format!("POST /order HTTP/1.1\r\nHost: test\r\n{body}");
        assert_eq!(request(gateway.address, &text).await.unwrap().status, 200);
        counts(&gateway, "ok", at as f64 + 1.0).await;
    }
    for body in shadow.bodies() {
        // What is chunked comes in chunks.
        assert_eq!(body.iter().filter(|byte| **byte == b'x').count(), 1024);
    }
    let large = "x".repeat(1025);
    let text = format!("POST /order HTTP/1.1\r\nHost: test\r\nContent-Length: 1025\r\n\r\n{large}");
    assert_eq!(request(gateway.address, &text).await.unwrap().status, 200);
    counts(&gateway, "body_too_large", 1.0).await;
    assert_eq!((app.requests(), shadow.requests()), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_hangs_holds_nobody_up_and_takes_no_more_than_it_may() {
    let gate = Gate::shut();
    let [app, shadow] = backends([Act::Answer(200), held(&gate)]).await;
    let gateway = Gateway::start(&site(&app, &shadow, "", "")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..140 {
        assert_eq!(connection.get("/").await.unwrap().status, 200);
    }
    counts(&gateway, "dropped", 12.0).await;
    eventually("the others are under way", || async { shadow.requests() == 128 }).await;
    gate.open();
    counts(&gateway, "ok", 128.0).await;
    assert_eq!(connection.get("/").await.unwrap().status, 200);
    counts(&gateway, "ok", 129.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_fails_is_counted_and_not_tried_again() {
    let [app, shadow] = backends([Act::Answer(200), Act::Close]).await;
    let gateway = Gateway::start(&site(&app, &shadow, "", "")).await;
    for at in 1..=5 {
        assert_eq!(gateway.get("/").await.status, 200);
        counts(&gateway, "failed", f64::from(at)).await;
    }
    assert_eq!((shadow.requests(), gateway.metric("goodgate_retries_total").await), (5, 0.0));
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
    shadow.die().await;
    assert_eq!(gateway.get("/").await.status, 200);
    counts(&gateway, "failed", 6.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_share_is_copied_and_only_what_a_backend_is_asked() {
    let [app, shadow] = backends([page("Cache-Control: max-age=60\r\n", "page"), Act::Answer(200)]).await;
    let gateway = Gateway::start(&site(&app, &shadow, ", share: 10%", "    cache: standard\n")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for at in 0..100 {
        for _ in 0..2 {
            assert_eq!(connection.get(&format!("/{at}")).await.unwrap().text(), "page");
        }
    }
    assert_eq!(app.requests(), 100, "the others were answered from copies");
    counts(&gateway, "ok", 10.0).await;
    assert_eq!(shadow.requests(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_tried_twice_is_copied_once_with_one_body() {
    let [bad, good, shadow] = backends([Act::Close, Act::Answer(200), Act::Answer(200)]).await;
    let config = format!(
        "upstreams:\n  app: {{ backends: ['{}', '{}'], max_fails: 0 }}\n  shadow: ['{}']\nroutes:\n  - {{ name: site, upstream: app, mirror: {{ upstream: shadow }} }}\n",
        bad.address, good.address, shadow.address
    );
    let gateway = Gateway::start(&config).await;
    for _ in 0..4 {
        let put = "PUT /order HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(request(gateway.address, put).await.unwrap().status, 200);
    }
    assert_eq!((bad.requests(), good.requests()), (2, 4));
    counts(&gateway, "ok", 4.0).await;
    assert_eq!(shadow.bodies(), vec![b"hello".to_vec(); 4]);
}
