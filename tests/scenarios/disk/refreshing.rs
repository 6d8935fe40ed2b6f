//! How often a page is written that changes with every request: as seldom as `refresh` says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Directory, until_written};
use crate::harness::{Act, Backend, Connection, Gateway};

const REQUESTS: u64 = 500;

/// Another body each time, whose number the header tells, too.
fn dynamic_pages(headers: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let at = NEXT.fetch_add(1, Ordering::Relaxed);
    crate::harness::backend::response(
        200,
        &format!("{headers}ETag: \"{at}\"\r\n"),
        &format!("page {at}"),
        false,
    )
}

fn unlabelled(_: &str) -> String {
    dynamic_pages("")
}

fn never_fresh(_: &str) -> String {
    dynamic_pages("Cache-Control: max-age=0, stale-if-error=60\r\n")
}

fn site(backend: &Backend, directory: &Directory, refresh: &str, mode: &str) -> String {
    format!(
        "caches:\n  main:\n    disk: {{ path: {}, size: 64MiB{refresh} }}\n{}",
        directory.0.display(),
        crate::site(&[backend], "", &format!("    cache: {mode}\n"))
    )
}

/// Asks for the page again and again, then for another one; how often the disk was written to, and the last answer.
async fn ask(gateway: &Gateway, backend: &Backend) -> (f64, String) {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let (began, before) = (Instant::now(), backend.requests());
    let mut last = String::new();
    for _ in 0..REQUESTS {
        last = connection.get("/page").await.unwrap().text();
    }
    assert_eq!(backend.requests() - before, REQUESTS, "each is a new page");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // The disk does things in order: when this is there, all that was to be written of the page is.
    connection.get("/end").await.unwrap();
    until_written(gateway, 2.0).await;
    assert_eq!(gateway.metric("goodgate_cache_disk_dropped_writes_total").await, 0.0);
    (gateway.metric("goodgate_cache_disk_writes_total").await - 1.0, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_changes_all_the_time_is_written_once_in_a_while() {
    for (act, mode) in [(Act::Reply(unlabelled), "fallback"), (Act::Reply(never_fresh), "standard")] {
        for (refresh, is_spared) in [("", true), (", refresh: 0", false)] {
            let (backend, directory) = (Backend::start(act.clone()).await, Directory::new());
            let gateway = Gateway::start(&site(&backend, &directory, refresh, mode)).await;
            let (writes, last) = ask(&gateway, &backend).await;
            if is_spared {
                assert!((1.0..=2.0).contains(&writes), "{mode}: written {writes} times");
            } else {
                assert!(writes >= REQUESTS as f64, "{mode}: written {writes} times");
            }
            backend.kill();
            let rescue = gateway.get("/page").await;
            assert_eq!((rescue.status, rescue.text()), (200, last), "{mode}: memory has the newest");
        }
    }
}
