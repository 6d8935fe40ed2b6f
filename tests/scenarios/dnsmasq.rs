//! With a name server of another maker: records that change and vanish, a server that is killed, and addresses that run
//! out, all under load.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::backend::backends_on_one_port;
use crate::harness::client::get_admin;
use crate::harness::programs::Dnsmasq;
use crate::harness::{Act, Backend, Gateway, Load, eventually};

/// A site whose one backend is a name, with more settings of its `dns`.
fn site(dnsmasq: &Dnsmasq, backend: &str, dns: &str) -> String {
    format!(
        "upstreams:\n  web:\n    dns: {{ resolver: ['{}']{dns} }}\n    backends: ['{backend}']\nroutes:\n  - upstream: web\n",
        dnsmasq.address
    )
}

fn app(backend: &Backend) -> String {
    format!("app.test:{}", backend.address.port())
}

fn hosts(backends: &[&Backend]) -> String {
    backends.iter().map(|backend| format!("{} app.test\n", backend.address.ip())).collect()
}

fn load(gateway: &Gateway) -> Load {
    Load::start(gateway.address, 4, |client, at| format!("/{client}/{at}"), |_, answer| answer.status == 200)
}

async fn name(gateway: &Gateway) -> Value {
    let text = get_admin(gateway.admin, "/api/v1/names").await.unwrap().text();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_changes_is_followed_within_its_ttl() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let dnsmasq = Dnsmasq::start(&hosts(&[&a]), &[]).await;
    let gateway = Gateway::start(&site(&dnsmasq, &app(&a), "")).await;
    let load = load(&gateway);
    load.more(50).await;
    dnsmasq.set(&hosts(&[&b]));
    let moved = Instant::now();
    eventually("requests follow", || async { b.requests() > 0 }).await;
    assert!(moved.elapsed() < Duration::from_secs(4), "{:?} with a TTL of 1 s", moved.elapsed());
    eventually("the old one is gone", || async { gateway.state(a.address).await == "absent" }).await;
    load.more(50).await;
    load.stop().await.assert_good();
    let row = name(&gateway).await;
    assert_eq!((&row["state"], &row["addresses"][0]), (&"resolved".into(), &b.address.to_string().into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_exist_for_a_while_loses_no_request() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let dnsmasq = Dnsmasq::start(&hosts(&[&a, &b]), &[]).await;
    let gateway = Gateway::start(&site(&dnsmasq, &app(&a), "")).await;
    let load = load(&gateway);
    load.more(50).await;
    dnsmasq.set("");
    let failed = "goodgate_dns_lookups_total{result=\"dns_error\"}";
    eventually("it is said again and again", || async { gateway.metric(failed).await >= 4.0 }).await;
    let row = name(&gateway).await;
    assert_eq!((&row["state"], &row["cause"]), (&"kept".into(), &"dns_error".into()), "{row}");
    assert_eq!(row["addresses"].as_array().unwrap().len(), 2, "{row}");
    assert!(row["kept_s"].as_u64().unwrap() >= 2, "{row}");
    assert!(gateway.metric("goodgate_dns_kept_seconds").await >= 2.0);
    let kept = |event: &str| format!("goodgate_dns_kept_total{{event=\"{event}\"}}");
    assert_eq!(gateway.metric(&kept("begun")).await, 1.0);
    dnsmasq.set(&hosts(&[&a, &b]));
    eventually("it is over", || async { gateway.metric(&kept("ended")).await == 1.0 }).await;
    assert_eq!(gateway.metric("goodgate_dns_kept_seconds").await, 0.0);
    load.more(50).await;
    load.stop().await.assert_good();
    for line in ["name does not resolve", "name resolves again"] {
        assert_eq!(gateway.errors().matches(line).count(), 1, "{line} once:\n{}", gateway.errors());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_is_killed_and_comes_back_loses_no_request() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let mut dnsmasq = Dnsmasq::start(&hosts(&[&a]), &[]).await;
    let gateway = Gateway::start(&site(&dnsmasq, &app(&a), "")).await;
    let load = load(&gateway);
    load.more(50).await;
    dnsmasq.kill();
    eventually("it is told", || async { gateway.metric("goodgate_dns_stale").await == 1.0 }).await;
    load.more(100).await;
    dnsmasq.set(&hosts(&[&b]));
    dnsmasq.revive().await;
    eventually("what it says now holds", || async { b.requests() > 0 }).await;
    eventually("and is told", || async { gateway.metric("goodgate_dns_stale").await == 0.0 }).await;
    load.more(50).await;
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_comes_back_on_another_address_is_found_there() {
    let [a, mut b, c] = backends_on_one_port([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let dnsmasq = Dnsmasq::start(&hosts(&[&a, &b]), &[]).await;
    let gateway = Gateway::start(&site(&dnsmasq, &app(&a), "")).await;
    let load = load(&gateway);
    load.more(50).await;
    for (stays, moves, address) in [(&a, &b, &c), (&a, &c, &b)] {
        let before = address.requests();
        moves.die().await;
        load.more(20).await;
        dnsmasq.set(&hosts(&[stays, address]));
        eventually("it is back", || async { address.requests() > before }).await;
        eventually("elsewhere", || async { gateway.state(moves.address).await == "absent" }).await;
        if std::ptr::eq(moves, &b) {
            break;
        }
    }
    b.revive().await;
    c.die().await;
    dnsmasq.set(&hosts(&[&a, &b]));
    let before = b.requests();
    eventually("and back again", || async { b.requests() > before }).await;
    load.more(50).await;
    load.stop().await.assert_good();
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_addresses_leave_when_they_were_kept_for_long_enough() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dnsmasq = Dnsmasq::start(&hosts(&[&backend]), &[]).await;
    let gateway = Gateway::start(&site(&dnsmasq, &app(&backend), ", keep: 2s")).await;
    assert_eq!(gateway.get("/").await.status, 200);
    dnsmasq.set("");
    eventually("they are kept", || async { gateway.metric("goodgate_dns_stale").await == 1.0 }).await;
    assert_eq!(gateway.get("/").await.status, 200);
    eventually("they leave", || async { gateway.state(backend.address).await == "absent" }).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, gateway.record(&answer).await["cause"].as_str()), (502, Some("dns_error")));
    assert_eq!(gateway.metric("goodgate_dns_kept_total{event=\"ran_out\"}").await, 1.0);
    assert_eq!(gateway.metric("goodgate_dns_stale").await, 0.0);
    assert!(gateway.errors().contains("for as long as dns.keep allows: they leave"), "{}", gateway.errors());
    assert_eq!(name(&gateway).await["state"], "unresolved");
    dnsmasq.set(&hosts(&[&backend]));
    eventually("they are back", || async { gateway.get("/").await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_name_is_looked_up_in_the_search_domains() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dnsmasq = Dnsmasq::start("127.0.0.1 app.second.test\n", &[]).await;
    let short = format!("app:{}", backend.address.port());
    let gateway = Gateway::start(&site(&dnsmasq, &short, ", search: [first.test, second.test]")).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let gateway = Gateway::start(&site(&dnsmasq, &short, "")).await;
    assert_eq!(gateway.get("/").await.status, 502, "name servers of one's own have no search domains");
    let complete = short.replace(':', ".:");
    let gateway = Gateway::start(&site(&dnsmasq, &complete, ", search: [second.test]")).await;
    assert_eq!(gateway.get("/").await.status, 502, "a name with a dot at its end is short for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_thousands_of_addresses_so_many_are_taken_and_the_log_says_so() {
    let backend = Backend::start(Act::Answer(200)).await;
    let many: String =
        (0..2000).map(|host| format!("127.1.{}.{} app.test\n", host / 250, 1 + host % 250)).collect();
    let all = format!("127.0.0.1 app.test\n0.0.0.0 app.test\n224.0.0.1 app.test\n{many}");
    let mut dnsmasq = Dnsmasq::start(&all, &[]).await;
    let gateway = Gateway::start(&site(&dnsmasq, &app(&backend), "")).await;
    eventually("they are backends", || async {
        gateway.metric("goodgate_upstream_backends_in_rotation").await == 1000.0
    })
    .await;
    let state = |ip: &str| format!("{ip}:{}", backend.address.port());
    for ip in ["0.0.0.0", "224.0.0.1", "127.1.7.250"] {
        assert_eq!(gateway.state(state(ip)).await, "absent", "{ip}");
    }
    let line = "addresses of a name are not used: too many, or none to connect to";
    assert!(gateway.errors().contains(line), "{}", gateway.errors());
    // Whoever has asked by TCP is answered from before the change, as long as that connection lives.
    dnsmasq.kill();
    dnsmasq.set("0.0.0.0 app.test\n");
    dnsmasq.revive().await;
    let why = "none of 1 addresses can be connected to";
    eventually("the log says why", || async { gateway.errors().contains(why) }).await;
    assert_eq!(
        gateway.metric("goodgate_upstream_backends_in_rotation").await,
        1000.0,
        "the last ones are kept"
    );
}
