//! How many are let through, who waits, in which order, and how long.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Turnstile, ask, breaker, enqueue, queue_is, shed, statuses};
use crate::harness::backend::{Gate, page};
use crate::harness::{Act, Backend, Connection, Gateway, backends, eventually};
use crate::site;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_the_limit_waits_and_what_is_above_that_is_told_when_to_come_again() {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let settings = breaker("max_requests: 2, max_pending: 2");
    let gateway = Gateway::start(&turnstile.backend.site(&settings, "")).await;
    let running = [ask(&gateway, "/a"), ask(&gateway, "/b")];
    turnstile.has_had(2).await;
    let waiting = enqueue(&gateway, &["/c", "/d"]).await;
    let state = "goodgate_upstream_breaker_state{state=\"limiting\"}";
    assert_eq!(gateway.metric(state).await, 1.0);
    let begun = Instant::now();
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..2 {
        let refused = connection.get("/e").await.unwrap();
        assert_eq!((refused.status, refused.header("connection")), (503, Some("keep-alive")), "{refused:?}");
        assert!(refused.header("proxy-status").unwrap().contains("error=connection_limit_reached"));
        assert!(refused.header("retry-after").is_some());
        let record = gateway.record(&refused).await;
        assert!(record["detail"].as_str().unwrap().contains("as many requests wait as may"), "{record}");
        assert_eq!((&record["queued_ms"], &record["attempts"]), (&Value::Null, &Value::Array(Vec::new())));
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "at once: {:?}", begun.elapsed());
    assert_eq!(shed(&gateway, "queue_full").await, 2.0);
    turnstile.let_go(4);
    let all = statuses(running.into_iter().chain(waiting).collect()).await;
    assert_eq!((all[&200], all.len()), (4, 1), "{all:?}");
    assert_eq!(turnstile.peak(), 2);
    for (path, has_waited) in [("/a", false), ("/c", true)] {
        let record = gateway.record_where("the record", |record| record["path"] == path).await;
        assert_eq!(record["queued_ms"].is_number(), has_waited, "{record}");
    }
    assert_eq!(gateway.metric("goodgate_upstream_queue_wait_seconds_count").await, 2.0);
    eventually("all places are free", || async {
        gateway.metric("goodgate_upstream_breaker_requests").await == 0.0
    })
    .await;
    assert_eq!(gateway.metric("goodgate_upstream_breaker_state{state=\"closed\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_first_goes_first() {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let gateway = Gateway::start(&turnstile.backend.site(&breaker("max_requests: 1"), "")).await;
    let running = ask(&gateway, "/0");
    turnstile.has_had(1).await;
    let paths = ["/1", "/2", "/3", "/4", "/5", "/6"];
    let waiting = enqueue(&gateway, &paths).await;
    turnstile.let_go(7);
    assert_eq!(statuses(waiting).await[&200], 6);
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!((turnstile.paths()[1..].to_vec(), turnstile.peak()), (paths.map(String::from).to_vec(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_take_turns_however_many_of_one_wait() {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let routes = format!(
        "upstreams:\n  web:\n{}    backends: ['{}']\nroutes:\n  - {{ match: {{ path: /busy }}, upstream: web }}\n  - {{ match: {{ path: /quiet }}, upstream: web }}\n",
        breaker("max_requests: 1"),
        turnstile.backend.address
    );
    let gateway = Gateway::start(&routes).await;
    let running = ask(&gateway, "/busy/0");
    turnstile.has_had(1).await;
    let waiting = enqueue(
        &gateway,
        &["/busy/1", "/busy/2", "/busy/3", "/busy/4", "/busy/5", "/quiet/1", "/quiet/2", "/quiet/3"],
    )
    .await;
    turnstile.let_go(9);
    assert_eq!(statuses(waiting).await[&200], 8);
    assert_eq!(running.await.unwrap().status, 200);
    let expected = [
        "/busy/0", "/busy/1", "/quiet/1", "/busy/2", "/quiet/2", "/busy/3", "/quiet/3", "/busy/4", "/busy/5",
    ];
    assert_eq!(turnstile.paths(), expected);
}

/// The one route has little time, and another one for `/first` has enough.
const SHORT: &str = "    timeout: 300ms\n  - { match: { path: /first }, upstream: web }\n";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_than_the_queue_and_the_route_allow() {
    for (settings, route, reason, said) in [
        ("max_requests: 1, pending_timeout: 300ms", "", "pending_timeout", "no place became free in time"),
        ("max_requests: 1", SHORT, "deadline", "the time for the request is over"),
    ] {
        let turnstile = Turnstile::start(Duration::ZERO).await;
        let gateway = Gateway::start(&turnstile.backend.site(&breaker(settings), route)).await;
        let running = ask(&gateway, "/first");
        turnstile.has_had(1).await;
        let begun = Instant::now();
        let refused = gateway.get("/second").await;
        assert_eq!(refused.status, 503, "{reason}");
        assert!(refused.header("retry-after").is_some());
        assert!(begun.elapsed() >= Duration::from_millis(300), "{reason}: {:?}", begun.elapsed());
        let record = gateway.record(&refused).await;
        assert!(record["queued_ms"].as_f64().unwrap() >= 300.0, "{record}");
        assert!(record["detail"].as_str().unwrap().contains(said), "{record}");
        assert_eq!(shed(&gateway, reason).await, 1.0);
        turnstile.let_go(1);
        assert_eq!(running.await.unwrap().status, 200);
        assert_eq!(turnstile.paths().len(), 1, "what was refused reaches no backend");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_was_waited_is_part_of_the_routes_time() {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let route = "    timeout: 1500ms\n";
    let gateway = Gateway::start(&turnstile.backend.site(&breaker("max_requests: 1"), route)).await;
    let running = ask(&gateway, "/first");
    turnstile.has_had(1).await;
    let begun = Instant::now();
    let waiting = enqueue(&gateway, &["/second"]).await;
    eventually("some of its time is over", || async { begun.elapsed() > Duration::from_millis(700) }).await;
    turnstile.let_go(1);
    assert_eq!(running.await.unwrap().status, 200);
    turnstile.has_had(2).await;
    assert_eq!(statuses(waiting).await[&504], 1);
    assert!(begun.elapsed() < Duration::from_millis(2150), "not counted anew: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_answers_in_place_of_a_refusal() {
    let backend = Backend::start(page("", "kept")).await;
    let settings = breaker("max_requests: 1, max_pending: 1, pending_timeout: 300ms");
    let gateway = Gateway::start(&site(&[&backend], &settings, "    cache: fallback\n")).await;
    assert_eq!(gateway.get("/page").await.text(), "kept");
    let gate = Gate::shut();
    let held = Act::Gated { first: Vec::new(), gate: gate.clone(), rest: Box::new(Act::Answer(200)) };
    backend.set(held);
    let running = ask(&gateway, "/other");
    eventually("it is under way", || async { backend.requests() == 2 }).await;
    let waited = gateway.get("/page").await;
    assert_eq!((waited.status, waited.text().as_str()), (200, "kept"), "after it has waited");
    assert!(gateway.record(&waited).await["queued_ms"].is_number());
    let waiting = ask(&gateway, "/another");
    queue_is(&gateway, 1).await;
    let at_once = gateway.get("/page").await;
    assert_eq!((at_once.status, at_once.text().as_str()), (200, "kept"), "where the queue is full");
    assert_eq!(waiting.await.unwrap().status, 503, "there is no copy of that");
    let rescues = "goodgate_rescues_total{by=\"stale\",cause=\"connection_limit_reached\"}";
    eventually("both are counted", || async { gateway.metric(rescues).await == 2.0 }).await;
    gate.open();
    assert_eq!(running.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_held_until_the_backend_has_sent_the_whole_answer() {
    let gate = Gate::shut();
    let rest = Box::new(Act::Bytes(b"end".to_vec()));
    let first = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nbegin".to_vec();
    let backend = Backend::start(Act::Gated { first, gate: gate.clone(), rest }).await;
    let gateway = Gateway::start(&site(&[&backend], &breaker("max_requests: 1"), "")).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.sees(b"begin").await;
    let waiting = enqueue(&gateway, &["/next"]).await;
    assert_eq!(backend.requests(), 1);
    backend.set(Act::Answer(200));
    gate.open();
    assert_eq!(client.answer(false).await.unwrap().text(), "beginend");
    assert_eq!(statuses(waiting).await[&200], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_stands_does_not_count() {
    let backend = Backend::start(Act::Echo).await;
    let settings = breaker("max_requests: 1, max_pending: 0");
    let gateway = Gateway::start(&site(&[&backend], &settings, "")).await;
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        let mut tunnel = Connection::open(gateway.address).await.unwrap();
        let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        tunnel.send(upgrade).await.unwrap();
        assert_eq!(tunnel.answer(false).await.unwrap().status, 101);
        tunnel.send("ping").await.unwrap();
        assert_eq!(tunnel.exactly(4).await, b"ping");
        tunnels.push(tunnel);
    }
    backend.set(Act::Answer(200));
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(gateway.metric("goodgate_backend_requests_in_flight").await, 3.0);
    assert_eq!(shed(&gateway, "queue_full").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_backends_are_waited_for_where_there_is_a_breaker() {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let text = format!(
        "upstreams:\n  web:\n{}    backends: [{{ address: '{}', max_conns: 1 }}]\nroutes:\n  - upstream: web\n",
        breaker("max_pending: 20"),
        turnstile.backend.address
    );
    let gateway = Gateway::start(&text).await;
    let running = ask(&gateway, "/0");
    turnstile.has_had(1).await;
    let paths: Vec<String> = (1..=20).map(|at| format!("/{at}")).collect();
    let waiting = enqueue(&gateway, &paths.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(gateway.get("/one-too-many").await.status, 503);
    turnstile.let_go(21);
    assert_eq!(statuses(waiting).await[&200], 20);
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!((turnstile.paths()[1..].to_vec(), turnstile.peak()), (paths, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_attempt_needs_no_other_place() {
    let [bad, good] = backends([Act::Close, Act::Answer(200)]).await;
    let settings = breaker("max_requests: 1, max_pending: 0") + "    max_fails: 0\n";
    let gateway = Gateway::start(&site(&[&bad, &good], &settings, "")).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!((bad.requests(), good.requests()), (2, 4));
    assert_eq!(gateway.metric("goodgate_upstream_breaker_requests").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_has_enough_leaves_its_requests_to_the_rest() {
    let gate = Gate::shut();
    let held = Act::Gated { first: Vec::new(), gate: gate.clone(), rest: Box::new(Act::Answer(200)) };
    let [old, new] = backends([Act::Answer(200), held]).await;
    let text = format!(
        "upstreams:\n  old: ['{}']\n  new: {{ breaker: {{ max_requests: 1 }}, backends: ['{}'] }}\nroutes:\n  - {{ upstream: old, split: {{ shares: {{ new: 50% }} }} }}\n",
        old.address, new.address
    );
    let gateway = Gateway::start(&text).await;
    let running: Vec<_> = (0..4).map(|_| ask(&gateway, "/")).collect();
    eventually("the share has its one", || async { new.requests() == 1 }).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!((new.requests(), old.requests()), (1, 23));
    gate.open();
    assert_eq!(statuses(running).await[&200], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_who_waits_and_what_is_counted() {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let text =
        |limit: usize, more: &str| turnstile.backend.site(&breaker(&format!("max_requests: {limit}")), more);
    let gateway = Gateway::start(&text(1, "")).await;
    let running = ask(&gateway, "/0");
    turnstile.has_had(1).await;
    let before = ask(&gateway, "/1");
    queue_is(&gateway, 1).await;
    gateway.rewrite(&text(1, "    timeout: 50s\n"));
    gateway.reload("ok").await;
    queue_is(&gateway, 1).await;
    let after = ask(&gateway, "/2");
    queue_is(&gateway, 2).await;
    assert_eq!(turnstile.paths().len(), 1, "the one from before the reload has the place");
    gateway.rewrite(&text(2, ""));
    gateway.reload("ok").await;
    turnstile.has_had(2).await;
    turnstile.let_go(3);
    assert_eq!(statuses(vec![running, before, after]).await[&200], 3);
    assert_eq!((turnstile.paths(), turnstile.peak()), (["/0", "/1", "/2"].map(String::from).to_vec(), 2));
}

/// A share whose only backend refuses, and the rest with this breaker.
fn failing_share(turnstile: &Turnstile, dead: &Backend, breaker: &str) -> String {
    format!(
        "upstreams:\n  old: {{ breaker: {{ {breaker} }}, backends: ['{}'] }}\n  new: {{ max_fails: 0, backends: ['{}'] }}\nroutes:\n  - {{ upstream: old, split: {{ shares: {{ new: 100% }} }} }}\n",
        turnstile.backend.address, dead.address
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_over_to_another_upstream_wait_for_a_place_there() {
    let (turnstile, dead) = (Turnstile::start(Duration::ZERO).await, Backend::refusing().await);
    let gateway = Gateway::start(&failing_share(&turnstile, &dead, "max_requests: 4")).await;
    let sent: Vec<_> = (0..60).map(|_| ask(&gateway, "/")).collect();
    queue_is(&gateway, 56).await;
    turnstile.let_go(60);
    assert_eq!(statuses(sent).await[&200], 60);
    assert_eq!(turnstile.peak(), 4);
    eventually("all places are free", || async {
        gateway.metric("goodgate_upstream_breaker_requests").await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_over_to_a_full_upstream_are_shed() {
    let (turnstile, dead) = (Turnstile::start(Duration::ZERO).await, Backend::refusing().await);
    let text = failing_share(&turnstile, &dead, "max_requests: 1, max_pending: 0");
    let gateway = Gateway::start(&text).await;
    let running = ask(&gateway, "/");
    turnstile.has_had(1).await;
    let refused = gateway.get("/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("proxy-status").unwrap().contains("connection_limit_reached"), "{refused:?}");
    assert_eq!(shed(&gateway, "queue_full").await, 1.0);
    turnstile.let_go(1);
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(turnstile.paths().len(), 1);
}
