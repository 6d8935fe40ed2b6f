//! The disk tier from outside: stores over real directories, closed and opened again.

mod damage;
mod large;
mod model;
mod trouble;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pingora_cache::CacheMeta;

use super::{DiskEvent, DiskState, DiskUsage, Patience};
use crate::tests::{fallback, headers, policy, request, response};
use crate::{Admission, CopyInfo, DiskSpec, Key, Store, StoreSpec, StoredCopy, admit};

type Fields<'a> = &'a [(&'a str, &'a str)];

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own, removed in the end.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("goodgate-disk-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Our files with this suffix, by name.
    fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.0.join("copies"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == suffix))
            .collect();
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn spec(path: &Path, disk_bytes: u64) -> StoreSpec {
    StoreSpec {
        name: "main".to_owned(),
        memory_bytes: 8 * MIB,
        object_bytes_max: MIB,
        last_good_percent: 50,
        disk: Some(DiskSpec {
            path: path.to_owned(),
            bytes: disk_bytes,
            object_bytes_max: disk_bytes / 2,
            last_good_percent: 80,
            refresh: Duration::from_secs(10),
        }),
    }
}

/// A store with nothing in memory over a directory.
fn open(path: &Path) -> &'static Store {
    open_with(&spec(path, 64 * MIB))
}

fn open_with(spec: &StoreSpec) -> &'static Store {
    let store = open_anyhow(spec);
    // The thread of the store before may take a moment to let go.
    let start = std::time::Instant::now();
    while usage(store).state != DiskState::Working {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    store
}

