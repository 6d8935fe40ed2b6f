//! Copies that are confirmed, and copies that a change has put out of date.

use crate::harness::backend::page;
use crate::harness::{Act, Backend, Gateway, eventually, request};
use crate::site;

#[tokio::test(flavor = "multi_thread")]
async fn a_304_brings_the_header_of_the_copy_up_to_date() {
    let first = page("Cache-Control: max-age=1\r\nETag: \"v1\"\r\nX-Seen: first\r\n", "body");
    let backend = Backend::start(first).await;
    let cache = "    cache: { mode: standard, use_stale: [error] }\n";
    let gateway = Gateway::start(&site(&[&backend], "", cache)).await;
    assert_eq!(gateway.get("/p").await.header("x-seen"), Some("first"));
    let confirmed = "HTTP/1.1 304 X\r\nCache-Control: max-age=100\r\nETag: \"v1\"\r\nX-Seen: second\r\n\r\n";
    backend.set(Act::Bytes(confirmed.into()));
    eventually("the copy is confirmed", || async {
        gateway.get("/p").await.header("x-seen") == Some("second")
    })
    .await;
    let asked = backend.requests();
    let hit = gateway.get("/p").await;
    assert_eq!((hit.status, hit.header("x-seen"), hit.text().as_str()), (200, Some("second"), "body"));
    assert_eq!(backend.requests(), asked, "it is fresh again");
    let last = backend.heads().pop().unwrap().to_ascii_lowercase();
    assert!(last.contains("if-none-match: \"v1\""), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_the_old_copy_is_only_for_the_case_of_failure() {
    let backend = Backend::start(page("Cache-Control: max-age=100\r\n", "old")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    assert_eq!(gateway.get("/p").await.text(), "old");
    assert_eq!(gateway.get("/p").await.text(), "old");
    assert_eq!(backend.requests(), 1);
    let post = "POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    assert_eq!(request(gateway.address, post).await.unwrap().status, 200);
    backend.set(Act::Answer(503));
    eventually("the old copy is no hit any more", || async {
        let answer = gateway.get("/p").await;
        answer.text() == "old" && answer.header("cache-status").is_some_and(|status| status.contains("stale"))
    })
    .await;
    backend.set(page("Cache-Control: max-age=100\r\n", "new"));
    eventually("the new one is there", || async { gateway.get("/p").await.text() == "new" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_failed_leaves_the_copy_alone() {
    let backend = Backend::start(page("Cache-Control: max-age=100\r\n", "old")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    gateway.get("/p").await;
    backend.set(Act::Answer(500));
    let post = "POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    assert_eq!(request(gateway.address, post).await.unwrap().status, 500);
    let hit = gateway.get("/p").await;
    assert_eq!((hit.status, hit.text().as_str()), (200, "old"));
    assert_eq!(backend.requests(), 2);
}
