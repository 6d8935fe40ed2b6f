//! Disks that are full, read-only, damaged or gone: clients see nothing of it, operators do.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Directory, WORKING, content, file, kept_pages, site, stop, until_written};
use crate::harness::gateway::folder;
use crate::harness::{Act, Backend, Gateway, eventually};

/// A file system of its own, in memory.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// None, with a word about it, where mounting is not permitted.
    fn mount(options: &str) -> Option<Self> {
        let path = folder();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(path)),
            other => {
                eprintln!("skipped: mounting a tmpfs is not permitted here ({other:?})");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

async fn all_are_served(gateway: &Gateway, paths: std::ops::Range<u32>) {
    for at in paths {
        let path = format!("/{at}");
        let answer = gateway.get(&path).await;
        assert_eq!((answer.status, answer.text() == content(&path)), (200, true), "{path}");
    }
}

async fn is_degraded(gateway: &Gateway) {
    let degraded = "goodgate_cache_disk_state{state=\"degraded\"}";
    eventually("the disk is out of use", || async { gateway.metric(degraded).await == 1.0 }).await;
    assert!(gateway.metric("goodgate_cache_disk_errors_total").await >= 1.0);
    assert_eq!(gateway.errors().matches("the disk cache failed").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_copies_and_never_a_request() {
    let Some(tmpfs) = Tmpfs::mount("size=4m") else { return };
    let backend = Backend::start(Act::Reply(kept_pages)).await;
    let gateway = Gateway::start(&site(&backend, &tmpfs.0, "64MiB", "    cache: standard\n")).await;
    all_are_served(&gateway, 0..800).await;
    let errors = || gateway.metric("goodgate_cache_disk_errors_total{operation=\"write\"}");
    eventually("the disk is full", || async { errors().await >= 1.0 }).await;
    assert_eq!(gateway.errors().matches("the disk cache had an error").count(), 1);
    // What fits is kept: the disk is in use at the size that it has.
    assert_eq!(gateway.metric(WORKING).await, 1.0);
    let reads = || gateway.metric("goodgate_cache_disk_reads_total");
    let (before, errors_before) = (reads().await, errors().await);
    for at in (750..800).chain(700..750) {
        assert_eq!(gateway.get(&format!("/{at}")).await.text(), content(&format!("/{at}")));
    }
    assert!(reads().await > before, "what is on disk is read");
    all_are_served(&gateway, 800..1000).await;
    assert!(errors().await < errors_before + 10.0, "it knows what fits");
    assert_eq!(gateway.metric("goodgate_cache_disk_checksum_failures_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_anything_leaves_the_memory() {
    let Some(tmpfs) = Tmpfs::mount("size=256k") else { return };
    let backend = Backend::start(Act::Reply(kept_pages)).await;
    let gateway = Gateway::start(&site(&backend, &tmpfs.0, "64MiB", "    cache: standard\n")).await;
    all_are_served(&gateway, 0..100).await;
    is_degraded(&gateway).await;
    assert!(gateway.metric("goodgate_cache_disk_dropped_writes_total").await >= 1.0);
    all_are_served(&gateway, 0..100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_to_leaves_the_memory() {
    let Some(tmpfs) = Tmpfs::mount("size=4m,ro") else { return };
    let backend = Backend::start(Act::Reply(kept_pages)).await;
    let gateway = Gateway::start(&site(&backend, &tmpfs.0, "64MiB", "    cache: standard\n")).await;
    is_degraded(&gateway).await;
    all_are_served(&gateway, 0..20).await;
    let asked = backend.requests();
    assert_eq!(gateway.get("/19").await.text(), content("/19"));
    assert_eq!(backend.requests(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_removed_underneath_is_noticed() {
    let backend = Backend::start(Act::Reply(kept_pages)).await;
    let directory = Directory::new();
    let gateway = Gateway::start(&site(&backend, &directory.0, "64MiB", "    cache: standard\n")).await;
    all_are_served(&gateway, 0..100).await;
    until_written(&gateway, 100.0).await;
    std::fs::remove_dir_all(&directory.0).unwrap();
    all_are_served(&gateway, 0..200).await;
    is_degraded(&gateway).await;
    all_are_served(&gateway, 0..200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_counted_and_its_copies_come_from_the_backend() {
    let (backend, directory) = (Backend::start(Act::Reply(kept_pages)).await, Directory::new());
    let config = site(&backend, &directory.0, "64MiB", "    cache: standard\n");
    let gateway = Gateway::start(&config).await;
    all_are_served(&gateway, 0..100).await;
    stop(gateway).await;
    damage(&file(&directory.0, "data"));
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.metric(WORKING).await, 1.0);
    all_are_served(&gateway, 0..100).await;
    assert!(gateway.metric("goodgate_cache_disk_checksum_failures_total").await >= 10.0);
    assert_eq!(gateway.errors().matches("something else than was written").count(), 1);
    all_are_served(&gateway, 0..100).await;
}

/// One wrong bit in every 4 KiB.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes.iter_mut().step_by(4096).for_each(|byte| *byte ^= 16);
    std::fs::write(file, bytes).unwrap();
}
