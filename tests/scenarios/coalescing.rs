//! The cache while backends answer: one fetch for many, freshness, and what may become a copy.

use std::time::Duration;

use crate::harness::backend::{Gate, page};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually};
use crate::site;

/// `standard` without `updating`, so that a stale copy is never served while the backend answers.
const STANDARD: &str =
    "    cache: { mode: standard, use_stale: [error, timeout, invalid_header, http_502, http_503] }\n";
const FALLBACK: &str = "    cache: fallback\n";

async fn connections(gateway: &Gateway, count: usize) -> Vec<Connection> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Connection::open(gateway.address).await.unwrap());
    }
    all
}

/// A GET that wants a fresh answer.
async fn fresh(gateway: &Gateway, path: &str) -> Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.get_with(path, "Cache-Control: no-cache\r\n").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_for_a_cold_key_reach_the_backend_once() {
    let body = "0123456789".repeat(10_000);
    let act = Act::Slow(Duration::from_millis(300), Box::new(page("Cache-Control: max-age=60\r\n", &body)));
    let backend = Backend::start(act).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    let mut clients = tokio::task::JoinSet::new();
    for mut connection in connections(&gateway, 200).await {
        let body = body.clone();
        clients.spawn(async move {
            let answer = connection.get("/cold").await.unwrap();
            assert_eq!((answer.status, answer.complete), (200, true));
            assert!(answer.text() == body, "the whole body: {} bytes", answer.body.len());
            answer.header("cache-status").unwrap().to_owned()
        });
    }
    let mut said = Vec::new();
    while let Some(client) = clients.join_next().await {
        said.push(client.unwrap());
    }
    assert_eq!(backend.requests(), 1);
    let count = |wanted: &str| said.iter().filter(|status| *status == wanted).count();
    assert_eq!(count("goodgate; fwd=uri-miss; stored"), 1, "RFC 9211 section 2.2: {said:?}");
    assert!(count("goodgate; fwd=uri-miss; collapsed") > 100, "RFC 9211 section 2.6: {said:?}");
}

fn chunked(headers: &str, chunks: &[&str]) -> Vec<u8> {
    let chunks: Vec<String> =
        chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n{}", chunks.concat()).into_bytes()
}

