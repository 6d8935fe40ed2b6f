//! Changes and purges are ordered against fetches in flight, and belong to the address and not to a route.

use crate::harness::backend::{Gate, page, response};
use crate::harness::gateway::folder;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, backends, eventually, request};
use crate::site;

const FRESH: &str = "Cache-Control: max-age=600\r\nETag: \"1\"\r\n";

async fn send(gateway: &Gateway, method: &str, target: &str) -> Answer {
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    let text = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{length}Connection: close\r\n\r\n");
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.send(text).await.unwrap();
    connection.answer(method == "HEAD").await.unwrap()
}

/// Begins a request whose response `act` gives once the gate is open; it has reached the backend.
async fn begin(
    gateway: &Gateway,
    backend: &Backend,
    head: &str,
    act: Act,
) -> (Gate, tokio::task::JoinHandle<Answer>) {
    let gate = Gate::shut();
    backend.set(Act::Gated { first: Vec::new(), gate: gate.clone(), rest: Box::new(act) });
    let (before, address) = (backend.requests(), gateway.address);
    let (is_head, head) = (head.starts_with("HEAD"), head.to_owned());
    let task = tokio::spawn(async move {
        let mut connection = Connection::open(address).await.unwrap();
        connection.send(head).await.unwrap();
        connection.answer(is_head).await.unwrap()
    });
    eventually("the request has reached the backend", || async { backend.requests() > before }).await;
    (gate, task)
}

