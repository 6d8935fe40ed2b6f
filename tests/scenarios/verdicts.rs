//! Which of several failures the client is answered with: the same whatever the order of the attempts.

use crate::harness::backend::page;
use crate::harness::script::Scripted;
use crate::harness::{Act, Backend, Connection, Gateway};
use crate::site;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_a_backend_wins_over_a_connection_that_failed_in_either_order() {
    let unavailable = Backend::start(Act::Answer(503)).await;
    let refusing = Backend::refusing().await;
    let settings = "    max_fails: 1000\n    balance: round_robin\n";
    let retry = "    retry: { on: [error, timeout, http_503] }\n";
    for backends in [[&unavailable, &refusing], [&refusing, &unavailable]] {
        let gateway = Gateway::start(&site(&backends, settings, retry)).await;
        for _ in 0..4 {
            let answer = gateway.get("/p").await;
            assert_eq!(answer.status, 503);
            assert_eq!(gateway.record(&answer).await["cause"], "received_503");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_backend_that_is_passed_on_has_its_cause_in_the_record() {
    let backend = Backend::start(Act::Answer(500)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let before = gateway.metric("goodgate_gateway_errors_total").await;
    for (status, cause) in
        [(500, "received_500"), (502, "received_502"), (503, "received_503"), (504, "received_504")]
    {
        backend.set(Act::Answer(status));
        let answer = gateway.get("/p").await;
        assert_eq!(answer.status, status);
        let record = gateway.record(&answer).await;
        assert_eq!((&record["cause"], &record["origin"]), (&cause.into(), &"backend".into()), "{record}");
        let told = gateway.explain(&answer).await;
        assert!(!told.contains("short of the end"), "{told}");
    }
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, before, "they are not the gateway's");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_attempt_that_ends_in_an_error_has_averted_nothing() {
    let refusing = Backend::refusing().await;
    let broken = Backend::start(Act::Answer(500)).await;
    let gateway = Gateway::start(&site(&[&refusing, &broken], "", "")).await;
    for _ in 0..2 {
        let answer = gateway.get("/p").await;
        let record = gateway.record(&answer).await;
        assert_eq!((record["status"].as_u64(), &record["rescue"]), (Some(500), &serde_json::Value::Null));
    }
    assert_eq!(gateway.metric("goodgate_rescues_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_with_too_many_fields_is_named_as_one() {
    let backend = Scripted::start(|mut stream| async move {
        let mut buffer = Vec::new();
        while crate::harness::backend::read_head(&mut stream, &mut buffer).await.is_some() {
            let cookies: String = (0..300).map(|number| format!("Set-Cookie: c{number}=1\r\n")).collect();
            let answer = format!("HTTP/1.1 200 OK\r\n{cookies}Content-Length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let answer = gateway.get("/p").await;
    assert_eq!(answer.status, 502);
    assert_eq!(gateway.record(&answer).await["cause"], "http_response_header_section_size");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_in_the_header_whenever_it_is_in_the_body_and_names_have_one_spelling() {
    let backend = Backend::start(page("", "x")).await;
    let settings = "    max_fails: 1\n    fail_timeout: 30s\n    fail_open: false\n";
    let gateway = Gateway::start(&site(&[&backend], settings, "")).await;
    backend.die().await;
    for _ in 0..3 {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        let answer = connection.get_with("/p", "Accept: application/json\r\n").await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let told = problem.get("retry_after").and_then(serde_json::Value::as_u64);
        let header = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
        assert_eq!(told, header, "{answer:?}");
        for (name, _) in &answer.headers {
            let is_title = |part: &str| part.chars().next().is_some_and(char::is_uppercase);
            assert!(name.split('-').all(is_title), "{name}");
        }
    }
}
