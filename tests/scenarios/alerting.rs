//! The delivered alerts in a real Prometheus before a real gateway.

use std::path::Path;

use parking_lot::Mutex;
use serde_json::Value;

use crate::harness::programs::Prometheus;
use crate::harness::{Act, Backend, Gateway, eventually};
use crate::site;

/// A delivered rule file in which everything takes seconds instead of minutes.
fn shortened(file: &str, changes: &[(&str, &str)]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus/rules");
    let mut text = std::fs::read_to_string(folder.join(file)).unwrap();
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
