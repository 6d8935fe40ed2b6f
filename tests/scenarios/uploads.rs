//! Slow uploads: while the client is waited for only its own limits run, and nothing is held against the backend.

use std::time::Duration;

use crate::harness::backend::page;
use crate::harness::script::Scripted;
use crate::harness::{Act, Backend, Connection, Gateway};
use crate::site;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends a body of so many bytes in pieces, each after a pause.
async fn upload(gateway: &Gateway, pieces: usize, pause: Duration) -> crate::harness::Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let head = format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", pieces * 1000);
    connection.send(head).await.unwrap();
    for _ in 0..pieces {
        tokio::time::sleep(pause).await;
        connection.send(vec![b'x'; 1000]).await.unwrap();
    }
    connection.answer(false).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_takes_longer_than_every_time_limit_of_the_route_goes_through() {
    let backend = Backend::start(page("", "thanks")).await;
    let limits = "    max_fails: 1\n    timeouts: { first_byte: 400ms, read: 400ms }\n";
    let gateway = Gateway::start(&site(&[&backend], limits, "    timeout: 500ms\n")).await;
    let pause = Duration::from_millis(300);
    let many = tokio::join!(
        upload(&gateway, 5, pause),
        upload(&gateway, 5, pause),
        upload(&gateway, 5, pause),
        upload(&gateway, 4, Duration::from_millis(450))
    );
    for answer in [many.0, many.1, many.2, many.3] {
        assert_eq!((answer.status, answer.text().as_str()), (200, "thanks"));
    }
    assert_eq!(gateway.state(backend.address).await, "up");
    assert_eq!(gateway.metric("goodgate_attempt_failures_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_the_response_starts_when_the_request_is_complete() {
    let backend = Backend::start(Act::Hang).await;
    let limits = "    timeouts: { first_byte: 300ms, read: 300ms }\n";
    let gateway = Gateway::start(&site(&[&backend], limits, "")).await;
    let answer = upload(&gateway, 3, Duration::from_millis(250)).await;
    assert_eq!(answer.status, 504);
    let record = gateway.record(&answer).await;
    assert_eq!(record["cause"], "http_response_timeout");
    let total = record["attempts"][0]["total_ms"].as_f64().unwrap();
    assert!((1000.0..3000.0).contains(&total), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_gives_up_on_a_slow_client_has_not_failed() {
    let backend = Scripted::start(|mut stream| async move {
        let mut buffer = [0; 4096];
        // Like an application server that allows a second for a body.
        while let Ok(Ok(count)) = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut buffer)).await
        {
            if count == 0 {
                return;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&backend.site("    max_fails: 1\n", "")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.send("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n12345").await.unwrap();
    let answer = connection.answer(false).await.unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(gateway.state(backend.address).await, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_an_attempt_ends_with_the_response_and_not_with_the_body_of_the_client() {
    let backend = Scripted::start(|mut stream| async move {
        let mut buffer = Vec::new();
        let _head = crate::harness::backend::read_head(&mut stream, &mut buffer).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno\n").await.unwrap();
        let _all = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let gateway = Gateway::start(&backend.site("", "")).await;
    let answer = upload(&gateway, 3, Duration::from_millis(500)).await;
    assert_eq!(answer.status, 413);
    let record = gateway.record(&answer).await;
    let total = record["attempts"][0]["total_ms"].as_f64().unwrap();
    assert!(total < 900.0, "{record}");
}
