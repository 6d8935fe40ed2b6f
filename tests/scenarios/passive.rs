//! What live traffic says of backends: how long who fails is out, who is tried again and when, and who asks for a rest.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::backend::page;
use crate::harness::client::get_admin;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, Load, backends, eventually};
use crate::site;

fn load(gateway: &Gateway, is_good: fn(&Answer) -> bool) -> Load {
    Load::start(
        gateway.address,
        8,
        |client, at| format!("/{client}/{at}"),
        move |_: &str, answer: &Answer| is_good(answer),
    )
}

fn is_ok(answer: &Answer) -> bool {
    answer.status == 200
}

async fn becomes(gateway: &Gateway, backend: &Backend, state: &str) {
    eventually(&format!("{} is {state}", backend.address), || async {
        gateway.state(backend.address).await == state
    })
    .await;
}

/// The row of a backend in the API.
async fn row(gateway: &Gateway, backend: &Backend) -> Value {
    let answer = get_admin(gateway.admin, "/api/v1/backends").await.unwrap();
    let rows: Vec<Value> = serde_json::from_str(&answer.text()).unwrap();
    let address = backend.address.to_string();
    rows.into_iter().find(|row| row["address"] == address.as_str()).expect("the API shows it")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_fails_every_trial_is_tried_less_and_less() {
    let [bad, good] = backends([Act::Close, Act::Answer(200)]).await;
    let settings = "    max_fails: 1\n    fail_timeout: 100ms\n    fail_timeout_max: 1h\n";
    let gateway = Gateway::start(&site(&[&bad, &good], settings, "")).await;
    let load = load(&gateway, is_ok);
    becomes(&gateway, &bad, "ejected").await;
    let begun = Instant::now();
    let failed = || gateway.errors().matches("backend failed its trial").count();
    eventually("it has failed four trials", || async { failed() >= 4 }).await;
    // 100, 200, 400 and 800 ms after one another, at the earliest.
    assert!(begun.elapsed() >= Duration::from_millis(1300), "{:?}", begun.elapsed());
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_could_not_be_reached_is_back_as_soon_as_it_can_be_whatever_its_ejection() {
    let [mut a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let settings = "    fail_timeout: 1h\n";
    let gateway = Gateway::start(&site(&[&a, &b], settings, "")).await;
    let load = load(&gateway, is_ok);
    load.more(50).await;
    a.die().await;
    becomes(&gateway, &a, "ejected").await;
    a.revive().await;
    let back = Instant::now();
    becomes(&gateway, &a, "up").await;
    assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed());
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_did_wrong_over_a_connection_a_connection_does_not_excuse() {
    let [bad, good] = backends([Act::Close, Act::Answer(200)]).await;
    let settings = "    max_fails: 1\n    fail_timeout: 1h\n";
    let gateway = Gateway::start(&site(&[&bad, &good], settings, "")).await;
    let load = load(&gateway, is_ok);
    becomes(&gateway, &bad, "ejected").await;
    // What had been given to it before has come back by then.
    load.more(100).await;
    let (requests, connections) = (bad.requests(), bad.connections());
    load.more(2000).await;
    assert_eq!((bad.requests(), bad.connections()), (requests, connections));
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_share_of_those_that_answer_is_ejected() {
    let all = backends([Act::Answer(500), Act::Answer(500), Act::Answer(500), Act::Answer(500)]).await;
    let [a, b, c, d] = &all;
    let settings = "    fail_on: [http_500]\n    max_fails: 1\n    fail_timeout: 1h\n    max_ejected: 50%\n";
    let gateway = Gateway::start(&site(&[a, b, c, d], settings, "")).await;
    let load = load(&gateway, |answer| answer.status == 500);
    let out = || async { gateway.metric("goodgate_backend_state{state=\"ejected\"}").await };
    eventually("two are out", || async { out().await >= 2.0 }).await;
    load.more(500).await;
    assert!((out().await - 2.0).abs() < 0.1, "half of four, and no more: {}", out().await);
    assert!((gateway.metric("goodgate_upstream_backends_in_rotation").await - 2.0).abs() < 0.1);
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_more_often_than_the_others_is_ejected() {
    let all = backends([const { Act::Answer(200) }; 4]).await;
    let [bad, b, c, d] = &all;
    bad.set(Act::Answer(500));
    let settings = "    fail_timeout: 1h\n    outliers: { interval: 200ms, min_requests: 5 }\n";
    let gateway = Gateway::start(&site(&[bad, b, c, d], settings, "")).await;
    let load = load(&gateway, |answer| matches!(answer.status, 200 | 500));
    becomes(&gateway, bad, "ejected").await;
    assert_eq!(row(&gateway, bad).await["cause"], "success_rate_outlier");
    let before = gateway.metric("goodgate_ejections_total{cause=\"success_rate_outlier\"}").await;
    load.more(1000).await;
    let after = gateway.metric("goodgate_ejections_total{cause=\"success_rate_outlier\"}").await;
    assert_eq!((before, after), (1.0, 1.0), "the others are alike");
    assert_eq!(gateway.state(b.address).await, "up");
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slower_than_the_others_is_ejected() {
    let all = backends([const { Act::Answer(200) }; 4]).await;
    let [slow, b, c, d] = &all;
    slow.set(Act::Slow(Duration::from_millis(150), Box::new(Act::Answer(200))));
    let settings = "    fail_timeout: 1h\n    outliers: { interval: 1s, min_requests: 5, success_rate: off, first_byte: 5 }\n";
    let gateway = Gateway::start(&site(&[slow, b, c, d], settings, "")).await;
    let load = load(&gateway, is_ok);
    becomes(&gateway, slow, "ejected").await;
    assert_eq!(row(&gateway, slow).await["cause"], "first_byte_outlier");
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_says_in_an_answer_that_it_drains_gets_no_new_requests() {
    let [a, b] = backends([page("", "from a"), page("", "from b")]).await;
    let settings = "    fail_timeout: 500ms\n    drain_header: x-drain\n    sticky: { cookie: gg }\n";
    let gateway = Gateway::start(&site(&[&a, &b], settings, "")).await;
    let mut answers = vec![gateway.get("/").await, gateway.get("/").await];
    answers.retain(|answer| answer.text() == "from a");
    let cookie = answers[0].header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    a.set(page("X-Drain: 1\r\n", "bye"));
    for _ in 0..2 {
        assert_eq!(gateway.get("/").await.header("x-drain"), None, "clients do not see it");
    }
    becomes(&gateway, &a, "draining").await;
    let (begun, requests) = (Instant::now(), a.requests());
    for _ in 0..40 {
        gateway.get("/").await;
    }
    let trials = begun.elapsed().as_millis() / 500 + 1;
    assert!(u128::from(a.requests() - requests) <= trials, "{} in {:?}", a.requests(), begun.elapsed());
    let mut client = Connection::open(gateway.address).await.unwrap();
    let answer = client.get_with("/", &format!("Cookie: {cookie}\r\n")).await.unwrap();
    assert_eq!(answer.text(), "bye", "clients that are tied to it it serves");
    a.set(Act::Answer(200));
    let load = load(&gateway, is_ok);
    becomes(&gateway, &a, "up").await;
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_tells_a_health_check_that_it_drains_is_not_down() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    for backend in [&a, &b] {
        backend.set_on("/health", Act::Answer(200));
    }
    let check = "    health_check: { http: { path: /health, drain_on_404: true }, interval: 50ms, interval_down: 50ms, rise: 1, fall: 1 }\n";
    let gateway = Gateway::start(&site(&[&a, &b], check, "")).await;
    let load = load(&gateway, is_ok);
    load.more(20).await;
    a.set_on("/health", Act::Answer(404));
    becomes(&gateway, &a, "draining").await;
    let requests = a.requests();
    load.more(200).await;
    assert!(a.requests() <= requests + 8, "no new requests");
    assert!(gateway.metric("goodgate_health_checks_total{result=\"draining\"}").await >= 1.0);
    a.set_on("/health", Act::Answer(500));
    becomes(&gateway, &a, "down").await;
    a.set_on("/health", Act::Answer(200));
    becomes(&gateway, &a, "up").await;
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_backend_waits_for_its_first_health_check_if_told_so() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    a.set_on("/health", Act::Hang);
    b.set_on("/health", Act::Answer(200));
    let check = "    health_check: { http: { path: /health }, initial: checking, interval: 100ms, interval_down: 50ms, timeout: 30s, rise: 3, fall: 3 }\n";
    let gateway = Gateway::start(&site(&[&a, &b], check, "")).await;
    becomes(&gateway, &b, "up").await;
    assert_eq!(gateway.state(a.address).await, "checking");
    let requests = a.requests();
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(a.requests(), requests, "nobody knows it yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_open_is_seen_from_its_beginning_to_its_end() {
    let mut backend = Backend::start(Act::Answer(200)).await;
    let settings = "    max_fails: 1\n    fail_timeout: 1h\n";
    let gateway = Gateway::start(&site(&[&backend], settings, "")).await;
    backend.die().await;
    assert_eq!(gateway.get("/").await.status, 502);
    assert!(gateway.metric("goodgate_upstream_failing_open").await < 0.5, "it was in rotation");
    assert_eq!(gateway.get("/").await.status, 502);
    assert!((gateway.metric("goodgate_upstream_failing_open").await - 1.0).abs() < 0.1);
    assert_eq!(gateway.get("/").await.status, 502);
    assert!((gateway.metric("goodgate_fail_open_attempts_total").await - 2.0).abs() < 0.1);
    let told = |text: &'static str| gateway.errors().matches(text).count();
    eventually("its beginning is told once", || async {
        told("requests go to the backend that failed the longest ago") == 1
    })
    .await;
    backend.revive().await;
    eventually("it answers", || async { gateway.get("/").await.status == 200 }).await;
    assert!(gateway.metric("goodgate_upstream_failing_open").await < 0.5);
    eventually("its end is told once", || async { told("requests go to backends in rotation again") == 1 })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_fail_open_a_request_is_refused_at_once() {
    let backend = Backend::start(Act::Close).await;
    let settings = "    max_fails: 1\n    fail_timeout: 1h\n    fail_open: false\n";
    let gateway = Gateway::start(&site(&[&backend], settings, "")).await;
    assert_eq!(gateway.get("/").await.status, 502);
    let requests = backend.requests();
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("proxy-status").unwrap().contains("destination_unavailable"), "{answer:?}");
    assert_eq!(backend.requests(), requests);
}
