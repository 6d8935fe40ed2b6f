//! What a client sends to lead somewhere else than it seems: paths and headers.

use serde_json::Value;

use crate::harness::backend::page;
use crate::harness::{Act, Backend, Connection, Gateway, backends, request};
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
        ("//admin//x", "admin", "/admin/x"),
        ("/./admin/x", "admin", "/admin/x"),
        ("/public/../admin/x", "admin", "/admin/x"),
        ("/public/%2e%2E/admin/x", "admin", "/admin/x"),
        ("/admin/../x", "site", "/x"),
        ("/admin%2fx", "site", "/admin%2Fx"),
        ("/x/..%5cadmin", "site", "/x/..%5Cadmin"),
        ("/x\\..\\admin", "site", "/x%5C..%5Cadmin"),
        ("/admin;x", "site", "/admin;x"),
        ("http://test/%61dmin//x?y", "admin", "/admin/x?y"),
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
    for path in ["/a/b%2Fc", "/a//b%2fc", "/x/../a/b%2Fc", "/%61/./b%2fc"] {
        assert_eq!(connection.get(path).await.unwrap().text(), "page", "{path}");
    }
    assert_eq!(backend.requests(), 1);
    assert_eq!(connection.get("/a/b/c").await.unwrap().text(), "page");
    assert_eq!(backend.requests(), 2, "an escaped slash is no slash");
}