fn get(fields: &str) -> String {
    format!("GET /page HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_was_asked_for_before_a_change_is_not_stored_as_fresh() {
    let large = "x".repeat(3 << 20);
    for (what, cache, body) in [
        ("in memory", "standard", "old"),
        ("keyed by a cookie", "{ mode: standard, key: { cookies: [lang] } }", "old"),
        ("on disk", "{ mode: standard, store: main }", large.as_str()),
    ] {
        let backend = Backend::start(Act::Answer(200)).await;
        let folder = folder();
        let config = format!(
            "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: off }}\n\
             caches: {{ main: {{ memory: 64MiB, max_object: 1MiB, disk: {{ path: disk, size: 64MiB, max_object: 32MiB }} }} }}\n{}",
            site(&[&backend], "", &format!("    cache: {cache}\n"))
        );
        let gateway = Gateway::start_in(folder, &config).await;
        let (gate, old) = begin(&gateway, &backend, &get("Cookie: lang=de\r\n"), page(FRESH, body)).await;
        backend.set(page("", "changed"));
        assert_eq!(send(&gateway, "POST", "/page").await.status, 200);
        gate.open();
        assert_eq!(old.await.unwrap().text(), body, "{what}");
        backend.set(page(FRESH, "new"));
        let ask = async || {
            let mut connection = Connection::open(gateway.address).await.unwrap();
            connection.get_with("/page", "Cookie: lang=de\r\n").await.unwrap().text()
        };
        for _ in 0..2 {
            assert_eq!(ask().await, "new", "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_or_a_head_from_before_a_change_does_not_make_the_response_fresh_again() {
    let not_modified = Act::Bytes(
        b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=600\r\nETag: \"1\"\r\n\r\n".to_vec(),
    );
    let head = Act::Bytes(
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"1\"\r\nContent-Length: 3\r\n\r\n".to_vec(),
    );
    let as_head = get("").replace("GET", "HEAD");
    for (request, act) in [(get("Cache-Control: no-cache\r\n"), not_modified), (as_head, head)] {
        let is_head = request.starts_with("HEAD");
        let backend = Backend::start(page(FRESH, "old")).await;
        let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
        assert_eq!(send(&gateway, "GET", "/page").await.text(), "old");
        let request = if is_head {
            request.replace("\r\n\r\n", "\r\nCache-Control: no-cache\r\n\r\n")
        } else {
            request
        };
        let (gate, task) = begin(&gateway, &backend, &request, act).await;
        backend.set(page("", "changed"));
        assert_eq!(send(&gateway, "POST", "/page").await.status, 200);
        gate.open();
        assert_eq!(task.await.unwrap().status, 200);
        backend.set(page(FRESH, "new"));
        assert_eq!(send(&gateway, "GET", "/page").await.text(), "new", "head: {is_head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_response_that_ends_later_does_not_replace_a_newer_one() {
    for cache in ["fallback", "{ mode: standard, last_good: true }"] {
        let backend = Backend::start(Act::Answer(200)).await;
        let gateway = Gateway::start(&site(&[&backend], "", &format!("    cache: {cache}\n"))).await;
        let (gate, old) = begin(&gateway, &backend, &get(""), page("", "older")).await;
        backend.set(page("", "newer"));
        assert_eq!(send(&gateway, "GET", "/page").await.text(), "newer");
        gate.open();
        assert_eq!(old.await.unwrap().text(), "older");
        backend.die().await;
        assert_eq!(send(&gateway, "GET", "/page").await.text(), "newer", "{cache}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_cached_response_whichever_route_or_share_it_takes() {
    let [read, write] = backends([page(FRESH, "one"), page("", "written")]).await;
    let upstreams = format!("upstreams: {{ read: ['{}'], write: ['{}'] }}\n", read.address, write.address);
    for (what, routes) in [
        (
            "a route of its own",
            "routes:\n  - { name: writes, upstream: write, match: { methods: [POST, DELETE] } }\n  - { name: reads, upstream: read, cache: standard }\n",
        ),
        (
            "a route with a cache of its own",
            "routes:\n  - { name: writes, upstream: write, match: { methods: [POST] }, cache: { mode: standard, store: other } }\n  - { name: reads, upstream: read, cache: { mode: standard, key: { query: none } } }\ncaches: { main: { memory: 16MiB }, other: { memory: 16MiB } }\n",
        ),
        (
            "a share",
            "routes:\n  - { upstream: read, cache: standard, split: { shares: { write: 50% }, by: 'header:X-Side' } }\n",
        ),
    ] {
        let gateway = Gateway::start(&(upstreams.clone() + routes)).await;
        read.set(page(FRESH, "one"));
        for _ in 0..2 {
            assert_eq!(send(&gateway, "GET", "/page").await.text(), "one", "{what}");
        }
        read.set(page(FRESH, "two"));
        let before = write.requests();
        for side in 0..20 {
            let text =
                format!("POST /page HTTP/1.1\r\nHost: test\r\nX-Side: {side}\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(request(gateway.address, &text).await.unwrap().status, 200);
            if write.requests() > before {
                break;
            }
            read.set(page(FRESH, "two"));
        }
        assert!(write.requests() > before, "{what}: the change has taken the other way");
        assert_eq!(send(&gateway, "GET", "/page").await.text(), "two", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_a_share_alone_puts_the_cached_response_out_of_date() {
    let [rest, share] = backends([page(FRESH, "one"), page("", "written")]).await;
    let config = format!(
        "upstreams: {{ rest: ['{}'], share: ['{}'] }}\nroutes:\n  - {{ upstream: rest, cache: standard, split: {{ shares: {{ share: 50% }}, by: 'header:X-Side' }} }}\n",
        rest.address, share.address
    );
    let gateway = Gateway::start(&config).await;
    let side = async |method: &str, side: u32| {
        let text =
            format!("{method} /page HTTP/1.1\r\nHost: test\r\nX-Side: {side}\r\nContent-Length: 0\r\n\r\n");
        request(gateway.address, &text).await.unwrap().text()
    };
    let mut of_share = 0;
    while side("DELETE", of_share).await != "written" {
        of_share += 1;
    }
    assert_eq!(send(&gateway, "GET", "/page").await.text(), "one");
    rest.set(page(FRESH, "two"));
    assert_eq!(send(&gateway, "GET", "/page").await.text(), "one", "it is cached");
    assert_eq!(side("DELETE", of_share).await, "written");
    assert_eq!(send(&gateway, "GET", "/page").await.text(), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_all_cached_responses_of_its_address() {
    let backend = Backend::start(Act::Reply(|head| {
        let lines: Vec<&str> = head.lines().collect();
        response(200, FRESH, &lines.join("|"), false)
    }))
    .await;
    let cache = "    cache: { mode: standard, key: { cookies: [lang], headers: [X-Keyed] } }\n";
    let config = "trusted_proxies: [127.0.0.1]\n".to_owned() + &site(&[&backend], "", cache);
    let gateway = Gateway::start(&config).await;
    let variants = [
        "",
        "Cookie: lang=de\r\n",
        "X-Keyed: 1\r\n",
        "X-Forwarded-Host: shop.test\r\n",
        "X-Forwarded-Proto: https\r\n",
    ];
    let ask = async |fields: &str| {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        connection.get_with("/page", fields).await.unwrap().header("cache-status").unwrap().to_owned()
    };
    for fields in variants {
        ask(fields).await;
        assert!(ask(fields).await.contains("; hit"), "{fields}");
    }
    assert_eq!(send(&gateway, "POST", "/page").await.status, 200);
    for fields in variants {
        assert!(ask(fields).await.contains("fwd=stale"), "{fields}");
        assert!(ask(fields).await.contains("; hit"), "{fields}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copying_to_an_address_puts_its_cached_response_out_of_date() {
    let backend = Backend::start(page(FRESH, "one")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    for destination in ["/page", "http://test/page", "http://TEST.:80/page"] {
        backend.set(page(FRESH, "one"));
        assert_eq!(send(&gateway, "GET", "/page").await.text(), "one");
        backend.set(page(FRESH, "two"));
        let text = format!("COPY /other HTTP/1.1\r\nHost: test\r\nDestination: {destination}\r\n\r\n");
        assert_eq!(request(gateway.address, &text).await.unwrap().status, 200);
        assert_eq!(send(&gateway, "GET", "/page").await.text(), "two", "{destination}");
        backend.set(page(FRESH, "one"));
        assert_eq!(send(&gateway, "POST", "/page").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_purge_reaches_a_backend_of_a_split_or_misses_a_route_by_its_method() {
    let [one, two] = backends([page(FRESH, "page"), page("", "share")]).await;
    for route in [
        "  - { upstream: one, cache: { mode: standard, purge: { allow: [127.0.0.1] } }, split: { shares: { two: 50% } } }\n",
        "  - { upstream: one, match: { methods: [GET] }, cache: { mode: standard, purge: { allow: [127.0.0.1] } } }\n  - { upstream: two }\n",
    ] {
        let config =
            format!("upstreams: {{ one: ['{}'], two: ['{}'] }}\nroutes:\n{route}", one.address, two.address);
        let gateway = Gateway::start(&config).await;
        for _ in 0..20 {
            let answer = send(&gateway, "PURGE", "/page").await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "purged (soft): url test/page\n"),
                "{route}"
            );
        }
        for backend in [&one, &two] {
            assert!(backend.heads().iter().all(|head| !head.starts_with("PURGE")), "{route}");
        }
        let hit = async || {
            send(&gateway, "GET", "/page")
                .await
                .header("cache-status")
                .is_some_and(|status| status.contains("hit"))
        };
        eventually("the page is cached", hit).await;
        assert_eq!(send(&gateway, "PURGE", "/page").await.status, 200);
        let mut is_asked = false;
        for _ in 0..4 {
            let status = send(&gateway, "GET", "/page").await;
            is_asked |= status.header("cache-status").is_some_and(|status| status.contains("fwd=stale"));
        }
        assert!(is_asked, "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn purges_and_changes_name_a_host_in_any_form() {
    let backend = Backend::start(page(FRESH, "page")).await;
    let cache = "    cache: { mode: standard, purge: { allow: [127.0.0.1] } }\n";
    let gateway = Gateway::start(&site(&[&backend], "", cache)).await;
    let status = async |method: &str, host: &str| {
        let text = format!("{method} /page HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = request(gateway.address, &text).await.unwrap();
        answer.header("cache-status").unwrap_or_default().to_owned()
    };
    for host in ["test", "test:80", "test.", "TEST.:80"] {
        status("GET", "test").await;
        assert!(status("GET", host).await.contains("; hit"), "{host}");
        for method in ["PURGE", "DELETE"] {
            status("GET", "test").await;
            status(method, host).await;
            let expected = if method == "DELETE" { "fwd=uri-miss" } else { "fwd=stale" };
            assert!(status("GET", "test").await.contains(expected), "{method} {host}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_waited_for_a_fetch_from_before_a_change_gets_a_response_from_after_it() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    let (gate, old) = begin(&gateway, &backend, &get(""), page(FRESH, "old")).await;
    backend.set(page("", "changed"));
    assert_eq!(send(&gateway, "POST", "/page").await.status, 200);
    backend.set(page(FRESH, "new"));
    let address = gateway.address;
    let waiting = tokio::spawn(async move { crate::harness::get(address, "/page").await.unwrap() });
    // Longer than a failed refresh is remembered.
    tokio::time::sleep(std::time::Duration::from_millis(1300)).await;
    gate.open();
    assert_eq!(old.await.unwrap().text(), "old");
    assert_eq!(waiting.await.unwrap().text(), "new");
    assert_eq!(send(&gateway, "GET", "/page").await.text(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_under_every_form_of_the_address_that_its_response_names() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    for (location, target) in [
        ("?page=2", "/list?page=2"),
        ("/%C3%BC", "/%C3%BC"),
        ("/\u{fc}", "/%C3%BC"),
        ("/a?q=\u{fc}", "/a?q=%C3%BC"),
        ("/a?q=<x>", "/a?q=%3Cx%3E"),
        ("next?u=http://x", "/next?u=http://x"),
        ("http://TEST.:080/b", "/b"),
    ] {
        backend.set(page(FRESH, "old"));
        assert_eq!(send(&gateway, "GET", target).await.text(), "old", "{location}");
        backend.set(page(&format!("Location: {location}\r\n"), "changed"));
        assert_eq!(send(&gateway, "POST", "/list").await.status, 200);
        backend.set(page(FRESH, "new"));
        assert_eq!(send(&gateway, "GET", target).await.text(), "new", "{location}");
        assert_eq!(send(&gateway, "DELETE", target).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_began_before_a_reload_reaches_the_routes_after_it() {
    let backend = Backend::start(page(FRESH, "old")).await;
    let config = |cache: &str| site(&[&backend], "", &format!("    cache: {cache}\n"));
    let gateway = Gateway::start(&config("off")).await;
    let post = "POST /page HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n";
    let (gate, change) = begin(&gateway, &backend, post, page("", "changed")).await;
    gateway.write_config(&config("standard"));
    gateway.reload("ok").await;
    backend.set(page(FRESH, "old"));
    assert_eq!(send(&gateway, "GET", "/page").await.text(), "old");
    gate.open();
    assert_eq!(change.await.unwrap().text(), "changed");
    backend.set(page(FRESH, "new"));
    assert_eq!(send(&gateway, "GET", "/page").await.text(), "new");
}
