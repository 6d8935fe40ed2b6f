//! The delivered alerts and the questions of the dashboard in a real Prometheus before a real gateway.

use std::path::Path;

use parking_lot::Mutex;
use serde_json::Value;

use crate::harness::programs::Prometheus;
use crate::harness::{Act, Backend, Gateway, PATIENCE, eventually};
use crate::site;

fn delivered(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file)).unwrap()
}

/// A delivered rule file in which everything takes seconds instead of minutes.
fn shortened(file: &str, changes: &[(&str, &str)]) -> String {
    let mut text = delivered(&format!("prometheus/rules/{file}"));
    for (long, short) in changes {
        assert!(text.contains(long), "{file} has {long}");
        text = text.replace(long, short);
    }
    text
}

fn find<'a>(alerts: &'a [Value], name: &str) -> Option<&'a Value> {
    alerts.iter().find(|alert| alert["labels"]["alertname"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_backend_raises_alerts_that_lead_to_its_cause_and_end_when_it_is_back() {
    let mut backend = Backend::refusing().await;
    let gateway = Gateway::start(&site(&[&backend], "    fail_timeout: 500ms\n", "")).await;
    let rules = [
        ("recording.yml", shortened("goodgate.recording.yml", &[("[5m]", "[4s]")])),
        ("alerts.yml", shortened("goodgate.alerts.yml", &[("for: 1m", "for: 1s"), ("for: 30s", "for: 1s")])),
    ];
    let prometheus = Prometheus::start(gateway.admin, &rules);
    let firing = Mutex::new(Vec::new());
    eventually("both alerts fire", || async {
        gateway.get("/").await;
        let mut alerts = prometheus.alerts().await.unwrap_or_default();
        alerts.retain(|alert| alert["state"] == "firing");
        let both = find(&alerts, "GoodgateGatewayErrors").and(find(&alerts, "GoodgateNoBackendInRotation"));
        let found = both.is_some();
        *firing.lock() = alerts;
        found
    })
    .await;
    let firing = firing.into_inner();
    let errors = find(&firing, "GoodgateGatewayErrors").unwrap();
    let labels = &errors["labels"];
    assert_eq!(
        [&labels["upstream"], &labels["status"], &labels["cause"], &labels["severity"]],
        ["web", "502", "connection_refused", "critical"]
    );
    let text = |key: &str| errors["annotations"][key].as_str().unwrap_or_default().to_owned();
    assert!(text("runbook_url").ends_with("/docs/failures.md#connection_refused"), "{errors}");
    assert!(
        text("description").contains("of the requests to the upstream web were answered with 502"),
        "{errors}"
    );

    backend.set(Act::Answer(200));
    backend.revive().await;
    eventually("both alerts are over", || async {
        gateway.get("/").await;
        prometheus.alerts().await.is_some_and(|alerts| {
            ["GoodgateGatewayErrors", "GoodgateNoBackendInRotation"]
                .iter()
                .all(|name| find(&alerts, name).is_none())
        })
    })
    .await;
    assert_eq!(gateway.get("/").await.status, 200);
}

/// The questions of all panels, as Grafana asks them when everything is chosen.
fn questions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&delivered("grafana/goodgate.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let filled = |text: &str| {
        text.replace("$__rate_interval", "1m").replace("$route", ".*").replace("$upstream", ".*")
    };
    targets.map(|target| filled(target["expr"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_of_the_dashboard_has_an_answer() {
    let (dead, good) = (Backend::refusing().await, Backend::start(Act::Answer(200)).await);
    let config = format!(
        "upstreams:\n  web:\n    health_check: {{ tcp: {{}} }}\n    breaker: {{}}\n    backends: [{0}, {1}]\n  gone: [{0}]\n\
         routes:\n  - upstream: web\n    cache: standard\n  - match: {{ path: /gone }}\n    upstream: gone\n",
        dead.address, good.address
    );
    let gateway = Gateway::start(&config).await;
    let prometheus = Prometheus::start(gateway.admin, &[]);
    let unanswered = Mutex::new(questions());
    assert!(unanswered.lock().len() > 40);
    let all = eventually("every question has an answer", || async {
        assert_eq!(gateway.get("/").await.status, 200);
        assert_eq!(gateway.get("/gone").await.status, 502);
        let mut left = unanswered.lock().clone();
        for question in std::mem::take(&mut left) {
            if prometheus.results(&question).await.is_empty() {
                left.push(question);
            }
        }
        let is_done = left.is_empty();
        *unanswered.lock() = left;
        is_done
    });
    let in_time = tokio::time::timeout(PATIENCE * 3 / 4, all).await;
    assert!(in_time.is_ok(), "without an answer: {:#?}", unanswered.lock());
}
