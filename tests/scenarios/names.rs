//! Backends written as names: their addresses come and go, and DNS may fail.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::backend::{Gate, backends_on_one_port};
use crate::harness::client::get_admin;
use crate::harness::dns::{Dns, Record, Zone};
use crate::harness::{Act, Backend, Gateway, Load, eventually, request};

/// A site whose one backend is a name, looked up at this server.
fn site(dns: &Dns, port: u16) -> String {
    format!(
        "server: {{ resolver: [\"{}\"] }}\nupstreams:\n  web: ['app.test:{port}']\nroutes:\n  - upstream: web\n",
        dns.address
    )
}

fn ip(backend: &Backend) -> Ipv4Addr {
    match backend.address.ip() {
        std::net::IpAddr::V4(ip) => ip,
        std::net::IpAddr::V6(ip) => panic!("{ip}"),
    }
}

fn zone(backends: &[&Backend]) -> Zone {
    Zone::Addresses(backends.iter().map(|backend| ip(backend)).collect(), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_addresses_of_a_name_are_backends() {
    let [a, b, c] = backends_on_one_port([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let dns = Dns::start(zone(&[&a, &b, &c])).await;
    let gateway = Gateway::start(&site(&dns, a.address.port())).await;
    for _ in 0..9 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!([a.requests(), b.requests(), c.requests()], [3, 3, 3]);
    for backend in [&a, &b, &c] {
        assert_eq!(gateway.state(backend.address).await, "up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_moves_loses_no_request() {
    let act = Act::Slow(Duration::from_millis(5), Box::new(Act::Answer(200)));
    let [mut a, b, c] = backends_on_one_port([act.clone(), act.clone(), act]).await;
    let dns = Dns::start(zone(&[&a])).await;
    let gateway = Gateway::start(&site(&dns, a.address.port())).await;
    let load = Load::start(
        gateway.address,
        8,
        |client, at| format!("/{client}/{at}"),
        |_, answer| answer.status == 200,
    );
    load.more(50).await;
    assert_eq!(b.requests(), 0);
    dns.set(zone(&[&b]));
    let moved = Instant::now();
    eventually("requests follow", || async { b.requests() > 0 }).await;
    assert!(moved.elapsed() < Duration::from_secs(3), "{:?} with a TTL of 1 s", moved.elapsed());
    assert_eq!(gateway.state(a.address).await, "absent");
    // What was under way on the old address finishes; then nothing goes there any more.
    let before = a.requests();
    load.more(50).await;
    assert!(a.requests() <= before + 8, "{} after {before}", a.requests());
    a.die().await;
    load.more(50).await;
    dns.set(zone(&[&b, &c]));
    eventually("the third joins", || async { c.requests() > 0 }).await;
    a.revive().await;
    dns.set(zone(&[&a, &c]));
    let (old, count) = (a.requests(), b.requests());
    eventually("the first is back and the second gone", || async {
        a.requests() > old && gateway.state(b.address).await == "absent"
    })
    .await;
    assert!(b.requests() >= count);
    load.stop().await.assert_good();
    assert_eq!(gateway.metric("goodgate_dns_stale").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_dns_falls_silent_the_last_addresses_stay() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let dns = Dns::start(zone(&[&a, &b])).await;
    let gateway = Gateway::start(&site(&dns, a.address.port())).await;
    let load = Load::start(
        gateway.address,
        4,
        |client, at| format!("/{client}/{at}"),
        |_, answer| answer.status == 200,
    );
    for silence in [Zone::Silence, Zone::NoSuchName, Zone::Addresses(Vec::new(), 1)] {
        dns.set(silence.clone());
        eventually(&format!("{silence:?}: it is told"), || async {
            gateway.metric("goodgate_dns_stale").await == 1.0
        })
        .await;
        let seen = [a.requests(), b.requests()];
        load.more(50).await;
        assert!(a.requests() > seen[0] && b.requests() > seen[1], "{silence:?}: both go on");
        dns.set(zone(&[&a, &b]));
        eventually("all is well again", || async { gateway.metric("goodgate_dns_stale").await == 0.0 }).await;
    }
    load.stop().await.assert_good();
    assert!(gateway.errors().contains("name does not resolve"), "{}", gateway.errors());
    let failed = gateway.metric("goodgate_dns_lookups_total{result=\"dns_timeout\"}").await;
    assert!(failed >= 1.0, "silence is counted as such: {failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_does_not_prevent_the_start() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(Zone::NoSuchName).await;
    let gateway = Gateway::start(&site(&dns, backend.address.port())).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.header("proxy-status").unwrap().contains("error=dns_error"), "{answer:?}");
    assert_eq!(gateway.record(&answer).await["cause"], "dns_error");
    let counted = || async {
        gateway.metric("goodgate_gateway_errors_total{cause=\"dns_error\",status=\"502\"}").await
    };
    eventually("it is counted", || async { counted().await == 1.0 }).await;
    let in_rotation = "goodgate_upstream_backends_in_rotation{upstream=\"web\"}";
    let zero = format!("{in_rotation} 0\n");
    assert!(gateway.metrics().await.contains(&zero), "an upstream without addresses has none in rotation");
    dns.set(zone(&[&backend]));
    eventually("it works once the name resolves", || async { gateway.get("/").await.status == 200 }).await;
    assert_eq!(gateway.metric(in_rotation).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_dns_at_the_start_is_a_timeout_and_holds_up_nothing_for_long() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(Zone::Silence).await;
    let start = Instant::now();
    let gateway = Gateway::start(&site(&dns, backend.address.port())).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let answer = gateway.get("/").await;
    assert!([502, 504].contains(&answer.status), "{answer:?}");
    eventually("the cause is known", || async {
        let answer = gateway.get("/").await;
        answer.status == 504 && answer.header("proxy-status").unwrap().contains("error=dns_timeout")
    })
    .await;
    dns.set(zone(&[&backend]));
    eventually("it works once the name resolves", || async { gateway.get("/").await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_not_looked_up_on_the_request_path() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(Zone::Addresses(vec![ip(&backend)], 60)).await;
    let gateway = Gateway::start(&site(&dns, backend.address.port())).await;
    let before = dns.asked();
    for _ in 0..100 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let asked = dns.asked() - before;
    assert!(asked <= 4, "{asked} lookups for 100 requests within the TTL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_addresses_while_dns_is_silent() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(zone(&[&backend])).await;
    let config = site(&dns, backend.address.port());
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/").await.status, 200);
    dns.set(Zone::Silence);
    gateway.write_config(&(config + "    timeout: 9s\n"));
    gateway.reload("ok").await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_has_the_name_looked_up_at_once() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let dns = Dns::start(Zone::Addresses(vec![ip(&a)], 60)).await;
    let gateway = Gateway::start(&site(&dns, a.address.port())).await;
    assert_eq!(gateway.get("/").await.status, 200);
    dns.set(Zone::Addresses(vec![ip(&b)], 60));
    a.kill();
    let moved = Instant::now();
    eventually("requests follow", || async { gateway.get("/").await.status == 200 }).await;
    assert!(moved.elapsed() < Duration::from_secs(5), "{:?} with a TTL of 60 s", moved.elapsed());
    assert_eq!(b.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_that_finds_the_only_address_dead_waits_for_the_lookup_that_it_sets_off() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let dns = Dns::start(Zone::Addresses(vec![ip(&a)], 3600)).await;
    let gateway = Gateway::start(&site(&dns, a.address.port())).await;
    assert_eq!(gateway.get("/").await.status, 200);
    // The last lookup must be a second old for another one to be made.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    dns.set(Zone::Addresses(vec![ip(&b)], 3600));
    a.die().await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, b.requests()), (200, 1));
    let record = gateway.record(&answer).await;
    assert_eq!(record["rescue"]["by"], "retry", "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_is_not_answered_holds_a_failed_request_up_for_a_moment_only() {
    let [a, _b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let dns = Dns::start(Zone::Addresses(vec![ip(&a)], 3600)).await;
    let gateway = Gateway::start(&site(&dns, a.address.port())).await;
    assert_eq!(gateway.get("/").await.status, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    dns.set(Zone::Silence);
    a.die().await;
    let began = Instant::now();
    assert_eq!(gateway.get("/").await.status, 502);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leaves_ends_what_is_under_way_and_keeps_no_idle_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dns = Dns::start(Zone::Addresses(vec![Ipv4Addr::LOCALHOST], 1)).await;
    let (gate, ended) = (Gate::shut(), tokio::sync::mpsc::unbounded_channel());
    let (end, mut ended) = ended;
    let opening = gate.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (gate, end) = (opening.clone(), end.clone());
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if buffer.starts_with(b"GET /slow") {
                        gate.passed().await;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                }
                end.send(()).unwrap();
            });
        }
    });
    let gateway = Gateway::start(&site(&dns, port)).await;
    let address = gateway.address;
    let slow = tokio::spawn(async move { crate::harness::get(address, "/slow").await });
    eventually("it is under way", || async {
        gateway.metric("goodgate_backend_requests_in_flight").await == 1.0
    })
    .await;
    assert_eq!(gateway.get("/").await.status, 200);
    dns.set(Zone::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2)], 1));
    let limit = Duration::from_secs(10);
    let closed = tokio::time::timeout(limit, ended.recv()).await;
    assert_eq!(closed, Ok(Some(())), "the idle one is closed long before its limit of a minute");
    assert_eq!(gateway.state(format!("127.0.0.1:{port}")).await, "absent");
    assert!(ended.try_recv().is_err(), "the other one is at work");
    gate.open();
    assert_eq!(slow.await.unwrap().unwrap().text(), "ok");
    let closed = tokio::time::timeout(limit, ended.recv()).await;
    assert_eq!(closed, Ok(Some(())), "and is not kept either");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_come_and_go_with_reloads_lose_no_request() {
    let [a, b, c] = backends_on_one_port([const { Act::Answer(200) }; 3]).await;
    let dns = Dns::start(zone(&[&a, &b])).await;
    let config = site(&dns, a.address.port());
    let gateway = Gateway::start(&config).await;
    let load = Load::start(gateway.address, 4, |_, at| format!("/{at}"), |_, answer| answer.status == 200);
    let plain = config.replace("app.test", "127.0.0.3");
    let other = config.replace("app.test", "other.test");
    let both = config.replace("web: [", &format!("web: ['{}', ", c.address));
    for config in [&plain, &other, &both, &config, &plain, &config] {
        load.more(30).await;
        gateway.write_config(config);
        gateway.reload("ok").await;
    }
    load.more(30).await;
    assert_eq!(gateway.state(c.address).await, "absent");
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sticky_client_whose_address_leaves_is_tied_to_another_one() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let dns = Dns::start(zone(&[&a])).await;
    let port = a.address.port();
    let config = format!(
        "server: {{ resolver: ['{}'] }}\nupstreams:\n  web: {{ sticky: {{ cookie: gg }}, backends: ['app.test:{port}'] }}\n\
         routes:\n  - upstream: web\n",
        dns.address
    );
    let gateway = Gateway::start(&config).await;
    let first = gateway.get("/").await;
    let tie = |answer: &crate::harness::Answer| {
        answer.header("set-cookie").and_then(|cookie| cookie.split(';').next()).map(str::to_owned)
    };
    let cookie = tie(&first).expect("a cookie");
    dns.set(zone(&[&b]));
    eventually("it has moved", || async { gateway.state(a.address).await == "absent" }).await;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
    let answer = request(gateway.address, &head).await.unwrap();
    assert_eq!((answer.status, b.requests()), (200, 1));
    assert!(tie(&answer).is_some_and(|new| new != cookie), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_name_servers_are_asked_from_the_reload_on() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let (old, new) = (Dns::start(Zone::Addresses(vec![ip(&a)], 60)).await, Dns::start(zone(&[&b])).await);
    let gateway = Gateway::start(&site(&old, a.address.port())).await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.write_config(&site(&new, a.address.port()));
    gateway.reload("ok").await;
    eventually("the answer of the new one holds", || async {
        gateway.get("/").await.status == 200 && b.requests() > 0
    })
    .await;
    assert!(!gateway.errors().contains("only after a restart"), "{}", gateway.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_holds_within_the_bounds_that_the_upstream_sets() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let long = Dns::start(Zone::Addresses(vec![ip(&a)], 600)).await;
    let short = Dns::start(Zone::Addresses(vec![ip(&a)], 1)).await;
    let port = a.address.port();
    let upstream = |dns: &Dns, bounds: &str| {
        format!("{{ backends: ['app.test:{port}'], dns: {{ resolver: ['{}'], {bounds} }} }}", dns.address)
    };
    let gateway = Gateway::start(&format!(
        "upstreams:\n  clock: {}\n  slow: {}\nroutes:\n  - upstream: clock\n  - {{ upstream: slow, match: {{ path: /slow }} }}\n",
        upstream(&long, "ttl_max: 1s"),
        upstream(&short, "ttl_min: 1h, ttl_max: 2h"),
    ))
    .await;
    let asked = short.asked();
    long.set(Zone::Addresses(vec![ip(&b)], 600));
    short.set(Zone::Addresses(vec![ip(&b)], 1));
    eventually("a TTL of ten minutes is cut to a second", || async {
        gateway.get("/").await.status == 200 && b.requests() > 0
    })
    .await;
    let at_b = b.requests();
    assert_eq!(gateway.get("/slow").await.status, 200);
    assert_eq!((b.requests(), short.asked()), (at_b, asked), "a TTL of a second is stretched to an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_never_answered_holds_up_no_other() {
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let dns = Dns::start(zone(&[&a])).await;
    let port = a.address.port();
    let config = site(&dns, port).replace("web: [", &format!("web: ['silent.test:{port}', "));
    let gateway = Gateway::start(&config).await;
    eventually("the first has an address", || async { gateway.get("/").await.status == 200 }).await;
    for (there, gone) in [(&b, &a), (&a, &b), (&b, &a)] {
        dns.set(zone(&[there]));
        let moved = Instant::now();
        eventually("it is followed", || async { gateway.state(gone.address).await == "absent" }).await;
        assert!(moved.elapsed() < Duration::from_secs(3), "{:?} with a TTL of 1 s", moved.elapsed());
        assert_eq!(gateway.state(there.address).await, "up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_about_ipv6_does_not_hold_back_addresses_of_ipv4_and_a_late_answer_is_added() {
    let backend = Backend::start(Act::Answer(200)).await;
    let only = Zone::Only(vec![Record::a(ip(&backend))], 60);
    let dns = Dns::start(only).await;
    let start = Instant::now();
    let gateway = Gateway::start(&site(&dns, backend.address.port())).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert!(start.elapsed() < Duration::from_millis(1800), "{:?}", start.elapsed());
    // The query that is repeated after a while is answered.
    dns.set(Zone::Records(vec![Record::a(ip(&backend)), Record::aaaa("::1".parse().unwrap())], 60));
    eventually("both families are known", || async {
        get_admin(gateway.admin, "/api/v1/names").await.unwrap().text().contains("[::1]")
    })
    .await;
    assert_eq!(gateway.state(backend.address).await, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_does_not_understand_edns_is_asked_without_it() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(Zone::WithoutEdns(vec![ip(&backend)])).await;
    let gateway = Gateway::start(&site(&dns, backend.address.port())).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_addresses_of_a_name_leave_in_time_although_a_lookup_hangs() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(zone(&[&backend])).await;
    let config = site(&dns, backend.address.port());
    let config = config.replace(
        &format!("['app.test:{}']", backend.address.port()),
        &format!("{{ backends: ['app.test:{}'], dns: {{ keep: 1s, ttl_max: 1s }} }}", backend.address.port()),
    );
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/").await.status, 200);
    // The first failure is quick, the next lookup hangs.
    dns.set(Zone::NoSuchName);
    eventually("lookups fail", || async { gateway.errors().contains("name does not resolve") }).await;
    let start = Instant::now();
    dns.set(Zone::Silence);
    eventually("the addresses leave", || async { gateway.get("/").await.status != 200 }).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
