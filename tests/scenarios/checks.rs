//! What health checks ask, where, and how often: of their answers `health` tells.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::backend::{page, response};
use crate::harness::client::get_admin;
use crate::harness::programs::free_address;
use crate::harness::tls::{Authority, in_front_of, valid};
use crate::harness::{Act, Backend, Gateway, backends, eventually, request};
use crate::site;

async fn becomes(gateway: &Gateway, backend: &Backend, state: &str) {
    eventually(&format!("{} is {state}", backend.address), || async {
        gateway.state(backend.address).await == state
    })
    .await;
}

/// A backend of an upstream as the API shows it.
async fn row(gateway: &Gateway, upstream: &str, backend: &Backend) -> Value {
    let answer = get_admin(gateway.admin, "/api/v1/backends").await.unwrap();
    let rows: Vec<Value> = serde_json::from_str(&answer.text()).unwrap();
    let address = backend.address.to_string();
    let is_meant = |row: &Value| row["address"] == address.as_str() && row["upstream"] == upstream;
    rows.into_iter().find(is_meant).expect("the API shows it")
}

fn check(what: &str) -> String {
    format!(
        "    health_check: {{ {what}, interval: 50ms, interval_down: 50ms, timeout: 1s, rise: 1, fall: 1 }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_asks_with_its_method_and_fields() {
    fn only_as_told(head: &str) -> String {
        let lower = head.to_ascii_lowercase();
        let is_told = head.starts_with("POST /health HTTP/1.1\r\n")
            && lower.contains("authorization: bearer x\r\n")
            && lower.contains("user-agent: probe\r\n")
            && lower.contains("content-length: 0\r\n");
        response(if is_told { 200 } else { 500 }, "", "", false)
    }
    fn only_head(head: &str) -> String {
        response(if head.starts_with("HEAD ") { 204 } else { 500 }, "", "", true)
    }
    let told =
        "http: { path: /health, method: POST, headers: { Authorization: 'Bearer x', user-agent: probe } }";
    for (reply, what) in [
        (only_as_told as fn(&str) -> String, told),
        (only_head as fn(&str) -> String, "http: { path: /health, method: HEAD }"),
    ] {
        let backend = Backend::start(Act::Reply(reply)).await;
        let gateway = Gateway::start(&site(&[&backend], &check(what), "")).await;
        let passed = || gateway.metric("goodgate_health_checks_total{result=\"ok\"}");
        eventually("checks pass", || async { passed().await >= 3.0 }).await;
        assert_eq!(gateway.state(backend.address).await, "up", "{what}");
        assert_eq!(gateway.metric("goodgate_health_checks_total{result=\"received_500\"}").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_an_expected_field_is_another_service() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    a.set_on("/health", page("X-Service: cache\r\nX-Service: shop\r\n", ""));
    b.set_on("/health", page("X-Service: shop2\r\n", ""));
    let what = "http: { path: /health, expect_headers: { x-service: shop } }";
    let gateway = Gateway::start(&site(&[&a, &b], &check(what), "")).await;
    becomes(&gateway, &b, "down").await;
    assert_eq!(gateway.state(a.address).await, "up");
    assert!(gateway.metric("goodgate_health_checks_total{result=\"http_protocol_error\"}").await >= 1.0);
    b.set_on("/health", page("X-Service: shop\r\n", ""));
    becomes(&gateway, &b, "up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_held_against_a_pattern() {
    let backend = Backend::start(Act::Answer(200)).await;
    let what = r#"http: { path: /health, expect_body: db, expect_body_regex: '"db":\s*"(ok|warn)"' }"#;
    let far = format!("{}\"db\": \"ok\"", "x".repeat(70_000));
    backend.set_on("/health", page("", "{\"db\":  \"ok\"}"));
    let gateway = Gateway::start(&site(&[&backend], &check(what), "")).await;
    for (body, state) in [
        ("{\"db\":  \"warn\"}", "up"),
        ("{\"db\": \"down\"}", "down"),
        ("{\"db\":\"ok\"}", "up"),
        (far.as_str(), "down"),
        ("db or \"db\":\"warn\"", "up"),
    ] {
        backend.set_on("/health", page("", body));
        becomes(&gateway, &backend, state).await;
    }
    // Byte by byte is as good.
    let slow = response(200, "", "{\"db\":\"ok\"}", false).into_bytes();
    backend.set_on("/health", Act::Drip(slow, Duration::from_millis(1)));
    let passed = || gateway.metric("goodgate_health_checks_total{result=\"ok\"}");
    let before = passed().await;
    eventually("it passes", || async { passed().await >= before + 2.0 }).await;
    assert_eq!(gateway.state(backend.address).await, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_may_go_without_tls_where_requests_go_with_it_and_the_other_way_round() {
    let backend = Backend::start(Act::Answer(200)).await;
    let authority = Authority::new();
    let folder = crate::harness::gateway::folder();
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let ca = ca.display();
    let front = in_front_of(backend.address, authority.server(valid("app.test"))).await;
    let plain = backend.address;
    let rest = "interval: 50ms, interval_down: 50ms, rise: 1, fall: 1";
    let http = "http: { path: /health }";
    let config = format!(
        "upstreams:\n  \
         tls: {{ backends: ['{front}'], tls: {{ ca: {ca}, sni: app.test }}, health_check: {{ {http}, port: {}, tls: false, {rest} }} }}\n  \
         plain: {{ backends: ['{plain}'], health_check: {{ {http}, port: {}, tls: {{ ca: {ca}, sni: app.test }}, {rest} }} }}\n  \
         stranger: {{ backends: ['{plain}'], health_check: {{ {http}, port: {}, tls: {{ ca: {ca}, sni: other.test }}, {rest} }} }}\n  \
         anybody: {{ backends: ['{plain}'], health_check: {{ {http}, port: {}, tls: {{ verify: off }}, {rest} }} }}\n  \
         untrusted: {{ backends: ['{plain}'], health_check: {{ {http}, port: {}, tls: true, {rest} }} }}\n\
         routes:\n  - {{ match: {{ path: /tls }}, upstream: tls }}\n  - {{ upstream: plain }}\n",
        plain.port(),
        front.port(),
        front.port(),
        front.port(),
        front.port(),
    );
    let gateway = Gateway::start(&config).await;
    let result = |upstream: &str, result: &str| {
        let series = format!("goodgate_health_checks_total{{result=\"{result}\",upstream=\"{upstream}\"}}");
        let gateway = &gateway;
        async move { gateway.metric(&series).await }
    };
    for (upstream, expected, never) in [
        ("tls", "ok", "http_protocol_error"),
        ("plain", "ok", "tls_certificate_error"),
        ("anybody", "ok", "tls_certificate_error"),
        ("stranger", "tls_certificate_error", "ok"),
        ("untrusted", "tls_certificate_error", "ok"),
    ] {
        eventually(&format!("{upstream} is checked"), || async { result(upstream, expected).await >= 3.0 })
            .await;
        assert_eq!(result(upstream, never).await, 0.0, "{upstream}");
    }
    for path in ["/tls", "/"] {
        assert_eq!(gateway.get(path).await.status, 200);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_upstreams_with_the_same_backends_and_check_probe_each_backend_once() {
    let [a, b, alone] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let upstream = |name: &str, fall: u32, list: &str| {
        format!(
            "  {name}: {{ backends: [{list}], max_fails: 0, health_check: {{ http: {{ path: /health }}, interval: 50ms, interval_down: 50ms, rise: 1, fall: {fall} }} }}\n"
        )
    };
    let both = format!("'{}', '{}'", a.address, b.address);
    let config = |names: &[(&str, u32)]| {
        let shared: String = names.iter().map(|(name, fall)| upstream(name, *fall, &both)).collect();
        let alone = upstream("alone", 1, &format!("'{}'", alone.address));
        format!("upstreams:\n{shared}{alone}routes:\n  - upstream: one\n")
    };
    let gateway = Gateway::start(&config(&[("one", 1), ("two", 1), ("three", 1000)])).await;
    eventually("there were many probes", || async { alone.requests() >= 40 }).await;
    for backend in [&a, &b] {
        assert!(
            backend.requests() <= alone.requests() * 3 / 2,
            "{} of {}",
            backend.requests(),
            alone.requests()
        );
    }
    let ok = |name: &str| {
        let series = format!("goodgate_health_checks_total{{result=\"ok\",upstream=\"{name}\"}}");
        let gateway = &gateway;
        async move { gateway.metric(&series).await }
    };
    for name in ["one", "two", "three"] {
        assert!(ok(name).await >= 40.0, "each hears of it: {}", ok(name).await);
    }
    a.set(Act::Answer(500));
    for name in ["one", "two"] {
        eventually("it is down", || async { row(&gateway, name, &a).await["state"] == "down" }).await;
    }
    assert_eq!(row(&gateway, "three", &a).await["state"], "up", "its own fall is a thousand");
    // Who comes by a reload gets the results, too, and who goes takes nothing away.
    gateway.write_config(&config(&[("one", 1), ("new", 1)]));
    gateway.reload("ok").await;
    eventually("it is down there", || async { row(&gateway, "new", &a).await["state"] == "down" }).await;
    a.set(Act::Answer(200));
    for name in ["one", "new"] {
        eventually("it is back", || async { row(&gateway, name, &a).await["state"] == "up" }).await;
    }
    let (shared, single) = (a.requests(), alone.requests());
    eventually("there were more probes", || async { alone.requests() >= single + 40 }).await;
    let (shared, single) = (a.requests() - shared, alone.requests() - single);
    assert!(shared <= single * 3 / 2, "{shared} of {single}");
}

/// The probe of the one that hangs is under way for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_hangs_delays_no_check_of_another() {
    let [hanging, dying, good] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    hanging.set_on("/health", Act::Hang);
    let what = "    max_fails: 0\n    health_check: { http: { path: /health }, interval: 200ms, timeout: 1m, fall: 2 }\n";
    let gateway = Gateway::start(&site(&[&hanging, &dying, &good], what, "")).await;
    let asked = || good.heads().iter().filter(|head| head.starts_with("GET /health ")).count();
    eventually("the others are checked again and again", || async { asked() >= 3 }).await;
    let expected = row(&gateway, "web", &good).await["next_probe_s"].as_f64().unwrap();
    assert!((0.0..=0.22).contains(&expected), "{expected}");
    dying.die().await;
    let died = Instant::now();
    becomes(&gateway, &dying, "down").await;
    assert!(died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
    assert_eq!(gateway.state(hanging.address).await, "up", "nothing is known of it yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_has_its_backend_probed_while_another_hangs() {
    let [hanging, dying, good] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    hanging.set_on("/health", Act::Hang);
    let what =
        "    max_fails: 0\n    health_check: { http: { path: /health }, interval: 10m, timeout: 1m }\n";
    let gateway = Gateway::start(&site(&[&hanging, &dying, &good], what, "")).await;
    eventually("both are probed", || async { dying.requests() > 0 && good.requests() > 0 }).await;
    dying.die().await;
    let died = Instant::now();
    while gateway.state(dying.address).await != "down" {
        assert_eq!(gateway.get("/").await.status, 200);
        assert!(died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_an_operator_disables_in_one_upstream_is_probed_for_the_other() {
    let backend = Backend::start(Act::Answer(200)).await;
    let health =
        "health_check: { http: { path: /health }, interval: 50ms, interval_down: 50ms, rise: 1, fall: 1 }";
    let address = backend.address;
    let folder = crate::harness::gateway::folder();
    std::fs::write(folder.join("token"), "s3cret\n").unwrap();
    let config = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0', token_file: token }}\naccess_log: {{ path: off }}\nupstreams:\n  one: {{ backends: ['{address}'], {health} }}\n  two: {{ backends: ['{address}'], {health} }}\nroutes:\n  - upstream: one\n"
    );
    let gateway = Gateway::start_in(folder, &config).await;
    let ok = |name: &str| {
        let series = format!("goodgate_health_checks_total{{result=\"ok\",upstream=\"{name}\"}}");
        let gateway = &gateway;
        async move { gateway.metric(&series).await }
    };
    let order = |action: &str| {
        let (form, admin) = (format!("upstream=one&backend={address}&action={action}"), gateway.admin);
        async move {
            let text = format!(
                "POST /api/v1/backends HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer s3cret\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
                form.len()
            );
            assert_eq!(request(admin, &text).await.unwrap().status, 200);
        }
    };
    eventually("both hear of it", || async { ok("one").await >= 2.0 && ok("two").await >= 2.0 }).await;
    order("disable").await;
    eventually("only the other hears of it", || async {
        let (one, two) = (ok("one").await, ok("two").await);
        eventually("there are more", || async { ok("two").await >= two + 5.0 }).await;
        ok("one").await == one
    })
    .await;
    order("enable").await;
    let before = ok("one").await;
    eventually("both hear of it again", || async { ok("one").await >= before + 2.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_64_checks_of_a_backend_are_shown_with_their_causes() {
    let [a, mut b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let (shown, good) = (b.address, a.address);
    let what = "    max_fails: 0\n    health_check: { http: { path: /health }, interval: 30ms, interval_down: 30ms, rise: 1, fall: 1 }\n";
    let folder = crate::harness::gateway::folder();
    let [listener, admin] = [free_address(), free_address()];
    let gateway = Gateway::start_in(
        folder.clone(),
        &format!(
            "listeners: [{{ address: '{listener}' }}]\nadmin: {{ address: '{admin}' }}\naccess_log: {{ path: off }}\n{}",
            site(&[&a, &b], what, "")
        ),
    )
    .await;
    let of = |backend: std::net::SocketAddr| async move {
        let path = format!("/api/v1/probes?upstream=web&backend={backend}");
        let answer = get_admin(admin, &path).await.unwrap();
        let shown: Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(shown[0]["address"], backend.to_string());
        shown[0]["probes"].as_array().unwrap().clone()
    };
    eventually("64 are kept, and no more", || async { of(good).await.len() == 64 }).await;
    for probe in of(good).await {
        assert_eq!((&probe["result"], &probe["status"]), (&"ok".into(), &200.into()), "{probe}");
        assert!(probe["took_ms"].as_f64().unwrap() > 0.0, "{probe}");
    }
    let ages: Vec<f64> = of(good).await.iter().map(|probe| probe["ago_s"].as_f64().unwrap()).collect();
    assert!(ages.is_sorted(), "the newest first: {ages:?}");
    b.set(Act::Answer(503));
    becomes(&gateway, &b, "down").await;
    eventually("the status is shown", || async {
        let probe = of(shown).await[0].clone();
        probe["result"] == "received_503" && probe["status"] == 503
    })
    .await;
    let (code, text) = gateway.command(&["backends", "--config"]).await;
    assert!(code == 0 && text.contains(&format!("web {shown}: last health check ")), "{text}");
    assert!(text.contains("s ago: received_503 (status 503) after "), "{text}");
    assert_eq!(row(&gateway, "web", &b).await["last_probe"]["result"], "received_503");
    b.die().await;
    eventually("nobody is there", || async {
        let probe = of(shown).await[0].clone();
        probe["result"] == "connection_refused" && probe["status"].is_null()
    })
    .await;
    // The story of a request that found nobody tells it, too.
    a.die().await;
    becomes(&gateway, &a, "down").await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502);
    let id = answer.header("x-request-id").unwrap().to_owned();
    eventually("the story tells it", || async {
        let story = get_admin(admin, &format!("/api/v1/explain?request_id={id}")).await.unwrap().text();
        let flat = story.split_whitespace().collect::<Vec<_>>().join(" ");
        flat.contains("is down by its health check (the last one, ")
            && flat.contains(" ago: connection_refused after ")
    })
    .await;
    b.revive().await;
    for (query, why) in [
        ("", "upstream is needed"),
        ("?upstream=web", "backend is needed"),
        ("?upstream=x&backend=y", "there is no upstream x"),
        ("?upstream=web&backend=1.2.3.4:5", "web has no backend 1.2.3.4:5"),
        ("?upstream=web&limit=1", "there is no parameter limit"),
    ] {
        let answer = get_admin(admin, &format!("/api/v1/probes{query}")).await.unwrap();
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(why), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_answered_with_interim_responses_without_end_fails() {
    let [good, bad] = backends([Act::Answer(200), Act::Answer(200)]).await;
    good.set_on(
        "/health",
        Act::BytesThenClose(
            [
                b"HTTP/1.1 102 Processing\r\n\r\n".repeat(32),
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
            ]
            .concat(),
        ),
    );
    bad.set_on("/health", Act::Storm(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec()));
    let gateway = Gateway::start(&site(&[&good, &bad], &check("http: { path: /health }"), "")).await;
    becomes(&gateway, &bad, "down").await;
    assert!(gateway.metric("goodgate_health_checks_total{result=\"http_protocol_error\"}").await >= 1.0);
    assert_eq!(gateway.metric("goodgate_health_checks_total{result=\"http_response_timeout\"}").await, 0.0);
    assert_eq!(gateway.state(good.address).await, "up");
}
