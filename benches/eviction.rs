//! Which copies memory keeps: the hit rate of the store beside that of Pingora's LRU, with as many copies, on requests
//! whose popularity falls by Zipf's law, while crawlers walk through pages that nobody asks for again.
//!
//!     cargo run --release -p goodgate-cache --example eviction

#![allow(clippy::print_stdout, reason = "it prints figures")]

use bytes::Bytes;
use goodgate_cache::{Admission, CachePolicy, Key, RequestFacts, Store, StoreSpec, admit};
use http::{HeaderMap, Method};
use pingora_cache::CacheEntryKey;
use pingora_cache::CacheMeta;
use pingora_cache::eviction::EvictionManager;
use pingora_cache::eviction::lru::Manager;
use pingora_http::ResponseHeader;

const PAGES: u64 = 200_000;
const REQUESTS: u64 = 2_000_000;
/// After so many requests a crawler comes, and asks for so many pages.
const CRAWL_EVERY: u64 = 100_000;
const BODY_BYTES: usize = 1024;
/// Where the pages of crawlers begin.
const CRAWLED: u64 = 1 << 40;

fn main() {
    for exponent in [0.7, 0.9, 1.1] {
        for (copies, crawl) in [(2_000, 0), (2_000, 20_000), (20_000, 0), (20_000, 20_000), (20_000, 100_000)]
        {
            let trace = trace(exponent, crawl);
            let (ours, lru) = (ours(&trace, copies), lru(&trace, copies));
            println!(
                "Zipf {exponent}, {copies:6} of {PAGES} pages, crawls of {crawl:6}: store {ours:.3}, LRU {lru:.3}"
            );
        }
    }
}

/// Pages in the order in which they are asked for; only those below `CRAWLED` count.
fn trace(exponent: f64, crawl: u64) -> Vec<u64> {
    let mut total = 0.0;
    let ranks = (1..=PAGES).map(|rank| {
        total += float(rank).powf(-exponent);
        total
    });
    let sums: Vec<f64> = ranks.collect();
    let mut random = fastrand::Rng::with_seed(9);
    let (mut trace, mut crawled) = (Vec::new(), CRAWLED);
    for at in 0..REQUESTS {
        let point = random.f64() * total;
        trace.push(sums.partition_point(|sum| *sum < point) as u64);
        if at % CRAWL_EVERY == CRAWL_EVERY / 2 {
            trace.extend(crawled..crawled + crawl);
            crawled += crawl;
        }
    }
    trace
}

fn float(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn share(hits: u64) -> f64 {
    float(hits) / float(REQUESTS)
}

fn ours(trace: &[u64], copies: u64) -> f64 {
    let store = store(1 << 40);
    keep(store, 0);
    let each = store.usage().bytes;
    let store = self::store(each * copies);
    let mut hits = 0;
    for page in trace {
        if store.find(&key(*page), &HeaderMap::new()).is_some() {
            hits += u64::from(*page < CRAWLED);
        } else {
            keep(store, *page);
        }
    }
    share(hits)
}

fn lru(trace: &[u64], copies: u64) -> f64 {
    let copies = usize::try_from(copies).unwrap_or(usize::MAX);
    let manager = Manager::<1>::with_capacity(copies, copies);
    let now = goodgate_cache::clock::now();
    let mut hits = 0;
    for page in trace {
        let key = CacheEntryKey::key_only(key(*page).to_pingora().to_compact());
        if manager.access(&key, 1, now) {
            hits += u64::from(*page < CRAWLED);
        } else {
            manager.admit(key, 1, now);
        }
    }
    share(hits)
}

fn store(memory_bytes: u64) -> &'static Store {
    let spec = StoreSpec {
        name: "bench".to_owned(),
        memory_bytes,
        object_bytes_max: 1 << 20,
        last_good_percent: 80,
        disk: None,
    };
    Box::leak(Box::new(Store::new(&spec)))
}

/// Of one length, so that each weighs the same.
fn key(page: u64) -> Key {
    Key::new("http", b"www.example.com", format!("/articles/{page:020}").as_bytes())
}

fn keep(store: &'static Store, page: u64) {
    if let Some(meta) = meta() {
        let mut writer = store.write(&key(page), &HeaderMap::new(), meta);
        writer.push(&Bytes::from_static(&[b'x'; BODY_BYTES]));
        writer.finish();
    }
}

fn meta() -> Option<CacheMeta> {
    let policy = CachePolicy::standard();
    let request = RequestFacts::new(&Method::GET, &HeaderMap::new(), &policy);
    let mut response = ResponseHeader::build(200, None).ok()?;
    response.insert_header("Cache-Control", "max-age=3600").ok()?;
    response.insert_header("Content-Length", BODY_BYTES).ok()?;
    match admit(&policy, &request, &response, goodgate_cache::clock::now()) {
        Admission::Store(meta) => Some(meta),
        Admission::KeepLastGood(_) | Admission::Refuse(_) => None,
    }
}
