//! What people and programs get to see when a request fails.

use serde_json::Value;

use crate::harness::backend::page;
use crate::harness::{Act, Answer, Backend, Gateway, eventually, request};
use crate::{site, upstream};

async fn ask(gateway: &Gateway, method: &str, path: &str, accept: &str) -> Answer {
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    request(gateway.address, &text).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_people_says_what_happened_and_comes_back_by_itself_if_that_is_safe() {
    let backend = Backend::refusing().await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let answer = ask(&gateway, "GET", "/", "text/html").await;
    let text = answer.text();
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(text.contains("The service refused the connection."), "{text}");
    assert!(text.contains(answer.header("x-request-id").unwrap()), "{text}");
    assert!(text.contains("location.reload()"), "{text}");
    assert!(!text.contains("127.0.0.1"), "no internals: {text}");
    assert!(!answer.header("proxy-status").unwrap().contains("next-hop"));
    let answer = ask(&gateway, "POST", "/", "text/html").await;
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains("<script"), "a POST is never repeated by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_while_everything_is_out_is_told_when_that_may_change() {
    let backend = Backend::refusing().await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 1\n    fail_timeout: 40s\n", "")).await;
    gateway.get("/").await;
    eventually("it is ejected", || async { gateway.state(backend.address).await == "ejected" }).await;
    let text = ask(&gateway, "GET", "/", "text/html").await.text();
    let seconds = text.split("try again in about ").nth(1).and_then(|rest| rest.split(' ').next());
    let seconds: u64 = seconds.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!((35..=40).contains(&seconds), "{seconds}");
    let problem = ask(&gateway, "GET", "/", "application/json").await.text();
    let problem: Value = serde_json::from_str(&problem).unwrap();
    assert!((35..=40).contains(&problem["retry_after"].as_u64().unwrap()), "{problem}");
    assert_eq!((&problem["status"], &problem["cause"]), (&502.into(), &"connection_refused".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_its_own_page_and_contact() {
    let backend = Backend::refusing().await;
    let folder = crate::harness::gateway::folder();
    let file = folder.join("page.html");
    std::fs::write(&file, "<style>p{margin:0}</style><p>{status} {title}, {cause}, {request_id}, {contact}")
        .unwrap();
    let routes = format!(
        "routes:\n  - {{ match: {{ path: /own }}, upstream: web, errors: {{ html: {}, contact: ops@example.com }} }}\n  \
         - {{ upstream: web, errors: {{ contact: ops@example.com }} }}\n",
        file.display()
    );
    let gateway = Gateway::start(&(upstream(&[&backend], "") + &routes)).await;
    let answer = ask(&gateway, "GET", "/own", "text/html").await;
    let id = answer.header("x-request-id").unwrap().to_owned();
    let expected =
        format!("<style>p{{margin:0}}</style><p>502 Bad Gateway, connection_refused, {id}, ops@example.com");
    assert_eq!(answer.text(), expected);
    let answer = ask(&gateway, "GET", "/", "text/html").await;
    assert!(answer.text().contains("turn to ops@example.com"), "{}", answer.text());
    let problem: Value =
        serde_json::from_str(&ask(&gateway, "GET", "/", "application/problem+json").await.text()).unwrap();
    assert_eq!(problem["contact"], "ops@example.com");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_backend_are_passed_on_or_replaced_route_by_route() {
    let backend = Backend::start(Act::Page {
        status: 500,
        headers: "X-Trace: secret\r\n".into(),
        body: "Traceback: secret".into(),
    })
    .await;
    let routes = "routes:\n  - { match: { path: /ours }, upstream: web, errors: { replace: [http_500], next_hop: true } }\n  - { upstream: web }\n";
    let gateway = Gateway::start(&(upstream(&[&backend], "") + routes)).await;
    let theirs = ask(&gateway, "GET", "/theirs", "text/html").await;
    assert_eq!((theirs.status, theirs.text().as_str()), (500, "Traceback: secret"));
    assert_eq!(gateway.record(&theirs).await["origin"], "backend");
    let ours = ask(&gateway, "GET", "/ours", "text/html").await;
    assert_eq!((ours.status, ours.complete), (500, true));
    assert!(!ours.text().contains("secret") && ours.header("x-trace").is_none(), "{ours:?}");
    let status = ours.header("proxy-status").unwrap();
    assert!(status.starts_with("goodgate; received-status=500; details="), "{status}");
    assert!(status.ends_with(&format!("; next-hop=\"{}\"", backend.address)), "{status}");
    let record = gateway.record(&ours).await;
    assert_eq!(
        (&record["origin"], &record["cause"]),
        (&"goodgate".into(), &"received_500".into()),
        "{record}"
    );
    assert_eq!(gateway.state(backend.address).await, "up", "it is no failure that counts");
    backend.set(page("", "fine"));
    assert_eq!(ask(&gateway, "GET", "/ours", "text/html").await.text(), "fine");
}
