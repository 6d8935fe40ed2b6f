//! What a client sends to lead somewhere else than it seems: paths and headers.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use crate::harness::backend::page;
use crate::harness::gateway::folder;
use crate::harness::programs::free_address;
use crate::harness::{Act, Backend, Connection, Gateway, backends, eventually, request};
use crate::site;

/// The target that a backend was asked for last.
fn target(backend: &Backend) -> String {
    let heads = backend.heads();
    heads.last().and_then(|head| head.split(' ').nth(1)).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_the_same_for_routes_and_backends_however_it_is_written() {
    let [site, admin] = backends(["site", "admin"].map(|name| page("", name))).await;
    let config = format!(
        "upstreams: {{ site: ['{}'], admin: ['{}'] }}\nroutes:\n  - {{ upstream: site }}\n  - {{ upstream: admin, match: {{ path: /admin }} }}\n",
        site.address, admin.address
    );
    let gateway = Gateway::start(&config).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for (written, name, expected) in [
        ("/admin/x?a=%7e//..", "admin", "/admin/x?a=%7e//.."),
        ("/%61dmin/x", "admin", "/admin/x"),
        ("//admin//x", "admin", "//admin//x"),
        ("/./admin/x", "admin", "/admin/x"),
        ("/public/../admin/x", "admin", "/admin/x"),
        ("/public/%2e%2E/admin/x", "admin", "/admin/x"),
        ("/admin/../x", "site", "/x"),
        ("/admin%2fx", "site", "/admin%2Fx"),
        ("/x/..%5cadmin", "site", "/x/..%5Cadmin"),
        ("/x\\..\\admin", "site", "/x%5C..%5Cadmin"),
        ("/admin;x", "site", "/admin;x"),
        ("http://test/%61dmin//x?y", "admin", "/admin//x?y"),
        ("http://test?y", "site", "/?y"),
    ] {
        let answer = connection.get(written).await.unwrap();
        assert_eq!(answer.text(), name, "{written}");
        let backend = if name == "site" { &site } else { &admin };
        assert_eq!(target(backend), expected, "{written}");
        let path = expected.split('?').next().unwrap();
        assert_eq!(gateway.record(&answer).await["path"], path, "{written}");
    }
    let options = request(gateway.address, "OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    assert_eq!((options.status, target(&site).as_str()), (200, "*"));
    let old = "GET http://shop.test/%61dmin HTTP/1.0\r\n\r\n";
    assert_eq!(request(gateway.address, old).await.unwrap().text(), "admin");
    assert!(admin.heads().last().unwrap().to_ascii_lowercase().contains("\r\nhost: shop.test\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_with_two_readings_is_refused() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    for path in ["/%", "/%zz", "/a%00b", "/..", "/a/../..", "/%2e%2e/etc", "/a/..;/b", "http://test/../x"] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = request(gateway.address, &text).await.unwrap();
        assert_eq!(answer.status, 400, "{path}");
        let record = gateway.record(&answer).await;
        assert_eq!(
            (&record["cause"], &record["route"]),
            (&Value::from("http_request_error"), &Value::from("none"))
        );
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_found_however_its_path_is_written() {
    let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "page")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for path in ["/a/b%2Fc", "/a/b%2fc", "/x/../a/b%2Fc", "/%61/./b%2fc"] {
        assert_eq!(connection.get(path).await.unwrap().text(), "page", "{path}");
    }
    assert_eq!(backend.requests(), 1);
    assert_eq!(connection.get("/a/b/c").await.unwrap().text(), "page");
    assert_eq!(backend.requests(), 2, "an escaped slash is no slash");
}

/// The values of a field in the head that a backend saw last, joined as a list.
fn field(backend: &Backend, name: &str) -> Option<String> {
    let heads = backend.heads();
    let lines = heads.last()?.lines().filter_map(|line| line.split_once(": "));
    let values: Vec<&str> =
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

const OVERRIDES: &str = "X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nProxy: http://evil\r\nX_Forwarded_For: 1.2.3.4\r\n\
    X-Forwarded-Server: evil\r\nX-Forwarded-Prefix: /evil\r\nX-Real-IP: 1.2.3.4\r\nX-Kept: yes\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_never_gets_a_field_that_overrides_what_the_rules_have_read() {
    let backend = Backend::start(Act::Answer(200)).await;
    let route = "    pass_headers: [x-http-method-override, X_Forwarded_For]\n    match: { path: /open }\n  - upstream: web\n";
    let gateway = Gateway::start(&site(&[&backend], "", route)).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.get_with("/", OVERRIDES).await.unwrap();
    let names: Vec<&str> = OVERRIDES.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    for name in names {
        assert_eq!(field(&backend, name).is_some(), name == "X-Kept", "{name}");
    }
    let overriding = format!("{OVERRIDES}X-HTTP-Method-Override: DELETE\r\n");
    connection.get_with("/open", &overriding).await.unwrap();
    assert_eq!(field(&backend, "X-HTTP-Method-Override").as_deref(), Some("DELETE"));
    assert_eq!(field(&backend, "X_Forwarded_For").as_deref(), Some("1.2.3.4"));
    assert_eq!((field(&backend, "X-Original-URL"), field(&backend, "Proxy")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_removes_none_of_our_fields() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let nominated = "Connection: X-Request-Id, Via, CDN-Loop, X-Hop\r\nX-Hop: 1\r\nVia: 1.0 before\r\n";
    let answer = connection.get_with("/", nominated).await.unwrap();
    assert_eq!(field(&backend, "x-request-id").as_deref(), answer.header("x-request-id"));
    assert_eq!(field(&backend, "via").as_deref(), Some("1.1 goodgate"));
    assert!(field(&backend, "cdn-loop").unwrap().starts_with("goodgate; id="));
    assert_eq!((field(&backend, "x-hop"), field(&backend, "connection")), (None, None));
    connection.get_with("/", "Via: 1.0 before\r\nCDN-Loop: other; id=1\r\n").await.unwrap();
    assert_eq!(field(&backend, "via").as_deref(), Some("1.0 before, 1.1 goodgate"));
    assert!(field(&backend, "cdn-loop").unwrap().starts_with("other; id=1, goodgate; id="));
    for name in ["Host", "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto"] {
        let text = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: {name}\r\n\r\n");
        let answer = request(gateway.address, &text).await.unwrap();
        assert_eq!(answer.status, 400, "{name}");
        assert_eq!(gateway.record(&answer).await["cause"], "http_request_error");
    }
    assert_eq!(backend.requests(), 2);
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "no backend is to blame");
}

/// A configuration with these addresses, whose upstream is `backend`.
fn around(listener: SocketAddr, admin: SocketAddr, folder: &Path, backend: SocketAddr) -> String {
    let log = folder.join("access.log");
    format!(
        "listeners: [{{ address: '{listener}' }}]\nadmin: {{ address: '{admin}' }}\naccess_log: {{ path: {} }}\n\
         upstreams: {{ web: ['{backend}'] }}\nroutes: [{{ upstream: web }}]\n",
        log.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_its_own_backend_says_so_at_once() {
    let (own, admin, inside) = (free_address(), free_address(), folder());
    let text = around(own, admin, &inside, own);
    let gateway = Gateway::start_in(inside, &text).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.header("proxy-status").unwrap().contains("error=proxy_loop_detected"), "{answer:?}");
    let counted = "goodgate_gateway_errors_total{cause=\"proxy_loop_detected\",route=\"*/\"}";
    eventually("both records", || async { gateway.records().len() == 2 }).await;
    assert_eq!(gateway.metric(counted).await, 1.0, "it came back once and went no further");
    assert!(gateway.records().iter().any(|record| record["cause"] == "proxy_loop_detected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_that_are_each_others_backend_say_so_too() {
    let [first, second, third, fourth] = [(); 4].map(|()| free_address());
    let [one, two] = [folder(), folder()];
    let texts = [around(first, third, &one, second), around(second, fourth, &two, first)];
    let one = Gateway::start_in(one, &texts[0]).await;
    let two = Gateway::start_in(two, &texts[1]).await;
    assert_eq!(one.get("/").await.status, 502);
    eventually("all records", || async { one.records().len() == 2 && two.records().len() == 1 }).await;
    let knows = one.records().iter().any(|record| record["cause"] == "proxy_loop_detected");
    assert!(knows, "the first one knows its own request");
}
