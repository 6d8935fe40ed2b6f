//! The cache judges the request that the backend receives, not the one that the client sends.

use std::sync::Arc;

use crate::harness::backend::{page, response};
use crate::harness::gateway::folder;
use crate::harness::tls::{Authority, shake_hands, valid};
use crate::harness::{Act, Backend, Connection, Gateway, backends, eventually, request};
use crate::site;

/// The value of a request field as the backend has received it.
fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let is_it = |line: &&str| line.split(':').next().is_some_and(|other| other.eq_ignore_ascii_case(name));
    head.lines().find(is_it).and_then(|line| line.split_once(':')).map_or("none", |(_, value)| value.trim())
}

/// A page that shows the field which its path names (`/vary/NAME` varies by it, `/show/NAME` does not).
fn showing(head: &str) -> String {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default();
    let vary = if path.starts_with("/vary") { format!("Vary: {name}\r\n") } else { String::new() };
    response(200, &format!("Cache-Control: max-age=600\r\n{vary}"), field(head, name), false)
}

async fn ask(gateway: &Gateway, target: &str, fields: &str) -> String {
    let answer = Connection::open(gateway.address).await.unwrap().get_with(target, fields).await.unwrap();
    assert_eq!(answer.status, 200, "{target} {fields:?}: {answer:?}");
    answer.text()
}

