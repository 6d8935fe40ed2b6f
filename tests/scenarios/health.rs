//! Who is in rotation: probes, ejections by live traffic, weights and backups.

use std::time::{Duration, Instant};

use crate::harness::backend::page;
use crate::harness::gateway::sum;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, Load, backends, eventually};
use crate::site;

const HTTP_CHECK: &str = "    health_check: { http: { path: /health }, interval: 200ms, interval_down: 200ms, timeout: 500ms, rise: 2, fall: 3 }\n";

fn load(gateway: &Gateway) -> Load {
    let is_good = |path: &str, answer: &Answer| {
        answer.status == 200 && answer.text().ends_with(&format!(" for {path}\n"))
    };
    Load::start(gateway.address, 8, |client, at| format!("/{client}/{at}"), is_good)
}

async fn becomes(gateway: &Gateway, backend: &Backend, state: &str) {
    eventually(&format!("{} is {state}", backend.address), || async {
        gateway.state(backend.address).await == state
    })
    .await;
}

async fn failed_probes(gateway: &Gateway) -> f64 {
    let text = gateway.metrics().await;
    sum(&text, "goodgate_health_checks_total") - sum(&text, "goodgate_health_checks_total{result=\"ok\"}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_takes_a_backend_out_after_fall_and_puts_it_back_after_rise() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    for backend in [&a, &b] {
        backend.set_on("/health", Act::Answer(200));
    }
    let gateway = Gateway::start(&site(&[&a, &b], HTTP_CHECK, "")).await;
    let load = load(&gateway);
    load.more(50).await;
    assert_eq!([gateway.state(a.address).await, gateway.state(b.address).await], ["up", "up"]);
    for _ in 0..2 {
        let before = failed_probes(&gateway).await;
        a.set_on("/health", Act::Answer(500));
        becomes(&gateway, &a, "down").await;
        let failed = failed_probes(&gateway).await - before;
        assert!((3.0..=5.0).contains(&failed), "fall is 3: {failed}");
        let frozen = a.requests();
        load.more(100).await;
        // What had been given to it before may still have been on its way.
        assert!(a.requests() <= frozen + 8, "{} after {frozen}: no traffic while it is down", a.requests());
        a.set_on("/health", Act::Answer(200));
        becomes(&gateway, &a, "up").await;
        let again = a.requests();
        load.more(100).await;
        assert!(a.requests() > again, "it is back in rotation");
    }
    load.stop().await.assert_good();
    let log = gateway.errors();
    assert!(log.lines().filter(|line| line.contains("WARN")).count() >= 2, "out is worth a warning: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_or_two_failed_probes_change_nothing() {
    let backend = Backend::start(Act::Answer(200)).await;
    backend.set_on("/health", Act::Answer(200));
    let gateway = Gateway::start(&site(&[&backend], HTTP_CHECK, "")).await;
    for _ in 0..3 {
        let before = failed_probes(&gateway).await;
        backend.set_on("/health", Act::Answer(500));
        eventually("a probe has failed", || async { failed_probes(&gateway).await > before }).await;
        backend.set_on("/health", Act::Answer(200));
        let passed = || async { gateway.metric("goodgate_health_checks_total{result=\"ok\"}").await };
        let ok = passed().await;
        eventually("a probe has passed", || async { passed().await > ok }).await;
        assert!(failed_probes(&gateway).await <= before + 2.0, "the machine is too slow for this scenario");
        assert_eq!(gateway.state(backend.address).await, "up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_dies_and_returns_costs_no_request() {
    let [mut a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    for backend in [&a, &b] {
        backend.set_on("/health", Act::Answer(200));
    }
    let gateway = Gateway::start(&site(&[&a, &b], HTTP_CHECK, "")).await;
    let load = load(&gateway);
    for _ in 0..3 {
        a.die().await;
        becomes(&gateway, &a, "down").await;
        a.revive().await;
        let before = a.requests();
        becomes(&gateway, &a, "up").await;
        eventually("it works again", || async { a.requests() > before }).await;
    }
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_check_needs_only_a_connection() {
    let [mut a, b] = backends([Act::Close, Act::Answer(200)]).await;
    let check = "    health_check: { tcp: {}, interval: 100ms, interval_down: 100ms, rise: 1, fall: 2 }\n";
    let gateway = Gateway::start(&site(&[&a, &b], check, "")).await;
    let passed = || async { gateway.metric("goodgate_health_checks_total{result=\"ok\"}").await };
    eventually("probes pass", || async { passed().await >= 6.0 }).await;
    assert_eq!(gateway.state(a.address).await, "up");
    a.die().await;
    becomes(&gateway, &a, "down").await;
    assert_eq!(gateway.state(b.address).await, "up");
    assert!(gateway.metric("goodgate_health_checks_total{result=\"connection_refused\"}").await >= 2.0);
    a.revive().await;
    becomes(&gateway, &a, "up").await;
    assert_eq!(a.requests(), 0, "no request was needed for any of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_passes_with_an_expected_status_only() {
    let backend = Backend::start(Act::Answer(200)).await;
    backend.set_on("/health?deep=1", Act::Answer(404));
    let check = "    health_check: { http: { path: '/health?deep=1', expect_status: [404, '500-503'] }, interval: 50ms, interval_down: 50ms, rise: 1, fall: 1 }\n";
    let gateway = Gateway::start(&site(&[&backend], check, "")).await;
    let passed = || async { gateway.metric("goodgate_health_checks_total{result=\"ok\"}").await };
    for (status, state) in [(404, "up"), (200, "down"), (503, "up"), (504, "down"), (500, "up")] {
        backend.set_on("/health?deep=1", Act::Answer(status));
        becomes(&gateway, &backend, state).await;
        let ok = passed().await;
        if state == "up" {
            eventually("probes pass", || async { passed().await >= ok + 2.0 }).await;
        }
        assert_eq!(gateway.state(backend.address).await, state, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_who_it_is_and_waits_no_longer_than_its_timeout() {
    fn only_for_the_probe(head: &str) -> String {
        let is_probe = head.starts_with("GET /health HTTP/1.1\r\n")
            && head.contains("Host: check.internal\r\n")
            && head.contains("User-Agent: goodgate-health-check\r\n");
        crate::harness::backend::response(if is_probe { 200 } else { 500 }, "", "", false)
    }
    let backend = Backend::start(Act::Answer(200)).await;
    backend.set_on("/health", Act::Reply(only_for_the_probe));
    let check = "    health_check: { http: { path: /health, host: check.internal }, interval: 50ms, interval_down: 50ms, timeout: 1s, rise: 1, fall: 1 }\n";
    let gateway = Gateway::start(&site(&[&backend], check, "")).await;
    eventually("probes pass", || async {
        gateway.metric("goodgate_health_checks_total{result=\"ok\"}").await >= 3.0
    })
    .await;
    assert_eq!(failed_probes(&gateway).await, 0.0);
    backend.set_on("/health", Act::Hang);
    becomes(&gateway, &backend, "down").await;
    assert!(gateway.metric("goodgate_health_checks_total{result=\"http_response_timeout\"}").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_down_requests_are_tried_all_the_same() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    for backend in [&a, &b] {
        backend.set_on("/health", Act::Answer(500));
    }
    let gateway = Gateway::start(&site(&[&a, &b], HTTP_CHECK, "")).await;
    becomes(&gateway, &a, "down").await;
    becomes(&gateway, &b, "down").await;
    for _ in 0..10 {
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, 200);
        assert_eq!(gateway.record(&answer).await["attempts"][0]["fail_open"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_exact_and_smooth() {
    let [a, b, c] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let config = format!(
        "upstreams:\n  web:\n    - {{ address: '{}', weight: 5 }}\n    - {}\n    - {}\nroutes:\n  - upstream: web\n",
        a.address, b.address, c.address
    );
    let gateway = Gateway::start(&config).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let (mut last, mut run, mut longest) = (String::new(), 0, 0);
    for _ in 0..700 {
        let answer = connection.get("/").await.unwrap().text();
        run = if answer == last { run + 1 } else { 1 };
        longest = longest.max(run);
        last = answer;
    }
    assert_eq!([a.requests(), b.requests(), c.requests()], [500, 100, 100]);
    assert!(longest < 5, "{longest} in a row on one backend");
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_used_only_when_no_other_is_in_rotation() {
    let [mut a, mut b, backup] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let config = format!(
        "upstreams:\n  web:\n    max_fails: 1\n    fail_timeout: 1s\n    backends:\n      - {}\n      - {}\n      - {{ address: '{}', backup: true }}\nroutes:\n  - upstream: web\n",
        a.address, b.address, backup.address
    );
    let gateway = Gateway::start(&config).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!([a.requests(), b.requests(), backup.requests()], [10, 10, 0]);
    a.die().await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(backup.requests(), 0, "one of the others is left");
    b.die().await;
    for at in 1..=20 {
        assert_eq!(gateway.get("/").await.status, 200);
        assert_eq!(backup.requests(), at, "it is used now");
    }
    a.revive().await;
    b.revive().await;
    for backend in [&a, &b] {
        eventually("trials bring it back", || async {
            gateway.get("/").await.status == 200 && gateway.state(backend.address).await == "up"
        })
        .await;
    }
    let before = backup.requests();
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(backup.requests(), before, "and no longer");
}

/// 500 for `/bad`, else 200.
fn bad_or_good(head: &str) -> String {
    let status = if head.starts_with("GET /bad ") { 500 } else { 200 };
    crate::harness::backend::response(status, "", "", false)
}

#[tokio::test(flavor = "multi_thread")]
async fn few_failures_among_many_good_answers_do_not_eject() {
    for (share, ejections) in [("50%", 0.0), ("20%", 1.0)] {
        let backend = Backend::start(Act::Reply(bad_or_good)).await;
        let settings = format!("    fail_on: [http_500]\n    max_fails: 3\n    min_fail_share: {share}\n");
        let gateway = Gateway::start(&site(&[&backend], &settings, "")).await;
        for _ in 0..3 {
            for path in ["/good", "/good", "/good"] {
                assert_eq!(gateway.get(path).await.status, 200);
            }
            assert_eq!(gateway.get("/bad").await.status, 500);
        }
        eventually("all are logged", || async { gateway.records().len() == 12 }).await;
        assert_eq!(gateway.metric("goodgate_ejections_total").await, ejections, "{share}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn max_fails_0_never_ejects() {
    let [dead, good] = backends([Act::Answer(200), Act::Answer(200)]).await;
    dead.die().await;
    let gateway = Gateway::start(&site(&[&dead, &good], "    max_fails: 0\n", "")).await;
    for _ in 0..50 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0);
    assert_eq!(gateway.state(dead.address).await, "up");
    let failures = gateway.metric("goodgate_attempt_failures_total{cause=\"connection_refused\"}").await;
    assert!(failures >= 25.0, "it has its turns: {failures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fail_on_names_ejects_and_another_does_not() {
    let default = "error, timeout, invalid_header";
    for (words, ejected) in [("http_503", true), (default, false)] {
        let [bad, good] = backends([Act::Answer(503), Act::Answer(200)]).await;
        let settings = format!("    fail_on: [{words}]\n    max_fails: 2\n    fail_timeout: 30s\n");
        let gateway = Gateway::start(&site(&[&bad, &good], &settings, "")).await;
        for _ in 0..20 {
            assert_eq!(gateway.get("/").await.status, 200, "another backend answers");
        }
        assert_eq!(good.requests(), 20);
        assert_eq!(gateway.state(bad.address).await, if ejected { "ejected" } else { "up" });
        assert!(
            if ejected { bad.requests() == 2 } else { bad.requests() >= 10 },
            "{words}: {}",
            bad.requests()
        );
        let cause = "goodgate_ejections_total{cause=\"received_503\"}";
        assert_eq!(gateway.metric(cause).await, f64::from(u8::from(ejected)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_its_own_policy_is_ejected_by_it() {
    let [strict, lax, good] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    strict.die().await;
    lax.die().await;
    let config = format!(
        "upstreams:\n  web:\n    max_fails: 0\n    fail_timeout: 30s\n    backends:\n      - {{ address: '{}', max_fails: 1 }}\n      - {}\n      - {}\nroutes:\n  - upstream: web\n",
        strict.address, lax.address, good.address
    );
    let gateway = Gateway::start(&config).await;
    for _ in 0..12 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(gateway.state(strict.address).await, "ejected");
    assert_eq!(gateway.state(lax.address).await, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_passes_brings_the_trial_of_a_backend_forward_that_could_not_be_reached() {
    let mut dead = Backend::refusing().await;
    let good = Backend::start(Act::Answer(200)).await;
    let settings = "    max_fails: 1\n    fail_timeout: 1h\n    health_check: { tcp: {}, interval: 100ms, fall: 1000 }\n";
    let gateway = Gateway::start(&site(&[&dead, &good], settings, "")).await;
    eventually("it is ejected", || async {
        assert_eq!(gateway.get("/").await.status, 200);
        gateway.state(dead.address).await == "ejected"
    })
    .await;
    dead.set(Act::Answer(200));
    dead.revive().await;
    eventually("it is back long before its hour is over", || async {
        assert_eq!(gateway.get("/").await.status, 200);
        gateway.state(dead.address).await == "up"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_a_probe_with_somebody_elses_page_is_out() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let large = format!("{}shop is up{}", "x".repeat(50_000), "y".repeat(50_000));
    a.set_on("/health", page("", &large));
    b.set_on("/health", page("", "welcome to nginx"));
    let check = HTTP_CHECK.replace("path: /health", "path: /health, expect_body: 'shop is up'");
    let gateway = Gateway::start(&site(&[&a, &b], &check, "")).await;
    becomes(&gateway, &b, "down").await;
    assert_eq!(gateway.state(a.address).await, "up");
    assert!(gateway.metric("goodgate_health_checks_total{result=\"http_protocol_error\"}").await >= 3.0);
    a.set_on("/health", page("", &format!("{}shop is up", "x".repeat(100_000))));
    b.set_on("/health", page("", "the shop is up and running"));
    becomes(&gateway, &b, "up").await;
    becomes(&gateway, &a, "down").await;
}

/// The schedule alone would take a minute and a half to find out.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_has_the_backend_probed_at_once() {
    let mut two = backends([Act::Answer(200), Act::Answer(200)]).await;
    let check = HTTP_CHECK.replace("interval: 200ms", "interval: 30s");
    let gateway = Gateway::start(&site(&[&two[0], &two[1]], &format!("    max_fails: 0\n{check}"), "")).await;
    eventually("both are probed", || async { two.iter().all(|backend| backend.requests() > 0) }).await;
    two[0].kill();
    let killed = Instant::now();
    while gateway.state(two[0].address).await != "down" {
        assert_eq!(gateway.get("/").await.status, 200);
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    }
    let asked = two[0].requests();
    two[0].revive().await;
    becomes(&gateway, &two[0], "up").await;
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert!(two[0].requests() >= asked + 2, "rise is 2");
    // A failure that the probes do not share changes nothing, however often it comes.
    two[0].set_on("/bad", Act::Close);
    let checks = || async { gateway.metric("goodgate_health_checks_total{result=\"ok\"}").await };
    let before = checks().await;
    eventually("it is looked into, once in a second", || async {
        gateway.get("/bad").await;
        checks().await >= before + 2.0
    })
    .await;
    assert_eq!(gateway.state(two[0].address).await, "up");
}
