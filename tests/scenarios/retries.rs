//! Attempts and retries: what one backend fails at, another does.

use std::collections::HashSet;
use std::time::Duration;

use crate::harness::{Act, Backend, Connection, Gateway, backends, eventually, request};
use crate::site;

/// Concurrent keep-alive clients; every answer in order of completion.
async fn load(gateway: &Gateway, clients: usize, each: usize) -> Vec<crate::harness::Answer> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let address = gateway.address;
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            let mut answers = Vec::new();
            for at in 0..each {
                let answer = connection.get(&format!("/{at}")).await.expect("an answer");
                if answer.header("connection") == Some("close") {
                    connection = Connection::open(address).await.unwrap();
                }
                answers.push(answer);
            }
            answers
        });
    }
    let mut all = Vec::new();
    while let Some(answers) = tasks.join_next().await {
        all.extend(answers.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_refuse_and_a_thousand_requests_succeed() {
    let (a, b, c) =
        (Backend::refusing().await, Backend::refusing().await, Backend::start(Act::Answer(200)).await);
    let gateway = Gateway::start(&site(&[&a, &b, &c], "    max_fails: 3\n    fail_timeout: 1s\n", "")).await;
    let answers = load(&gateway, 32, 32).await;
    assert_eq!(answers.len(), 1024);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(c.requests(), 1024);
    let rescues = gateway.metric("goodgate_rescues_total{by=\"retry\",cause=\"connection_refused\"}").await;
    assert!(rescues >= 3.0, "{rescues}");
    eventually("all records", || async { gateway.records().len() == 1024 }).await;
    for record in gateway.records() {
        let tried: Vec<&str> = record["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|attempt| attempt["backend"].as_str().unwrap())
            .collect();
        assert_eq!(tried.iter().collect::<HashSet<_>>().len(), tried.len(), "no backend twice: {record}");
    }
    assert!(gateway.metric("goodgate_ejections_total{cause=\"connection_refused\"}").await >= 2.0);
    // Ejected ones get one trial per fail_timeout and no more.
    let failures =
        || async { gateway.metric("goodgate_attempt_failures_total{cause=\"connection_refused\"}").await };
    eventually("both are ejected", || async {
        gateway.state(a.address).await == "ejected" && gateway.state(b.address).await == "ejected"
    })
    .await;
    let before = failures().await;
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let trials = failures().await - before;
    let windows = start.elapsed().as_secs_f64().ceil() + 1.0;
    assert!((2.0..=2.0 * windows).contains(&trials), "{trials} trials of two backends in {windows} windows");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_backend_does_another_answers() {
    for act in [
        Act::Answer(503),
        Act::Answer(502),
        Act::Reset,
        Act::Close,
        Act::Hang,
        Act::BytesThenClose(b"NOT HTTP\r\n\r\n".to_vec()),
    ] {
        let [bad, good] = backends([act.clone(), Act::Answer(200)]).await;
        let settings = "    timeouts: { first_byte: 300ms }\n    max_fails: 0\n";
        let gateway = Gateway::start(&site(&[&bad, &good], settings, "")).await;
        for _ in 0..4 {
            let answer = gateway.get("/").await;
            assert_eq!(answer.status, 200, "{act:?}");
        }
        assert!(bad.requests() >= 1, "{act:?}: it had its turn");
        assert_eq!(good.requests(), 4);
        assert!(gateway.metric("goodgate_rescues_total{by=\"retry\"}").await >= 1.0, "{act:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_body_counts_it_once_however_often_it_is_sent() {
    let [bad, good] = backends([Act::Close, Act::Answer(200)]).await;
    let route = "    max_body_bytes: 50KiB\n";
    let gateway = Gateway::start(&site(&[&bad, &good], "    max_fails: 0\n", route)).await;
    for _ in 0..2 {
        let body = "x".repeat(40_000);
        let put = format!("PUT /page HTTP/1.1\r\nHost: test\r\nContent-Length: 40000\r\n\r\n{body}");
        assert_eq!(request(gateway.address, &put).await.unwrap().status, 200);
    }
    assert_eq!((bad.requests(), good.requests()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_body_was_sent_is_not_repeated() {
    let cases = [
        (Act::Close, 502, "connection_terminated"),
        (Act::Reset, 502, "connection_terminated"),
        (Act::Hang, 504, "http_response_timeout"),
        (Act::BytesThenClose(b"garbage\r\n\r\n".to_vec()), 502, "http_protocol_error"),
    ];
    for (act, status, cause) in cases {
        let [a, b] = backends([act.clone(), act.clone()]).await;
        let settings = "    timeouts: { first_byte: 300ms }\n";
        let gateway = Gateway::start(&site(&[&a, &b], settings, "")).await;
        let post = "POST /order HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
        let answer = request(gateway.address, post).await.unwrap();
        assert_eq!(answer.status, status, "{act:?}");
        assert!(answer.header("proxy-status").unwrap().contains(&format!("error={cause}")), "{answer:?}");
        assert_eq!(a.requests() + b.requests(), 1, "{act:?}: sent once");
        let record = gateway.record(&answer).await;
        assert_eq!(record["attempts"][0]["no_retry"], "not_replayable");
        assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 1.0);
        assert_eq!(gateway.metric(&format!("goodgate_gateway_errors_total{{cause=\"{cause}\"}}")).await, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_could_not_be_sent_goes_to_another_backend() {
    let (dead, good) = (Backend::refusing().await, Backend::start(Act::Answer(200)).await);
    let gateway = Gateway::start(&site(&[&dead, &good], "    max_fails: 0\n", "")).await;
    for _ in 0..4 {
        let post = "POST /order HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(request(gateway.address, post).await.unwrap().status, 200);
    }
    assert_eq!(good.bodies(), vec![b"hello".to_vec(); 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_is_sent_again_and_a_large_one_is_not() {
    let [bad, good] = backends([Act::Close, Act::Answer(200)]).await;
    let gateway = Gateway::start(&site(&[&bad, &good], "    max_fails: 0\n", "")).await;
    let put = |size: usize| {
        format!(
            "PUT /x HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{}",
            "x".repeat(size)
        )
    };
    for _ in 0..2 {
        assert_eq!(request(gateway.address, &put(10_000)).await.unwrap().status, 200);
    }
    assert!(good.bodies().iter().all(|body| body.len() == 10_000));
    let mut refused = None;
    for _ in 0..2 {
        let answer = request(gateway.address, &put(200_000)).await.unwrap();
        if answer.status != 200 {
            refused = Some(answer);
        }
    }
    let answer = refused.expect("one of them met the backend that closes");
    assert_eq!(answer.status, 502);
    assert_eq!(gateway.record(&answer).await["attempts"][0]["no_retry"], "body_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_bounds_all_attempts_together() {
    let [a, b, c] = backends([Act::Hang, Act::Hang, Act::Hang]).await;
    let gateway =
        Gateway::start(&site(&[&a, &b, &c], "    timeouts: { first_byte: 400ms }\n", "    timeout: 600ms\n"))
            .await;
    let start = std::time::Instant::now();
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 504);
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    assert_eq!(a.requests() + b.requests() + c.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickled_header_does_not_escape_the_first_byte_limit() {
    let slow = Backend::start(Act::BytesThenHang(b"HTTP/1.1 200 OK\r\nX-Slow: y".to_vec())).await;
    let gateway = Gateway::start(&site(&[&slow], "    timeouts: { first_byte: 300ms }\n", "")).await;
    let start = std::time::Instant::now();
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 504);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "not only the limit of one read: {:?}",
        start.elapsed()
    );
    assert!(answer.header("proxy-status").unwrap().contains("http_response_timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retry_budget_bounds_what_an_outage_costs() {
    let [bad, good] = backends([Act::Close, Act::Answer(200)]).await;
    let gateway =
        Gateway::start(&site(&[&bad, &good], "    max_fails: 0\n", "    retry: { budget: 0% }\n")).await;
    let answers = load(&gateway, 8, 60).await;
    let failed = answers.iter().filter(|answer| answer.status == 502).count();
    let retries = gateway.metric("goodgate_retries_total").await;
    assert!(retries <= 100.0 + 10.0, "the floor is ten per second over ten seconds: {retries}");
    assert!(failed > 0, "beyond the budget the honest error");
    assert!(gateway.metric("goodgate_retries_refused_total{reason=\"budget\"}").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refused_is_asked_again_when_no_other_is_left() {
    let mut refusing = Backend::refusing().await;
    let dying = Backend::start(Act::Slow(Duration::from_millis(400), Box::new(Act::Close))).await;
    // The second of two has the first turn.
    let gateway = Gateway::start(&site(&[&dying, &refusing], "    max_fails: 0\n", "")).await;
    let address = gateway.address;
    let answer = tokio::spawn(async move { crate::harness::get(address, "/").await.expect("an answer") });
    eventually("the other one is asked", || async { dying.requests() == 1 }).await;
    refusing.set(Act::Answer(200));
    refusing.revive().await;
    let answer = answer.await.unwrap();
    let record = gateway.record(&answer).await;
    assert_eq!(answer.status, 200, "{record}");
    let attempts = record["attempts"].as_array().unwrap();
    assert_eq!(attempts[0]["cause"], "connection_refused", "{record}");
    assert_eq!(attempts[1]["cause"], "connection_terminated", "{record}");
    assert_eq!(attempts[2]["backend"], attempts[0]["backend"], "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_dies_is_replaced_by_a_fresh_one_to_the_same_backend() {
    let backend = Backend::start(Act::AnswerOnce(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 1\n", "")).await;
    for _ in 0..6 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let rescues = "goodgate_rescues_total{by=\"connection_race\",cause=\"connection_terminated\"}";
    eventually("the race is counted", || async { gateway.metric(rescues).await >= 1.0 }).await;
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "it is nobody's failure");
    assert_eq!(gateway.metric("goodgate_retries_total").await, 0.0, "and no retry");
    let record = gateway.record_where("a race", |record| record["rescue"]["by"] == "connection_race").await;
    let attempts = record["attempts"].as_array().unwrap();
    assert_eq!(
        (attempts.len(), &attempts[0]["reused"], &attempts[1]["reused"]),
        (2, &true.into(), &false.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_nobodys_failure() {
    let backend = Backend::start(Act::Hang).await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 1\n", "")).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    eventually("the backend is asked", || async { backend.requests() == 1 }).await;
    drop(client);
    let record = gateway.record_where("the record", |record| record["path"] == "/slow").await;
    assert_eq!((&record["status"], &record["cause"]), (&499.into(), &"client_disconnected".into()));
    eventually("it is counted", || async {
        gateway.metric("goodgate_client_aborts_total{phase=\"waiting\"}").await == 1.0
    })
    .await;
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
    assert_eq!(gateway.state(backend.address).await, "up");
}

/// A site of so many addresses that all refuse connections.
async fn refusing_site(count: u32, settings: &str, route: &str) -> (Backend, String) {
    let dead = Backend::refusing().await;
    let address = |at: u32| std::net::Ipv4Addr::from_bits(0x7f01_0000 + at);
    let list: Vec<_> = (1..=count).map(|at| format!("'{}:{}'", address(at), dead.address.port())).collect();
    let text = format!(
        "upstreams:\n  web:\n{settings}    backends: [{}]\nroutes:\n  - upstream: web\n{route}",
        list.join(", ")
    );
    (dead, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_hundreds_of_backends_that_all_refuse_ends_after_a_bounded_number_of_attempts() {
    let (_dead, text) = refusing_site(600, "    max_fails: 0\n", "").await;
    let gateway = Gateway::start(&text).await;
    let start = std::time::Instant::now();
    for _ in 0..20 {
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, 502);
        let record = gateway.record(&answer).await;
        let attempts = record["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 16);
        let tried: HashSet<_> = attempts.iter().map(|attempt| attempt["backend"].as_str().unwrap()).collect();
        assert_eq!(tried.len(), 16, "no backend twice");
        assert_eq!(attempts[15]["no_retry"], "connect_failures");
        assert!(record.to_string().len() < 8 << 10, "{}", record.to_string().len());
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_connect_failures_is_a_setting_and_few_ejected_backends_are_tried() {
    let route = "    retry: { max_connect_failures: 4 }\n";
    let (_dead, text) = refusing_site(12, "    max_fails: 1\n    fail_timeout: 60s\n", route).await;
    let gateway = Gateway::start(&text).await;
    for (attempts, reason) in [(4, "connect_failures"); 3].into_iter().chain([(3, "fail_open"); 3]) {
        let answer = gateway.get("/").await;
        let record = gateway.record(&answer).await;
        let all = record["attempts"].as_array().unwrap();
        assert_eq!((all.len(), &all[all.len() - 1]["no_retry"]), (attempts, &reason.into()), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_balance_finds_the_one_backend_of_a_hundred_that_accepts() {
    for balance in ["round_robin", "least_conn", "random_two", "least_time", "consistent_hash"] {
        let good = Backend::start(Act::Answer(200)).await;
        let route = "    retry: { max_connect_failures: 100 }\n";
        let settings = format!("    balance: {balance}\n    max_fails: 0\n");
        let (_dead, text) = refusing_site(99, &settings, route).await;
        let text = text.replacen("backends: [", &format!("backends: ['{}', ", good.address), 1);
        let gateway = Gateway::start(&text).await;
        for at in 0..3 {
            assert_eq!(gateway.get(&format!("/{at}")).await.status, 200, "{balance}");
        }
    }
}
