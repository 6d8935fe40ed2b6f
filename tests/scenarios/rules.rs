//! What a route does besides forwarding: answers of its own, rewrites, headers, who is let in.

use serde_json::Value;

use crate::harness::backend::page;
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
        ("shop.test", "/all/\\evil.test?a=\\", "https://shop.test/all/%5Cevil.test?a=\\"),
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

/// The value of a field in the head that a backend saw last.
fn field(backend: &Backend, name: &str) -> Option<String> {
    let heads = backend.heads();
    let mut lines = heads.last()?.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_gets_the_rewritten_path_and_a_copy_keeps_the_address_of_the_client() {
    let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "page")).await;
    let routes = "  - { upstream: web, match: { path: /api }, rewrite: { strip_prefix: /api, add_prefix: /v1 }, cache: standard }
  - { upstream: web, match: { path: /bare }, rewrite: { strip_prefix: /bare }, cache: standard }
";
    let gateway = gateway(&backend, routes).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for (asked, got) in [
        ("/api/x?y=/api", "/v1/x?y=/api"),
        ("/api", "/v1/"),
        ("/%61pi//x/../z", "/v1//z"),
        ("/bare/x", "/x"),
        ("/bare?q", "/?q"),
    ] {
        let answer = connection.get(asked).await.unwrap();
        let heads = backend.heads();
        assert_eq!(heads.last().unwrap().split(' ').nth(1), Some(got), "{asked}");
        assert_ne!(gateway.record(&answer).await["path"], got, "the record has what the client asked for");
    }
    let asked = backend.requests();
    for path in ["/api/x?y=/api", "/bare/x"] {
        assert!(
            connection.get(path).await.unwrap().header("cache-status").unwrap().contains("hit"),
            "{path}"
        );
    }
    assert_eq!(backend.requests(), asked, "from copies");
    connection.get("/api/x").await.unwrap();
    assert_eq!(backend.requests(), asked + 1, "another address of a client is another copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_towards_a_backend_are_set_and_removed() {
    let backend = Backend::start(Act::Answer(200)).await;
    let routes = "  - upstream: web
    request_headers:
      set: { X-Real-IP: '{client_ip}', X-Asked: '{scheme}://{host}{path}?{query} {request_id}', X-Forwarded-Proto: https, x-fixed: '{\"a\":1}' }
      remove: [Cookie, Via, X-Fixed]
";
    let gateway = gateway(&backend, routes).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let forged = "X-Real-IP: 1.2.3.4\r\nx-asked: forged\r\nX-Asked: twice\r\nCookie: a=b\r\nX-Fixed: old\r\nX-Other: kept\r\n";
    let answer = connection.get_with("/a/../b?c=d", forged).await.unwrap();
    let id = answer.header("x-request-id").unwrap();
    let seen = |name: &str| field(&backend, name);
    assert_eq!(seen("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen("x-asked"), Some(format!("http://test/b?c=d {id}")));
    assert_eq!(
        backend.heads()[0].to_ascii_lowercase().matches("x-asked:").count(),
        1,
        "it replaces them all"
    );
    assert_eq!(
        (seen("x-forwarded-proto").as_deref(), seen("x-fixed").as_deref()),
        (Some("https"), Some("{\"a\":1}"))
    );
    assert_eq!((seen("cookie"), seen("via"), seen("x-other").as_deref()), (None, None, Some("kept")));
    assert!(seen("cdn-loop").is_some(), "loops are told even so");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_every_answer_are_set_and_removed() {
    let backend = Backend::start(page("Cache-Control: max-age=60\r\nServer: secret/1.0\r\n", "page")).await;
    let dead = Backend::refusing().await;
    let rules = "response_headers: { set: { X-Frame-Options: DENY, X-Asked: '{path}' }, remove: [server, X-Powered-By] }";
    let config = format!(
        "upstreams: {{ web: ['{}'], dead: ['{}'] }}\ndefaults: {{ route: {{ {rules} }} }}\nroutes:\n\
         \x20 - {{ upstream: web, match: {{ path: /copied }}, cache: standard }}\n\
         \x20 - {{ upstream: web, match: {{ path: /passed }} }}\n\
         \x20 - {{ upstream: dead, match: {{ path: /dead }} }}\n\
         \x20 - {{ match: {{ path: /moved }}, redirect: {{ to: / }} }}\n\
         \x20 - {{ match: {{ path: /text }}, respond: {{ body: x }}, response_headers: {{ set: {{ x-frame-options: SAMEORIGIN }} }} }}\n",
        backend.address, dead.address
    );
    let gateway = Gateway::start(&config).await;
    for (path, status, framing) in [
        ("/copied", 200, "DENY"),
        ("/copied", 200, "DENY"),
        ("/passed", 200, "DENY"),
        ("/dead", 502, "DENY"),
        ("/moved", 301, "DENY"),
        ("/text", 200, "SAMEORIGIN"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.header("x-frame-options")), (status, Some(framing)), "{path}");
        assert_eq!((answer.header("x-asked"), answer.header("server")), (Some(path), None), "{path}");
    }
    assert_eq!(backend.requests(), 2, "one of them came from a copy");
    assert_eq!(gateway.get("/nowhere").await.header("x-frame-options"), None, "no route, no rules");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_is_let_in_gets_an_answer() {
    let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "page")).await;
    let config = format!(
        "trusted_proxies: [127.0.0.1]\n{}routes:\n\
         \x20 - {{ upstream: web }}\n\
         \x20 - {{ upstream: web, match: {{ path: /office }}, allow: [10.0.0.0/8, '2001:db8::/32'], deny: [10.6.6.0/24], cache: standard }}\n\
         \x20 - {{ match: {{ path: /text }}, respond: {{ body: x }}, deny: [10.6.6.6] }}\n",
        upstream(&[&backend], "")
    );
    let gateway = Gateway::start(&config).await;
    let asked = async |path: &str, client: &str| {
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n");
        request(gateway.address, &text).await.unwrap()
    };
    for (path, client, status) in [
        ("/", "10.6.6.6", 200),
        ("/office", "10.1.2.3", 200),
        ("/office", "2001:db8::1", 200),
        ("/office", "10.6.6.6", 403),
        ("/office", "11.1.2.3", 403),
        ("/office", "127.0.0.1", 403),
        ("/%6fffice", "11.1.2.3", 403),
        ("/x/..//office", "11.1.2.3", 403),
        ("/text", "10.6.6.7", 200),
        ("/text", "10.6.6.6", 403),
    ] {
        let answer = asked(path, client).await;
        assert_eq!(answer.status, status, "{path} {client}");
        let record = gateway.record(&answer).await;
        let cause = if status == 403 { Value::from("http_request_denied") } else { Value::Null };
        assert_eq!((&record["client"], &record["cause"]), (&Value::from(client), &cause), "{path} {client}");
    }
    assert_eq!(backend.requests(), 2, "the copy is for those who are let in");
    let counted =
        "goodgate_gateway_errors_total{cause=\"http_request_denied\",route=\"*/office\",status=\"403\"}";
    assert_eq!(gateway.metric(counted).await, 5.0);
    assert!(
        asked("/text", "10.6.6.6")
            .await
            .header("proxy-status")
            .unwrap()
            .contains("error=http_request_denied")
    );
}
