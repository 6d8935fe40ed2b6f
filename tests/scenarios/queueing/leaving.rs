//! Clients that leave while they wait, whatever they speak and however much of their request has come.

use std::time::Duration;

use super::{Turnstile, ask, breaker, queue_is};
use crate::harness::gateway::folder;
use crate::harness::tls::{Authority, shake_hands, valid};
use crate::harness::{Connection, Gateway, eventually};

/// A gateway whose upstream has its one request, and one that waits behind whoever is to leave.
async fn occupied() -> (Turnstile, Gateway) {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let settings = breaker("max_requests: 1, pending_timeout: 60s");
    let gateway = Gateway::start(&turnstile.backend.site(&settings, "")).await;
    (turnstile, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_gives_up_its_place_in_the_queue() {
    let (turnstile, gateway) = occupied().await;
    let running = ask(&gateway, "/0");
    turnstile.has_had(1).await;
    for request in [
        "GET /left HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        "POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345",
        "POST /left HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        "POST /left HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    ] {
        for is_reset in [false, true] {
            let mut client = Connection::open(gateway.address).await.unwrap();
            client.send(request).await.unwrap();
            queue_is(&gateway, 1).await;
            if is_reset {
                client.reset()
            } else {
                drop(client)
            }
            queue_is(&gateway, 0).await;
        }
    }
    let left =
        || gateway.records().into_iter().filter(|record| record["path"] == "/left").collect::<Vec<_>>();
    eventually("all have their record", || async { left().len() == 10 }).await;
    for record in left() {
        assert_eq!((&record["status"], &record["cause"]), (&499.into(), &"client_disconnected".into()));
        assert!(
            record["queued_ms"].is_number() && record["attempts"].as_array().unwrap().is_empty(),
            "{record}"
        );
    }
    turnstile.let_go(2);
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(gateway.get("/next").await.status, 200);
    assert_eq!(turnstile.paths(), ["/0", "/next"], "who left reaches no backend");
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_on_while_it_waits_is_not_taken_for_one_that_leaves() {
    let (turnstile, gateway) = occupied().await;
    let running = ask(&gateway, "/0");
    turnstile.has_had(1).await;
    let mut post = Connection::open(gateway.address).await.unwrap();
    post.send("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /pipelined HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    queue_is(&gateway, 1).await;
    let mut put = Connection::open(gateway.address).await.unwrap();
    put.send("PUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n").await.unwrap();
    queue_is(&gateway, 2).await;
    put.send("12").await.unwrap();
    put.send("34").await.unwrap();
    turnstile.let_go(2);
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(post.answer(false).await.unwrap().status, 200);
    turnstile.has_had(3).await;
    put.send("56").await.unwrap();
    turnstile.let_go(2);
    assert_eq!(put.answer(false).await.unwrap().status, 200);
    assert_eq!(post.answer(false).await.unwrap().status, 200, "the request that came behind it");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_come_and_go_and_no_place_is_lost() {
    let turnstile = Turnstile::start(Duration::from_millis(2)).await;
    turnstile.let_go(100_000);
    let settings = breaker("max_requests: 8, max_pending: 30, pending_timeout: 200ms");
    let gateway = Gateway::start(&turnstile.backend.site(&settings, "")).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let address = gateway.address;
        clients.spawn(async move {
            let mut counts = [0; 2];
            for _ in 0..20 {
                let mut client = Connection::open(address).await.unwrap();
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
                let patience = Duration::from_millis(fastrand::u64(0..300));
                if let Ok(answer) = tokio::time::timeout(patience, client.answer(false)).await {
                    counts[usize::from(answer.unwrap().status != 200)] += 1;
                }
            }
            counts
        });
    }
    let counts = clients.join_all().await;
    let sum = |at: usize| counts.iter().map(|counts| counts[at]).sum::<u32>();
    assert!(sum(0) > 0, "some are served: {counts:?}");
    queue_is(&gateway, 0).await;
    eventually("all places are free", || async {
        gateway.metric("goodgate_upstream_breaker_requests").await == 0.0
    })
    .await;
    let eight: Vec<_> = (0..8).map(|_| ask(&gateway, "/")).collect();
    for answer in eight {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_http_2_wait_and_leave_one_by_one() {
    let turnstile = Turnstile::start(Duration::ZERO).await;
    let (authority, folder) = (Authority::new(), folder());
    authority.write(&folder, "site", valid("site.test"));
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', http2: true, tls: {{ certificates: [{{ cert: site.crt, key: site.key }}] }} }}]\n\
         admin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\n{}",
        folder.join("access.log").display(),
        turnstile.backend.site(&breaker("max_requests: 1, pending_timeout: 60s"), "")
    );
    let gateway = Gateway::start_in(folder, &text).await;
    let mut config = authority.client(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = shake_hands(gateway.address, &std::sync::Arc::new(config), "site.test").await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let send = async |path: &str, has_body: bool| {
        let request = http::Request::put(format!("https://site.test{path}")).body(()).unwrap();
        client.clone().ready().await.unwrap().send_request(request, !has_body).unwrap()
    };
    let (running, _) = send("/0", false).await;
    turnstile.has_had(1).await;
    let mut waiting = Vec::new();
    for (at, (path, has_body)) in
        [("/1", false), ("/2", false), ("/3", true), ("/4", false)].into_iter().enumerate()
    {
        waiting.push(send(path, has_body).await);
        queue_is(&gateway, at + 1).await;
    }
    for (at, left) in [(1, 3), (1, 2)] {
        let (_, mut stream) = waiting.remove(at);
        stream.send_reset(h2::Reason::CANCEL);
        queue_is(&gateway, left).await;
    }
    turnstile.let_go(3);
    assert_eq!(running.await.unwrap().status(), 200);
    for (answer, _) in waiting {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
    assert_eq!(turnstile.paths(), ["/0", "/1", "/4"]);
}
