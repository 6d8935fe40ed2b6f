//! A wall clock that is set neither makes a cached response fresh again nor ends its freshness.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::backend::page;
use crate::harness::gateway::folder;
use crate::harness::{Act, Backend, Gateway, eventually};
use crate::site;

fn set_clock(folder: &Path, offset: &str) {
    std::fs::write(folder.join("clock"), offset).unwrap();
}

fn config(backend: &Backend, disk: &Path) -> String {
    let disk = disk.display();
    format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: off }}\n\
         caches: {{ main: {{ memory: 16MiB, disk: {{ path: {disk}, size: 64MiB }} }} }}\n{}",
        site(&[backend], "", "    cache: standard\n")
    )
}

async fn start(act: Act) -> (Backend, PathBuf, Gateway) {
    let (backend, disk) = (Backend::start(act).await, folder());
    let gateway = start_at("+0", &backend, &disk).await;
    (backend, disk, gateway)
}

async fn start_at(clock: &str, backend: &Backend, disk: &Path) -> Gateway {
    let folder = folder();
    set_clock(&folder, clock);
    Gateway::start_with_clock(folder, &config(backend, disk)).await
}

async fn status(gateway: &Gateway, path: &str) -> String {
    gateway.get(path).await.header("cache-status").unwrap_or_default().to_owned()
}

/// What is left of the lifetime, in seconds, if it is a hit.
fn left(status: &str) -> Option<i64> {
    status.strip_prefix("goodgate; hit; ttl=")?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_makes_nothing_fresh_for_longer() {
    let (_backend, _disk, gateway) = start(page("Cache-Control: max-age=2\r\n", "page")).await;
    assert_eq!(status(&gateway, "/page").await, "goodgate; fwd=uri-miss; stored");
    assert!(left(&status(&gateway, "/page").await).is_some_and(|left| left <= 2));
    set_clock(&gateway.folder, "-2h");
    eventually("it is stale after two seconds", || async {
        let status = status(&gateway, "/page").await;
        assert!(left(&status).is_none_or(|left| left <= 2), "{status}");
        status.contains("fwd=stale")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_forward_ends_no_freshness() {
    let (backend, _disk, gateway) = start(page("Cache-Control: max-age=600\r\n", "page")).await;
    assert_eq!(status(&gateway, "/page").await, "goodgate; fwd=uri-miss; stored");
    set_clock(&gateway.folder, "+2h");
    let hit = gateway.get("/page").await;
    assert!(left(hit.header("cache-status").unwrap()).is_some(), "{hit:?}");
    assert!(hit.header("age").unwrap().parse::<u64>().unwrap() < 60, "{hit:?}");
    assert_eq!(backend.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_on_disk_from_a_later_time_is_not_fresh() {
    let (backend, disk, mut gateway) = start(page("Cache-Control: max-age=600\r\n", "page")).await;
    assert_eq!(status(&gateway, "/page").await, "goodgate; fwd=uri-miss; stored");
    for (clock, is_fresh) in [("+0", true), ("-2h", false)] {
        gateway.signal(Signal::SIGTERM);
        assert_eq!(gateway.ends(Duration::from_secs(10)).await, Some(0));
        gateway = start_at(clock, &backend, &disk).await;
        let status = status(&gateway, "/page").await;
        assert_eq!(left(&status).is_some(), is_fresh, "{clock}: {status}");
        assert!(left(&status).is_none_or(|left| left <= 600), "{clock}: {status}");
    }
    // For an outage it is still there.
    backend.die().await;
    let answer = gateway.get("/page").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "page"));
}
