//! A reload keeps what the gateway counts while it runs, and drops the series of what has left the configuration.

use std::collections::HashMap;

use crate::harness::backend::Gate;
use crate::harness::{Act, Backend, Connection, Gateway, backends, eventually, request};
use crate::site;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_hangs_takes_no_more_after_reloads() {
    let gate = Gate::shut();
    let held = Act::Gated { first: Vec::new(), gate: gate.clone(), rest: Box::new(Act::Answer(200)) };
    let [app, shadow] = backends([Act::Answer(200), held]).await;
    let config = |mirror: &str| {
        format!(
            "upstreams:\n  app: ['{}']\n  shadow: {{ backends: ['{}'], max_fails: 0 }}\nroutes:\n  - name: site\n    upstream: app\n{mirror}",
            app.address, shadow.address
        )
    };
    let mirrored = config("    mirror: { upstream: shadow }\n");
    let gateway = Gateway::start(&mirrored).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..128 {
        assert_eq!(connection.get("/").await.unwrap().status, 200);
    }
    eventually("all places are taken", || async { shadow.requests() == 128 }).await;
    for text in [&mirrored, &config(""), &mirrored] {
        gateway.write_config(text);
        gateway.reload("ok").await;
        for _ in 0..20 {
            assert_eq!(connection.get("/").await.unwrap().status, 200);
        }
    }
    let dropped = "goodgate_mirrored_requests_total{result=\"dropped\",route=\"site\"}";
    eventually("none was mirrored", || async { gateway.metric(dropped).await >= 20.0 }).await;
    assert_eq!(shadow.requests(), 128);
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_and_turns_go_on_after_reloads() {
    let [a, b, next] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let config = format!(
        "upstreams:\n  app: ['{}', '{}']\n  next: ['{}']\nroutes:\n  - upstream: app\n    split: {{ shares: {{ next: 1% }} }}\n",
        a.address, b.address, next.address
    );
    let gateway = Gateway::start(&config).await;
    for _ in 0..30 {
        for _ in 0..2 {
            assert_eq!(gateway.get("/").await.status, 200);
        }
        gateway.reload("ok").await;
    }
    assert!(next.requests() <= 1, "1 % of 60 requests: {}", next.requests());
    assert!(a.requests().abs_diff(b.requests()) <= 2, "{} and {}", a.requests(), b.requests());
    let before = [a.requests(), b.requests()];
    for _ in 0..10 {
        gateway.reload("ok").await;
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let since = [a.requests() - before[0], b.requests() - before[1]];
    assert!(since[0].abs_diff(since[1]) <= 1, "one request after each reload: {since:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_differ_in_who_is_exempt_keep_their_own_counts() {
    let backend = Backend::start(Act::Answer(200)).await;
    let limit = |exempt: &str| format!("{{ rate: 1/h, burst: 4, exempt: [{exempt}] }}");
    let limits = format!("    rate_limit: [{}, {}]\n", limit("10.0.0.0/8"), limit("192.0.2.0/24"));
    let gateway = Gateway::start(&site(&[&backend], "", &limits)).await;
    let status =
        || async { request(gateway.address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap().status };
    assert_eq!(status().await, 200);
    for _ in 0..3 {
        gateway.reload("ok").await;
        assert_eq!(status().await, 200, "each limit counts the request once");
    }
    assert_eq!(status().await, 429);
}

/// The series of a text of `/metrics` that belong to something of this name.
fn series_of<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.contains(&format!("\"{name}\""))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn series_leave_with_their_route_and_upstream_and_no_counter_goes_back() {
    let backend = Backend::start(Act::Answer(200)).await;
    let refusing = Backend::refusing().await;
    let config = |route: &str, upstream: &str| {
        format!(
            "upstreams:\n  {upstream}: {{ backends: ['{}'], health_check: {{ tcp: {{}} }}, breaker: {{ max_requests: 9 }} }}\n  stays: ['{}']\n  bad: {{ backends: ['{}'], max_fails: 1 }}\nroutes:\n  - {{ name: stays, upstream: stays, cache: standard, match: {{ path: /stays }} }}\n  - {{ name: bad, upstream: bad, match: {{ path: /bad }} }}\n  - {{ name: {route}, upstream: {upstream}, cache: standard, rate_limit: {{ rate: 100/s }}, mirror: {{ upstream: stays }}, split: {{ shares: {{ stays: 50% }} }} }}\n",
            backend.address, backend.address, refusing.address
        )
    };
    let gateway = Gateway::start(&config("old", "former")).await;
    for path in ["/", "/x", "/stays", "/bad", "/bad"] {
        gateway.get(path).await;
    }
    let counted = "goodgate_responses_total{route=\"old\",status=\"200\"}";
    eventually("it counts", || async { gateway.metric(counted).await >= 2.0 }).await;
    let before = gateway.metrics().await;
    assert!(series_of(&before, "old").len() > 10 && series_of(&before, "former").len() > 10);
    gateway.write_config(&config("new", "current"));
    gateway.reload("ok").await;
    let gone = || async {
        let text = gateway.metrics().await;
        series_of(&text, "old").is_empty() && series_of(&text, "former").is_empty()
    };
    eventually("the old series are gone", gone).await;
    let after = gateway.metrics().await;
    let values = |text: &str| -> HashMap<String, f64> {
        let lines = text.lines().filter(|line| line.contains("_total{"));
        lines
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                Some((series.to_owned(), value.parse().ok()?))
            })
            .collect()
    };
    let (before, after) = (values(&before), values(&after));
    for (series, value) in &before {
        let is_gone = series.contains("\"old\"") || series.contains("\"former\"");
        let now = after.get(series).copied();
        assert!(is_gone || now >= Some(*value), "{series}: {value}, now {now:?}");
    }
    assert!(after.keys().any(|series| series.contains("\"new\"")));
}
