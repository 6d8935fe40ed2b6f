//! Paths, methods and loops: what reaches the backend as it was sent, and what comes back to the gateway.

use crate::harness::backend::page;
use crate::harness::script::Scripted;
use crate::harness::{Act, Answer, Backend, Connection, Gateway};
use crate::{site, upstream};
use tokio::io::AsyncWriteExt;

async fn ask(gateway: &Gateway, target: &str) -> Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.get(target).await.unwrap()
}

fn target_of(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_reach_the_backend_as_they_were_sent() {
    let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "x")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    for (sent, expected) in [
        ("/img/plain/s3://bucket/a.png", "/img/plain/s3://bucket/a.png"),
        ("/web/2020/http://example.com//x/", "/web/2020/http://example.com//x/"),
        ("//a", "//a"),
        ("/a//./b?x=//", "/a//b?x=//"),
        ("/a//../b", "/a/b"),
    ] {
        assert_eq!(ask(&gateway, sent).await.status, 200);
        assert_eq!(target_of(&backend.heads().pop().unwrap()), expected);
    }
    let asked = backend.requests();
    ask(&gateway, "/img/plain/s3:/bucket/a.png").await;
    assert_eq!(backend.requests(), asked + 1, "the cache tells apart what the backend tells apart");
    ask(&gateway, "/img/plain/s3://bucket/a.png").await;
    assert_eq!(backend.requests(), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_rules_compare_the_path_with_its_slashes_merged() {
    let backend = Backend::start(page("", "x")).await;
    let routes = "routes:
  - upstream: web
    match: { path: /admin }
    deny: [127.0.0.1]
  - upstream: web
    match: { path: /merged }
    merge_slashes: true
  - upstream: web
    match: { path: /api }
    rewrite: { strip_prefix: /api, add_prefix: /v1 }
  - redirect: { to: '{path}/there', status: 302 }
    match: { path: /old }
  - upstream: web
";
    let gateway = Gateway::start(&(upstream(&[&backend], "") + routes)).await;
    for path in ["/admin", "//admin", "/admin//x", "///admin/", "/x/..//admin"] {
        assert_eq!(ask(&gateway, path).await.status, 403, "{path}");
    }
    for (sent, expected) in
        [("//merged///x//y?q=//", "/merged/x/y?q=//"), ("//api//s3://b", "/v1//s3://b"), ("/api", "/v1/")]
    {
        assert_eq!(ask(&gateway, sent).await.status, 200);
        assert_eq!(target_of(&backend.heads().pop().unwrap()), expected);
    }
    let redirect = ask(&gateway, "//old//x").await;
    assert_eq!(redirect.header("location"), Some("/old/x/there"), "no redirect to another host");
}

/// The IANA registry of HTTP methods.
#[tokio::test(flavor = "multi_thread")]
async fn requests_with_idempotent_methods_are_sent_again() {
    for method in
        ["PROPFIND", "REPORT", "SEARCH", "PROPPATCH", "MKCOL", "COPY", "MOVE", "UNLOCK", "PUT", "DELETE"]
    {
        let broken = Backend::start(Act::Close).await;
        let good = Backend::start(page("", "good")).await;
        let gateway =
            Gateway::start(&site(&[&broken, &good], "", "    retry: { replay: idempotent }\n")).await;
        for _ in 0..2 {
            let mut connection = Connection::open(gateway.address).await.unwrap();
            let request = format!("{method} /x HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
            connection.send(request).await.unwrap();
            assert_eq!(connection.answer(false).await.unwrap().status, 200, "{method}");
        }
    }
    let broken = Backend::start(Act::Close).await;
    let good = Backend::start(page("", "good")).await;
    let gateway = Gateway::start(&site(&[&broken, &good], "", "    retry: { replay: idempotent }\n")).await;
    let mut statuses = Vec::new();
    for method in ["LOCK", "PATCH"] {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        let request = format!("{method} /x HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        connection.send(request).await.unwrap();
        statuses.push(connection.answer(false).await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502], "those are not sent again");
}

/// A backend that asks the gateway for another page, with the fields of the request that it has got.
async fn asking_back(
    target: fn(&str) -> String,
) -> (Scripted, std::sync::Arc<std::sync::OnceLock<std::net::SocketAddr>>) {
    let gateway = std::sync::Arc::new(std::sync::OnceLock::<std::net::SocketAddr>::new());
    let known = std::sync::Arc::clone(&gateway);
    let backend = Scripted::start(move |mut stream| {
        let gateway = std::sync::Arc::clone(&known);
        async move {
            let mut buffer = Vec::new();
            let Some(head) = crate::harness::backend::read_head(&mut stream, &mut buffer).await else {
                return;
            };
            let next = target(target_of(&head));
            let status = if next.is_empty() {
                "200".to_owned()
            } else {
                let copied: String = head
                    .lines()
                    .filter(|line| line.to_ascii_lowercase().starts_with("cdn-loop"))
                    .map(|line| format!("{line}\r\n"))
                    .collect();
                let mut connection = Connection::open(*gateway.get().unwrap()).await.unwrap();
                connection.get_with(&next, &copied).await.unwrap().status.to_string()
            };
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    (backend, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_asks_the_gateway_for_its_own_data_is_no_loop() {
    let (backend, address) = asking_back(|target| match target {
        "/page" => "/api/1".to_owned(),
        "/api/1" => "/api/2".to_owned(),
        _ => String::new(),
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    address.set(gateway.address).unwrap();
    assert_eq!(ask(&gateway, "/page").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_place_again_is_a_loop_and_so_are_too_many_passages() {
    let (backend, address) = asking_back(|target| match target.strip_prefix("/count/") {
        Some(number) => format!("/count/{}", number.parse::<u32>().unwrap() + 1),
        None => target.to_owned(),
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "    retry: { tries: 1 }\n")).await;
    address.set(gateway.address).unwrap();
    assert_eq!(ask(&gateway, "/same").await.status, 502);
    assert_eq!(backend.accepted(), 1);
    assert_eq!(ask(&gateway, "/count/0").await.status, 502);
    assert_eq!(backend.accepted(), 6, "five passages, and none more");
    let looped = gateway.record_where("the loop", |record| record["cause"] == "proxy_loop_detected").await;
    assert_eq!(looped["status"], 502);
}
