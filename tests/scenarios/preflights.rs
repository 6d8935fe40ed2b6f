//! CORS preflights: answered from a kept copy while the backends are down, and only then.

use crate::harness::backend::response;
use crate::harness::{Act, Answer, Backend, Gateway, request};
use crate::site;

fn api(head: &str) -> String {
    let origin = head.lines().find_map(|line| line.strip_prefix("Origin: ")).unwrap_or_default();
    let allows = format!(
        "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Headers: x-token\r\nVary: Origin\r\n"
    );
    match head.split(' ').next() {
        Some("OPTIONS") => format!("HTTP/1.1 204 No Content\r\n{allows}\r\n"),
        _ => response(200, &format!("Cache-Control: max-age=60\r\n{allows}"), "data", false),
    }
}

async fn preflight(gateway: &Gateway, origin: &str, more: &str) -> Answer {
    let text = format!(
        "OPTIONS /data HTTP/1.1\r\nHost: test\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: GET\r\n\
         {more}Connection: close\r\n\r\n"
    );
    request(gateway.address, &text).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_backends_are_down_a_preflight_is_answered_as_it_was() {
    for mode in ["standard", "fallback"] {
        let backend = Backend::start(Act::Reply(api)).await;
        let gateway = Gateway::start(&site(&[&backend], "", &format!("    cache: {mode}\n"))).await;
        let asked = "Access-Control-Request-Headers: x-token\r\n";
        for _ in 0..2 {
            assert_eq!(preflight(&gateway, "https://a.example", asked).await.status, 204);
        }
        assert_eq!(backend.requests(), 2, "{mode}: never from a copy while a backend answers");
        assert_eq!(preflight(&gateway, "https://a.example", "Cookie: a=1\r\n").await.status, 204);
        backend.kill();
        let answer = preflight(&gateway, "https://a.example", asked).await;
        assert_eq!(answer.status, 204, "{mode}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("x-token"));
        assert!(answer.header("cache-status").unwrap().contains("stale-"), "{answer:?}");
        for (origin, more) in [
            ("https://b.example", asked),
            ("https://a.example", ""),
            ("https://a.example", "Access-Control-Request-Headers: x-other\r\n"),
            ("https://a.example", "Cookie: a=1\r\n"),
        ] {
            assert_eq!(preflight(&gateway, origin, more).await.status, 502, "{mode} {origin} {more:?}");
        }
        let plain = "OPTIONS /data HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        assert_eq!(request(gateway.address, plain).await.unwrap().status, 502, "no other OPTIONS is kept");
        assert_eq!(gateway.get("/data").await.status, 502, "and none of it answers a GET");
    }
}
