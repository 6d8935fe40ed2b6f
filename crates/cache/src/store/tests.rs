//! The store from outside: through Pingora's trait, and beside it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use goodgate_failure::Cause;
use http::HeaderMap;
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::{HitHandler, MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage};
use pingora_cache::trace::{Span, SpanHandle};
use pingora_cache::{CacheKey, CacheMeta, HttpCache};

use super::*;
use crate::kept::Kept;
use crate::tests::{fallback, headers, policy, request, response};
use crate::{Admission, CopyInfo, CopyKind, admit};

type Fields<'a> = &'a [(&'a str, &'a str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const GZIP: Fields<'static> = &[("accept-encoding", "gzip")];
const BR: Fields<'static> = &[("accept-encoding", "br")];
const VARIED: Fields<'static> = &[FRESH, ("vary", "accept-encoding")];

fn store_of(memory_bytes: u64, object_bytes_max: u64) -> &'static Store {
    Box::leak(Box::new(Store::new(&spec(memory_bytes, object_bytes_max))))
}

fn store() -> &'static Store {
    store_of(1 << 24, 1 << 20)
}

fn spec(memory_bytes: u64, object_bytes_max: u64) -> StoreSpec {
    StoreSpec { name: "main".to_owned(), memory_bytes, object_bytes_max, last_good_percent: 50, disk: None }
}

fn span() -> SpanHandle {
    Span::inactive().handle()
}

fn key(path: &str) -> Key {
    Key::new("http", b"example.com", path.as_bytes())
}

fn standard_at(fields: Fields<'_>, now: SystemTime) -> CacheMeta {
    match admit(&policy(), &request(&[]), &response(200, fields), now) {
        Admission::Store(meta) => meta,
        other @ (Admission::KeepLastGood(_) | Admission::Refuse(_)) => panic!("{other:?}"),
    }
}

fn standard(fields: Fields<'_>) -> CacheMeta {
    standard_at(fields, crate::clock::now())
}

fn last_good(fields: Fields<'_>) -> CacheMeta {
    match admit(&fallback(), &request(&[]), &response(200, fields), crate::clock::now()) {
        Admission::KeepLastGood(meta) => meta,
        other @ (Admission::Store(_) | Admission::Refuse(_)) => panic!("{other:?}"),
    }
}

/// As Pingora does before it asks for a miss handler.
fn vary(meta: &mut CacheMeta, asked: Fields<'_>) {
    if let Some(variance) = vary::variance(meta.headers(), &headers(asked)) {
        meta.set_variance(variance);
    }
}

async fn begin(store: &'static Store, key: &CacheKey, meta: &CacheMeta) -> MissHandler {
    store.get_miss_handler(key, meta, &span()).await.unwrap()
}

async fn fill(store: &'static Store, key: &CacheKey, meta: &CacheMeta, body: &[&[u8]]) {
    let mut writer = begin(store, key, meta).await;
    for piece in body {
        writer.write_body(Bytes::copy_from_slice(piece), false).await.unwrap();
    }
    writer.finish().await.unwrap();
}

fn keep(store: &'static Store, key: &Key, asked: Fields<'_>, meta: CacheMeta, body: &[u8]) {
    let mut writer = store.write(key, &headers(asked), meta);
    writer.push(&Bytes::copy_from_slice(body));
    writer.finish();
}

async fn look_up(store: &'static Store, key: &CacheKey) -> Option<(CacheMeta, HitHandler)> {
    store.lookup(key, &span()).await.unwrap()
}

async fn own_reader(store: &'static Store, key: &CacheKey, writer: &MissHandler) -> HitHandler {
    let tag = writer.streaming_write_tag();
    store.lookup_streaming_write(key, tag, &span()).await.unwrap().unwrap().1
}

