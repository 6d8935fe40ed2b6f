//! `max_conns`, and the slow start of who comes back.

use super::{from, held, send_all};
use crate::harness::backend::{Gate, page};
use crate::harness::{Act, Connection, Gateway, backends, eventually};
use crate::{harness, site};

/// An upstream `web` of these backends, each with a limit.
fn limited(backends: &[&harness::Backend], limit: u32, route: &str) -> String {
    let entry = |backend: &&harness::Backend| {
        format!("      - {{ address: {}, max_conns: {limit} }}\n", backend.address)
    };
    let entries: String = backends.iter().map(entry).collect();
    format!("upstreams:\n  web:\n    backends:\n{entries}routes:\n  - upstream: web\n{route}")
}

#[tokio::test(flavor = "multi_thread")]
async fn full_backends_get_no_more_and_the_client_is_told_when_to_come_again() {
    let gate = Gate::shut();
    let [a, b] = backends([held(&gate), held(&gate)]).await;
    let gateway = Gateway::start(&limited(&[&a, &b], 2, "")).await;
    let sent = send_all(&gateway, &["/"; 4], &[&a, &b]).await;
    assert_eq!((a.requests(), b.requests()), (2, 2));
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..3 {
        let refused = connection.get("/").await.unwrap();
        assert_eq!((refused.status, refused.header("connection")), (503, Some("keep-alive")), "{refused:?}");
        assert!(refused.header("proxy-status").unwrap().contains("error=connection_limit_reached"));
        assert!(refused.header("retry-after").is_some());
    }
    let errors = "goodgate_gateway_errors_total{cause=\"connection_limit_reached\"}";
    eventually("they are counted", || async { gateway.metric(errors).await == 3.0 }).await;
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "it is nobody's failure");
    gate.open();
    super::all_succeed(sent).await;
    eventually("there is room", || async {
        gateway.metric("goodgate_backend_requests_in_flight").await == 0.0
    })
    .await;
    assert_eq!(connection.get("/").await.unwrap().status, 200);
    assert_eq!((a.requests() + b.requests()), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_after_the_other_never_finds_its_backend_full() {
    let empty = Act::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec());
    let chunked =
        Act::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_vec());
    let none = Act::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
    for act in [Act::Answer(200), Act::Answer(404), empty, chunked, none] {
        let backend = harness::Backend::start(act.clone()).await;
        let gateway = Gateway::start(&limited(&[&backend], 1, "")).await;
        let mut connection = Connection::open(gateway.address).await.unwrap();
        for round in 0..100 {
            let status = connection.get("/").await.unwrap().status;
            assert_ne!(status, 503, "{act:?}, request {round}");
        }
        assert_eq!(backend.requests(), 100);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_answers_while_all_backends_are_full() {
    let backend = harness::Backend::start(page("", "kept")).await;
    let gateway = Gateway::start(&limited(&[&backend], 1, "    cache: fallback\n")).await;
    assert_eq!(gateway.get("/page").await.text(), "kept");
    let gate = Gate::shut();
    backend.set(held(&gate));
    let sent = send_all(&gateway, &["/other"], &[&backend]).await;
    let rescued = gateway.get("/page").await;
    assert_eq!((rescued.status, rescued.text().as_str()), (200, "kept"));
    let rescues = "goodgate_rescues_total{by=\"stale\",cause=\"connection_limit_reached\"}";
    eventually("it is counted", || async { gateway.metric(rescues).await == 1.0 }).await;
    gate.open();
    super::all_succeed(sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_takes_what_full_backends_cannot() {
    let gate = Gate::shut();
    let [a, backup] = backends([held(&gate), Act::Answer(200)]).await;
    let config = format!(
        "upstreams:\n  web:\n    backends: [{{ address: {}, max_conns: 1 }}, {{ address: {}, backup: true }}]\nroutes: [{{ upstream: web }}]\n",
        a.address, backup.address
    );
    let gateway = Gateway::start(&config).await;
    let sent = send_all(&gateway, &["/"], &[&a]).await;
    assert_eq!(from(&gateway.get("/").await), backup.address.port());
    gate.open();
    super::all_succeed(sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_starts_slowly() {
    let [a, mut b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let settings = "    slow_start: 1h\n    max_fails: 1\n    fail_timeout: 200ms\n";
    let gateway = Gateway::start(&site(&[&a, &b], settings, "")).await;
    for _ in 0..4 {
        gateway.get("/").await;
    }
    assert_eq!((a.requests(), b.requests()), (2, 2), "nobody starts slowly with the gateway");
    b.die().await;
    eventually("it is ejected", || async {
        gateway.get("/").await;
        gateway.state(b.address).await == "ejected"
    })
    .await;
    b.revive().await;
    eventually("it is back", || async {
        gateway.get("/").await;
        gateway.state(b.address).await == "up"
    })
    .await;
    let before = b.requests();
    for _ in 0..40 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    // Twenty seconds into an hour it would have taken one turn in 180.
    assert!(b.requests() <= before + 1, "{} of 40", b.requests() - before);
    gateway.write_config(&site(&[&a, &b], "", ""));
    gateway.reload("ok").await;
    let before = b.requests();
    for _ in 0..10 {
        gateway.get("/").await;
    }
    assert_eq!(b.requests(), before + 5, "without a slow start it has its share at once");
}
