//! What the cache adds to a request: building the key, judging freshness and admission, and one store hit.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use goodgate_cache::{
    Admission, CachePolicy, Key, NamePattern, PersonalCookies, RequestFacts, Standing, Store, StoreSpec,
    admit, may_serve_fresh,
};
use http::{HeaderMap, HeaderValue, Method, header};
use pingora_cache::storage::Storage;
use pingora_cache::trace::Span;
use pingora_cache::{CacheKey, CacheMeta};
use pingora_http::ResponseHeader;
use tokio::runtime::{Builder, Runtime};

fn policy() -> CachePolicy {
    CachePolicy {
        stale_for: Duration::from_hours(1),
        personal_cookies: PersonalCookies::AllBut(vec![NamePattern::parse("_ga*")]),
        ..CachePolicy::standard()
    }
}

fn request() -> HeaderMap {
    let fields = [
        (header::HOST, "www.example.com"),
        (header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
        (header::ACCEPT_LANGUAGE, "de,en-US;q=0.7,en;q=0.3"),
        (header::COOKIE, "_ga=GA1.1.1; _ga_X=GS1.1"),
    ];
    fields.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

fn response() -> ResponseHeader {
    let fields = [
        ("date", "Mon, 06 Jul 2026 10:00:00 GMT"),
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "public, max-age=60, stale-while-revalidate=30"),
        ("etag", "\"5f3a9c\""),
        ("content-length", "1024"),
        ("server", "origin"),
    ];
    let mut response = ResponseHeader::build(200, Some(fields.len())).unwrap_or_else(|error| stop(&error));
    for (name, value) in fields {
        response.append_header(name, value).unwrap_or_else(|error| stop(&error));
    }
    response
}

fn meta(policy: &CachePolicy, facts: &RequestFacts) -> CacheMeta {
    match admit(policy, facts, &response(), goodgate_cache::clock::now()) {
        Admission::Store(meta) | Admission::KeepLastGood(meta) => meta,
        Admission::Refuse(reason) => stop(&reason),
    }
}

/// A bench that cannot be set up says why and ends.
fn stop<T>(why: &dyn std::fmt::Display) -> T {
    eprintln!("{why}");
    std::process::exit(1)
}

fn keys(criterion: &mut Criterion) {
    let build = || {
        Key::new("https", black_box(b"www.Example.com:443"), black_box(b"/news/2026/07/06/index.html?page=2"))
    };
    criterion.bench_function("key", |bench| bench.iter(build));
    criterion.bench_function("key_for_pingora", |bench| bench.iter(|| build().to_pingora()));
}

fn decisions(criterion: &mut Criterion) {
    let (policy, headers, response, now) = (policy(), request(), response(), goodgate_cache::clock::now());
    let facts = RequestFacts::new(&Method::GET, &headers, &policy);
    let meta = meta(&policy, &facts);
    criterion.bench_function("request_facts", |bench| {
        bench.iter(|| RequestFacts::new(&Method::GET, black_box(&headers), &policy));
    });
    criterion.bench_function("admit", |bench| {
        bench.iter(|| admit(&policy, &facts, black_box(&response), now));
    });
    criterion.bench_function("may_serve_fresh", |bench| {
        bench.iter(|| may_serve_fresh(black_box(&Standing::of(&meta)), &policy, &facts, now));
    });
}

fn hits(criterion: &mut Criterion) {
    let spec = StoreSpec {
        name: "bench".to_owned(),
        memory_bytes: 1 << 26,
        object_bytes_max: 1 << 20,
        last_good_percent: 50,
        disk: None,
    };
    let store: &'static Store = Box::leak(Box::new(Store::new(&spec)));
    let (policy, headers) = (policy(), request());
    let facts = RequestFacts::new(&Method::GET, &headers, &policy);
    let key = Key::new("https", b"www.example.com", b"/");
    let mut writer = store.write(&key, &headers, meta(&policy, &facts));
    writer.push(&Bytes::from(vec![b'a'; 1024]));
    writer.finish();
    criterion.bench_function("find", |bench| bench.iter(|| store.find(black_box(&key), &headers)));
    let runtime = Builder::new_current_thread().build().unwrap_or_else(|error| stop(&error));
    let pingora = key.to_pingora();
    criterion.bench_function("hit", |bench| bench.iter(|| hit(&runtime, store, black_box(&pingora))));
}

/// What Pingora does on a hit: the lookup with its own meta data, the body, its end.
fn hit(runtime: &Runtime, store: &'static Store, key: &CacheKey) -> usize {
    let span = Span::inactive().handle();
    runtime.block_on(async {
        let Ok(Some((_meta, mut hit))) = store.lookup(key, &span).await else {
            return 0;
        };
        let mut bytes = 0;
        while let Ok(Some(chunk)) = hit.read_body().await {
            bytes += chunk.len();
        }
        bytes
    })
}

criterion_group!(benches, keys, decisions, hits);
criterion_main!(benches);
