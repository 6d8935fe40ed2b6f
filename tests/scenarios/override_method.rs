//! A POST that says that it means another method: passed on or refused, never changed in silence.

use crate::harness::backend::page;
use crate::harness::{Answer, Backend, Connection, Gateway};
use crate::{site, upstream};

async fn send(gateway: &Gateway, method: &str, path: &str, headers: &str) -> Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{headers}\r\n");
    connection.send(request).await.unwrap();
    connection.answer(false).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_means_another_method_reaches_the_backend_as_it_is() {
    let backend = Backend::start(page("", "done")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: fallback\n")).await;
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let answer = send(&gateway, "POST", "/post/7", &format!("{name}: DELETE\r\n")).await;
        assert_eq!(answer.status, 200);
        let head = backend.heads().pop().unwrap().to_ascii_lowercase();
        assert!(head.contains(&format!("{}: delete", name.to_ascii_lowercase())), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_route_does_not_allow_is_refused_by_name() {
    let backend = Backend::start(page("", "done")).await;
    let routes = "routes:
  - upstream: web
    match: { path: /strict }
    method_override: refuse
  - upstream: web
    match: { path: /by-method, methods: [DELETE] }
    deny: [127.0.0.1]
  - upstream: web
";
    let gateway = Gateway::start(&(upstream(&[&backend], "") + routes)).await;
    for (method, path, field) in [
        ("POST", "/strict", "X-HTTP-Method-Override: PUT"),
        ("POST", "/by-method", "X-HTTP-Method-Override: DELETE"),
        ("GET", "/page", "X-HTTP-Method-Override: DELETE"),
        ("HEAD", "/page", "X-HTTP-Method-Override: GET"),
        ("PUT", "/page", "X-HTTP-Method: DELETE"),
        ("POST", "/page", "X-HTTP-Method-Override: PUT\r\nX-Method-Override: DELETE"),
        ("POST", "/page", "X-HTTP-Method-Override: PUT, DELETE"),
    ] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{field}\r\n\r\n");
        let mut connection = Connection::open(gateway.address).await.unwrap();
        connection.send(request).await.unwrap();
        let answer = connection.answer(method == "HEAD").await.unwrap();
        assert_eq!(answer.status, 403, "{method} {path} {field}");
        let status = answer.header("proxy-status").unwrap();
        assert!(status.contains("http_request_denied") && status.contains("method"), "{answer:?}");
    }
    assert_eq!(backend.requests(), 0);
    for (method, field) in [("GET", "GET"), ("POST", "post"), ("POST", "PUT")] {
        let answer = send(&gateway, method, "/page", &format!("X-HTTP-Method-Override: {field}\r\n")).await;
        assert_eq!(answer.status, 200, "{method} {field}");
    }
    assert_eq!(send(&gateway, "POST", "/by-method", "X-HTTP-Method-Override: PUT\r\n").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_that_the_backend_does_not_get_is_counted_and_in_the_record() {
    let backend = Backend::start(page("", "done")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let fields =
        "X-Original-URL: /admin\r\nX_Secret: 1\r\nX-Auth-Request-Email: a@b\r\nX-Real-IP: 1.2.3.4\r\n";
    let answer = send(&gateway, "GET", "/p", fields).await;
    let record = gateway.record(&answer).await;
    let mut removed: Vec<_> =
        record["removed_fields"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    removed.sort_unstable();
    assert_eq!(removed, ["x-auth-request-email", "x-original-url", "x-real-ip", "x_secret"]);
    for field in ["x-original-url", "with underscore", "x-auth-request-", "x-real-ip"] {
        let selector = format!("goodgate_request_fields_removed_total{{field=\"{field}\"}}");
        assert_eq!(gateway.metric(&selector).await, 1.0, "{field}");
    }
    backend.die().await;
    let failed = send(&gateway, "GET", "/p", fields).await;
    let told = gateway.explain(&failed).await;
    assert!(told.contains("x-original-url"), "{told}");
}
