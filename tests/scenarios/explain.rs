//! `goodgate explain` as somebody uses it who has nothing but a request id, and the API beneath it.

use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::harness::backend::{BlackHole, page};
use crate::harness::dns::{Dns, Zone};
use crate::harness::gateway::{BINARY, folder};
use crate::harness::programs::free_address;
use crate::harness::tls::{Authority, in_front_of, valid};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, backends, eventually, get_admin, request};
use crate::site;

const POST: &str = "POST /order HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";

fn id(answer: &Answer) -> String {
    answer.header("x-request-id").expect("a request id").to_owned()
}

/// What the command says of this answer, in one line, once the gateway has finished with it.
async fn story(gateway: &Gateway, answer: &Answer) -> String {
    let id = id(answer);
    let arguments = ["explain", &id, "--config"];
    let ask = || gateway.command(&arguments);
    eventually("the request is known", || async { ask().await.0 == 0 }).await;
    ask().await.1.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has(story: &str, all: &[&str]) {
    for wanted in all {
        assert!(story.contains(wanted), "{wanted:?} is not in the story:\n{story}");
    }
}

/// A gateway that the command finds by its file. Its access log is off.
async fn start(backends: &[&Backend], settings: &str, route: &str) -> Gateway {
    Gateway::start_listening(&site(backends, settings, route)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_backends_that_refuse() {
    let (a, b) = (Backend::refusing().await, Backend::refusing().await);
    let gateway = start(&[&a, &b], "    max_fails: 1\n", "").await;
    let told = story(&gateway, &gateway.get("/x").await).await;
    for backend in [&a, &b] {
        has(&told, &[&format!("{}: no connection was made. Failed after", backend.address)]);
        has(&told, &[&format!("{} is ejected for connection_refused", backend.address)]);
    }
    has(
        &told,
        &[
            "127.0.0.1 asked for GET test/x (HTTP/1.1).",
            "answered 502 by goodgate",
            "(nothing_sent): Nothing of the request had been sent",
            "(no_backend_left): Every backend has been tried. The setting is `upstreams.*.backends`.",
            "No copy: the route keeps none.",
            "nginx says: connect() failed (111: Connection refused) while connecting to upstream",
            "0 of 2 backends of `web` are in rotation",
            "(`ss -ltnp`)",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_another_backend_that_answered() {
    let (dead, good) = (Backend::refusing().await, Backend::start(Act::Answer(200)).await);
    let gateway = start(&[&dead, &good], "", "").await;
    let answers = [gateway.get("/").await, gateway.get("/").await];
    eventually("one is saved", || async { failures(&gateway, "").await.len() == 1 }).await;
    let saved = failures(&gateway, "").await[0]["request_id"].clone();
    let answer = answers.iter().find(|answer| saved == id(answer).as_str()).unwrap();
    let told = story(&gateway, answer).await;
    let by = format!("answered 200 by another attempt, at {},", good.address);
    has(&told, &[&by, "A retry: another backend had the answer.", "saw nothing of connection_refused"]);
    has(&told, &[&format!("No attempt at {} has gone well since the start and 1 failed", dead.address)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_a_connection_that_never_stands() {
    let hole = BlackHole::open().await;
    let config = format!(
        "upstreams:\n  web:\n    timeouts: {{ connect: 300ms }}\n    backends: ['{}']\nroutes:\n  - upstream: web\n",
        hole.address
    );
    let gateway = Gateway::start_listening(&config).await;
    let told = story(&gateway, &gateway.get("/").await).await;
    has(
        &told,
        &[
            "answered 504 by goodgate",
            &format!("{}: no connection was made. Failed after", hole.address),
            "connection_timeout",
            "`timeouts.connect` is 300 ms, and no connection to the upstream has ever stood.",
            "(`nc -vz ADDRESS PORT`)",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_a_kept_connection_that_died_under_a_post() {
    let backend = Backend::start(Act::Answer(200)).await;
    backend.close_idle_after(Duration::from_millis(400));
    let gateway = start(&[&backend], "    timeouts: { idle: 30s }\n", "").await;
    let learned = || async {
        gateway.get("/").await;
        // Not for luck: the backend closes meanwhile, and only two closes that are apart count.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let text = get_admin(gateway.admin, "/api/v1/backends").await.unwrap().text();
        !serde_json::from_str::<Value>(&text).unwrap()[0]["idle_close_ms"].is_null()
    };
    eventually("the idle limit is learned", learned).await;
    backend.close_idle_after(Duration::from_secs(60));
    backend.set(Act::AnswerOnce(200));
    let mut failed = None;
    // A POST that comes late, on a busy machine, takes a new connection, and that answers.
    while failed.is_none() {
        let mut client = Connection::open(gateway.address).await.unwrap();
        client.get("/").await.unwrap();
        client.send(POST).await.unwrap();
        failed = Some(client.answer(false).await.unwrap()).filter(|answer| answer.status == 502);
    }
    let answer = failed.unwrap();
    let told = story(&gateway, &answer).await;
    has(
        &told,
        &[
            &format!("{}: over a kept connection that had stood for", backend.address),
            "Failed after",
            "connection_terminated",
            "5 bytes of the request's body were sent.",
            "(not_replayable): The request may have been acted on",
            "`retry.replay: all` would allow it for POST",
            &format!("{} closes idle connections after", backend.address),
            "(seen); `timeouts.idle` is 30 s, but connections to it are retired before",
            "Let the backend keep idle connections longer",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_a_connection_race_that_was_won() {
    let backend = Backend::start(Act::AnswerOnce(200)).await;
    let gateway = start(&[&backend], "", "").await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    client.get("/").await.unwrap();
    let saved = client.get("/").await.unwrap();
    assert_eq!(saved.status, 200);
    let told = story(&gateway, &saved).await;
    has(&told, &["answered 200 over a new connection", "(connection_race): A kept connection had died"]);
    has(&told, &["The connection was replaced: the backend itself was well."]);
    has(&told, &["keeps idle connections is not known yet; `timeouts.idle` is"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_a_new_connection_that_was_closed() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = start(&[&backend], "    timeouts: { idle: 1ms }\n", "").await;
    gateway.get("/").await;
    backend.set(Act::Close);
    let told = story(&gateway, &gateway.get("/crash").await).await;
    has(
        &told,
        &[
            &format!("{}: over a new connection, made in", backend.address),
            "the request went out, and no usable response header came.",
            "upstream prematurely closed connection while reading response header from upstream",
            &format!("1 attempt at {} went well since the start, 1 failed.", backend.address),
            "The connection was new, so it is no idle limit",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_an_answer_that_came_too_late_and_what_is_usual() {
    let backend = Backend::start(Act::Slow(Duration::from_millis(60), Box::new(Act::Answer(200)))).await;
    let gateway = start(&[&backend], "    timeouts: { first_byte: 400ms }\n", "").await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    backend.set(Act::Hang);
    let told = story(&gateway, &gateway.get("/slow").await).await;
    has(
        &told,
        &[
            "answered 504 by goodgate after",
            &format!("{}: over a", backend.address),
            "http_response_timeout",
            "`timeouts.first_byte` is 400 ms; what was answered took about ",
            "at p99 (4 measurements since the start).",
            &format!("under way at {} now.", backend.address),
            "whether one path is slow or all are",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_what_is_no_http() {
    let backend = Backend::start(Act::BytesThenClose(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())).await;
    let gateway = start(&[&backend], "", "").await;
    let told = story(&gateway, &gateway.get("/").await).await;
    has(&told, &["http_protocol_error", "upstream sent invalid header while reading response header"]);
    has(&told, &[&format!("No attempt at {} has gone well since the start and 1 failed", backend.address)]);
    has(&told, &["(no_backend_left)", "curl -v --http1.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_a_header_over_the_limit_and_the_limit() {
    let large = format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(80 << 10));
    let backend = Backend::start(Act::Bytes(large.into_bytes())).await;
    let gateway = start(&[&backend], "", "").await;
    let told = story(&gateway, &gateway.get("/").await).await;
    has(&told, &["http_response_header_section_size", &backend.address.to_string(), "(no_backend_left)"]);
    has(&told, &["`limits.max_response_header_bytes` is 65536 bytes. Measure what the backend sends"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_an_answer_that_broke_off() {
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789".to_vec();
    let backend = Backend::start(Act::BytesThenClose(short)).await;
    let gateway = start(&[&backend], "", "").await;
    let answer = gateway.get("/").await;
    assert!(!answer.complete);
    let told = story(&gateway, &answer).await;
    has(
        &told,
        &[
            "The client was answered 200, but after",
            "10 bytes the answer broke off, because of http_response_incomplete.",
            "(bytes_out): The client has received the beginning of the answer.",
            "all that is honest then is to close its connection short of the end.",
            &format!("10 bytes of the body had come from {} when it ended", backend.address),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_errors_of_the_backend_and_who_sends_them() {
    let [a, b] = backends([Act::Answer(503), Act::Answer(503)]).await;
    let gateway = start(&[&a, &b], "", "").await;
    let told = story(&gateway, &gateway.get("/").await).await;
    for backend in [&a, &b] {
        has(&told, &[&format!("{} 1 time", backend.address)]);
    }
    has(
        &told,
        &["the backend's own answer, passed on as it is.", "received_503", "(replayable): The request may"],
    );
    has(&told, &["; it answered 503 after", "Among the requests kept, it came from 127.0.0.1:"]);
    for backend in [&a, &b] {
        backend.set(Act::Answer(500));
    }
    let told = story(&gateway, &gateway.get("/").await).await;
    has(
        &told,
        &["received_500", "`retry.on` and `fail_on` do not name it", "1 time; the upstream has 2 backends."],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_a_name_that_nobody_knows() {
    let dns = Dns::start(Zone::NoSuchName).await;
    let config = format!(
        "server: {{ resolver: ['{}'] }}\nupstreams:\n  web: ['missing.test:8080']\nroutes:\n  - upstream: web\n",
        dns.address
    );
    let gateway = Gateway::start_listening(&config).await;
    let told = story(&gateway, &gateway.get("/").await).await;
    has(
        &told,
        &[
            "Attempts None: no backend was asked.",
            "because of dns_error",
            "No attempt: there was no backend to ask.",
            "host not found in upstream",
            "Of `missing.test:8080`, a name has no address even now, and none is known",
            "(`getent hosts NAME`)",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_a_certificate_that_is_not_trusted() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (ours, other) = (Authority::new(), Authority::new());
    let address = in_front_of(backend.address, other.server(valid("app.test"))).await;
    let folder = folder();
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, ours.pem()).unwrap();
    let config = format!(
        "upstreams:\n  web:\n    backends: ['https://{address}']\n    tls: {{ sni: app.test, ca: {} }}\nroutes:\n  - upstream: web\n",
        ca.display()
    );
    let gateway = Gateway::start_listening(&config).await;
    let told = story(&gateway, &gateway.get("/").await).await;
    has(&told, &["tls_certificate_error (", "invalid peer certificate: ", "openssl s_client"]);
    has(
        &told,
        &[
            &format!("No attempt at {address} has gone well since the start and 1 failed"),
            "(no_backend_left)",
        ],
    );
    let _ = std::fs::remove_dir_all(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_a_copy_and_its_age() {
    let backend = Backend::start(page("", "plain")).await;
    let gateway = start(&[&backend], "    max_fails: 1\n", "    cache: fallback\n").await;
    gateway.get("/p").await;
    backend.die().await;
    let refused = story(&gateway, &gateway.get("/p").await).await;
    has(
        &refused,
        &["answered 200 from a copy that was", "saw nothing of connection_refused", "A stale copy:"],
    );
    let at_once = story(&gateway, &gateway.get("/p").await).await;
    has(
        &at_once,
        &[
            "Attempts None: no backend was asked.",
            "destination_unavailable",
            "0 of 1 backend of `web` is in rotation",
            &format!("({} is ejected for connection_refused)", backend.address),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_does_not_know_it_says_plainly() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = start(&[&backend], "", "").await;
    let good = id(&gateway.get("/").await);
    let (code, said) = gateway.command(&["explain", &good, "--config"]).await;
    assert_eq!(code, 1);
    has(&said, &[&format!("There is no record of request {good}."), "it went well"]);
    has(&said, &[&format!("jq 'select(.request_id == \"{good}\")' access.log")]);
    for hostile in ["a b", "\u{1b}]0;x\u{7}", "a\r\nX: y", "../../etc", "%00", &"x".repeat(5000), ""] {
        let (code, said) = gateway.command(&["explain", hostile, "--config"]).await;
        assert_eq!(code, 1, "{hostile:?}: {said}");
        assert!(said.starts_with("goodgate: request_id ") || hostile == "../../etc", "{hostile:?}: {said:?}");
        assert!(!said.chars().any(|letter| letter.is_control() && letter != '\n'), "{said:?}");
    }
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
}

/// The documents of `/api/v1/failures` for a query.
async fn failures(gateway: &Gateway, query: &str) -> Vec<Value> {
    let answer = get_admin(gateway.admin, &format!("/api/v1/failures{query}")).await.unwrap();
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    serde_json::from_str(&answer.text()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_and_has_the_documents_of_the_access_log() {
    let (dead, sick) = (Backend::refusing().await, Backend::start(Act::Close).await);
    let config = format!(
        "upstreams:\n  one: ['{}']\n  two: ['{}']\nroutes:\n  - {{ name: dead, match: {{ path: /dead }}, upstream: one }}\n  \
         - {{ name: sick/one, match: {{ path: /sick }}, upstream: two }}\n",
        dead.address, sick.address
    );
    let gateway = &Gateway::start(&config).await;
    // A record is made behind its answer: each is waited for, so that their order is known.
    let known = |count| async move { failures(gateway, "").await.len() == count };
    let first = gateway.get("/dead").await;
    eventually("the first is there", || known(1)).await;
    let second = gateway.get("/sick").await;
    eventually("the second is there", || known(2)).await;
    let third = gateway.get("/nowhere").await;
    eventually("the third is there", || known(3)).await;
    request(gateway.address, "BROKEN\r\n\r\n").await.unwrap();
    eventually("all are there", || known(4)).await;
    let newest_first: Vec<String> = failures(gateway, "")
        .await
        .iter()
        .map(|one| one["request_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(newest_first[1..], [id(&third), id(&second), id(&first)]);
    assert_eq!(failures(gateway, "?limit=1").await[0]["request_id"], newest_first[0].as_str());
    assert_eq!(failures(gateway, "?upstream=one").await, [gateway.record(&first).await]);
    assert_eq!(failures(gateway, "?cause=connection_terminated").await, [gateway.record(&second).await]);
    assert_eq!(failures(gateway, "?route=sick%2Fone&limit=5").await, [gateway.record(&second).await]);
    assert_eq!(failures(gateway, &format!("?request_id={}", id(&first))).await.len(), 1);
    assert_eq!(failures(gateway, "?upstream=none").await.len(), 2, "no route, no request");
    assert_eq!(failures(gateway, "?upstream=one&cause=connection_terminated").await.len(), 0);
    for (query, why) in [
        ("?color=red", "there is no parameter color; known are upstream, cause, route, request_id, limit"),
        ("?cause=boredom", "cause is one of dns_timeout, dns_error,"),
        ("?limit=100000", "limit is a number from 1 to 1000"),
        ("?request_id=a%0d%0ab", "request_id is the value of X-Request-Id"),
        ("?route=%ff%fe", "route is not percent-encoded UTF-8"),
        ("?route=a&route=b", "route is given twice"),
    ] {
        let answer = get_admin(gateway.admin, &format!("/api/v1/failures{query}")).await.unwrap();
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().starts_with(&format!("400: {why}")), "{query}: {}", answer.text());
    }
    let json = Command::new(BINARY)
        .args(["explain", &id(&first), "--json", "--address", &gateway.admin.to_string()])
        .output()
        .await
        .unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0], gateway.record(&first).await, "the command by the address alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_rescues_does_not_push_out_a_failure() {
    let backend = Backend::start(page("", "plain")).await;
    let gateway = start(&[&backend], "    max_fails: 1\n", "    cache: fallback\n").await;
    gateway.get("/p").await;
    backend.set(Act::Close);
    let failed = gateway.get("/not-kept").await;
    assert_eq!(failed.status, 502);
    backend.die().await;
    let mut clients = JoinSet::new();
    for _ in 0..10 {
        let address = gateway.address;
        clients.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            for _ in 0..500 {
                let answer = connection.get("/p").await.expect("an answer");
                assert_eq!(answer.status, 200);
                if answer.header("connection") == Some("close") {
                    connection = Connection::open(address).await.unwrap();
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let rescues = || async { gateway.metric("goodgate_rescues_total{by=\"stale\"}").await };
    eventually("all are counted", || async { rescues().await >= 5000.0 }).await;
    let all = get_admin(gateway.admin, "/api/v1/failures?limit=1000").await.unwrap();
    let kept: Vec<Value> = serde_json::from_str(&all.text()).unwrap();
    assert!(kept.len() > 20 && kept.len() <= 256, "{} are kept", kept.len());
    let skipped: u64 = all.header("goodgate-skipped").unwrap().parse().unwrap();
    assert!(skipped > 0 && skipped < 5000, "{skipped}");
    has(&story(&gateway, &failed).await, &["connection_terminated", "GET test/not-kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_survive_a_reload_but_not_the_end_of_their_upstream() {
    let (a, b) = (Backend::refusing().await, Backend::refusing().await);
    let two = format!(
        "upstreams:\n  one: ['{}']\n  two: ['{}']\nroutes:\n  - {{ match: {{ path: /one }}, upstream: one }}\n  - {{ upstream: two }}\n",
        a.address, b.address
    );
    let gateway = Gateway::start_listening(&two).await;
    let (stays, goes) = (gateway.get("/one").await, gateway.get("/two").await);
    has(&story(&gateway, &goes).await, &["its upstream `two`"]);
    gateway.rewrite(&format!("upstreams:\n  one: ['{}']\nroutes:\n  - upstream: one\n", a.address));
    gateway.reload("ok").await;
    has(&story(&gateway, &stays).await, &["its upstream `one`", &a.address.to_string()]);
    assert_eq!(gateway.command(&["explain", &id(&goes), "--config"]).await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_see_the_backends_may_not_see_the_failures() {
    let dead = Backend::refusing().await;
    let folder = folder();
    std::fs::write(folder.join("token"), "s3cret\n").unwrap();
    let port = free_address().port();
    let with = |admin: &str| {
        format!(
            "listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"0.0.0.0:{port}\"{admin} }}\naccess_log: {{ path: off }}\n{}",
            site(&[&dead], "", "")
        )
    };
    let paths = ["/api/v1/failures", "/api/v1/explain?request_id=x", "/api/v1/failures?limit=none"];
    let open = Gateway::start_in(folder.clone(), &with("")).await;
    for path in paths {
        assert_eq!(get_admin(open.admin, path).await.unwrap().status, 403, "{path}");
    }
    let address = format!("127.0.0.1:{port}");
    let (code, said) = open.command(&["explain", "x", "--address", &address, "--config"]).await;
    assert_eq!(code, 1);
    has(&said, &["wants its token: set admin.token_file"]);
    let (_, said) = open.command(&["explain", "x", "--config"]).await;
    has(&said, &["There is no record of request x"]);
    drop(open);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "s3cret\n").unwrap();
    let closed = Gateway::start_in(folder, &with(", token_file: token")).await;
    for path in paths {
        assert_eq!(get_admin(closed.admin, path).await.unwrap().status, 403, "{path}");
    }
    let told = story(&closed, &closed.get("/").await).await;
    has(&told, &["connection_refused", &dead.address.to_string()]);
    let without = Command::new(BINARY).args(["explain", "x", "--address", &address]).output().await.unwrap();
    assert!(!without.status.success(), "the token is not sent to any address");
    has(&String::from_utf8_lossy(&without.stderr), &["wants its token"]);
}
