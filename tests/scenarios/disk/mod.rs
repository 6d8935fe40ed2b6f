//! The disk tier: copies outlive the process, and no trouble with the disk is ever a client's.

mod crash;
mod hanging;
mod large;
mod refreshing;
mod trouble;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::gateway::folder;
use crate::harness::{Act, Backend, Gateway, eventually, request};

const WORKING: &str = "goodgate_cache_disk_state{state=\"working\"}";

/// What the backend has at a path: always the same, and of a length that differs from path to path.
fn content(path: &str) -> String {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    let mut random = fastrand::Rng::with_seed(hasher.finish());
    let len = if random.u8(..20) == 0 { 400_000 } else { random.usize(..20_000) };
    let letters: Vec<u8> = (0..97).map(|_| random.u8(b'a'..=b'z')).collect();
    format!("{path}:{}", String::from_utf8(letters).unwrap().repeat(len / 97))
}

fn path_of(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn kept_pages(head: &str) -> String {
    let body = content(path_of(head));
    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn plain_pages(head: &str) -> String {
    let body = content(path_of(head));
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A site whose cache has 1 MiB of memory and this much disk.
fn site(backend: &Backend, directory: &Path, size: &str, cache: &str) -> String {
    format!(
        "caches:\n  main:\n    memory: 1MiB\n    disk: {{ path: {}, size: {size} }}\n{}",
        directory.display(),
        crate::site(&[backend], "    max_fails: 1\n", cache)
    )
}

/// A directory for copies, which the gateways over it come and go.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(folder())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn until_written(gateway: &Gateway, objects: f64) {
    let held = || gateway.metric("goodgate_cache_objects{cache=\"main\",tier=\"disk\"}");
    eventually("copies are on disk", || async { held().await >= objects }).await;
}

async fn stop(mut gateway: Gateway) {
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(20)).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_outlive_a_restart_and_answer_while_the_backend_is_down() {
    for (act, cache) in [
        (Act::Reply(kept_pages as fn(&str) -> String), "    cache: standard\n"),
        (Act::Reply(plain_pages), "    cache: fallback\n"),
    ] {
        let (backend, directory) = (Backend::start(act).await, Directory::new());
        let config = site(&backend, &directory.0, "64MiB", cache);
        let gateway = Gateway::start(&config).await;
        let paths: Vec<String> = (0..100).map(|at| format!("/{at}")).collect();
        for path in &paths {
            assert_eq!(gateway.get(path).await.text(), content(path));
        }
        stop(gateway).await;
        backend.die().await;
        let gateway = Gateway::start(&config).await;
        assert_eq!(gateway.metric(WORKING).await, 1.0);
        for path in &paths {
            let answer = gateway.get(path).await;
            assert_eq!((answer.status, answer.text() == content(path)), (200, true), "{path} {cache}");
            assert!(answer.header("age").is_some());
        }
        assert!(gateway.metric("goodgate_cache_disk_reads_total").await >= 90.0);
        assert_eq!(gateway.get("/never-seen").await.status, 502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_goes_on_in_memory_and_takes_over() {
    let (backend, directory) = (Backend::start(Act::Reply(kept_pages)).await, Directory::new());
    let config = site(&backend, &directory.0, "64MiB", "    cache: standard\n");
    let first = Gateway::start(&config).await;
    first.get("/a").await;
    until_written(&first, 1.0).await;
    let second = Gateway::start(&config).await;
    assert_eq!(second.metric("goodgate_cache_disk_state{state=\"locked\"}").await, 1.0);
    assert!(second.errors().contains("another process has the disk cache"));
    assert_eq!(second.get("/b").await.text(), content("/b"));
    stop(first).await;
    eventually("it takes over", || async { second.metric(WORKING).await == 1.0 }).await;
    backend.die().await;
    assert_eq!(second.get("/a").await.text(), content("/a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_disk_or_takes_it_away() {
    let backend = Backend::start(Act::Reply(kept_pages)).await;
    let directory = Directory::new();
    let with = |size| site(&backend, &directory.0, size, "    cache: standard\n");
    let gateway = Gateway::start(&with("64MiB")).await;
    let limit = || gateway.metric("goodgate_cache_disk_limit_bytes{cache=\"main\"}");
    gateway.get("/a").await;
    until_written(&gateway, 1.0).await;
    gateway.write_config(&with("32MiB"));
    gateway.reload("ok").await;
    assert_eq!(limit().await, f64::from(32 << 20));
    gateway.write_config(&crate::site(&[&backend], "", "    cache: standard\n"));
    gateway.reload("ok").await;
    assert!(!gateway.metrics().await.contains("goodgate_cache_disk_limit_bytes{"));
    assert_eq!(gateway.get("/a").await.text(), content("/a"));
    gateway.write_config(&with("48MiB"));
    gateway.reload("ok").await;
    eventually("it is in use again", || async { gateway.metric(WORKING).await == 1.0 }).await;
    until_written(&gateway, 1.0).await;
}

/// The first file of the store with this suffix.
fn file(directory: &Path, suffix: &str) -> PathBuf {
    let files = std::fs::read_dir(directory.join("copies")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().find(|path| path.extension().is_some_and(|is| is == suffix)).unwrap()
}

/// A page whose tag is the first segment of its path.
fn tagged_pages(head: &str) -> String {
    let path = path_of(head);
    let tag = path.split('/').nth(1).unwrap_or_default();
    let length = path.len();
    format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nCache-Tag: {tag}\r\nContent-Length: {length}\r\n\r\n{path}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_does_not_come_back_with_a_restart() {
    let directory = Directory::new();
    let backend = Backend::start(Act::Reply(tagged_pages)).await;
    let cache = "    cache: { mode: standard, purge: { allow: [127.0.0.1] } }\n";
    let config = site(&backend, &directory.0, "64MiB", cache);
    let gateway = Gateway::start(&config).await;
    let pages = ["/gone/a", "/gone/b", "/old/a", "/kept/a"];
    for page in pages {
        assert_eq!(gateway.get(page).await.text(), page);
    }
    until_written(&gateway, 4.0).await;
    for (tag, mode) in [("gone", "hard"), ("old", "soft")] {
        let purge = format!(
            "PURGE / HTTP/1.1\r\nHost: test\r\nSurrogate-Key: {tag}\r\nPurge-Mode: {mode}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(request(gateway.address, &purge).await.unwrap().status, 200);
    }
    // What is asked for after the purge is not concerned by it.
    assert_eq!(gateway.get("/gone/b").await.text(), "/gone/b");
    stop(gateway).await;
    let gateway = Gateway::start(&config).await;
    eventually("the disk is in use", || async { gateway.metric(WORKING).await == 1.0 }).await;
    backend.kill();
    assert_eq!(gateway.get("/gone/a").await.status, 502, "nobody had asked for it since the purge");
    for (page, is_fresh) in [("/gone/b", true), ("/kept/a", true), ("/old/a", false)] {
        let answer = gateway.get(page).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, page));
        let is_stale = answer.header("cache-status").unwrap().contains("stale-");
        assert_eq!(is_stale, !is_fresh, "{page}: {answer:?}");
    }
}