async fn read(mut hit: HitHandler) -> pingora_error::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = hit.read_body().await? {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn read_at(store: &'static Store, key: &CacheKey) -> Option<Vec<u8>> {
    Some(read(look_up(store, key).await?.1).await.unwrap())
}

fn chunks(copy: &StoredCopy) -> Vec<Bytes> {
    assert!(copy.is_in_memory());
    copy.0.body.pieces().map(Bytes::copy_from_slice).collect()
}

fn found(store: &Store, key: &Key, asked: Fields<'_>) -> Option<Vec<u8>> {
    store.find(key, &headers(asked)).map(|copy| chunks(&copy).concat())
}

#[tokio::test]
async fn what_was_filled_is_found_both_ways() {
    let (store, key) = (store(), key("/a"));
    fill(store, &key.to_pingora(), &standard(&[FRESH, ("age", "7")]), &[b"he", b"", b"llo"]).await;
    assert_eq!(read_at(store, &key.to_pingora()).await.unwrap(), b"hello");
    let copy = store.find(&key, &HeaderMap::new()).unwrap();
    assert_eq!((copy.body_len(), chunks(&copy).len()), (5, 1));
    assert_eq!(copy.info().kind, CopyKind::Standard);
    let (meta, _) = look_up(store, &key.to_pingora()).await.unwrap();
    assert_eq!(CopyInfo::of(&meta), copy.info());
    assert_eq!(meta.fresh_until(), copy.meta().fresh_until());
    assert_eq!(meta.epoch(), copy.meta().epoch());
    assert!(!meta.headers().contains_key("age"));
    assert_eq!(store.usage().objects, 1);
}

#[tokio::test]
async fn another_key_with_the_same_hash_meets_nothing() {
    let (store, key) = (store(), key("/a"));
    fill(store, &key.to_pingora(), &standard(&[FRESH]), &[b"mine"]).await;
    let mut other = CacheKey::new("not the same key", "");
    other.set_primary_bin_override(key.bin());
    assert!(look_up(store, &other).await.is_none());
    assert!(store.get_miss_handler(&other, &standard(&[FRESH]), &span()).await.is_err());
    assert_eq!(read_at(store, &key.to_pingora()).await.unwrap(), b"mine");
}

#[tokio::test]
async fn a_last_good_copy_is_no_hit_and_gives_way_to_a_standard_one() {
    let (store, key) = (store(), key("/a"));
    keep(store, &key, &[], last_good(&[]), b"old");
    assert!(look_up(store, &key.to_pingora()).await.is_none());
    assert_eq!(found(store, &key, &[]).unwrap(), b"old");
    fill(store, &key.to_pingora(), &standard(&[FRESH]), &[b"new"]).await;
    assert_eq!(read_at(store, &key.to_pingora()).await.unwrap(), b"new");
    assert_eq!(store.usage().objects, 1);
}

#[tokio::test]
async fn a_last_good_copy_displaces_a_stale_standard_one_but_never_a_fresh_one() {
    let (store, key) = (store(), key("/a"));
    fill(store, &key.to_pingora(), &standard(&[FRESH]), &[b"fresh"]).await;
    keep(store, &key, &[], last_good(&[]), b"last good");
    assert_eq!(found(store, &key, &[]).unwrap(), b"fresh");
    store.soft_purge(&key);
    keep(store, &key, &[], last_good(&[]), b"last good");
    assert_eq!(found(store, &key, &[]).unwrap(), b"last good");
    assert_eq!(store.usage().objects, 1);
}

#[tokio::test]
async fn a_writer_that_is_dropped_or_cut_leaves_the_old_copy() {
    let (store, key) = (store(), key("/a"));
    keep(store, &key, &[], last_good(&[]), b"old");
    let before = store.usage();
    let mut dropped = store.write(&key, &HeaderMap::new(), last_good(&[]));
    assert!(dropped.push(&Bytes::from_static(b"half")));
    drop(dropped);
    keep(store, &key, &[], last_good(&[("content-length", "9")]), b"short");
    keep(store, &key, &[], last_good(&[("content-length", "3")]), b"longer");
    assert_eq!(found(store, &key, &[]).unwrap(), b"old");
    assert_eq!(store.usage(), before);
    keep(store, &key, &[], last_good(&[("content-length", "3")]), b"new");
    assert_eq!(found(store, &key, &[]).unwrap(), b"new");
}

#[tokio::test]
async fn readers_follow_a_fill_and_get_every_byte() {
    let (store, key) = (store(), key("/a").to_pingora());
    let meta = standard(&[FRESH]);
    let mut writer = begin(store, &key, &meta).await;
    let own = tokio::spawn(read(own_reader(store, &key, &writer).await));
    let mut readers = Vec::new();
    let mut expected = Vec::new();
    for round in 0..50_u8 {
        readers.push(tokio::spawn(read(look_up(store, &key).await.unwrap().1)));
        let piece = vec![round; 1 + usize::from(round) * 97];
        expected.extend_from_slice(&piece);
        writer.write_body(piece.into(), false).await.unwrap();
        tokio::task::yield_now().await;
    }
    writer.finish().await.unwrap();
    for reader in readers.into_iter().chain([own]) {
        assert_eq!(reader.await.unwrap().unwrap(), expected);
    }
    assert_eq!(read_at(store, &key).await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_on_another_thread_misses_a_wake_up() {
    let (store, key) = (store(), key("/a").to_pingora());
    for _ in 0..200 {
        let mut writer = begin(store, &key, &standard(&[("cache-control", "no-cache")])).await;
        let readers: Vec<_> = {
            let mut readers = Vec::new();
            for _ in 0..8 {
                readers.push(tokio::spawn(read(look_up(store, &key).await.unwrap().1)));
            }
            readers
        };
        for piece in 0..20_u8 {
            writer.write_body(Bytes::from(vec![piece; 10]), false).await.unwrap();
        }
        writer.finish().await.unwrap();
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap().len(), 200);
        }
    }
}

#[tokio::test]
async fn a_fill_dropped_half_way_aborts_its_readers_and_leaves_the_old_copy() {
    let (store, key) = (store(), key("/a"));
    let pingora = key.to_pingora();
    keep(store, &key, &[], last_good(&[]), b"old");
    let before = store.usage();
    let mut writer = begin(store, &pingora, &standard(&[FRESH])).await;
    let waiting = tokio::spawn(read(own_reader(store, &pingora, &writer).await));
    let late = look_up(store, &pingora).await.unwrap().1;
    writer.write_body(Bytes::from_static(b"half"), false).await.unwrap();
    tokio::task::yield_now().await;
    drop(writer);
    assert!(waiting.await.unwrap().is_err());
    assert!(read(late).await.is_err());
    assert_eq!(found(store, &key, &[]).unwrap(), b"old");
    assert!(look_up(store, &pingora).await.is_none());
    assert_eq!(store.usage(), before);
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_not_stored_and_aborts_its_readers() {
    let (store, key) = (store(), key("/a").to_pingora());
    let mut writer = begin(store, &key, &standard(&[FRESH, ("content-length", "9")])).await;
    let reader = own_reader(store, &key, &writer).await;
    writer.write_body(Bytes::from_static(b"short"), true).await.unwrap();
    assert!(writer.finish().await.is_err());
    assert!(read(reader).await.is_err());
    assert!(look_up(store, &key).await.is_none());
    assert_eq!(store.usage().bytes, 0);
}

#[tokio::test]
async fn a_tag_finds_its_own_write_and_no_other() {
    let (store, key) = (store(), key("/a").to_pingora());
    let meta = standard(&[FRESH]);
    let mut first = begin(store, &key, &meta).await;
    let mut second = begin(store, &key, &meta).await;
    let of_first = own_reader(store, &key, &first).await;
    let of_second = own_reader(store, &key, &second).await;
    first.write_body(Bytes::from_static(b"first"), true).await.unwrap();
    second.write_body(Bytes::from_static(b"second"), true).await.unwrap();
    second.finish().await.unwrap();
    first.finish().await.unwrap();
    assert_eq!(read(of_first).await.unwrap(), b"first");
    assert_eq!(read(of_second).await.unwrap(), b"second");
    assert!(store.lookup_streaming_write(&key, None, &span()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_fresh_copy_is_preferred_to_a_fill_and_a_fill_to_a_stale_copy() {
    let (store, key) = (store(), key("/a"));
    let pingora = key.to_pingora();
    fill(store, &pingora, &standard(&[FRESH]), &[b"complete"]).await;
    let mut writer = begin(store, &pingora, &standard(&[FRESH])).await;
    assert_eq!(read_at(store, &pingora).await.unwrap(), b"complete");
    store.soft_purge(&key);
    let joined = look_up(store, &pingora).await.unwrap().1;
    assert_eq!(found(store, &key, &[]).unwrap(), b"complete");
    writer.write_body(Bytes::from_static(b"newer"), true).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read(joined).await.unwrap(), b"newer");
    assert_eq!(found(store, &key, &[]).unwrap(), b"newer");
}

#[tokio::test]
async fn a_reader_keeps_its_copy_whole_though_it_is_replaced_and_evicted() {
    let (store, key) = (store_of(8192, 4096), key("/a").to_pingora());
    fill(store, &key, &standard(&[FRESH]), &[&[1; 2000]]).await;
    let reader = look_up(store, &key).await.unwrap().1;
    fill(store, &key, &standard(&[FRESH]), &[&[2; 2000]]).await;
    let second = look_up(store, &key).await.unwrap().1;
    store.set_limits(&spec(0, 4096));
    assert!(look_up(store, &key).await.is_none());
    assert_eq!(read(reader).await.unwrap(), [1; 2000]);
    assert_eq!(read(second).await.unwrap(), [2; 2000]);
    assert_eq!(store.usage(), Usage { objects: 0, bytes: 0, evictions: 1, purges: 0, disk: None });
}

#[tokio::test]
async fn a_range_is_cut_out_of_any_chunks() {
    let (store, key) = (store(), key("/a").to_pingora());
    let body: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    fill(store, &key, &standard(&[FRESH]), &[&body[..100_000], &body[100_000..]]).await;
    let (_, mut hit) = look_up(store, &key).await.unwrap();
    assert!(hit.can_seek());
    for (start, end) in [(0, Some(1)), (99_999, Some(100_001)), (250_000, None), (299_999, Some(9_999_999))] {
        hit.seek(start, end).unwrap();
        let mut part = Vec::new();
        while let Some(chunk) = hit.read_body().await.unwrap() {
            part.extend_from_slice(&chunk);
        }
        assert_eq!(part, body[start..end.unwrap_or(300_000).min(300_000)], "{start} {end:?}");
    }
    assert!(hit.seek(300_000, None).is_err());
    assert!(hit.seek(5, Some(5)).is_err());
}

#[tokio::test]
async fn variants_are_found_as_pingora_looks_for_them() {
    let (store, key) = (store(), key("/a"));
    let primary = key.to_pingora();
    let mut meta = standard(VARIED);
    vary(&mut meta, GZIP);
    fill(store, &primary, &meta, &[b"gzip"]).await;
    let mut meta = standard(VARIED);
    vary(&mut meta, BR);
    let mut secondary = key.to_pingora();
    secondary.set_variance_key(meta.variance().unwrap());
    fill(store, &secondary, &meta, &[b"br"]).await;
    assert_eq!(read_at(store, &primary).await.unwrap(), b"gzip");
    assert_eq!(read_at(store, &secondary).await.unwrap(), b"br");
    assert_eq!(found(store, &key, GZIP).unwrap(), b"gzip");
    assert_eq!(found(store, &key, BR).unwrap(), b"br");
    assert_eq!(found(store, &key, &[]), None);
    assert_eq!(look_up(store, &secondary).await.unwrap().0.variance(), secondary.variance_bin());
}

#[tokio::test]
async fn last_good_variants_stand_side_by_side_until_vary_changes() {
    let (store, key) = (store(), key("/a"));
    let varied = [("vary", "accept-encoding")];
    keep(store, &key, GZIP, last_good(&varied), b"gzip");
    keep(store, &key, BR, last_good(&varied), b"br");
    keep(store, &key, BR, last_good(&varied), b"br again");
    assert_eq!(found(store, &key, GZIP).unwrap(), b"gzip");
    assert_eq!(found(store, &key, BR).unwrap(), b"br again");
    assert_eq!(store.usage().objects, 2);
    keep(store, &key, BR, last_good(&[]), b"plain");
    assert_eq!(found(store, &key, GZIP).unwrap(), b"plain");
    assert_eq!(store.usage().objects, 1);
}

#[tokio::test]
async fn variants_per_key_are_bounded() {
    let (store, key) = (store(), key("/a"));
    for at in 0..200 {
        let value = at.to_string();
        keep(store, &key, &[("x-a", &value)], last_good(&[("vary", "x-a")]), value.as_bytes());
    }
    assert_eq!(store.usage().objects, 1 + family::VARIANTS_MAX as u64);
    assert_eq!(found(store, &key, &[("x-a", "0")]).unwrap(), b"0");
    assert_eq!(found(store, &key, &[("x-a", "199")]).unwrap(), b"199");
    assert_eq!(found(store, &key, &[("x-a", "50")]), None);
}

#[tokio::test]
async fn the_byte_bound_holds_and_what_is_used_survives_a_scan() {
    let store = store_of(400_000, 50_000);
    let used = key("/used");
    keep(store, &used, &[], last_good(&[]), &[7; 2000]);
    for at in 0..2000 {
        keep(store, &key(&format!("/scan/{at}")), &[], last_good(&[]), &[0; 2000]);
        assert!(store.usage().bytes <= 400_000);
        assert!(found(store, &used, &[]).is_some(), "{at}");
    }
    let usage = store.usage();
    assert!(usage.bytes > 300_000, "{usage:?}");
    assert_eq!(usage.objects + usage.evictions, 2001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_byte_bound_holds_under_concurrent_writers() {
    let store = store_of(300_000, 50_000);
    let writers: Vec<_> = (0..8_u8)
        .map(|writer| {
            tokio::spawn(async move {
                for at in 0..300_usize {
                    let key = key(&format!("/{}", (at * 7 + usize::from(writer)) % 200));
                    let body = vec![writer; 100 + at * 31 % 9000];
                    if at % 3 == 0 {
                        keep(store, &key, &[], last_good(&[]), &body);
                    } else {
                        let pingora = key.to_pingora();
                        if let Ok(mut fill) =
                            store.get_miss_handler(&pingora, &standard(&[FRESH]), &span()).await
                        {
                            let _ = fill.write_body(body.into(), true).await;
                            if at % 5 != 0 {
                                let _ = fill.finish().await;
                            }
                        }
                    }
                    assert!(store.usage().bytes <= 300_000);
                    if let Some(copy) = store.find(&key, &HeaderMap::new()) {
                        let body = chunks(&copy).concat();
                        assert!(body.iter().all(|byte| *byte == body[0]));
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    store.set_limits(&spec(0, 50_000));
    assert_eq!((store.usage().objects, store.usage().bytes), (0, 0));
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_reaches_its_readers_but_is_not_stored() {
    let (store, key) = (store_of(1 << 20, 10_000), key("/a"));
    let pingora = key.to_pingora();
    let meta = standard(&[FRESH]);
    let mut writer = begin(store, &pingora, &meta).await;
    let mut own = own_reader(store, &pingora, &writer).await;
    let mut got = 0;
    for _ in 0..1000 {
        writer.write_body(Bytes::from(vec![0; 5000]), false).await.unwrap();
        got += own.read_body().await.unwrap().unwrap().len();
        assert!(store.usage().bytes < 20_000);
    }
    assert!(look_up(store, &pingora).await.is_none());
    writer.finish().await.unwrap();
    assert!(own.read_body().await.unwrap().is_none());
    assert_eq!(got, 5_000_000);
    assert_eq!(store.usage().bytes, 0);
    assert!(!store.takes(&key, meta.response_header()));
    assert!(store.get_miss_handler(&pingora, &meta, &span()).await.is_err());
    let small = standard(&[FRESH, ("content-length", "5")]);
    assert!(store.takes(&key, small.response_header()));
    store.remove(&key);
    assert!(store.takes(&key, meta.response_header()));
}

#[tokio::test]
async fn a_reader_that_stops_reading_cannot_hold_up_unbounded_bytes() {
    let (store, key) = (store_of(1 << 20, 10_000), key("/a").to_pingora());
    let mut writer = begin(store, &key, &standard(&[FRESH])).await;
    let stuck = own_reader(store, &key, &writer).await;
    let mut written = 0;
    while writer.write_body(Bytes::from(vec![0; 5000]), false).await.is_ok() {
        written += 5000;
        assert!(written < 1 << 20);
    }
    assert!(written > 250_000);
    drop(writer);
    assert!(read(stuck).await.is_err());
    assert_eq!(store.usage().bytes, 0);
}

#[tokio::test]
async fn what_is_known_to_be_too_large_is_refused_at_once() {
    let (store, key) = (store_of(1 << 20, 10_000), key("/a"));
    for length in ["10000", "18446744073709551615"] {
        let meta = standard(&[FRESH, ("content-length", length)]);
        assert!(!store.takes(&key, meta.response_header()));
        assert!(store.get_miss_handler(&key.to_pingora(), &meta, &span()).await.is_err());
        assert!(!store.write(&key, &HeaderMap::new(), meta).push(&Bytes::from_static(b"a")));
    }
    assert_eq!(store.usage().bytes, 0);
}

#[tokio::test]
async fn purge_takes_the_family_and_keeps_a_fill_from_being_stored() {
    let (store, key) = (store(), key("/a"));
    let pingora = key.to_pingora();
    keep(store, &key, GZIP, last_good(&[("vary", "accept-encoding")]), b"gzip");
    keep(store, &key, BR, last_good(&[("vary", "accept-encoding")]), b"br");
    let mut writer = begin(store, &pingora, &standard(&[FRESH])).await;
    let reader = own_reader(store, &pingora, &writer).await;
    let compact = pingora.to_compact();
    let outcome =
        Storage::purge(store, PurgeTarget::Active(&compact), PurgeType::Invalidation, &span()).await;
    assert_eq!(outcome.unwrap(), PurgeOutcome::Purged(None));
    assert!(look_up(store, &pingora).await.is_none());
    writer.write_body(Bytes::from_static(b"before"), true).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read(reader).await.unwrap(), b"before");
    assert_eq!(found(store, &key, GZIP), None);
    assert_eq!((store.usage().objects, store.usage().bytes), (0, 0));
    assert!(!store.remove(&key));
}

#[tokio::test]
async fn a_soft_purge_makes_stale_and_keeps_the_body() {
    let (store, key) = (store(), key("/a"));
    fill(store, &key.to_pingora(), &standard(&[FRESH]), &[b"body"]).await;
    assert!(store.soft_purge(&key));
    let (meta, hit) = look_up(store, &key.to_pingora()).await.unwrap();
    assert!(!meta.is_fresh(crate::clock::now()));
    assert_eq!(read(hit).await.unwrap(), b"body");
    assert!(!store.soft_purge(&super::tests::key("/b")));
}

/// What Pingora hands over after a 304: new times, the old copy's extensions under the new ones.
fn confirmed(old: &CacheMeta, fields: Fields<'_>) -> CacheMeta {
    let mut meta = standard(fields);
    let mut extensions = old.extensions().clone();
    extensions.extend(meta.extensions().clone());
    *meta.extensions_mut() = extensions;
    meta
}

#[tokio::test]
async fn a_confirmation_renews_the_copy_it_was_made_for_and_no_other() {
    let (store, key) = (store(), key("/a").to_pingora());
    fill(store, &key, &standard(&[FRESH]), &[b"one"]).await;
    let (old, _) = look_up(store, &key).await.unwrap();
    let weight = store.usage().bytes;
    let renewed = confirmed(&old, &[("cache-control", "max-age=600"), ("x-new", "1")]);
    assert!(store.update_meta(&key, &renewed, &span()).await.unwrap());
    let (meta, hit) = look_up(store, &key).await.unwrap();
    assert_eq!((meta.fresh_sec(), read(hit).await.unwrap().as_slice()), (600, b"one".as_slice()));
    assert!(store.usage().bytes > weight);
    fill(store, &key, &standard(&[FRESH]), &[b"two"]).await;
    assert!(!store.update_meta(&key, &renewed, &span()).await.unwrap());
    let (meta, _) = look_up(store, &key).await.unwrap();
    assert_eq!(meta.fresh_sec(), 60);
    assert_eq!(store.usage().bytes, weight);
}

#[tokio::test]
async fn bodies_are_joined_into_exactly_sized_blocks() {
    let (store, key) = (store(), key("/a"));
    let body: Vec<u8> = (0..=250).cycle().take(200_000).collect();
    let pieces: Vec<_> = body.chunks(777).collect();
    fill(store, &key.to_pingora(), &standard(&[FRESH]), &pieces).await;
    let copy = store.find(&key, &HeaderMap::new()).unwrap();
    assert_eq!(chunks(&copy).concat(), body);
    assert_eq!(chunks(&copy).len(), 4);
    fill(store, &key.to_pingora(), &standard(&[FRESH]), &[]).await;
    assert_eq!(store.find(&key, &HeaderMap::new()).unwrap().body_len(), 0);
}

#[tokio::test]
async fn a_failed_refresh_is_known_for_one_back_off_and_then_one_may_ask() {
    let (store, key) = (store(), key("/a"));
    keep(store, &key, &[], last_good(&[]), b"old");
    let copy = store.find(&key, &HeaderMap::new()).unwrap();
    let start = Instant::now();
    let cause = Some(Cause::ConnectionRefused);
    assert_eq!(copy.refresh_failure(start), None);
    copy.refresh_failed(Cause::ConnectionRefused, start);
    let just_before = start + Duration::from_millis(999);
    let again = store.find(&key, &HeaderMap::new()).unwrap();
    assert_eq!(again.refresh_failure(just_before), cause);
    assert_eq!(again.claim_refresh(just_before), cause);
    let over = start + REFRESH_BACKOFF;
    assert_eq!(again.refresh_failure(over), None);
    assert_eq!(again.claim_refresh(over), None);
    assert_eq!(copy.claim_refresh(over), cause);
    copy.refresh_succeeded();
    assert_eq!(again.claim_refresh(over), None);
}

#[tokio::test]
async fn evictions_and_lookups_run_side_by_side_with_fills() {
    let store = store_of(60_000, 30_000);
    let shared = Arc::new(key("/hot").to_pingora());
    let mut writer = begin(store, &shared, &standard(&[FRESH])).await;
    let reader = own_reader(store, &shared, &writer).await;
    for at in 0..20 {
        writer.write_body(Bytes::from(vec![1; 1000]), false).await.unwrap();
        keep(store, &key(&format!("/{at}")), &[], last_good(&[]), &[0; 9000]);
    }
    writer.finish().await.unwrap();
    assert_eq!(read(reader).await.unwrap().len(), 20_000);
    assert!(store.usage().bytes <= 60_000);
}

/// One request through Pingora's own cache phases; says what it got, and whether from the store.
async fn through_pingora(
    store: &'static Store,
    key: &Key,
    asked: Fields<'_>,
    answer: &'static str,
) -> (String, bool) {
    let mut cache = HttpCache::new();
    cache.enable(store, None, None, None, None);
    cache.set_cache_key(key.to_pingora());
    let asked = headers(asked);
    while let Some((meta, hit)) = cache.cache_lookup().await.unwrap() {
        let is_variant = cache.cache_key().get_variance_key().is_some();
        match vary::variance(meta.headers(), &asked) {
            Some(variance) if !is_variant && !cache.cache_vary_lookup(variance, &meta) => {}
            _ => return (String::from_utf8(read(hit).await.unwrap()).unwrap(), true),
        }
    }
    cache.cache_miss();
    let meta = standard(VARIED);
    let variance = vary::variance(meta.headers(), &asked);
    cache.set_cache_meta(meta);
    cache.update_variance(variance);
    cache.set_miss_handler().await.unwrap();
    cache.miss_handler().unwrap().write_body(Bytes::from_static(answer.as_bytes()), true).await.unwrap();
    cache.finish_miss_handler().await.unwrap();
    let mut got = Vec::new();
    while let Some(chunk) = cache.miss_body_reader().unwrap().read_body().await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    (String::from_utf8(got).unwrap(), false)
}

#[tokio::test]
async fn pingora_finds_each_variant_that_it_filled() {
    let (store, key) = (store(), key("/a"));
    for (asked, answer) in [(GZIP, "gzip"), (BR, "br"), (&[], "plain")] {
        assert_eq!(through_pingora(store, &key, asked, answer).await, (answer.to_owned(), false));
    }
    for (asked, answer) in [(GZIP, "gzip"), (BR, "br"), (&[], "plain")] {
        assert_eq!(through_pingora(store, &key, asked, "never").await, (answer.to_owned(), true));
        assert_eq!(found(store, &key, asked).unwrap(), answer.as_bytes());
    }
}

#[tokio::test]
async fn the_header_of_a_copy_keeps_its_spelling_and_nothing_alive() {
    let mut read = bytes::BytesMut::with_capacity(1 << 20);
    read.extend_from_slice(b"X-OddCase one two");
    let read = read.freeze();
    let mut header = ResponseHeader::build(200, None).unwrap();
    header.set_reason_phrase(Some("Fine")).unwrap();
    let value =
        |range: std::ops::Range<usize>| http::HeaderValue::from_maybe_shared(read.slice(range)).unwrap();
    header.append_header(read.slice(0..9), value(10..13)).unwrap();
    header.append_header(read.slice(0..9), value(14..17)).unwrap();
    let meta = CacheMeta::new(crate::clock::now(), crate::clock::now(), 0, 0, header);
    let kept = Kept::of(&meta);
    let own = kept.header().unwrap();
    let mut wire = Vec::new();
    own.header_to_h1_wire(&mut wire);
    assert_eq!(wire, b"X-OddCase: one\r\nX-OddCase: two\r\n");
    assert_eq!((own.get_reason_phrase(), own.version), (Some("Fine"), meta.response_header().version));
    drop(meta);
    assert!(read.is_unique(), "no field of the copy holds the buffer");
}

/// What a copy of a small page takes beside its text; `docs/performance.md` speaks of it.
#[test]
fn the_bookkeeping_of_a_copy_is_small() {
    let object = size_of::<Object>() + 2 * size_of::<usize>();
    let family = size_of::<super::family::Family>();
    assert!(object <= 160 && family <= 56, "{object} {family}");
}

/// The reason of a status is longer than what was reserved for it before the head was written down.
#[test]
fn a_copy_without_a_body_is_confirmed_and_the_sums_are_kept() {
    let (store, key) = (store(), key("/moved"));
    let fields: Fields<'_> = &[("cache-control", "max-age=60"), ("content-length", "0")];
    for status in [200, 203, 301, 308, 410] {
        let meta = || match admit(&policy(), &request(&[]), &response(status, fields), crate::clock::now()) {
            Admission::Store(meta) => meta,
            other @ (Admission::KeepLastGood(_) | Admission::Refuse(_)) => panic!("{other:?}"),
        };
        store.write(&key, &HeaderMap::new(), meta()).finish();
        for _ in 0..2 {
            let copy = store.find(&key, &HeaderMap::new()).unwrap();
            assert!(store.renew_copy(&key, &copy, meta()), "{status}");
        }
        let copy = store.find(&key, &HeaderMap::new()).unwrap();
        store.expire_copy(&key, &copy);
        assert!(!store.find(&key, &HeaderMap::new()).unwrap().standing().is_fresh(crate::clock::now()));
        store.remove(&key);
        assert_eq!((store.usage().objects, store.usage().bytes), (0, 0), "{status}");
    }
}
