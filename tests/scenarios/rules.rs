//! What a route does besides forwarding: answers of its own, rewrites, headers, who is let in.

use serde_json::Value;

use crate::harness::{Act, Backend, Connection, Gateway, request};
use crate::upstream;

async fn gateway(backend: &Backend, routes: &str) -> Gateway {
    Gateway::start(&format!("{}routes:\n{routes}", upstream(&[backend], ""))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_answered_without_a_backend_and_keeps_the_connection() {
    let backend = Backend::start(Act::Answer(200)).await;
    let routes = "  - upstream: web
  - { match: { path: /all }, redirect: { to: 'https://{host}{path_and_query}' } }
  - { match: { path: /new }, redirect: { to: '/{scheme}{path}?{query}&id={request_id}&ip={client_ip}', status: 307 } }
";
    let gateway = gateway(&backend, routes).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for (host, target, location) in [
        ("Shop.test:8080", "/all/x?y=1", "https://shop.test/all/x?y=1"),
        ("[::1]:8080", "/all", "https://[::1]/all"),
        (
            "shop.test",
            "//all//evil.test/%0d%0aSet-Cookie:x",
            "https://shop.test/all/evil.test/%0D%0ASet-Cookie:x",
        ),
        ("shop.test", "/all?\u{e9}\\", "https://shop.test/all?%C3%A9\\"),
    ] {
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.unwrap();
        let answer = connection.answer(false).await.unwrap();
        assert_eq!((answer.status, answer.header("location")), (301, Some(location)), "{target}");
        assert_eq!(answer.header("content-length"), Some("0"));
        assert_eq!(answer.header("proxy-status"), None, "nothing has failed");
    }
    assert_eq!(connection.get("/").await.unwrap().status, 200, "the connection is kept");
    connection.send("POST /new?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    let answer = connection.answer(false).await.unwrap();
    let id = answer.header("x-request-id").unwrap();
    let location = format!("/http/new?a=b&id={id}&ip=127.0.0.1");
    assert_eq!((answer.status, answer.header("location")), (307, Some(location.as_str())));
    let record = gateway.record(&answer).await;
    assert_eq!((&record["origin"], &record["upstream"]), (&Value::from("goodgate"), &Value::from("none")));
    assert_eq!((&record["cause"], &record["route"]), (&Value::Null, &Value::from("*/new")));
    assert_eq!(answer.header("connection"), Some("close"), "nobody reads the body");
    assert_eq!(backend.requests(), 1);
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
    assert_eq!(gateway.metric("goodgate_responses_total{route=\"*/all\",status=\"301\"}").await, 4.0);
    let nameless = request(gateway.address, "GET /all HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(nameless.status, 400, "there is no host to send it to");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_reach_no_header_through_a_variable() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = gateway(&backend, "  - { redirect: { to: 'https://{host}{path_and_query}' } }\n").await;
    for (target, host) in [
        ("/\rX-Evil:1", "a"),
        ("/\u{1}", "a"),
        ("/?\u{7f}", "a"),
        ("/", "a\rX-Evil: 1"),
        ("/", "a\u{0}"),
        ("/", "a b"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = request(gateway.address, &text).await.unwrap();
        assert_eq!((answer.status, answer.header("location"), answer.header("x-evil")), (400, None, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_answered_without_a_backend() {
    let backend = Backend::start(Act::Answer(200)).await;
    let routes = "  - { match: { path: /robots.txt }, respond: { body: \"User-agent: *\\n\" } }
  - { match: { path: /gone }, respond: { status: 410, body: '<p>gone', type: text/html } }
  - { match: { path: /empty }, respond: { status: 204 } }
";
    let gateway = gateway(&backend, routes).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let robots = connection.get("/robots.txt").await.unwrap();
    assert_eq!((robots.status, robots.text().as_str()), (200, "User-agent: *\n"));
    assert_eq!(robots.header("content-type"), Some("text/plain; charset=utf-8"));
    connection.send("HEAD /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let head = connection.answer(true).await.unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("14")));
    let gone = connection.get("/gone").await.unwrap();
    assert_eq!((gone.status, gone.header("content-type")), (410, Some("text/html")));
    let empty = connection.get("/empty").await.unwrap();
    assert_eq!(
        (empty.status, empty.header("content-length"), empty.header("content-type")),
        (204, None, None)
    );
    assert_eq!(connection.get("/robots.txt").await.unwrap().status, 200);
    assert_eq!(gateway.record(&gone).await["cause"], Value::Null);
    assert_eq!((backend.requests(), gateway.metric("goodgate_gateway_errors_total").await), (0, 0.0));
}
