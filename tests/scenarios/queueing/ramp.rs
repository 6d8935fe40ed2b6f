//! An upstream that comes back after an outage is not run over by all who have waited for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Turnstile, ask, breaker, queue_is, shed};
use crate::harness::{Act, Backend, Gateway, eventually, get};
use crate::site;

const LIMIT: &str = "goodgate_upstream_breaker_limit";
const RAMPING: &str = "goodgate_upstream_breaker_state{state=\"ramping\"}";

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_at_once_come_bit_by_bit_to_an_upstream_that_is_back() {
    const FIRST: usize = 4;
    let turnstile = Turnstile::start(Duration::from_millis(20)).await;
    turnstile.let_go(500);
    let settings = breaker("max_requests: 404, max_pending: 600, pending_timeout: 60s, ramp: 4s")
        + "    max_fails: 1\n    fail_timeout: 300ms\n";
    let gateway = Gateway::start(&turnstile.backend.site(&settings, "")).await;
    turnstile.seen.is_down.store(true, Ordering::SeqCst);
    assert_eq!(gateway.get("/").await.status, 502);
    assert_eq!((gateway.metric(RAMPING).await, gateway.metric(LIMIT).await), (1.0, 4.0));
    turnstile.seen.is_down.store(false, Ordering::SeqCst);
    let mut clients = JoinSet::new();
    for at in 0..500 {
        let address = gateway.address;
        clients.spawn(async move { get(address, &format!("/{at}")).await.unwrap().status });
    }
    let statuses = clients.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let log = turnstile.seen.log.lock().clone();
    let first = log[0].2;
    for (before, (path, now, at)) in log.iter().enumerate() {
        let answered = before + 1 - now;
        let passed = at.duration_since(first).as_secs_f64();
        assert!(*now <= FIRST + answered, "{path}: {now} at a time after {answered} answers");
        assert!(*now as f64 <= 4.0 + 400.0 * passed / 4.0, "{path}: {now} at a time after {passed} s");
    }
    let peak = turnstile.peak();
    assert!((10..400).contains(&peak), "more with time, and never all: {peak}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_is_in_an_outage_once_somebody_has_waited_in_vain() {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let settings = breaker("max_requests: 20, pending_timeout: 500ms, ramp: 60s");
    let gateway = Gateway::start(&turnstile.backend.site(&settings, "")).await;
    let mut hanging = JoinSet::new();
    for at in 0..20 {
        let address = gateway.address;
        hanging.spawn(async move { get(address, &format!("/{at}")).await.unwrap().status });
    }
    turnstile.has_had(20).await;
    assert_eq!((gateway.metric(RAMPING).await, gateway.metric(LIMIT).await), (0.0, 20.0));
    assert_eq!(gateway.get("/waits").await.status, 503);
    assert_eq!(shed(&gateway, "pending_timeout").await, 1.0);
    assert_eq!((gateway.metric(RAMPING).await, gateway.metric(LIMIT).await), (1.0, 4.0));
    turnstile.let_go(20);
    assert!(hanging.join_all().await.into_iter().all(|status| status == 200));
    let four: Vec<_> = (0..4).map(|at| ask(&gateway, &format!("/again/{at}"))).collect();
    turnstile.has_had(24).await;
    let fifth = ask(&gateway, "/again/4");
    queue_is(&gateway, 1).await;
    turnstile.let_go(5);
    for answer in four.into_iter().chain([fifth]) {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ramp_all_places_are_there_at_once() {
    let mut backend = Backend::start(Act::Answer(200)).await;
    let settings = breaker("max_requests: 20, ramp: 0") + "    max_fails: 1\n    fail_timeout: 100ms\n";
    let gateway = Gateway::start(&site(&[&backend], &settings, "")).await;
    backend.die().await;
    assert_eq!(gateway.get("/").await.status, 502);
    assert_eq!((gateway.metric(RAMPING).await, gateway.metric(LIMIT).await), (0.0, 20.0));
    backend.revive().await;
    eventually("it is back", || async { gateway.get("/").await.status == 200 }).await;
}