/// The same, whether the directory can be had or not.
fn open_anyhow(spec: &StoreSpec) -> &'static Store {
    let store: &'static Store = Box::leak(Box::new(Store::new(spec)));
    store.use_disk(spec, Box::new(|_event: &DiskEvent<'_>| {}));
    store.wait_for_disk(PATIENCE);
    store
}

/// Lets go of the directory, as a process does that ends well.
fn close(store: &'static Store) {
    store.flush(PATIENCE);
    store
        .use_disk(&StoreSpec { disk: None, ..spec(Path::new(""), 0) }, Box::new(|_event: &DiskEvent<'_>| {}));
}

/// Forgets what is in memory.
fn forget(store: &Store) {
    store.flush(PATIENCE);
    let limits = spec(Path::new(""), 0);
    store.set_limits(&StoreSpec { memory_bytes: 0, ..limits.clone() });
    store.set_limits(&limits);
}

fn usage(store: &Store) -> DiskUsage {
    store.usage().disk.unwrap()
}

fn key(path: &str) -> Key {
    Key::new("http", b"example.com", path.as_bytes())
}

fn standard(fields: Fields<'_>) -> CacheMeta {
    match admit(&policy(), &request(&[]), &response(200, fields), crate::clock::now()) {
        Admission::Store(meta) => meta,
        other @ (Admission::KeepLastGood(_) | Admission::Refuse(_)) => panic!("{other:?}"),
    }
}

fn last_good() -> CacheMeta {
    match admit(&fallback(), &request(&[]), &response(200, &[]), crate::clock::now()) {
        Admission::KeepLastGood(meta) => meta,
        other @ (Admission::Store(_) | Admission::Refuse(_)) => panic!("{other:?}"),
    }
}

fn keep_for(store: &'static Store, path: &str, asked: Fields<'_>, meta: CacheMeta, body: &[u8]) {
    let mut writer = store.write(&key(path), &headers(asked), meta);
    for piece in body.chunks(60_000) {
        writer.push(&Bytes::copy_from_slice(piece));
    }
    writer.finish();
}

fn keep(store: &'static Store, path: &str, body: &[u8]) {
    keep_for(store, path, &[], standard(&[("cache-control", "max-age=600"), ("etag", "\"1\"")]), body);
}

async fn load(store: &Store, path: &str) -> Option<StoredCopy> {
    store.load(&key(path), &HeaderMap::new(), Patience::Much).await
}

async fn body_of(copy: &StoredCopy) -> pingora_error::Result<Vec<u8>> {
    let (mut reader, mut body) = (copy.read(), Vec::new());
    while let Some(chunk) = reader.next().await? {
        body.extend_from_slice(&chunk);
    }
    assert_eq!(body.len(), copy.body_len());
    Ok(body)
}

async fn found(store: &Store, path: &str) -> Option<Vec<u8>> {
    match load(store, path).await {
        Some(copy) => Some(body_of(&copy).await.unwrap()),
        None => None,
    }
}

/// Bytes that differ from place to place.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

#[tokio::test]
async fn copies_survive_a_restart_with_all_that_they_know() {
    let folder = Folder::new();
    let store = open(&folder.0);
    keep(store, "/a", b"hello");
    keep(store, "/empty", b"");
    keep(store, "/long", &pattern(300_000, 1));
    keep_for(store, "/good", &[], last_good(), b"good");
    let before = load(store, "/a").await.unwrap();
    close(store);

    let store = open(&folder.0);
    assert_eq!((usage(store).objects, usage(store).state), (4, DiskState::Working));
    let after = load(store, "/a").await.unwrap();
    assert_eq!(body_of(&after).await.unwrap(), b"hello");
    assert_eq!(after.info(), before.info());
    assert_eq!(after.meta().headers(), before.meta().headers());
    assert_eq!(after.meta().fresh_until(), before.meta().fresh_until());
    assert_eq!(found(store, "/empty").await.unwrap(), b"");
    assert_eq!(found(store, "/long").await.unwrap(), pattern(300_000, 1));
    let good = load(store, "/good").await.unwrap();
    assert_eq!(good.info().kind, crate::CopyKind::LastGood);
    assert!(found(store, "/none").await.is_none());
    assert_eq!(usage(store).reads, 4);
    assert!(store.find(&key("/a"), &HeaderMap::new()).is_some(), "it is in memory again");
}

#[tokio::test]
async fn each_variant_is_found_by_its_own_request() {
    let folder = Folder::new();
    let store = open(&folder.0);
    let fields: Fields<'_> = &[("cache-control", "max-age=600"), ("vary", "accept-language")];
    let asked = ["de", "en", "fr"];
    for language in asked {
        keep_for(store, "/v", &[("accept-language", language)], standard(fields), language.as_bytes());
    }
    close(store);
    for first in asked {
        let store = open(&folder.0);
        for language in [first, "de", "en", "fr"] {
            let headers = headers(&[("accept-language", language)]);
            let copy = store.load(&key("/v"), &headers, Patience::Much).await.unwrap();
            assert_eq!(body_of(&copy).await.unwrap(), language.as_bytes(), "{first} first");
        }
        let other = headers(&[("accept-language", "it")]);
        assert!(store.load(&key("/v"), &other, Patience::Much).await.is_none());
        close(store);
    }
    // A new answer that varies otherwise takes the old ones away.
    let store = open(&folder.0);
    keep(store, "/v", b"all");
    close(store);
    let store = open(&folder.0);
    assert_eq!((found(store, "/v").await.unwrap(), usage(store).objects), (b"all".to_vec(), 1));
}

#[tokio::test]
async fn a_purged_copy_never_comes_back() {
    let folder = Folder::new();
    let store = open(&folder.0);
    for path in ["/a", "/b", "/c"] {
        keep(store, path, b"old");
    }
    assert!(store.remove(&key("/a")), "while it may still be queued");
    forget(store);
    assert!(store.remove(&key("/b")), "when it is on disk only");
    assert!(found(store, "/a").await.is_none() && found(store, "/b").await.is_none());
    keep(store, "/b", b"new");
    close(store);
    let store = open(&folder.0);
    assert!(found(store, "/a").await.is_none());
    assert_eq!(found(store, "/b").await.unwrap(), b"new");
    assert_eq!(found(store, "/c").await.unwrap(), b"old");
    assert!(!store.remove(&key("/a")));
}

#[tokio::test]
async fn what_a_purge_of_many_took_is_read_once_and_dropped() {
    let folder = Folder::new();
    let store = open(&folder.0);
    keep(store, "/a", b"1");
    keep(store, "/b", b"2");
    forget(store);
    store.purge_scope(&key("/a").scope(), crate::PurgeMode::Hard);
    for _ in 0..3 {
        assert!(found(store, "/a").await.is_none());
    }
    store.flush(PATIENCE);
    assert_eq!((usage(store).reads, usage(store).objects), (1, 1));
    assert_eq!(found(store, "/b").await.unwrap(), b"2");
}

#[tokio::test]
async fn a_soft_purge_and_a_confirmation_survive() {
    let folder = Folder::new();
    let store = open(&folder.0);
    keep(store, "/memory", b"1");
    keep(store, "/disk", b"2");
    store.soft_purge(&key("/memory"));
    forget(store);
    assert!(store.soft_purge(&key("/disk")));
    close(store);
    let store = open(&folder.0);
    for path in ["/memory", "/disk"] {
        let copy = load(store, path).await.unwrap();
        assert!(!copy.meta().is_fresh(crate::clock::now()) && copy.is_outlived(), "{path}");
    }
    // A 304 makes it fresh again; its record is a new one.
    let confirmed = standard(&[("cache-control", "max-age=900"), ("etag", "\"1\""), ("x-new", "1")]);
    let mut meta = load(store, "/disk").await.unwrap().meta();
    let id = meta.extensions().clone();
    meta = confirmed;
    *meta.extensions_mut() = id;
    let pingora = key("/disk").to_pingora();
    let span = pingora_cache::trace::Span::inactive().handle();
    assert!(pingora_cache::Storage::update_meta(store, &pingora, &meta, &span).await.unwrap());
    close(store);
    let store = open(&folder.0);
    let copy = load(store, "/disk").await.unwrap();
    assert!(copy.meta().is_fresh(crate::clock::now()) && copy.meta().headers().contains_key("x-new"));
    assert_eq!(body_of(&copy).await.unwrap(), b"2");
}

#[tokio::test]
async fn a_copy_for_failures_is_not_written_with_every_request() {
    let folder = Folder::new();
    let store = open(&folder.0);
    for _ in 0..100 {
        keep_for(store, "/p", &[], last_good(), b"page");
        store.flush(PATIENCE);
    }
    assert_eq!(usage(store).writes, 1);
    let old =
        CopyInfo { stored: crate::clock::now() + Duration::from_secs(11), ..CopyInfo::of(&last_good()) };
    let mut later = last_good();
    later.extensions_mut().insert(old);
    keep_for(store, "/p", &[], later, b"news");
    store.flush(PATIENCE);
    assert_eq!(usage(store).writes, 2);
}

#[tokio::test]
async fn a_page_that_is_hardly_fresh_is_not_written_with_every_answer() {
    for (control, writes) in
        [("max-age=0, stale-if-error=60", 1), ("max-age=5", 10), ("max-age=0, stale-while-revalidate=60", 1)]
    {
        let folder = Folder::new();
        let store = open(&folder.0);
        for at in 0..10 {
            let meta = standard(&[("cache-control", control), ("etag", "\"1\"")]);
            keep_for(store, "/p", &[], meta, format!("page {at}").as_bytes());
            store.flush(PATIENCE);
        }
        assert_eq!(usage(store).writes, writes, "{control}: what is fresh must be the newest");
        assert_eq!(found(store, "/p").await.unwrap(), b"page 9", "{control}: memory has the newest");
        // What is to be fresh for long takes the place of what is not.
        keep(store, "/p", b"at last");
        store.flush(PATIENCE);
        assert_eq!(usage(store).writes, writes + 1, "{control}");
    }
}

#[tokio::test]
async fn the_oldest_make_room_and_those_in_use_stay() {
    let folder = Folder::new();
    let spec = StoreSpec { memory_bytes: MIB, ..spec(&folder.0, 16 * MIB) };
    let store = open_with(&spec);
    for at in 0..60 {
        keep(store, &format!("/{at}"), &pattern(500_000, at));
        assert!(found(store, "/0").await.is_some(), "in use all the time, after {at}");
        store.flush(PATIENCE);
    }
    let held = usage(store);
    assert!(held.bytes <= 16 * MIB && held.bytes > 12 * MIB, "{held:?}");
    assert!(held.evictions >= 28 && held.objects <= 32, "{held:?}");
    close(store);
    let on_disk: u64 = ["data", "journal", "body"]
        .iter()
        .flat_map(|suffix| folder.files(suffix))
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, held.bytes, "what is counted is what is there");
    let store = open_with(&spec);
    assert_eq!((usage(store).objects, usage(store).bytes), (held.objects, held.bytes));
    for at in [0, 59] {
        assert_eq!(found(store, &format!("/{at}")).await.unwrap(), pattern(500_000, at));
    }
    assert!(found(store, "/1").await.is_none());
    store.use_disk(
        &StoreSpec {
            disk: spec.disk.clone().map(|disk| DiskSpec { bytes: 8 * MIB, ..disk }),
            ..spec.clone()
        },
        Box::new(|_event: &DiskEvent<'_>| {}),
    );
    keep(store, "/more", b"more");
    store.flush(PATIENCE);
    assert!(usage(store).bytes <= 8 * MIB, "{:?}", usage(store));
}

#[tokio::test]
async fn nobody_else_can_read_what_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let store = open(&folder.0.join("a/b"));
    keep(store, "/a", b"hello");
    keep_large(store, "/large", 3 * MIB);
    close(store);
    let inner = folder.0.join("a/b/copies");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&inner), mode(&folder.0.join("a/b"))), (0o700, 0o700));
    let files: Vec<_> = std::fs::read_dir(inner).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

/// A body that memory does not take.
fn keep_large(store: &'static Store, path: &str, len: u64) {
    let len = usize::try_from(len).unwrap();
    let fields: Fields<'_> = &[("cache-control", "max-age=600"), ("content-length", &len.to_string())];
    let mut writer = store.write(&key(path), &HeaderMap::new(), standard(fields));
    for piece in pattern(len, 7).chunks(50_001) {
        while writer.is_behind() {
            std::thread::yield_now();
        }
        assert!(writer.push(&Bytes::copy_from_slice(piece)));
    }
    writer.finish();
}

fn shared<T>(value: T) -> Arc<parking_lot::Mutex<T>> {
    Arc::new(parking_lot::Mutex::new(value))
}

/// There is one for each copy on disk.
#[test]
fn what_the_index_knows_of_a_copy_is_small() {
    assert!(size_of::<crate::disk::index::Slot>() <= 48, "{}", size_of::<crate::disk::index::Slot>());
}
