//! How often one may ask: rate limits of a route.

use serde_json::Value;

use crate::harness::backend::page;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually, request};
use crate::upstream;

/// A gateway that believes what a client says of its address.
async fn gateway(backend: &Backend, routes: &str) -> Gateway {
    Gateway::start(&config(backend, routes)).await
}

fn config(backend: &Backend, routes: &str) -> String {
    format!("trusted_proxies: [127.0.0.1]\n{}routes:\n{routes}", upstream(&[backend], ""))
}

async fn ask(gateway: &Gateway, client: &str, path: &str, fields: &str) -> Answer {
    let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n{fields}\r\n");
    request(gateway.address, &text).await.unwrap()
}

async fn status(gateway: &Gateway, client: &str, path: &str) -> u16 {
    ask(gateway, client, path, "").await.status
}

const REFUSED: &str = "goodgate_gateway_errors_total{cause=\"http_request_denied\",status=\"429\"}";

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_back_and_others_are_not_held_up() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = gateway(
        &backend,
        "  - { upstream: web, rate_limit: { rate: 2/m, burst: 3, exempt: [10.0.0.0/8] } }\n",
    )
    .await;
    assert!(
        gateway.metrics().await.contains(",status=\"429\",upstream=\"web\"} 0"),
        "the counter is there at zero"
    );
    for _ in 0..3 {
        assert_eq!(status(&gateway, "192.0.2.1", "/").await, 200);
    }
    let refused = ask(&gateway, "192.0.2.1", "/", "Accept: application/json\r\n").await;
    assert_eq!(refused.status, 429);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((20..=30).contains(&seconds), "one comes every 30 s: {seconds}");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"client_ip 2/m\";q=2;w=60"));
    assert_eq!(refused.header("ratelimit"), Some(format!("\"client_ip 2/m\";r=0;t={seconds}").as_str()));
    assert!(refused.header("proxy-status").unwrap().starts_with("goodgate; error=http_request_denied"));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    let problem: Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!((&problem["status"], &problem["retry_after"]), (&Value::from(429), &Value::from(seconds)));
    let record = gateway.record(&refused).await;
    assert_eq!(
        (&record["status"], &record["cause"]),
        (&Value::from(429), &Value::from("http_request_denied"))
    );
    assert_eq!(
        (&record["origin"], &record["attempts"]),
        (&Value::from("goodgate"), &Value::Array(Vec::new()))
    );
    for _ in 0..5 {
        assert_eq!(status(&gateway, "10.1.1.1", "/").await, 200, "who is exempt is not counted");
    }
    for (client, expected) in [("192.0.2.2", 200), ("2001:db8::1", 200), ("192.0.2.1", 429)] {
        assert_eq!(status(&gateway, client, "/").await, expected, "{client}");
    }
    eventually("both refusals are counted", || async { gateway.metric(REFUSED).await == 2.0 }).await;
    assert_eq!(backend.requests(), 10, "what is refused reaches no backend");
    let text = gateway.metrics().await;
    assert!(text.contains("goodgate_rate_limit_forgotten_total{route=\"*/\"} 0"), "{text}");
    assert_eq!(
        crate::harness::gateway::sum(&text, "goodgate_attempt_failures_total"),
        0.0,
        "nobody is to blame"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_64_of_ipv6_is_one_client() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = gateway(&backend, "  - { upstream: web, rate_limit: { rate: 1/h } }\n").await;
    for (client, expected) in [
        ("2001:db8::1", 200),
        ("2001:db8::ffff:2", 429),
        ("2001:db8:0:1::1", 200),
        ("::ffff:192.0.2.1", 200),
        ("192.0.2.1", 429),
    ] {
        assert_eq!(status(&gateway, client, "/").await, expected, "{client}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_answers_of_a_routes_own_count_as_well() {
    let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "page")).await;
    let routes = "  - { upstream: web, cache: standard, rate_limit: { rate: 1/h, burst: 2 } }
  - { match: { path: /text }, respond: { body: x }, rate_limit: { rate: 1/h, burst: 2 } }
";
    let gateway = gateway(&backend, routes).await;
    for path in ["/", "/text"] {
        for expected in [200, 200, 429] {
            assert_eq!(status(&gateway, "192.0.2.1", path).await, expected, "{path}");
        }
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_of_a_route_must_admit_and_a_client_over_its_own_takes_nothing_from_all() {
    let backend = Backend::start(Act::Answer(200)).await;
    let routes = "  - upstream: web
    rate_limit:
      - { per: route, rate: 1/h, burst: 4 }
      - { per: 'header:X-Api-Key', rate: 1/h, burst: 2 }
";
    let gateway = gateway(&backend, routes).await;
    let mut seen = Vec::new();
    for key in ["a", "a", "a", "a", "a", "b", "b", "c"] {
        let answer = ask(&gateway, "192.0.2.1", "/", &format!("X-Api-Key: {key}\r\n")).await;
        let by = answer.header("ratelimit").map(|state| state.split(';').next().unwrap().to_owned());
        seen.push((answer.status, by));
    }
    let own = (429, Some("\"header:x-api-key 1/h\"".to_owned()));
    let all = (429, Some("\"route 1/h\"".to_owned()));
    let good = || (200, None);
    assert_eq!(seen, [good(), good(), own.clone(), own.clone(), own, good(), good(), all]);
    assert_eq!(backend.requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_survive_a_reload_that_leaves_the_limit_as_it_is() {
    let backend = Backend::start(Act::Answer(200)).await;
    let route = |limit: &str, more: &str| {
        config(&backend, &format!("  - {{ name: site, upstream: web, rate_limit: {limit}{more} }}\n"))
    };
    let gateway = Gateway::start(&route("{ rate: 1/h, burst: 2 }", "")).await;
    assert_eq!(status(&gateway, "192.0.2.1", "/").await, 200);
    gateway.write_config(&route("[{ rate: 1/h, burst: 2 }]", ", timeout: 10s"));
    gateway.reload("ok").await;
    for expected in [200, 429] {
        assert_eq!(status(&gateway, "192.0.2.1", "/").await, expected);
    }
    gateway.write_config(&route("{ rate: 1/h, burst: 1 }", ""));
    gateway.reload("ok").await;
    for expected in [200, 429] {
        assert_eq!(status(&gateway, "192.0.2.1", "/").await, expected, "another limit counts anew");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_keeps_the_connection_unless_there_is_a_body_that_nobody_reads() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&format!(
        "{}routes: [{{ upstream: web, rate_limit: {{ rate: 1/h }} }}]\n",
        upstream(&[&backend], "")
    ))
    .await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for expected in [200, 429, 429] {
        assert_eq!(connection.get("/").await.unwrap().status, expected);
    }
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 39\r\n\r\n").await.unwrap();
    let answer = connection.answer(false).await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (429, Some("close")));
    let _ = connection.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(connection.closes(crate::harness::PATIENCE).await, "what follows is not read as a request");
    assert_eq!(backend.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_refused_by_one_limit_does_not_use_up_the_others() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = gateway(
        &backend,
        "  - { upstream: web, rate_limit: [{ per: route, rate: 3/h, burst: 3 }, { rate: 1/h, burst: 1 }] }\n",
    )
    .await;
    assert_eq!(status(&gateway, "192.0.2.1", "/").await, 200);
    for _ in 0..5 {
        assert_eq!(status(&gateway, "192.0.2.1", "/").await, 429);
    }
    assert_eq!(status(&gateway, "192.0.2.2", "/").await, 200);
    assert_eq!(status(&gateway, "192.0.2.3", "/").await, 200);
    assert_eq!(status(&gateway, "192.0.2.4", "/").await, 429, "three requests were let through");
}