fn length(headers: &str, length: usize, begin: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n{begin}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_read_a_body_while_it_is_still_coming() {
    let gate = Gate::shut();
    let first = chunked("Cache-Control: max-age=60\r\n", &["begin "]);
    let rest = Box::new(Act::Bytes(b"3\r\nend\r\n0\r\n\r\n".to_vec()));
    let act = Act::Gated { first, gate: gate.clone(), rest };
    let backend = Backend::start(Act::Slow(Duration::from_millis(300), Box::new(act))).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    let mut readers = connections(&gateway, 50).await;
    for reader in &mut readers {
        reader.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    }
    for reader in &mut readers {
        reader.sees(b"begin ").await;
    }
    gate.open();
    for reader in &mut readers {
        assert_eq!(reader.answer(false).await.unwrap().text(), "begin end");
        assert_eq!(reader.get("/slow").await.unwrap().text(), "begin end", "the connection is usable");
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_a_body_is_forwarded_before_its_end_is_there() {
    for (mode, cache) in [("off", ""), ("standard", STANDARD), ("fallback", FALLBACK)] {
        for (framing, first) in [("chunked", chunked("", &["begin "])), ("length", length("", 100, "begin "))]
        {
            let act = Act::Gated { first, gate: Gate::shut(), rest: Box::new(Act::Close) };
            let backend = Backend::start(act).await;
            let gateway = Gateway::start(&site(&[&backend], "", cache)).await;
            let mut connection = Connection::open(gateway.address).await.unwrap();
            connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
            eprintln!("{mode}, {framing}");
            connection.sees(b"begin ").await;
        }
    }
}

/// Beginnings of answers that end too early, by framing. Long, so that they are on their way to the client.
fn beginnings() -> [(&'static str, Vec<u8>); 3] {
    let begin = "begin ".repeat(10_000);
    let fresh = "Cache-Control: max-age=60\r\n";
    let within =
        format!("HTTP/1.1 200 OK\r\n{fresh}Transfer-Encoding: chunked\r\n\r\nfffff\r\n{begin}").into_bytes();
    [
        ("Content-Length", length(fresh, 1_000_000, &begin)),
        ("chunked, without the last chunk", chunked(fresh, &[&begin])),
        ("chunked, within a chunk", within),
    ]
}

/// Asks for a page whose answer is cut once its beginning is with the client.
async fn get_cut(gateway: &Gateway, backend: &Backend, first: Vec<u8>) -> Answer {
    let gate = Gate::shut();
    backend.set(Act::Gated { first, gate: gate.clone(), rest: Box::new(Act::Close) });
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.send("GET /page HTTP/1.1\r\nHost: test\r\nCache-Control: no-cache\r\n\r\n").await.unwrap();
    connection.sees(b"begin ").await;
    gate.open();
    connection.answer(false).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_reads_a_body_that_is_cut_sees_it_cut() {
    for (framing, first) in beginnings() {
        let gate = Gate::shut();
        let rest = Box::new(Act::Close);
        let act = Act::Gated { first, gate: gate.clone(), rest };
        let backend = Backend::start(Act::Slow(Duration::from_millis(300), Box::new(act))).await;
        let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
        let mut readers = connections(&gateway, 30).await;
        for reader in &mut readers {
            reader.send("GET /cut HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        }
        for reader in &mut readers {
            reader.sees(b"begin ").await;
        }
        assert_eq!(backend.requests(), 1, "{framing}");
        gate.open();
        for reader in &mut readers {
            let answer = reader.answer(false).await.unwrap();
            assert_eq!((answer.status, answer.complete), (200, false), "{framing}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_is_seen_as_cut_and_not_kept() {
    for (mode, cache) in [("standard", STANDARD), ("fallback", FALLBACK), ("off", "")] {
        for (framing, first) in beginnings() {
            let backend = Backend::start(Act::Hang).await;
            let gateway = Gateway::start(&site(&[&backend], "    max_fails: 0\n", cache)).await;
            let answer = get_cut(&gateway, &backend, first).await;
            assert_eq!((answer.status, answer.complete), (200, false), "{mode}, {framing}");
            let record = gateway.record(&answer).await;
            assert!(
                record["cause"].as_str().is_some_and(|cause| cause.starts_with("http_response")),
                "{record}"
            );
            backend.set(page("Cache-Control: max-age=60\r\n", "whole"));
            assert_eq!(gateway.get("/page").await.text(), "whole", "{mode}, {framing}");
            assert_eq!(backend.requests(), 2, "{mode}, {framing}: the cut body was no copy");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_does_not_displace_the_good_copy() {
    for (mode, cache) in [("standard", STANDARD), ("fallback", FALLBACK)] {
        for (framing, first) in beginnings() {
            let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "whole")).await;
            let gateway = Gateway::start(&site(&[&backend], "    max_fails: 0\n", cache)).await;
            assert_eq!(gateway.get("/page").await.text(), "whole");
            let answer = get_cut(&gateway, &backend, first).await;
            assert_eq!((answer.status, answer.complete), (200, false), "{mode}, {framing}");
            backend.die().await;
            let answer = gateway.get("/page").await;
            assert_eq!(
                (answer.status, answer.text().as_str(), answer.complete),
                (200, "whole", true),
                "{mode}, {framing}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_before_anything_went_out_is_never_passed_off_as_whole() {
    let answers = [length("", 100, "only this"), chunked("", &["only this"])];
    for (mode, cache) in [("standard", STANDARD), ("fallback", FALLBACK), ("off", "")] {
        for answer in &answers {
            let backend = Backend::start(Act::BytesThenClose(answer.clone())).await;
            let gateway = Gateway::start(&site(&[&backend], "", cache)).await;
            let answer = gateway.get("/page").await;
            assert!(answer.status == 502 || !answer.complete, "{mode}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_copy_is_served_at_once_and_refreshed_behind() {
    let backend = Backend::start(page("Cache-Control: max-age=1\r\n", "old")).await;
    let cache = "    cache: { use_stale: [updating] }\n";
    let gateway = Gateway::start(&site(&[&backend], "", cache)).await;
    assert_eq!(gateway.get("/page").await.text(), "old");
    let gate = Gate::shut();
    let rest = Box::new(page("Cache-Control: max-age=60\r\n", "new"));
    backend.set(Act::Gated { first: Vec::new(), gate: gate.clone(), rest });
    eventually("it is refreshed", || async {
        assert_eq!(gateway.get("/page").await.text(), "old", "nobody waits");
        backend.requests() == 2
    })
    .await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/page").await.text(), "old", "while the refresh is under way");
    }
    assert_eq!(backend.requests(), 2, "one refresh for all");
    gate.open();
    eventually("the new one is there", || async { gateway.get("/page").await.text() == "new" }).await;
    let updating = || async { gateway.metric("goodgate_cache_requests_total{result=\"updating\"}").await };
    eventually("it is counted", || async { updating().await >= 20.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vary_keeps_one_copy_for_each_kind_of_request() {
    fn by_language(head: &str) -> String {
        let language = head.lines().find_map(|line| line.strip_prefix("Accept-Language: ")).unwrap_or("none");
        crate::harness::backend::response(
            200,
            "Cache-Control: max-age=60\r\nVary: Accept-Language\r\n",
            language,
            false,
        )
    }
    let backend = Backend::start(Act::Reply(by_language)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..3 {
        for language in ["de", "en", "fr"] {
            let answer =
                connection.get_with("/page", &format!("Accept-Language: {language}\r\n")).await.unwrap();
            assert_eq!(answer.text(), language);
        }
        assert_eq!(connection.get("/page").await.unwrap().text(), "none");
    }
    assert_eq!(backend.requests(), 4);
    backend.die().await;
    let answer = connection.get_with("/page", "Accept-Language: it\r\n").await.unwrap();
    assert_eq!(answer.status, 502, "no copy of another kind: {}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_is_what_the_answer_says_else_what_is_configured() {
    let cases = [
        ("Cache-Control: max-age=60\r\n", 200, true),
        ("Cache-Control: s-maxage=60, max-age=0\r\n", 200, true),
        ("Expires: Fri, 01 Jan 2100 00:00:00 GMT\r\n", 200, true),
        ("Cache-Control: max-age=0\r\nExpires: Fri, 01 Jan 2100 00:00:00 GMT\r\n", 200, false),
        ("Cache-Control: max-age=60\r\nAge: 60\r\n", 200, false),
        ("Expires: 0\r\n", 200, false),
        ("Cache-Control: no-cache\r\n", 200, false),
        ("", 200, true),
        ("", 404, true),
        ("", 410, false),
        ("", 500, false),
        ("Cache-Control: max-age=60\r\n", 500, true),
    ];
    let backend = Backend::start(Act::Hang).await;
    let route = "    cache: { ttl: { \"200\": 10m, \"404\": 10m }, use_stale: [error] }\n    retry: { on: [error] }\n";
    let gateway = Gateway::start(&site(&[&backend], "    fail_on: []\n", route)).await;
    for (at, (headers, status, is_fresh)) in cases.into_iter().enumerate() {
        backend.set(Act::Page { status, headers: headers.to_owned(), body: "page".to_owned() });
        let before = backend.requests();
        for _ in 0..3 {
            assert_eq!(gateway.get(&format!("/{at}")).await.status, status, "{headers:?}");
        }
        let asked = backend.requests() - before;
        assert_eq!(asked, if is_fresh { 1 } else { 3 }, "{status} {headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_word_about_freshness_nothing_is_served_from_the_cache() {
    let backend = Backend::start(page("Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n", "page")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/page").await.text(), "page");
    }
    assert_eq!(backend.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_lets_the_backend_confirm_the_copy() {
    fn validated(head: &str) -> String {
        if head.contains("If-None-Match: \"v1\"") || head.contains("if-none-match: \"v1\"") {
            return "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nCache-Control: no-cache\r\n\r\n".to_owned();
        }
        crate::harness::backend::response(200, "ETag: \"v1\"\r\nCache-Control: no-cache\r\n", "page", false)
    }
    let backend = Backend::start(Act::Reply(validated)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    for _ in 0..3 {
        let answer = gateway.get("/page").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "page"));
    }
    assert_eq!(backend.requests(), 3, "no-cache: it is asked each time");
    let revalidated =
        || async { gateway.metric("goodgate_cache_requests_total{result=\"revalidated\"}").await };
    eventually("two confirmations", || async { revalidated().await == 2.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_answer_never_displaces_a_good_copy() {
    for (mode, cache) in [("standard", STANDARD), ("fallback", FALLBACK)] {
        let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "good")).await;
        let gateway = Gateway::start(&site(&[&backend], "    max_fails: 0\n", cache)).await;
        assert_eq!(gateway.get("/page").await.text(), "good");
        for status in [400, 403, 404, 429, 500, 502, 503, 504] {
            backend.set(Act::Page {
                status,
                headers: "Cache-Control: max-age=0\r\n".to_owned(),
                body: "bad".to_owned(),
            });
            let answer = fresh(&gateway, "/page").await;
            assert!(answer.status == status || answer.text() == "good", "{mode}, {status}: {answer:?}");
        }
        backend.die().await;
        assert_eq!(gateway.get("/page").await.text(), "good", "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_revalidated_is_never_served_stale() {
    let controls = [
        "max-age=1, must-revalidate",
        "max-age=1, proxy-revalidate",
        "s-maxage=1",
        "no-cache",
        "max-age=0, must-revalidate",
    ];
    for cache in ["standard", "fallback"] {
        let backend = Backend::start(Act::Hang).await;
        let gateway = Gateway::start(&site(&[&backend], "", &format!("    cache: {cache}\n"))).await;
        for (at, control) in controls.into_iter().enumerate() {
            backend.set(page(&format!("Cache-Control: {control}\r\nETag: \"v\"\r\n"), "page"));
            assert_eq!(gateway.get(&format!("/{at}")).await.text(), "page", "{cache}, {control}");
        }
        backend.die().await;
        for (at, control) in controls.into_iter().enumerate() {
            let status = || async { gateway.get(&format!("/{at}")).await.status };
            eventually(&format!("{cache}, {control}: no stale copy"), || async { status().await == 502 })
                .await;
            for _ in 0..3 {
                assert_eq!(status().await, 502, "{cache}, {control}");
            }
        }
    }
}

/// Others must not wait for the client whose request fetches the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_first_reader_holds_up_nobody() {
    let body = "0123456789".repeat(300_000);
    for framing in ["length", "chunked"] {
        let bytes = match framing {
            "length" => length("Cache-Control: max-age=60\r\n", body.len(), &body),
            _ => [chunked("Cache-Control: max-age=60\r\n", &[&body]), b"0\r\n\r\n".to_vec()].concat(),
        };
        let gate = Gate::shut();
        let act = Act::Gated { first: Vec::new(), gate: gate.clone(), rest: Box::new(Act::Bytes(bytes)) };
        let backend = Backend::start(act).await;
        let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
        // It asks first and takes nothing.
        let mut slow = Connection::open(gateway.address).await.unwrap();
        slow.send("GET /big HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        eventually("the slow one has asked", || async { backend.requests() == 1 }).await;
        let mut others = connections(&gateway, 4).await;
        for other in &mut others {
            other.send("GET /big HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        }
        gate.open();
        for other in &mut others {
            let answer = tokio::time::timeout(Duration::from_secs(5), other.answer(false)).await;
            let answer = answer.expect("nobody waits for the slow one").unwrap();
            assert!(answer.complete && answer.text() == body, "{framing}: {}", answer.body.len());
        }
        assert_eq!(gateway.get("/big").await.header("cache-status").unwrap().split(';').nth(1), Some(" hit"));
        let answer = slow.answer(false).await.unwrap();
        assert!(answer.complete && answer.text() == body, "the slow one gets it all: {framing}");
        assert_eq!(backend.requests(), 1);
    }
}

/// A body that turns out too large to be stored comes at the pace of its client, and is not cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_a_body_that_is_too_large_to_store_gets_all_of_it() {
    let piece = "x".repeat(64 << 10);
    let pieces = vec![piece.as_str(); 200];
    let bytes = [chunked("Cache-Control: max-age=60\r\n", &pieces), b"0\r\n\r\n".to_vec()].concat();
    let backend = Backend::start(Act::Bytes(bytes)).await;
    let store = "caches: { main: { memory: 4MiB, max_object: 256KiB } }\n";
    let gateway = Gateway::start(&(site(&[&backend], "", "    cache: standard\n") + store)).await;
    let mut slow = Connection::open(gateway.address).await.unwrap();
    slow.send("GET /big HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    slow.sees(b"HTTP/1.1 200").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answer = slow.answer(false).await.unwrap();
    assert!(answer.complete && answer.body.len() == 200 * (64 << 10), "{} bytes", answer.body.len());
}

/// Hit-for-miss: once it is known that a page cannot be stored nobody waits for the answer to another one's request.
#[tokio::test(flavor = "multi_thread")]
async fn requests_for_a_page_that_cannot_be_stored_do_not_queue_up() {
    let act = Act::Slow(Duration::from_millis(400), Box::new(page("Cache-Control: private\r\n", "own")));
    let backend = Backend::start(act).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    assert_eq!(gateway.get("/p").await.text(), "own");
    let began = std::time::Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for mut connection in connections(&gateway, 8).await {
        clients.spawn(async move { connection.get("/p").await.unwrap().text() });
    }
    while let Some(text) = clients.join_next().await {
        assert_eq!(text.unwrap(), "own");
    }
    assert!(began.elapsed() < Duration::from_millis(780), "{:?}", began.elapsed());
    backend.set(page("Cache-Control: max-age=60\r\n", "shared"));
    assert_eq!(gateway.get("/p").await.text(), "shared");
    assert_eq!(gateway.get("/p").await.text(), "shared");
    assert_eq!(backend.requests(), 10, "and it is stored as soon as it may be");
}

/// The backend is free again soon after the client of a large response has left.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_body_that_is_too_large_to_store_holds_no_backend() {
    let piece = "x".repeat(64 << 10);
    let pieces = vec![piece.as_str(); 400];
    let bytes = [chunked("Cache-Control: max-age=60\r\n", &pieces), b"0\r\n\r\n".to_vec()].concat();
    let backend = Backend::start(Act::Bytes(bytes)).await;
    let store = "caches: { main: { memory: 4MiB, max_object: 256KiB } }\n";
    let gateway = Gateway::start(&(site(&[&backend], "", "    cache: standard\n") + store)).await;
    for _ in 0..3 {
        let mut client = Connection::open(gateway.address).await.unwrap();
        client.send("GET /big HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        client.sees(b"HTTP/1.1 200").await;
        client.reset();
    }
    eventually("nothing is in flight", || async {
        gateway.metric("goodgate_backend_requests_in_flight").await == 0.0
    })
    .await;
    eventually("the records say who has left", || async {
        let left = |record: &&serde_json::Value| record["cause"] == "client_disconnected";
        gateway.records().iter().filter(left).count() == 3
    })
    .await;
}
