//! Purging: by address, prefix, host and tag; soft keeps the copy for an outage, hard does not.

use std::time::Duration;

use crate::harness::backend::page;
use crate::harness::gateway::folder;
use crate::harness::{Act, Answer, Backend, Gateway, eventually, request};
use crate::upstream;

const TOKEN: &str = "Authorization: Bearer s3cret\r\n";

/// A page of the path, with a tag of its first segment and one that all share.
fn tagged(head: &str) -> String {
    let path = head.split(' ').nth(1).unwrap_or("/");
    let tag = path.split('/').nth(1).unwrap_or_default();
    crate::harness::backend::response(
        200,
        &format!("Cache-Control: max-age=600\r\nCache-Tag: all, {tag}\r\n"),
        path,
        false,
    )
}

async fn gateway(act: Act, cache: &str) -> (Backend, Gateway) {
    let backend = Backend::start(act).await;
    let folder = folder();
    std::fs::write(folder.join("token"), "s3cret\n").unwrap();
    let config = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0', token_file: token }}\n\
         access_log: {{ path: off }}\n{}routes: [{{ upstream: web, cache: {cache} }}]\n",
        upstream(&[&backend], "")
    );
    (backend, Gateway::start_in(folder, &config).await)
}

pub(crate) async fn purge(gateway: &Gateway, form: &str) -> Answer {
    let (host, length) = (gateway.admin, form.len());
    let text = format!(
        "POST /api/v1/cache/purge HTTP/1.1\r\nHost: {host}\r\n{TOKEN}Content-Length: {length}\r\nConnection: close\r\n\r\n{form}"
    );
    request(gateway.admin, &text).await.unwrap()
}

/// Whether the answer to this path comes out of the cache.
async fn is_hit(gateway: &Gateway, path: &str) -> bool {
    let answer = gateway.get(path).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, path), "{answer:?}");
    answer.header("cache-status").unwrap().starts_with("goodgate; hit")
}

