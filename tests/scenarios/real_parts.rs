//! With programs of other makers: nginx behind, Prometheus beside.

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::harness::programs::{Nginx, Prometheus};
use crate::harness::{Act, Backend, Gateway, Load, eventually};
use crate::site;

#[tokio::test(flavor = "multi_thread")]
async fn nginx_backends_come_and_go_without_a_failed_request() {
    let (mut a, mut b) = (Nginx::start("hello").await, Nginx::start("hello").await);
    let config = format!(
        "upstreams:\n  web:\n    fail_timeout: 200ms\n    backends: [{}, {}]\nroutes:\n  - upstream: web\n",
        a.address, b.address
    );
    let gateway = Gateway::start(&config).await;
    let load = Load::start(
        gateway.address,
        16,
        |client, at| format!("/{client}/{at}"),
        |_, answer| answer.status == 200 && answer.text() == "hello",
    );
    load.more(100).await;
    // A rolling update: each is stopped gently, quickly, or dies, and comes back.
    for round in 0..20 {
        for nginx in [&mut a, &mut b] {
            match round % 3 {
                0 => nginx.stop(Signal::SIGQUIT),
                1 => nginx.stop(Signal::SIGTERM),
                _ => nginx.kill(),
            }
            load.more(100).await;
            nginx.revive().await;
            eventually("it is back in rotation", || async { gateway.state(nginx.address).await == "up" })
                .await;
            load.more(100).await;
        }
    }
    load.stop().await.assert_good();
    assert!(gateway.metric("goodgate_rescues_total").await >= 1.0);
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_shows_the_502s_by_cause() {
    let backend = Backend::refusing().await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let prometheus = Prometheus::start(gateway.admin, &[]);
    let refused = "sum(goodgate_gateway_errors_total{status=\"502\",cause=\"connection_refused\"})";
    eventually("it is scraped, at zero from the start", || async {
        prometheus.query(refused).await == Some(0.0)
    })
    .await;
    for _ in 0..7 {
        assert_eq!(gateway.get("/").await.status, 502);
    }
    eventually("the counter is seen", || async { prometheus.query(refused).await == Some(7.0) }).await;
    for (question, value) in [
        ("sum(goodgate_gateway_errors_total{status=\"502\"})", 7.0),
        ("sum(goodgate_gateway_errors_total{cause=\"connection_timeout\"})", 0.0),
        ("sum(goodgate_responses_total{status=\"502\",origin=\"goodgate\"})", 7.0),
        ("up{job=\"goodgate\"}", 1.0),
    ] {
        assert_eq!(prometheus.query(question).await, Some(value), "{question}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let (dead, good) = (Backend::refusing().await, Backend::start(Act::Answer(200)).await);
    let gateway =
        Gateway::start(&site(&[&dead, &good], "    health_check: { tcp: {} }\n", "    cache: fallback\n"))
            .await;
    for path in ["/", "/a", "/b"] {
        assert_eq!(gateway.get(path).await.status, 200);
    }
    let metrics = gateway.metrics().await;
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = tool
        .unwrap_or_else(|error| panic!("promtool cannot be started ({error}): apt-get install prometheus"));
    tool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&said).as_ref()), (Some(0), ""));
}
