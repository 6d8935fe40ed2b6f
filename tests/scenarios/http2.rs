//! HTTP/2 of clients: the same rules, several requests at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response, StatusCode};

use crate::harness::gateway::folder;
use crate::harness::tls::{Authority, shake_hands, valid};
use nix::sys::signal::Signal;

use crate::harness::backend::{Gate, page};
use crate::harness::{Act, Backend, Gateway, eventually};

/// A gateway that offers HTTP/2 before one backend, and an authority that clients trust.
async fn start(backend: &Backend, more: &str) -> (Gateway, Authority) {
    let (authority, folder) = (Authority::new(), folder());
    authority.write(&folder, "site", valid("site.test"));
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', http2: true, tls: {{ certificates: [{{ cert: site.crt, key: site.key }}] }} }}]\n\
         admin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\nupstreams:\n  app: {{ backends: ['{}'], timeouts: {{ first_byte: 2s, read: 2s }} }}\n{more}",
        folder.join("access.log").display(),
        backend.address
    );
    (Gateway::start_in(folder, &text).await, authority)
}

const ROUTES: &str = "routes: [{ upstream: app, cache: fallback }]\n";

async fn connect(gateway: &Gateway, authority: &Authority) -> SendRequest<Bytes> {
    let mut config = authority.client(None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = shake_hands(gateway.address, &Arc::new(config), "site.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// One request; its answer with the whole body, or why there is none.
async fn ask(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: &'static [u8],
) -> Result<Response<Vec<u8>>, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut stream) = client.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(Bytes::from_static(body), true)?;
    }
    let (head, mut rest) = response.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(part) = rest.data().await {
        let part = part?;
        rest.flow_control().release_capacity(part.len())?;
        bytes.extend_from_slice(&part);
    }
    Ok(Response::from_parts(head, bytes))
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://site.test{path}")).body(()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_come_to_backends_as_http_1_and_are_answered_side_by_side() {
    let backend = Backend::start(Act::Slow(Duration::from_millis(300), Box::new(Act::Answer(200)))).await;
    let (gateway, authority) = start(&backend, ROUTES).await;
    let client = connect(&gateway, &authority).await;
    let begun = Instant::now();
    let many = (0..20).map(|at| {
        let client = client.clone();
        tokio::spawn(async move { ask(&client, get(&format!("//a/../{at}")), b"").await.unwrap().status() })
    });
    for answer in many.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), StatusCode::OK);
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "one after the other: {:?}", begun.elapsed());
    backend.set(Act::Answer(200));
    let request = Request::post("https://site.test/p?q")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-forwarded-for", "6.6.6.6")
        .body(())
        .unwrap();
    let answer = ask(&client, request, b"hello").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let head = backend.heads().pop().unwrap().to_ascii_lowercase();
    for line in [
        "post /p?q http/1.1",
        "host: site.test",
        "cookie: a=1; b=2",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: https",
        "via: 2 goodgate",
    ] {
        assert!(head.split("\r\n").any(|other| other == line), "{line} is not in {head}");
    }
    assert_eq!(backend.bodies().pop().unwrap(), b"5\r\nhello\r\n0\r\n\r\n");
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    eventually("it has one record", || async {
        gateway.records().iter().filter(|one| one["request_id"] == *id).count() == 1
    })
    .await;
    let record = gateway.records().into_iter().find(|one| one["request_id"] == *id).unwrap();
    assert_eq!(
        (&record["version"], &record["status"], &record["origin"]),
        (&"2".into(), &200.into(), &"backend".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_hidden_and_explained_as_over_http_1() {
    let backend = Backend::start(page("Cache-Control: max-age=1\r\n", "kept")).await;
    let (gateway, authority) = start(&backend, ROUTES).await;
    let client = connect(&gateway, &authority).await;
    assert_eq!(ask(&client, get("/kept"), b"").await.unwrap().body(), b"kept");
    backend.die().await;
    eventually("the copy is served", || async {
        let answer = ask(&client, get("/kept"), b"").await.unwrap();
        answer.status() == StatusCode::OK && answer.body() == b"kept"
    })
    .await;
    let failed = ask(&client, get("/other"), b"").await.unwrap();
    assert_eq!(failed.status(), StatusCode::BAD_GATEWAY);
    assert!(failed.headers()["proxy-status"].to_str().unwrap().contains("connection_refused"), "{failed:?}");
    let head = Request::head("https://site.test/kept").body(()).unwrap();
    let answer = ask(&client, head, b"").await.unwrap();
    assert_eq!((answer.status(), answer.body().len()), (StatusCode::OK, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_1_refuses_is_refused() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (gateway, authority) =
        start(&backend, &format!("limits: {{ max_uri_bytes: 100, max_body_bytes: 4 }}\n{ROUTES}")).await;
    let client = connect(&gateway, &authority).await;
    let status = |request: Request<()>, body| {
        let client = client.clone();
        async move { ask(&client, request, body).await.map_or(0, |answer| answer.status().as_u16()) }
    };
    let with =
        |name: &str, value: &str| Request::get("https://site.test/").header(name, value).body(()).unwrap();
    for (request, expected) in [
        (get(&format!("/{}", "x".repeat(200))), 414),
        (get("/..;/admin"), 400),
        (get("/a%"), 400),
        (Request::builder().method(Method::TRACE).uri("https://site.test/").body(()).unwrap(), 405),
        (with("host", "other.test"), 400),
        (with("content_length", "5"), 400),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(status(request, b"").await, expected, "{shown}");
    }
    let large = Request::post("https://site.test/").header("content-length", "8").body(()).unwrap();
    assert_eq!(status(large, b"too long").await, 413);
    assert_eq!(backend.requests(), 0);
    assert_eq!(status(get("/"), b"").await, 200, "the connection is none the worse");
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_the_clients_failure_and_a_reset_nobodys() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (gateway, authority) = start(&backend, ROUTES).await;
    let mut client = connect(&gateway, &authority).await;
    let (response, mut stream) =
        client.send_request(Request::post("https://site.test/").body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(b"begun"), false).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(gateway.metric("goodgate_attempt_failures_total").await, 0.0, "the backend is not to blame");
    backend.set(Act::Hang);
    let (response, mut stream) = client.send_request(get("/"), true).unwrap();
    eventually("it is with the backend", || async { backend.connections() >= 1 && backend.requests() >= 1 })
        .await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    eventually("it has left", || async { gateway.records().iter().any(|record| record["status"] == 499) })
        .await;
    assert_eq!(gateway.metric("goodgate_attempt_failures_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_goodbye_and_lets_what_is_under_way_end() {
    let backend = Backend::start(Act::Slow(Duration::from_millis(500), Box::new(Act::Answer(200)))).await;
    let (mut gateway, authority) = start(&backend, ROUTES).await;
    let client = connect(&gateway, &authority).await;
    let under_way = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, get("/"), b"").await.unwrap().status() }
    });
    eventually("it is with the backend", || async { backend.requests() == 1 }).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(under_way.await.unwrap(), StatusCode::OK);
    eventually("no new request is taken", || async { ask(&client, get("/"), b"").await.is_err() }).await;
    assert_eq!(gateway.ends(Duration::from_secs(5)).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_http2_are_mirrored_and_tied_to_backends_like_any_others() {
    let backend = Backend::start(Act::Answer(200)).await;
    let shadow = Backend::start(Act::Answer(200)).await;
    let more = format!(
        "  shadow: ['{}']\ndefaults: {{ upstream: {{ sticky: {{ cookie: gg }} }} }}\nroutes: [{{ upstream: app, mirror: {{ upstream: shadow }} }}]\n",
        shadow.address
    );
    let (gateway, authority) = start(&backend, &more).await;
    let client = connect(&gateway, &authority).await;
    let first = ask(&client, get("/a?b"), b"").await.unwrap();
    let cookie = first.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; Secure"), "{cookie}");
    let post = |length: Option<&str>| {
        let mut request = Request::post("https://site.test/order").header("cookie", "a=1");
        request = request.header("cookie", cookie.split(';').next().unwrap());
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        request.body(()).unwrap()
    };
    for (at, length) in [None, Some("5")].into_iter().enumerate() {
        let answer = ask(&client, post(length), b"hello").await.unwrap();
        assert_eq!((answer.status(), answer.headers().get("set-cookie")), (StatusCode::OK, None));
        let mirrored = "goodgate_mirrored_requests_total{result=\"ok\"}";
        eventually("it is mirrored", || async { gateway.metric(mirrored).await == at as f64 + 2.0 }).await;
    }
    for (head, copy) in backend.heads().iter().zip(shadow.heads()) {
        let lines = |head: &str| {
            // The copy of a request over HTTP/2 says 1.1.
            let mut lines: Vec<_> =
                head.lines().map(|line| line.to_lowercase().replace("via: 2", "via: 1.1")).collect();
            lines.sort();
            lines
        };
        assert_eq!(lines(head), lines(&copy));
        assert!(!copy.contains("gg="), "{copy}");
    }
    assert_eq!(backend.bodies(), shadow.bodies());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_is_refreshed_behind_a_client_over_http2() {
    let fields = "Cache-Control: max-age=1, stale-while-revalidate=60\r\n";
    let backend = Backend::start(page(fields, "news")).await;
    let (gateway, authority) =
        start(&backend, "routes: [{ upstream: app, cache: { mode: standard, use_stale: [updating] } }]\n")
            .await;
    let client = connect(&gateway, &authority).await;
    let get = || async {
        let request = Request::get("https://site.test/news").body(()).unwrap();
        ask(&client, request, b"").await.unwrap()
    };
    assert_eq!(get().await.status(), StatusCode::OK);
    eventually("it is refreshed", || async {
        assert_eq!(get().await.body(), b"news");
        backend.requests() > 1
    })
    .await;
    eventually("the copy is young again", || async {
        get().await.headers().get("age").is_some_and(|age| age == "0")
    })
    .await;
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
}

/// The fetch for all who wait comes in at the backend's pace, though the client who asked first takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_first_reader_holds_up_nobody() {
    let body = "0123456789".repeat(300_000);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let gate = crate::harness::backend::Gate::shut();
    let rest = Box::new(Act::Bytes(answer.into_bytes()));
    let backend = Backend::start(Act::Gated { first: Vec::new(), gate: gate.clone(), rest }).await;
    let (gateway, authority) = start(&backend, "routes: [{ upstream: app, cache: standard }]\n").await;
    let slow = connect(&gateway, &authority).await;
    let (answering, _stream) = slow.clone().ready().await.unwrap().send_request(get("/big"), true).unwrap();
    eventually("the slow one has asked", || async { backend.requests() == 1 }).await;
    let other = connect(&gateway, &authority).await;
    let others: Vec<_> = (0..3)
        .map(|_| {
            let other = other.clone();
            tokio::spawn(async move { ask(&other, get("/big"), b"").await.unwrap().into_body() })
        })
        .collect();
    gate.open();
    for other in others {
        let got = tokio::time::timeout(Duration::from_secs(5), other).await;
        let got = got.expect("nobody waits for the slow one").unwrap();
        assert!(got == body.as_bytes(), "{} bytes", got.len());
    }
    let mut rest = answering.await.unwrap().into_body();
    let mut got = 0;
    while let Some(part) = rest.data().await {
        let part = part.unwrap();
        rest.flow_control().release_capacity(part.len()).unwrap();
        got += part.len();
    }
    assert_eq!((got, backend.requests()), (body.len(), 1), "the slow one gets it all");
}

/// A client that never lets a byte of a response's body through.
async fn connect_without_window(gateway: &Gateway, authority: &Authority) -> SendRequest<Bytes> {
    let mut config = authority.client(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = shake_hands(gateway.address, &Arc::new(config), "site.test").await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0).initial_max_send_streams(100);
    let (client, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// Responses that have begun, and end with an error.
async fn stall(client: &SendRequest<Bytes>, count: usize) -> tokio::task::JoinSet<Option<h2::Reason>> {
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (response, _) = client.clone().ready().await.unwrap().send_request(get("/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        stalled
            .spawn(async move { body.data().await.and_then(Result::err).and_then(|error| error.reason()) });
    }
    stalled
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_responses_of_all_connections_are_bounded_and_the_oldest_are_reset() {
    let backend = Backend::start(page("Cache-Control: max-age=600\r\n", "a body that nobody takes")).await;
    let (gateway, authority) = start(&backend, "routes: [{ upstream: app, cache: standard }]\n").await;
    let mut clients = Vec::new();
    let mut resets = tokio::task::JoinSet::new();
    for _ in 0..7 {
        let client = connect_without_window(&gateway, &authority).await;
        let mut stalled = stall(&client, 100).await;
        resets.spawn(async move {
            let mut count = 0;
            // The rest stays open.
            let patience = Duration::from_secs(6);
            while let Ok(Some(reason)) = tokio::time::timeout(patience, stalled.join_next()).await {
                assert_eq!(reason.unwrap(), Some(h2::Reason::CANCEL));
                count += 1;
            }
            count
        });
        clients.push(client);
    }
    let counts = resets.join_all().await;
    let sum: usize = counts.iter().sum();
    assert!((188..=400).contains(&sum), "512 of 700 may stay: {counts:?}");
    let left = || async { gateway.metric("goodgate_client_connections{state=\"active\"}").await };
    eventually("no more than 512 are served", || async { left().await <= 512.0 }).await;
    let other = connect(&gateway, &authority).await;
    assert_eq!(ask(&other, get("/"), b"").await.unwrap().status(), StatusCode::OK);
    // A connection whose streams were reset goes on.
    let (response, _) = clients[0].clone().ready().await.unwrap().send_request(get("/"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_opens_its_window_is_cut_after_the_write_timeout() {
    let backend = Backend::start(page("", "a body that nobody takes")).await;
    let routes = "limits: { write_timeout: 1s }\nroutes: [{ upstream: app }]\n";
    let (gateway, authority) = start(&backend, routes).await;
    let client = connect_without_window(&gateway, &authority).await;
    let begun = Instant::now();
    let mut stalled = stall(&client, 10).await;
    while let Some(reason) = stalled.join_next().await {
        assert!(reason.unwrap().is_some());
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    eventually("each has its record", || async { gateway.records().len() == 10 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_over_http2_gives_way_to_another_client() {
    let backend = Backend::start(Act::Answer(200)).await;
    let limits = "limits: { max_connections: 2, keepalive_timeout: 60s }\nroutes: [{ upstream: app }]\n";
    let (gateway, authority) = start(&backend, limits).await;
    let (first, second) = (connect(&gateway, &authority).await, connect(&gateway, &authority).await);
    for client in [&first, &second] {
        assert_eq!(ask(client, get("/"), b"").await.unwrap().status(), StatusCode::OK);
    }
    let mut config = authority.client(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    eventually("there is a place for a third client", || async {
        shake_hands(gateway.address, &config, "site.test").await.is_ok()
    })
    .await;
    eventually("the one that was idle for longest is told to go", || async {
        first.clone().ready().await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_in_several_fields_reach_backends_in_one_of_the_usual_name() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (gateway, authority) = start(&backend, "routes: [{ upstream: app }]\n").await;
    let client = connect(&gateway, &authority).await;
    let request = Request::get("https://site.test/").header("cookie", "a=1").header("x-other", "b");
    let request = request.header("cookie", "b=2; c=3").body(()).unwrap();
    assert_eq!(ask(&client, request, b"").await.unwrap().status(), StatusCode::OK);
    let one = Request::get("https://site.test/").header("cookie", "a=1").body(()).unwrap();
    assert_eq!(ask(&client, one, b"").await.unwrap().status(), StatusCode::OK);
    let heads = backend.heads();
    assert!(heads[0].contains("\r\nCookie: a=1; b=2; c=3\r\n"), "{}", heads[0]);
    assert_eq!(heads[0].to_ascii_lowercase().matches("cookie").count(), 1);
    assert!(heads[0].contains("\r\nHost: site.test\r\n") && heads[0].contains("x-other: b"), "{}", heads[0]);
    assert!(heads[1].contains("\r\nCookie: a=1\r\n"), "{}", heads[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_reach_clients_before_the_final_one() {
    let links = "Link: </style.css>; rel=preload; as=style\r\nLink: </a.js>; rel=preload\r\n";
    let first = format!(
        "HTTP/1.1 103 Early Hints\r\n{links}Connection: link-other\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    );
    let backend = Backend::start(Act::Hang).await;
    for cache in ["off", "standard", "fallback"] {
        let (gateway, authority) =
            start(&backend, &format!("routes: [{{ upstream: app, cache: {cache} }}]\n")).await;
        let client = connect(&gateway, &authority).await;
        let (first, gate) = (first.clone().into_bytes(), Gate::shut());
        backend.set(Act::Gated { first, gate: gate.clone(), rest: Box::new(Act::Answer(200)) });
        let mut sent = Vec::new();
        for at in 0..3 {
            let request = Request::get(format!("https://site.test/{cache}/{at}"));
            // It is not for a client to say on which stream it is.
            let request = request.header("goodgate-stream", "1").body(()).unwrap();
            sent.push(client.clone().ready().await.unwrap().send_request(request, true).unwrap());
        }
        for (response, _) in &mut sent {
            for status in [103, 102] {
                let interim = std::future::poll_fn(|context| response.poll_informational(context));
                let interim =
                    tokio::time::timeout(Duration::from_secs(10), interim).await.expect("it comes before");
                let interim = interim.unwrap().unwrap();
                assert_eq!(interim.status(), status, "{cache}");
                assert_eq!(
                    interim.headers().get_all("link").iter().count(),
                    if status == 103 { 2 } else { 0 }
                );
            }
        }
        gate.open();
        for (response, _) in sent {
            assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        }
        assert!(backend.heads().iter().all(|head| !head.contains("goodgate-stream")));
    }
}