async fn fill(gateway: &Gateway, paths: &[&str]) {
    for path in paths {
        gateway.get(path).await;
        assert!(is_hit(gateway, path).await, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scope_purges_what_it_covers_and_nothing_else() {
    let (_backend, gateway) = gateway(Act::Reply(tagged), "standard").await;
    let paths = ["/news/a", "/news/a?x=1", "/news/b", "/newsroom", "/shop/a"];
    for (form, purged) in [
        ("url=http://test/news/a", &["/news/a"][..]),
        ("url=https%3A%2F%2FTEST%2Fnews%2Fa%3Fx%3D1", &["/news/a?x=1"]),
        ("prefix=http://test/news", &["/news/a", "/news/a?x=1", "/news/b"]),
        ("prefix=http://test/news/", &["/news/a", "/news/a?x=1", "/news/b"]),
        ("tag=shop&tag=newsroom", &["/shop/a", "/newsroom"]),
        ("tag=all", &paths),
        ("host=test", &paths),
        ("host=other", &[]),
        ("all=true&store=main", &paths),
    ] {
        for mode in ["soft", "hard"] {
            fill(&gateway, &paths).await;
            let answer = purge(&gateway, &format!("{form}&mode={mode}")).await;
            assert_eq!(answer.status, 200, "{form}: {}", answer.text());
            for path in paths {
                assert_eq!(is_hit(&gateway, path).await, !purged.contains(&path), "{form} {mode} {path}");
            }
        }
    }
    assert_eq!(gateway.metric("goodgate_cache_purges_total{cache=\"main\"}").await, 20.0);
    assert!(gateway.errors().contains("copies are purged"), "{}", gateway.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_keeps_the_copy_for_an_outage_and_a_hard_one_does_not() {
    for cache in ["standard", "fallback"] {
        let (backend, gateway) = gateway(Act::Reply(tagged), cache).await;
        for path in ["/soft/a", "/hard/a"] {
            assert_eq!(gateway.get(path).await.text(), path);
        }
        assert_eq!(purge(&gateway, "tag=soft").await.status, 200);
        assert_eq!(purge(&gateway, "tag=hard&mode=hard").await.status, 200);
        backend.kill();
        let kept = gateway.get("/soft/a").await;
        assert_eq!((kept.status, kept.text().as_str()), (200, "/soft/a"), "{cache}: {kept:?}");
        assert!(kept.header("cache-status").unwrap().contains("stale-"), "{kept:?}");
        assert_eq!(gateway.get("/hard/a").await.status, 502, "{cache}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_copy_is_not_served_while_it_is_refreshed() {
    let (backend, gateway) =
        gateway(page("Cache-Control: max-age=600, stale-while-revalidate=600\r\n", "old"), "standard").await;
    assert_eq!(gateway.get("/").await.text(), "old");
    backend.set(page("Cache-Control: max-age=600\r\n", "new"));
    assert_eq!(gateway.get("/").await.text(), "old");
    purge(&gateway, "url=http://test/").await;
    assert_eq!(gateway.get("/").await.text(), "new", "the next answer is the new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_asked_for_before_the_purge_is_not_used_after_it() {
    let gate = crate::harness::backend::Gate::shut();
    let first = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 6\r\n\r\nold".to_vec();
    let rest = Box::new(Act::Bytes(b"old".to_vec()));
    let (backend, gateway) = gateway(Act::Gated { first, gate: gate.clone(), rest }, "standard").await;
    let early = tokio::spawn({
        let address = gateway.address;
        async move { crate::harness::get(address, "/").await.unwrap() }
    });
    eventually("the backend is asked", || async { backend.requests() == 1 }).await;
    assert_eq!(purge(&gateway, "tag=unrelated").await.status, 200);
    assert_eq!(purge(&gateway, "url=http://test/").await.status, 200);
    backend.set(page("Cache-Control: max-age=600\r\n", "new"));
    let late = tokio::spawn({
        let address = gateway.address;
        async move { crate::harness::get(address, "/").await.unwrap() }
    });
    // Whether the late one waits for the early one or not: it never gets what is older than the purge.
    tokio::time::timeout(Duration::from_millis(300), async {
        eventually("the backend is asked again", || async { backend.requests() == 2 }).await;
    })
    .await
    .ok();
    gate.open();
    assert_eq!(early.await.unwrap().text(), "oldold");
    assert_eq!(late.await.unwrap().text(), "new");
    assert_eq!(gateway.get("/").await.text(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_method_purges_for_those_who_may() {
    let cache = "{ mode: standard, purge: { allow: [127.0.0.1] } }";
    let (backend, gateway) = gateway(Act::Reply(tagged), cache).await;
    let send = async |path: &str, fields: &str| {
        let text = format!("PURGE {path} HTTP/1.1\r\nHost: test\r\n{fields}Connection: close\r\n\r\n");
        request(gateway.address, &text).await.unwrap()
    };
    fill(&gateway, &["/a/1", "/a/2", "/b/1"]).await;
    let asked = backend.requests();
    assert_eq!(send("/a/1", "").await.text(), "purged (soft): url test/a/1\n");
    assert!(!is_hit(&gateway, "/a/1").await && is_hit(&gateway, "/a/2").await);
    let answer = send("/", "Surrogate-Key: a b\r\nPurge-Mode: hard\r\n").await;
    assert_eq!(answer.text(), "purged (hard): tag a, tag b\n");
    for path in ["/a/1", "/a/2", "/b/1"] {
        assert!(!is_hit(&gateway, path).await, "{path}");
    }
    assert_eq!(send("/", "Purge-Mode: gone\r\n").await.status, 400);
    assert_eq!(backend.requests(), asked + 4, "no PURGE reaches the backend");
    let lower = "purge /a/1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    request(gateway.address, lower).await.unwrap();
    assert_eq!(backend.requests(), asked + 5, "methods are case-sensitive");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_purges() {
    let (_backend, closed) =
        gateway(Act::Reply(tagged), "{ mode: standard, purge: { allow: [10.0.0.0/8] } }").await;
    let (open_backend, open) = gateway(Act::Reply(tagged), "standard").await;
    let text = "PURGE /a HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n";
    fill(&closed, &["/a"]).await;
    assert_eq!(request(closed.address, text).await.unwrap().status, 403);
    assert!(is_hit(&closed, "/a").await);
    fill(&open, &["/a"]).await;
    assert_eq!(request(open.address, text).await.unwrap().status, 200);
    assert!(open_backend.heads().iter().any(|head| head.starts_with("PURGE /a ")), "a method like any other");
    let host = open.admin;
    for (line, fields, status) in [
        ("POST /api/v1/cache/purge?tag=a", "", 403),
        ("GET /api/v1/cache/purge?tag=a", TOKEN, 405),
        ("POST /api/v1/cache/purge?tag=", TOKEN, 400),
        ("POST /api/v1/cache/purge?tag=a&store=other", TOKEN, 400),
        ("POST /api/v1/cache/purge?tag=a", TOKEN, 200),
    ] {
        let text = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(request(host, &text).await.unwrap().status, status, "{line}");
    }
}
