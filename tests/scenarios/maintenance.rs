//! A route that is closed on purpose: a notice or a copy, and nobody is woken up for it.

use serde_json::Value;

use crate::harness::backend::response;
use crate::harness::gateway::folder;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually, request};
use crate::{site, upstream};

async fn ask(gateway: &Gateway, fields: &str) -> Answer {
    request(gateway.address, &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_route_says_when_to_come_back_and_nothing_has_failed() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    maintenance: true\n")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let answer = connection.get_with("/", "Accept: application/json\r\n").await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("300")));
    assert_eq!((answer.header("cache-control"), answer.header("proxy-status")), (Some("no-store"), None));
    let problem: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!((&problem["retry_after"], &problem["cause"]), (&Value::from(300), &Value::Null));
    let people = connection.get_with("/", "Accept: text/html\r\n").await.unwrap();
    assert!(people.text().contains("The site is being worked on.") && people.text().contains("5 minutes"));
    connection.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(connection.answer(true).await.unwrap().status, 503, "the connection is kept");
    let record = gateway.record(&answer).await;
    assert_eq!((&record["origin"], &record["cause"]), (&Value::from("goodgate"), &Value::Null));
    assert_eq!(backend.requests(), 0);
    let counted = "goodgate_responses_total{status=\"503\",origin=\"goodgate\"}";
    eventually("all three are counted", || async { gateway.metric(counted).await == 3.0 }).await;
    let metrics = gateway.metrics().await;
    let sum = |selector: &str| crate::harness::gateway::sum(&metrics, selector);
    for silent in
        ["goodgate_gateway_errors_total", "goodgate_attempt_failures_total", "goodgate_rescues_total"]
    {
        assert_eq!(sum(silent), 0.0, "{silent}");
    }
    let failures = crate::harness::get_admin(gateway.admin, "/api/v1/failures").await.unwrap();
    assert_eq!(failures.text().trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn some_are_let_through_and_a_reload_opens_for_all() {
    let backend = Backend::start(Act::Answer(200)).await;
    let trusted = "trusted_proxies: [127.0.0.1]\n".to_owned();
    let closed = "    maintenance: { allow: [10.0.0.0/8], retry_after: 2h }\n";
    let gateway = Gateway::start(&(trusted.clone() + &site(&[&backend], "", closed))).await;
    for (client, status) in [("10.1.2.3", 200), ("192.0.2.1", 503)] {
        let answer = ask(&gateway, &format!("X-Forwarded-For: {client}\r\n")).await;
        assert_eq!(answer.status, status, "{client}");
        assert_eq!(answer.header("retry-after"), (status == 503).then_some("7200"), "{client}");
    }
    gateway.write_config(&(trusted + &site(&[&backend], "", "    maintenance: false\n")));
    gateway.reload("ok").await;
    assert_eq!(ask(&gateway, "X-Forwarded-For: 192.0.2.1\r\n").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_its_own_notice_whatever_it_does_otherwise() {
    let backend = Backend::start(Act::Answer(200)).await;
    let folder = folder();
    std::fs::write(folder.join("soon.html"), "<p>{status} {title}: back in {retry_after} s{cause}</p>")
        .unwrap();
    let config = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: off }}\n\
         defaults: {{ route: {{ maintenance: {{ page: soon.html }} }} }}\n{}routes:\n\
         \x20 - {{ upstream: web }}\n\
         \x20 - {{ match: {{ path: /moved }}, redirect: {{ to: / }} }}\n\
         \x20 - {{ match: {{ path: /text }}, respond: {{ body: x }}, maintenance: false }}\n",
        upstream(&[&backend], "")
    );
    let gateway = Gateway::start_in(folder, &config).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for path in ["/", "/moved"] {
        let answer = connection.get_with(path, "Accept: text/html\r\n").await.unwrap();
        let page = "<p>503 Service Unavailable: back in 300 s</p>";
        assert_eq!((answer.status, answer.text().as_str()), (503, page), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    }
    assert_eq!(connection.get("/text").await.unwrap().status, 200);
    assert_eq!(backend.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_stand_in_for_the_site_where_there_are_some() {
    fn by_path(head: &str) -> String {
        let (name, age) = if head.contains("/fresh") { ("fresh", 600) } else { ("old", 0) };
        response(200, &format!("Cache-Control: max-age={age}\r\n"), name, false)
    }
    let backend = Backend::start(Act::Reply(by_path)).await;
    let route = |more: &str| {
        let cache = "    cache: { mode: standard, last_good: true }\n".to_owned();
        site(&[&backend], "", &(cache + more))
    };
    let gateway = Gateway::start(&route("")).await;
    for path in ["/fresh", "/old"] {
        assert_eq!(gateway.get(path).await.status, 200);
    }
    let asked = backend.requests();
    gateway.write_config(&route("    maintenance: { use_stale: true }\n"));
    gateway.reload("ok").await;
    let fresh = gateway.get("/fresh").await;
    assert_eq!((fresh.status, fresh.text().as_str()), (200, "fresh"));
    let old = gateway.get("/old").await;
    assert_eq!((old.status, old.text().as_str()), (200, "old"));
    assert!(old.header("cache-status").unwrap().ends_with("detail=stale-maintenance"), "{old:?}");
    assert_eq!(gateway.record(&old).await["cache"], "stale");
    assert_eq!(gateway.get("/none").await.status, 503, "there is no copy");
    let post = "POST /old HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(request(gateway.address, post).await.unwrap().status, 503);
    assert_eq!(backend.requests(), asked, "nobody is asked");
    assert_eq!(gateway.metric("goodgate_rescues_total").await, 0.0, "nothing has failed");
    gateway.write_config(&route("    maintenance: true\n"));
    gateway.reload("ok").await;
    assert_eq!(gateway.get("/fresh").await.status, 503, "copies are asked for by name");
}