async fn cached(backends: &[&Backend], before: &str, cache: &str) -> Gateway {
    Gateway::start(&(before.to_owned() + &site(backends, "", &format!("    cache: {cache}\n")))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_a_client_certificate_is_never_served_to_another_client() {
    for mode in ["fallback", "{ mode: standard, last_good: true }"] {
        let backend = Backend::start(Act::Reply(|head| {
            response(200, "", &format!("page of {}", field(head, "Client-Cert")), false)
        }))
        .await;
        let (authority, folder) = (Authority::new(), folder());
        authority.write(&folder, "site", valid("site.test"));
        std::fs::write(folder.join("clients.pem"), authority.pem()).unwrap();
        let text = format!(
            "listeners: [{{ address: '127.0.0.1:0', tls: {{ certificates: [{{ cert: site.crt, key: site.key }}], \
             client_ca: clients.pem, client_auth: optional }} }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
             access_log: {{ path: off }}\nupstreams: {{ app: ['{}'] }}\nroutes: [{{ upstream: app, cache: {mode} }}]\n",
            backend.address
        );
        let gateway = Gateway::start_in(folder, &text).await;
        let clients = [Some(valid("alice.test")), Some(valid("bob.test")), None];
        let clients = clients.map(|client| Arc::new(authority.client(client)));
        let ask = async |client: &Arc<_>| {
            let stream = shake_hands(gateway.address, client, "site.test").await.unwrap();
            Connection::open_tls(stream).get("/me").await.unwrap()
        };
        assert!(ask(&clients[0]).await.text().starts_with("page of :"), "{mode}");
        backend.die().await;
        for client in &clients {
            assert_eq!(ask(client).await.status, 502, "{mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_told_apart_by_fields_that_the_gateway_adds_changes_or_removes() {
    let backend = Backend::start(Act::Reply(showing)).await;
    let route = "    cache: standard\n    request_headers:\n      set: { X-Address: '{client_ip}', X-Same: same }\n      remove: [X-Gone]\n";
    let config = "trusted_proxies: [127.0.0.1]\n".to_owned() + &site(&[&backend], "", route);
    let gateway = Gateway::start(&config).await;
    for (name, one, other) in [
        ("x-forwarded-for", "X-Forwarded-For: 10.0.0.1\r\n", "X-Forwarded-For: 10.0.0.2\r\n"),
        ("x-forwarded-host", "X-Forwarded-Host: a\r\n", "X-Forwarded-Host: b\r\n"),
        ("x-forwarded-proto", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Proto: https\r\n"),
        ("x-address", "X-Forwarded-For: 10.0.0.1\r\n", "X-Forwarded-For: 10.0.0.2\r\n"),
        ("x-forwarded-prefix", "X-Forwarded-Prefix: /a\r\n", "X-Forwarded-Prefix: /b\r\n"),
    ] {
        let target = format!("/vary/{name}");
        let shown = [ask(&gateway, &target, one).await, ask(&gateway, &target, other).await];
        assert_ne!(shown[0], shown[1], "{name}");
        assert_eq!([ask(&gateway, &target, one).await, ask(&gateway, &target, other).await], shown, "{name}");
    }
    for (name, shown) in
        [("x-same", "same"), ("x-gone", "none"), ("x_forwarded_for", "none"), ("connection", "none")]
    {
        let target = format!("/vary/{name}");
        let requests = backend.requests();
        for value in ["1", "2"] {
            assert_eq!(ask(&gateway, &target, &format!("{name}: {value}\r\n")).await, shown, "{name}");
        }
        assert_eq!(backend.requests(), requests + 1, "the backend gets the same request twice: {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_varies_by_a_field_of_each_request_is_not_stored() {
    let backend = Backend::start(Act::Reply(showing)).await;
    let gateway = cached(&[&backend], "", "standard").await;
    for name in ["x-request-id", "traceparent"] {
        let target = format!("/vary/{name}");
        let before = backend.requests();
        let _ = ask(&gateway, &target, "").await;
        let _ = ask(&gateway, &target, "").await;
        assert_eq!(backend.requests(), before + 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nominated_field_is_in_no_key_and_no_variant() {
    let backend = Backend::start(Act::Reply(showing)).await;
    let gateway =
        cached(&[&backend], "", "{ mode: standard, key: { headers: [X-Keyed], cookies: [lang] } }").await;
    for (name, value) in [("accept-language", "de"), ("x-keyed", "evil"), ("cookie", "lang=evil")] {
        for target in [format!("/vary/{name}"), format!("/show/{name}")] {
            if target == "/show/accept-language" {
                continue;
            }
            let nominated = format!("Connection: {name}\r\n{name}: {value}\r\n");
            assert_eq!(ask(&gateway, &target, &nominated).await, "none");
            let honest = format!("{name}: {value}\r\n");
            let shown = ask(&gateway, &target, &honest).await;
            assert!(shown == value || target.starts_with("/vary/cookie"), "{target}: {shown}");
            assert_eq!(ask(&gateway, &target, "").await, "none", "{target}");
        }
    }
    // A nominated credential neither reaches the backend nor makes the request a personal one.
    let target = "/show/authorization";
    let credential = "Authorization: Basic eA==\r\n";
    assert_eq!(ask(&gateway, target, credential).await, "Basic eA==");
    assert_eq!(ask(&gateway, target, &format!("Connection: authorization\r\n{credential}")).await, "none");
    assert_eq!(ask(&gateway, target, "").await, "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_a_backend_may_read_as_a_keyed_one_reaches_no_other_client() {
    let backend = Backend::start(Act::Reply(showing)).await;
    let cache = "{ mode: standard, key: { cookies: [lang] }, cookies: { ignore: [other] } }";
    let gateway = cached(&[&backend], "", cache).await;
    let evil =
        ["lang =evil", "LANG=evil", "other=1,lang=evil", "other=\"x; lang=evil", "l%61ng=evil", "lang"];
    for (at, cookie) in evil.into_iter().enumerate() {
        let target = format!("/{at}/cookie");
        assert_eq!(ask(&gateway, &target, &format!("Cookie: {cookie}\r\n")).await, cookie);
        assert_eq!(ask(&gateway, &target, "").await, "none");
        assert_eq!(ask(&gateway, &target, "Cookie: lang=de\r\n").await, "lang=de");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_body_is_neither_stored_nor_answered_from_the_cache() {
    for mode in ["standard", "fallback"] {
        let backend = Backend::start(Act::Reply(showing)).await;
        let gateway = cached(&[&backend], "", mode).await;
        for (at, body) in
            ["Content-Length: 4\r\n\r\nevil", "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"]
                .iter()
                .enumerate()
        {
            let ask = async |method: &str, rest: &str| {
                let text = format!("{method} /{at}/x HTTP/1.1\r\nHost: test\r\n{rest}");
                request(gateway.address, &text).await.unwrap()
            };
            let before = backend.requests();
            assert_eq!(ask("GET", body).await.status, 200);
            assert_eq!(ask("GET", "\r\n").await.status, 200);
            assert_eq!(ask("GET", body).await.status, 200);
            assert_eq!(backend.requests(), before + 3, "{mode}: each of them is forwarded");
        }
        backend.die().await;
        let with_body = "GET /0/x HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(request(gateway.address, with_body).await.unwrap().status, 502, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_a_backend_may_read_as_a_keyed_one_reaches_no_other_client() {
    let backend = Backend::start(Act::Reply(|head| {
        response(200, "Cache-Control: max-age=600\r\n", head.lines().next().unwrap(), false)
    }))
    .await;
    let gateway = cached(&[&backend], "", "{ mode: standard, key: { query: { only: [page_id] } } }").await;
    for evil in ["page.id=evil", "page%5fid=evil", "x[]=1&page_id[=evil", "x=1;page_id=evil", "+page_id=evil"]
    {
        assert!(ask(&gateway, &format!("/?{evil}"), "").await.contains(evil), "{evil}");
        assert!(!ask(&gateway, "/", "").await.contains("evil"), "{evil}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_proxy_forwards_is_in_the_key() {
    let backend = Backend::start(Act::Reply(showing)).await;
    let gateway = cached(&[&backend], "trusted_proxies: [127.0.0.1]\n", "standard").await;
    for name in ["X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Port", "X-Original-Host", "Forwarded"]
    {
        let target = format!("/show/{}", name.to_ascii_lowercase());
        for value in ["host=a", "host=b"] {
            assert_eq!(ask(&gateway, &target, &format!("{name}: {value}\r\n")).await, value, "{name}");
        }
    }
    // A scheme that cannot be read is neither passed on nor believed.
    assert_eq!(ask(&gateway, "/show/x-forwarded-proto", "X-Forwarded-Proto: evil\r\n").await, "http");
    // An address alone does not split the cache.
    let before = backend.requests();
    for address in ["10.0.0.1", "10.0.0.2"] {
        let _ = ask(
            &gateway,
            "/show/accept",
            &format!("X-Forwarded-For: {address}\r\nForwarded: for={address}\r\n"),
        )
        .await;
    }
    assert_eq!(backend.requests(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_frameworks_obey_are_removed_or_keyed() {
    let names = [
        "X-Host",
        "X-Original-Host",
        "X-HTTP-Host-Override",
        "X-URL-Scheme",
        "Front-End-Https",
        "True-Client-IP",
        "X-Client-IP",
        "CF-Connecting-IP",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "X-Original-URL",
        "Forwarded",
    ];
    let backend = Backend::start(Act::Reply(showing)).await;
    let gateway = cached(&[&backend], "", "standard").await;
    for name in names {
        let target = format!("/show/{}", name.to_ascii_lowercase());
        assert_eq!(ask(&gateway, &target, &format!("{name}: evil\r\n")).await, "none", "{name}");
    }
    let passed = format!("    cache: standard\n    pass_headers: [{}]\n", names.join(", "));
    let gateway = Gateway::start(&site(&[&backend], "", &passed)).await;
    for name in names {
        let target = format!("/show/{}", name.to_ascii_lowercase());
        assert_eq!(ask(&gateway, &target, &format!("{name}: evil\r\n")).await, "evil", "{name}");
        assert_eq!(ask(&gateway, &target, "").await, "none", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_behind_the_client_sends_what_the_key_says() {
    let backend =
        Backend::start(page("Cache-Control: max-age=0, stale-while-revalidate=60\r\n", "page")).await;
    let gateway = cached(&[&backend], "trusted_proxies: [127.0.0.1]\n", "standard").await;
    let fields = "X-Forwarded-Host: shop.test\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /a\r\n\
                  X-Forwarded-For: 10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n";
    let _ = ask(&gateway, "/", fields).await;
    let _ = ask(&gateway, "/", fields).await;
    eventually("the refresh has reached the backend", || async { backend.requests() >= 2 }).await;
    let heads = backend.heads();
    for (name, value) in
        [("x-forwarded-host", "shop.test"), ("x-forwarded-proto", "https"), ("x-forwarded-prefix", "/a")]
    {
        assert_eq!((field(&heads[0], name), field(&heads[1], name)), (value, value), "{name}");
    }
    for name in ["x-forwarded-for", "x-real-ip"] {
        assert_eq!(field(&heads[1], name), "none", "{name}");
    }
    // An untrusted client decides neither the scheme nor the host of a refresh.
    let gateway = cached(&[&backend], "", "standard").await;
    let before = backend.requests();
    let _ = ask(&gateway, "/x", fields).await;
    let _ = ask(&gateway, "/x", fields).await;
    eventually("the refresh has reached the backend", || async { backend.requests() >= before + 2 }).await;
    let refresh = backend.heads().pop().unwrap();
    assert_eq!((field(&refresh, "x-forwarded-host"), field(&refresh, "x-forwarded-proto")), ("test", "http"));
    assert_eq!(field(&refresh, "x-forwarded-prefix"), "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_a_split_remembers_its_backend_and_no_backend_sees_a_cookie_of_any_side() {
    let [rest_one, rest_two, share_one, share_two] = backends([const { Act::Answer(200) }; 4]).await;
    let config = format!(
        "upstreams:\n  rest: {{ backends: ['{}', '{}'], sticky: {{ cookie: rest }} }}\n  \
         share: {{ backends: ['{}', '{}'], sticky: {{ cookie: share }}, max_fails: 1, fail_timeout: 60s }}\n\
         routes:\n  - {{ upstream: rest, split: {{ shares: {{ share: 50% }} }} }}\n",
        rest_one.address, rest_two.address, share_one.address, share_two.address
    );
    let gateway = Gateway::start(&config).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let mut cookies = Vec::new();
    for _ in 0..8 {
        let answer = connection.get("/").await.unwrap();
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        cookies.push(cookie);
    }
    let of = |name: &str| cookies.iter().find(|cookie| cookie.starts_with(name)).unwrap().clone();
    let both = format!("Cookie: {}; {}; mine=1\r\n", of("rest="), of("share="));
    let mut served = std::collections::HashSet::new();
    for _ in 0..20 {
        let answer = connection.get_with("/", &both).await.unwrap();
        assert_eq!(answer.header("set-cookie"), None, "each side keeps its backend");
        served.insert(answer.text());
    }
    assert_eq!(served.len(), 2, "one backend of each side: {served:?}");
    for backend in [&share_one, &share_two] {
        backend.die().await;
    }
    for _ in 0..20 {
        let answer = connection.get_with("/", &both).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("set-cookie")),
            (200, None),
            "the session of the rest is kept"
        );
    }
    for backend in [&rest_one, &rest_two, &share_one, &share_two] {
        for head in backend.heads().iter().filter(|head| head.contains("mine=1")) {
            assert_eq!(field(head, "cookie"), "mine=1");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_gets_the_host_in_the_form_of_the_key() {
    let backend = Backend::start(Act::Reply(showing)).await;
    let gateway = cached(&[&backend], "", "standard").await;
    for host in ["Shop.Test.", "shop.test:80", "SHOP.test.:80", "shop.test"] {
        let answer = request(gateway.address, &format!("GET /show/host HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await
            .unwrap();
        assert_eq!(answer.text(), "shop.test", "{host}");
    }
    assert_eq!(backend.requests(), 1);
}

/// What is made canonical twice must not become another host.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_two_dots_is_no_other_spelling_of_a_host() {
    let [named, other] = backends([page("Cache-Control: max-age=600\r\n", "named"), page("", "other")]).await;
    let config = format!(
        "upstreams: {{ named: ['{}'], other: ['{}'] }}\nroutes:\n  \
         - {{ upstream: named, match: {{ host: [shop.test] }}, cache: standard, allow: [127.0.0.9] }}\n  \
         - {{ upstream: other, cache: {{ mode: standard, ttl: {{ \"200\": 10m }} }} }}\n",
        named.address, other.address
    );
    let gateway = Gateway::start(&config).await;
    let get = async |host: &str, from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(from.parse().unwrap()).unwrap();
        let mut connection = Connection::of(socket.connect(gateway.address).await.unwrap());
        connection.send(format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.unwrap();
        connection.answer(false).await.unwrap()
    };
    for host in ["shop.test..", "shop.test..:80", "shop.test.:80:80"] {
        let answer = get(host, "127.0.0.1:0").await;
        assert!(answer.status >= 400 || answer.text() == "other", "{host}: {answer:?}");
    }
    assert_eq!(get("shop.test", "127.0.0.9:0").await.text(), "named");
    for host in ["shop.test..", "shop.test..:080"] {
        assert_ne!(get(host, "127.0.0.1:0").await.text(), "named", "{host}");
    }
    assert_eq!(
        get("shop.test.:080", "127.0.0.9:0").await.header("cache-status").unwrap().split(';').nth(1),
        Some(" hit")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_lines_of_a_forwarded_field_and_their_order_are_in_the_key() {
    let backend = Backend::start(Act::Reply(|head| {
        let mut lines = head.lines().filter(|line| line.to_lowercase().contains("forwarded"));
        let last = lines.rfind(|line| line.contains("shop") || line.contains("host=")).unwrap_or("none");
        response(200, "Cache-Control: max-age=600\r\n", last, false)
    }))
    .await;
    let gateway = cached(&[&backend], "trusted_proxies: [127.0.0.1]\n", "standard").await;
    for (target, one, other) in [
        (
            "/host",
            "X-Forwarded-Host: shop.test\r\nX-Forwarded-Host: evil.shop\r\n",
            "X-Forwarded-Host: shop.test\r\n",
        ),
        ("/elements", "Forwarded: for=x;host=a, for=y\r\n", "Forwarded: for=x, for=y;host=a\r\n"),
    ] {
        let first = ask(&gateway, target, one).await;
        assert_ne!(ask(&gateway, target, other).await, first, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_identities_by_any_usual_name_make_a_request_personal() {
    let trusted = [
        "X-Auth-Request-User",
        "Remote-Email",
        "X-Authentik-Username",
        "X-Consumer-Username",
        "OIDC-CLAIM-sub",
    ];
    let own = ["X-Api-Key", "X-Auth-Token", "Private-Token", "DPoP"];
    for (proxies, names) in [("trusted_proxies: [127.0.0.1]\n", &trusted[..]), ("", &own[..])] {
        let backend = Backend::start(Act::Reply(|head| response(200, "", head, false))).await;
        let gateway = cached(&[&backend], proxies, "fallback").await;
        for name in names {
            assert!(
                ask(&gateway, &format!("/{name}"), &format!("{name}: alice\r\n")).await.contains("alice"),
                "{name}"
            );
        }
        backend.die().await;
        for name in names {
            let answer = gateway.get(&format!("/{name}")).await;
            assert_eq!(answer.status, 502, "{name}: {}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_cannot_take_back_by_connection_what_says_who_may_see_a_response() {
    let fields =
        "Connection: cache-control, set-cookie\r\nCache-Control: private\r\nSet-Cookie: session=alice\r\n";
    let backend = Backend::start(page(fields, "page of alice")).await;
    let gateway = cached(&[&backend], "", "fallback").await;
    assert_eq!(ask(&gateway, "/me", "").await, "page of alice");
    backend.die().await;
    assert_eq!(gateway.get("/me").await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_for_one_client_does_not_reach_others() {
    let backend = Backend::start(Act::Reply(|head| {
        let user =
            format!("X-User: {}{}\r\nETag: \"1\"\r\n", field(head, "authorization"), field(head, "cookie"));
        if field(head, "if-none-match") == "none" {
            return response(200, &format!("{user}Cache-Control: public, max-age=600\r\n"), "page", false);
        }
        format!("HTTP/1.1 304 Not Modified\r\n{user}\r\n")
    }))
    .await;
    let gateway = cached(&[&backend], "", "standard").await;
    for who in ["Authorization: Basic eA==\r\n", "Cookie: session=alice\r\n"] {
        let _ = ask(&gateway, "/page", "").await;
        let _ = ask(&gateway, "/page", &format!("{who}Cache-Control: no-cache\r\n")).await;
        let answer = gateway.get("/page").await;
        assert_eq!(answer.header("x-user"), Some("nonenone"), "{answer:?}");
    }
}
