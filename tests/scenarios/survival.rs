//! The survival report: what it says beforehand is what happens when the upstream dies.

use serde_json::Value;

use crate::harness::backend::response;
use crate::harness::gateway::folder;
use crate::harness::{Act, Backend, Gateway, eventually, get_admin};
use crate::{site, upstream};

/// `/shared` may be kept, `/person` sets a cookie, `/checked` must always be asked about.
fn by_path(head: &str) -> String {
    let headers = match head.split(' ').nth(1).unwrap_or_default() {
        "/person" => "Set-Cookie: session=1\r\n",
        "/checked" => "Cache-Control: no-cache\r\nETag: \"a\"\r\n",
        _ => "Cache-Control: max-age=60\r\n",
    };
    response(200, headers, "good", false)
}

async fn report(gateway: &Gateway) -> Vec<Value> {
    let answer = get_admin(gateway.admin, "/api/v1/cache/survival").await.unwrap();
    serde_json::from_str(&answer.text()).unwrap()
}

async fn samples(gateway: &Gateway) -> u64 {
    report(gateway).await.iter().filter_map(|route| route["samples"].as_u64()).sum()
}

/// Asks until one more request has been looked at.
async fn ask(gateway: &Gateway, path: &str) {
    let before = samples(gateway).await;
    while samples(gateway).await == before {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_says_is_what_happens() {
    let backend = Backend::start(Act::Reply(by_path)).await;
    let cache = "    cache: { mode: standard, stale_for: 30m }\n";
    let gateway = Gateway::start(&site(&[&backend], "", cache)).await;
    for path in ["/shared", "/shared", "/shared", "/shared", "/person", "/checked", "/person", "/shared"] {
        ask(&gateway, path).await;
    }
    let report = report(&gateway).await;
    let shares: Vec<f64> = report[0]["survives"]
        .as_array()
        .unwrap()
        .iter()
        .map(|outage| outage["share"].as_f64().unwrap())
        .collect();
    assert_eq!(shares, [0.625, 0.625, 0.625, 0.0, 0.0, 0.0], "stale_for is half an hour: {report:?}");
    let lost: Vec<(&str, f64)> = report[0]["in_the_way"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lost| (lost["reason"].as_str().unwrap(), lost["share"].as_f64().unwrap()))
        .collect();
    assert_eq!(
        lost,
        [("Set-Cookie", 0.25), ("`no-cache` forbids it; `cache.override: [no_cache]` lifts this", 0.125)]
    );
    assert_eq!(gateway.metric("goodgate_survival_ratio{").await, 0.625);
    let (code, text) =
        gateway.command(&["survival", "--address", &gateway.admin.to_string(), "--config"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("62.5%   62.5%   62.5%    0.0%") && text.contains("25.0%  Set-Cookie"), "{text}");
    backend.kill();
    for (path, status) in [("/shared", 200), ("/person", 502), ("/checked", 502)] {
        assert_eq!(gateway.get(path).await.status, status, "{path}");
    }
}

/// Something that memory does not take.
fn large(_: &str) -> String {
    response(200, "Cache-Control: max-age=60\r\n", &"large ".repeat(400_000), false)
}

/// What may not be kept.
fn personal(_: &str) -> String {
    response(200, "Set-Cookie: session=1\r\n", "mine", false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_disk_alone_counts_as_it_will_be_served() {
    let directory = folder();
    let backend = Backend::start(Act::Reply(large)).await;
    let config = format!(
        "caches:\n  main: {{ memory: 1MiB, disk: {{ path: {}, size: 64MiB }} }}\n{}",
        directory.display(),
        site(&[&backend], "", "    cache: { mode: fallback, stale_for: 30m }\n")
    );
    let gateway = Gateway::start(&config).await;
    gateway.get("/large").await;
    let objects = "goodgate_cache_objects{cache=\"main\",tier=\"disk\"}";
    eventually("it is on disk", || async { gateway.metric(objects).await == 1.0 }).await;
    // What the backend answers now is no copy: what would answer is the one on disk.
    backend.set(Act::Reply(personal));
    ask(&gateway, "/large").await;
    assert_eq!(gateway.metric("goodgate_cache_objects{cache=\"main\",tier=\"memory\"}").await, 0.0);
    assert_eq!(gateway.metric("goodgate_cache_disk_reads_total").await, 0.0, "nothing is read for it");
    ask(&gateway, "/none").await;
    let report = report(&gateway).await;
    let share = |at: usize| report[0]["survives"][at]["share"].as_f64().unwrap();
    assert_eq!(report[0]["in_the_way"].as_array().unwrap().len(), 1, "{report:?}");
    assert_eq!(report[0]["in_the_way"][0]["reason"], "Set-Cookie", "{report:?}");
    // The first request is looked at as well if the disk was fast enough.
    assert!(share(0) >= 0.5 && share(2) == share(0), "{report:?}");
    assert!(share(3).abs() < f64::EPSILON, "stale_for is half an hour: {report:?}");
    backend.kill();
    assert_eq!(gateway.get("/large").await.body.len(), 2_400_000);
    assert_eq!(gateway.get("/none").await.status, 502);
    drop(gateway);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_without_a_cache_is_said_to_be_lost() {
    let backend = Backend::start(Act::Answer(200)).await;
    let routes = "routes:\n  - { name: bare, match: { path: /bare }, upstream: web }\n  - { name: own, respond: { status: 200 } }\n";
    let gateway = Gateway::start(&(upstream(&[&backend], "") + routes)).await;
    gateway.get("/own").await;
    ask(&gateway, "/bare").await;
    let report = report(&gateway).await;
    assert_eq!(report.len(), 1, "what needs no upstream is not told: {report:?}");
    assert_eq!(report[0]["in_the_way"][0]["reason"], "the route has no cache");
    assert_eq!(report[0]["in_the_way"][0]["share"], 1.0);
}
