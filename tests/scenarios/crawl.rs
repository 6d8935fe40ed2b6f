//! A crawl through pages that nobody asks for twice does not push out what others come back for.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::gateway::folder;
use crate::harness::{Act, Backend, Connection, Gateway, backends};

const PAGES: usize = 30;
const BODY_BYTES: usize = 8 << 10;

fn answer(head: &str) -> String {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = format!("{path:.<BODY_BYTES$}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn site(backend: &Backend, store: &str, cache: &str) -> String {
    let caches = format!("caches:\n  main: {{ {store} }}\n");
    caches + &crate::site(&[backend], "    max_fails: 1\n", cache)
}

/// Visitors ask for the pages, twice each.
async fn visit(gateway: &Gateway) {
    for _ in 0..2 {
        for page in 0..PAGES {
            assert_eq!(gateway.get(&format!("/page/{page}")).await.status, 200);
        }
    }
}

async fn crawl(gateway: &Gateway, pages: usize) {
    let crawler = |first: usize| async move {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        for page in (first..pages).step_by(4) {
            assert_eq!(connection.get(&format!("/junk/{page}")).await.unwrap().status, 200);
        }
    };
    tokio::join!(crawler(0), crawler(1), crawler(2), crawler(3));
}

/// How many of the pages survive.
async fn survivors(gateway: &Gateway) -> usize {
    let mut good = 0;
    for page in 0..PAGES {
        let path = format!("/page/{page}");
        let answer = gateway.get(&path).await;
        assert!(answer.status != 200 || answer.text().starts_with(&format!("{path}.")), "{path}");
        good += usize::from(answer.status == 200);
    }
    good
}

async fn is_crawled_away(store: &str, cache: &str, junk: usize) -> (usize, f64) {
    let [backend] = backends([Act::Reply(answer)]).await;
    let gateway = Gateway::start(&site(&backend, store, cache)).await;
    visit(&gateway).await;
    crawl(&gateway, junk).await;
    let evictions = gateway.metric("goodgate_cache_evictions_total").await;
    backend.kill();
    (survivors(&gateway).await, evictions)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_what_was_asked_for_again_through_a_crawl_of_many_times_its_size() {
    for cache in ["    cache: fallback\n", "    cache: { mode: standard, last_good: true }\n"] {
        let (good, evictions) = is_crawled_away("memory: 1MiB", cache, 1500).await;
        assert!(evictions > 1000.0, "the crawl was larger than the memory: {evictions}");
        assert_eq!(good, PAGES, "{cache}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_share_of_their_own_they_would_be_gone() {
    let (good, _) = is_crawled_away("memory: 1MiB, last_good_share: 0%", "    cache: fallback\n", 1500).await;
    assert!(good < PAGES / 2, "{good}");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_the_disk_over_a_restart() {
    let directory = folder();
    let store = format!("memory: 1MiB, disk: {{ path: {}, size: 16MiB }}", directory.display());
    let [backend] = backends([Act::Reply(answer)]).await;
    let config = site(&backend, &store, "    cache: fallback\n");
    let mut gateway = Gateway::start(&config).await;
    visit(&gateway).await;
    crawl(&gateway, 5000).await;
    assert!(gateway.metric("goodgate_cache_evictions_total{cache=\"main\",tier=\"disk\"}").await > 2000.0);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(20)).await, Some(0));
    backend.kill();
    let gateway = Gateway::start(&config).await;
    assert_eq!(survivors(&gateway).await, PAGES);
    drop(gateway);
    drop(std::fs::remove_dir_all(directory));
}
