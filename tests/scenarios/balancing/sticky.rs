//! Clients that are tied to a backend by a cookie.

use super::{from, held, send_all};
use crate::harness::backend::{Gate, page};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, backends, eventually};
use crate::site;

const STICKY: &str = "    sticky: { cookie: gg_app }\n    max_fails: 1\n    fail_timeout: 60s\n";

/// The cookie that an answer sets, as a request sends it.
fn cookie(answer: &Answer) -> Option<String> {
    let set = answer.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))?;
    Some(set.1.split(';').next().unwrap().to_owned())
}

async fn get(gateway: &Gateway, path: &str, cookie: &str) -> Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.get_with(path, &format!("Cookie: {cookie}\r\n")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_stays_where_it_was_first_and_the_backend_sees_no_cookie() {
    let [a, b, c] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let all = [&a, &b, &c];
    let gateway = Gateway::start(&site(&all, STICKY, "")).await;
    let first = gateway.get("/").await;
    let tied = cookie(&first).expect("a cookie");
    let whole = first.header("set-cookie").unwrap();
    assert!(whole.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{whole}");
    assert_eq!(first.header("cache-control"), Some("private"));
    let value = tied.strip_prefix("gg_app=").unwrap();
    assert!(value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
    for _ in 0..10 {
        let answer = get(&gateway, "/", &format!("a=1; {tied}; b=2")).await;
        assert_eq!((from(&answer), cookie(&answer)), (from(&first), None));
        assert_eq!(answer.header("cache-control"), None);
    }
    get(&gateway, "/", &tied).await;
    let heads: Vec<String> = all.iter().flat_map(|backend| backend.heads()).collect();
    assert!(heads.iter().all(|head| !head.contains("gg_app")), "{heads:?}");
    assert_eq!(heads.iter().filter(|head| head.contains("Cookie: a=1; b=2\r\n")).count(), 10);
    assert_eq!(heads.iter().filter(|head| head.to_lowercase().contains("cookie:")).count(), 10);
    let ports: std::collections::HashSet<u16> =
        [gateway.get("/").await, gateway.get("/").await, gateway.get("/").await].iter().map(from).collect();
    assert_eq!(ports.len(), 3, "those without a cookie take turns");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_backend_dies_a_client_is_answered_and_tied_elsewhere_in_one() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let gateway = Gateway::start(&site(&[&a, &b], STICKY, "")).await;
    let first = gateway.get("/").await;
    let tied = cookie(&first).unwrap();
    let (bound, other) = if from(&first) == a.address.port() { (&a, &b) } else { (&b, &a) };
    bound.die().await;
    let moved = get(&gateway, "/", &tied).await;
    assert_eq!((moved.status, from(&moved)), (200, other.address.port()));
    let next = cookie(&moved).expect("a new cookie");
    assert_ne!(next, tied);
    let rescues = "goodgate_rescues_total{by=\"retry\"}";
    eventually("the client never saw it", || async { gateway.metric(rescues).await == 1.0 }).await;
    assert_eq!(cookie(&get(&gateway, "/", &next).await), None, "it holds");
    // Whoever still has the old one is moved as well, without an attempt at the dead backend.
    let late = get(&gateway, "/", &tied).await;
    assert_eq!((late.status, cookie(&late)), (200, Some(next)));
    assert_eq!(gateway.metric("goodgate_retries_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_moves_when_its_backend_is_full_or_has_left_the_configuration() {
    let gate = Gate::shut();
    let [a, b] = backends([held(&gate), held(&gate)]).await;
    let entries = |limit| {
        format!(
            "upstreams:\n  web:\n    sticky: {{ cookie: gg }}\n    backends: [{{ address: {}, max_conns: {limit} }}, {}]\nroutes: [{{ upstream: web }}]\n",
            a.address, b.address
        )
    };
    let gateway = Gateway::start(&entries(1)).await;
    let mut sent = send_all(&gateway, &["/"; 2], &[&a, &b]).await;
    gate.open();
    let mut answers = Vec::new();
    for connection in &mut sent {
        answers.push(connection.answer(false).await.unwrap());
    }
    let of = |backend: &Backend| {
        let answer = answers.iter().find(|answer| from(answer) == backend.address.port()).unwrap();
        cookie(answer).unwrap()
    };
    let (tied_to_a, tied_to_b) = (of(&a), of(&b));
    let gate = Gate::shut();
    a.set(held(&gate));
    let before = a.requests();
    let mut waiting = Connection::open(gateway.address).await.unwrap();
    waiting.send(format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {tied_to_a}\r\n\r\n")).await.unwrap();
    eventually("a is full", || async { a.requests() > before }).await;
    let moved = get(&gateway, "/", &tied_to_a).await;
    assert_eq!((moved.status, cookie(&moved)), (200, Some(tied_to_b.clone())));
    gate.open();
    assert_eq!(cookie(&waiting.answer(false).await.unwrap()), None);
    gateway.write_config(&entries(1).replace(&format!("{{ address: {}, max_conns: 1 }}, ", a.address), ""));
    gateway.reload("ok").await;
    assert_eq!(cookie(&get(&gateway, "/", &tied_to_a).await), Some(tied_to_b.clone()), "a has left");
    assert_eq!(cookie(&get(&gateway, "/", &tied_to_b).await), None, "b has the name that it had");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_the_cookie_is_for_https_only() {
    let backend = Backend::start(Act::Answer(200)).await;
    let config = format!("trusted_proxies: [127.0.0.1]\n{}", site(&[&backend], STICKY, ""));
    let gateway = Gateway::start(&config).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let answer = connection.get_with("/", "X-Forwarded-Proto: https\r\n").await.unwrap();
    assert!(answer.header("set-cookie").unwrap().ends_with("; HttpOnly; SameSite=Lax; Secure"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_has_the_cookie_and_the_cookie_keeps_nobody_from_a_copy() {
    for (cache, fresh) in [("standard", "Cache-Control: max-age=60\r\n"), ("fallback", "")] {
        let [a, b] = backends([page(fresh, "page"), page(fresh, "page")]).await;
        let route = format!("    cache: {cache}\n");
        let gateway = Gateway::start(&site(&[&a, &b], STICKY, &route)).await;
        let first = gateway.get("/page").await;
        let tied = cookie(&first).expect("who asked is tied");
        assert!(first.headers.iter().any(|(_, value)| value == "private"), "{first:?}");
        if cache == "fallback" {
            a.die().await;
            b.die().await;
        }
        for fields in [String::new(), format!("Cookie: {tied}\r\n")] {
            let mut connection = Connection::open(gateway.address).await.unwrap();
            let copy = connection.get_with("/page", &fields).await.unwrap();
            assert_eq!((copy.status, copy.text().as_str(), cookie(&copy)), (200, "page", None), "{copy:?}");
            assert!(copy.headers.iter().all(|(_, value)| value != "private"), "{copy:?}");
        }
        assert_eq!(a.requests() + b.requests(), 1, "{cache}: all the others got the copy");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_of_its_own_the_cookie_outlives_a_restart_and_another_key_does_not() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let start = async |secret: &str| {
        let file = std::env::temp_dir().join(format!("goodgate-key-{}-{secret}", std::process::id()));
        std::fs::write(&file, secret).unwrap();
        let settings = format!("    sticky: {{ cookie: gg, ttl: 1h, key_file: {} }}\n", file.display());
        let gateway = Gateway::start(&site(&[&a, &b], &settings, "")).await;
        std::fs::remove_file(file).unwrap();
        gateway
    };
    let one = start("0123456789abcdef0123456789abcdef").await;
    let first = one.get("/").await;
    let tied = cookie(&first).unwrap();
    assert!(first.header("set-cookie").unwrap().ends_with("; Max-Age=3600"));
    drop(one);
    let two = start("0123456789abcdef0123456789abcdef").await;
    for _ in 0..4 {
        let answer = get(&two, "/", &tied).await;
        assert_eq!((from(&answer), cookie(&answer)), (from(&first), None));
    }
    let other = start("another-secret-of-some-length").await;
    assert!(cookie(&get(&other, "/", &tied).await).is_some_and(|cookie| cookie != tied));
}
