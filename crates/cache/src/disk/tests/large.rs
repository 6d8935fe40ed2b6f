//! Bodies that memory does not take: streamed to disk, and from it in whole or in parts.

use pingora_cache::trace::Span;
use pingora_cache::{HitHandler, Storage};

use super::*;

const LEN: u64 = 3 * MIB + 12_345;

fn large() -> (Folder, &'static Store) {
    let folder = Folder::new();
    let store = open(&folder.0);
    keep_large(store, "/l", LEN);
    forget(store);
    (folder, store)
}

fn whole() -> Vec<u8> {
    pattern(usize::try_from(LEN).unwrap(), 7)
}

async fn hit(store: &'static Store) -> HitHandler {
    load(store, "/l").await.unwrap();
    store.lookup(&key("/l").to_pingora(), &Span::inactive().handle()).await.unwrap().unwrap().1
}

#[tokio::test]
async fn a_large_body_comes_back_whole_and_takes_no_memory() {
    let (folder, store) = large();
    assert_eq!(found(store, "/l").await.unwrap(), whole());
    assert!(store.usage().bytes < 100_000, "{:?}", store.usage());
    close(store);
    let store = open(&folder.0);
    assert_eq!(found(store, "/l").await.unwrap(), whole());
    assert!(usage(store).bytes > LEN);
    // The new one takes the place of the old one, whose file goes.
    keep(store, "/l", b"small");
    forget(store);
    assert_eq!(found(store, "/l").await.unwrap(), b"small");
    assert!(folder.files("body").is_empty());
    assert!(usage(store).bytes < LEN + MIB);
}

#[tokio::test]
async fn any_part_of_it_comes_from_disk() {
    let (_folder, store) = large();
    let (whole, block) = (whole(), super::super::body::BLOCK_BYTES);
    let end = whole.len();
    let borders = [0, 1, block - 1, block, block + 1, 2 * block, 5 * block - 1, end - 1, end];
    for start in borders {
        for stop in borders.into_iter().filter(|stop| start < *stop) {
            let mut hit = hit(store).await;
            assert!(hit.can_seek());
            hit.seek(start, Some(stop)).unwrap();
            let mut body = Vec::new();
            while let Some(chunk) = hit.read_body().await.unwrap() {
                body.extend_from_slice(&chunk);
            }
            assert!(body == whole[start..stop], "{start} to {stop}");
        }
    }
}

#[tokio::test]
async fn a_damaged_block_cuts_the_stream_and_nothing_wrong_is_handed_out() {
    let (folder, store) = large();
    let file = folder.files("body").remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1_000_000] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let copy = load(store, "/l").await.unwrap();
    let (mut reader, mut read) = (copy.read(), Vec::new());
    let error = loop {
        match reader.next().await {
            Ok(chunk) => read.extend_from_slice(&chunk.expect("an error before the end")),
            Err(error) => break error,
        }
    };
    assert!(whole().starts_with(&read) && read.len() > 900_000, "{error}");
    assert_eq!(usage(store).corrupt, 1);
    assert!(load(store, "/l").await.is_none(), "nobody begins with it again");
    keep_large(store, "/l", LEN);
    store.flush(PATIENCE);
    assert_eq!(found(store, "/l").await.unwrap(), whole());
}

#[tokio::test]
async fn it_is_readable_to_its_end_though_it_was_given_up() {
    let (folder, store) = large();
    let copy = load(store, "/l").await.unwrap();
    store.remove(&key("/l"));
    store.flush(PATIENCE);
    assert!(folder.files("body").is_empty());
    assert_eq!(body_of(&copy).await.unwrap(), whole());
    assert!(load(store, "/l").await.is_none());
}

#[tokio::test]
async fn a_body_that_ends_early_leaves_nothing() {
    let folder = Folder::new();
    let store = open(&folder.0);
    let fields: Fields<'_> = &[("cache-control", "max-age=600"), ("content-length", "5000000")];
    for is_finished in [true, false] {
        let mut writer = store.write(&key("/l"), &HeaderMap::new(), standard(fields));
        assert!(writer.push(&Bytes::from(pattern(1_000_000, 1))));
        if is_finished {
            writer.finish();
        }
    }
    store.flush(PATIENCE);
    assert!(folder.files("body").is_empty() && usage(store).bytes == 0);
    let too_large = store.write(&key("/l"), &HeaderMap::new(), {
        let len = (33 * MIB).to_string();
        standard(&[("cache-control", "max-age=600"), ("content-length", &len)])
    });
    assert!(!{ too_large }.push(&Bytes::from_static(b"x")));
}

#[tokio::test]
async fn a_confirmed_large_copy_keeps_its_body() {
    let (folder, store) = large();
    let mut meta = standard(&[("cache-control", "max-age=900"), ("x-new", "1")]);
    *meta.extensions_mut() = load(store, "/l").await.unwrap().meta().extensions().clone();
    // As if it had been stored a while ago, so that the news is worth a record.
    let info = CopyInfo { stored: crate::clock::now() + Duration::from_mins(1), ..CopyInfo::of(&meta) };
    meta.extensions_mut().insert(info);
    let span = Span::inactive().handle();
    assert!(store.update_meta(&key("/l").to_pingora(), &meta, &span).await.unwrap());
    close(store);
    let store = open(&folder.0);
    let copy = load(store, "/l").await.unwrap();
    assert!(copy.meta().headers().contains_key("x-new"));
    assert_eq!(body_of(&copy).await.unwrap(), whole());
    assert_eq!((folder.files("body").len(), usage(store).objects), (1, 1));
}
