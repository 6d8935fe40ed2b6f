//! `cache: fallback` against what frameworks send: which responses are kept, for whom, and when they are given up.

use crate::harness::backend::page;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually};
use crate::site;

const FALLBACK: &str = "    cache: fallback\n";

async fn ask(gateway: &Gateway, path: &str, headers: &str) -> Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.get_with(path, headers).await.unwrap()
}

async fn send(gateway: &Gateway, method: &str, path: &str, headers: &str) -> Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{headers}\r\n");
    connection.send(request).await.unwrap();
    connection.answer(false).await.unwrap()
}

fn page_of(headers: &str) -> Act {
    page(headers, "the page")
}

/// RFC 9111 section 4.2.4 forbids stale use and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_still_fresh_answers_in_an_outage_whatever_forbids_it_once_stale() {
    for control in [
        "max-age=60, must-revalidate",
        "max-age=60, proxy-revalidate",
        "s-maxage=31536000",
        "public, s-maxage=31536000, must-revalidate",
    ] {
        let backend = Backend::start(page_of(&format!("Cache-Control: {control}\r\n"))).await;
        let gateway = Gateway::start(&site(&[&backend], "", FALLBACK)).await;
        let first = ask(&gateway, "/p", "").await;
        assert_eq!(first.header("cache-status"), Some("goodgate; fwd=bypass; stored"), "{control}");
        backend.die().await;
        let answer = ask(&gateway, "/p", "").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "the page"), "{control}");
        let status = answer.header("cache-status").unwrap().to_owned();
        assert!(status.contains("hit; ttl=") && status.contains("detail=fresh-connection_"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_could_never_answer_is_not_said_to_be_stored_and_the_setting_is_named() {
    for (control, setting) in [
        ("no-cache", "no_cache"),
        ("must-revalidate", "must_revalidate"),
        ("max-age=0, must-revalidate", "must_revalidate"),
        ("s-maxage=0", "s_maxage"),
        ("private", "private"),
    ] {
        let backend = Backend::start(page_of(&format!("Cache-Control: {control}\r\n"))).await;
        let gateway = Gateway::start(&site(&[&backend], "", FALLBACK)).await;
        let first = ask(&gateway, "/p", "").await;
        assert_eq!(first.header("cache-status"), Some("goodgate; fwd=bypass"), "{control}");
        let detail = gateway.record(&first).await["cache_detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(&format!("override: [{setting}]")), "{control}: {detail}");

        backend.set(page_of(""));
        gateway.write_config(&site(
            &[&backend],
            "",
            &format!("    cache: {{ mode: fallback, override: [{setting}] }}\n"),
        ));
        gateway.reload("ok").await;
        backend.set(page_of(&format!("Cache-Control: {control}\r\n")));
        let stored = ask(&gateway, "/q", "").await;
        assert_eq!(stored.header("cache-status"), Some("goodgate; fwd=bypass; stored"), "{control}");
        backend.die().await;
        assert_eq!(ask(&gateway, "/q", "").await.text(), "the page", "{control}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_the_directive_that_keeps_an_old_response_from_answering() {
    let backend = Backend::start(page_of("Cache-Control: max-age=1, must-revalidate\r\n")).await;
    let gateway = Gateway::start(&site(&[&backend], "", FALLBACK)).await;
    ask(&gateway, "/p", "").await;
    backend.die().await;
    eventually("the response is stale", || async { ask(&gateway, "/p", "").await.status == 502 }).await;
    let answer = ask(&gateway, "/p", "").await;
    let record = gateway.record(&answer).await;
    assert!(record["cache_detail"].as_str().unwrap().contains("override: [must_revalidate]"), "{record}");
    assert_eq!(record["cache"], "miss");
    let told = gateway.explain(&answer).await;
    assert!(told.contains("cache.override: [must_revalidate]"), "{told}");
}

/// RFC 5861: a window of the response itself is not lifted by what `s-maxage` only implies.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_window_beside_s_maxage_counts() {
    for window in ["stale-while-revalidate=600", "stale-if-error=600"] {
        for mode in ["standard", "fallback"] {
            let control = format!("Cache-Control: s-maxage=1, {window}\r\n");
            let backend = Backend::start(page_of(&control)).await;
            let gateway = Gateway::start(&site(&[&backend], "", &format!("    cache: {mode}\n"))).await;
            ask(&gateway, "/p", "").await;
            backend.die().await;
            eventually("the response is stale and answers", || async {
                let answer = ask(&gateway, "/p", "").await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "the page"), "{mode}, {window}");
                answer.header("cache-status").unwrap().contains("ttl=-")
            })
            .await;
        }
    }
}

fn negotiated(head: &str) -> String {
    let has = |field: &str, value: &str| {
        head.lines().any(|line| line.to_ascii_lowercase().starts_with(field) && line.contains(value))
    };
    let language = if has("accept-language", "de") { "de" } else { "en" };
    let encoding = if has("accept-encoding", "gzip") { "Content-Encoding: gzip\r\n" } else { "" };
    let headers = format!(
        "Vary: Accept-Encoding, Accept-Language, X-Tenant\r\n{encoding}Content-Language: {language}\r\n"
    );
    crate::harness::backend::response(200, &headers, &format!("{language} {}", encoding.len()), false)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_a_browser_gets_any_variant_that_it_accepts() {
    let folder = crate::harness::gateway::folder();
    let disk = format!("caches: {{ main: {{ disk: {{ path: '{}', size: 64MiB }} }} }}\n", folder.display());
    for mode in ["fallback", "standard, last_good: true"] {
        let backend = Backend::start(Act::Reply(negotiated)).await;
        let route = format!("    cache: {{ mode: {mode} }}\n");
        let gateway = Gateway::start(&(site(&[&backend], "", &route) + &disk)).await;
        let brought =
            "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\nX-Tenant: a\r\n";
        assert_eq!(ask(&gateway, "/p", brought).await.text(), "en 24");
        backend.die().await;
        for (headers, expected) in [
            ("Accept-Encoding: gzip, deflate\r\nAccept-Language: en-GB,en;q=0.5\r\nX-Tenant: a\r\n", 200),
            ("Accept-Encoding: gzip;q=0.5\r\nX-Tenant: a\r\n", 200),
            ("Accept-Encoding: br\r\nAccept-Language: en\r\nX-Tenant: a\r\n", 502),
            ("Accept-Language: en\r\nX-Tenant: a\r\n", 502),
            ("Accept-Encoding: gzip\r\nAccept-Language: de\r\nX-Tenant: a\r\n", 502),
            ("Accept-Encoding: gzip\r\nAccept-Language: en\r\nX-Tenant: b\r\n", 502),
            ("Accept-Encoding: gzip\r\nAccept-Language: en\r\n", 502),
        ] {
            let answer = ask(&gateway, "/p", headers).await;
            assert_eq!(answer.status, expected, "{mode}: {headers}: {}", answer.text());
            if expected == 200 {
                assert_eq!(answer.header("content-encoding"), Some("gzip"));
            }
        }
    }
}

fn greeting(head: &str) -> String {
    let cookie = head.lines().find_map(|line| line.strip_prefix("Cookie: ")).unwrap_or("nobody");
    crate::harness::backend::response(
        200,
        "Vary: Accept-Encoding, Cookie\r\n",
        &format!("for {cookie}"),
        false,
    )
}

/// Django sends `Vary: Cookie` with every page that looks at the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_varies_by_cookie_is_kept_for_visitors_without_one() {
    for (more, with_session) in [("", 502), (", cookies: { ignore: [_ga], serve_anonymous: outage }", 200)] {
        let backend = Backend::start(Act::Reply(greeting)).await;
        let route = format!("    cache: {{ mode: fallback{more} }}\n");
        let gateway = Gateway::start(&site(&[&backend], "", &route)).await;
        assert_eq!(ask(&gateway, "/p", "Cookie: session=1\r\n").await.text(), "for session=1");
        assert_eq!(ask(&gateway, "/p", "").await.text(), "for nobody");
        assert_eq!(ask(&gateway, "/p", "Cookie: session=1\r\n").await.text(), "for session=1");
        backend.die().await;
        assert_eq!(ask(&gateway, "/p", "").await.text(), "for nobody");
        let answer = ask(&gateway, "/p", "Cookie: session=2\r\n").await;
        assert_eq!(answer.status, with_session);
        assert!(!answer.text().contains("session"), "{}", answer.text());
        let authorized = ask(&gateway, "/p", "Authorization: Basic YTpi\r\n").await;
        assert_eq!(authorized.status, 502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_standard_mode_sessions_get_the_anonymous_page_in_an_outage_only() {
    let backend = Backend::start(Act::Reply(|head| {
        let cookie = head.lines().find_map(|line| line.strip_prefix("Cookie: ")).unwrap_or("nobody");
        crate::harness::backend::response(200, "", &format!("for {cookie}"), false)
    }))
    .await;
    let route =
        "    cache: { mode: standard, ttl: { \"200\": 10m }, cookies: { serve_anonymous: outage } }\n";
    let gateway = Gateway::start(&site(&[&backend], "", route)).await;
    assert_eq!(ask(&gateway, "/p", "").await.text(), "for nobody");
    assert_eq!(ask(&gateway, "/p", "Cookie: session=1\r\n").await.text(), "for session=1");
    backend.die().await;
    assert_eq!(ask(&gateway, "/p", "Cookie: session=1\r\n").await.text(), "for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_personal_cookies_are_named_all_others_are_harmless() {
    let backend = Backend::start(page_of("")).await;
    let route = "    cache: { mode: fallback, cookies: { personal: [\"wordpress_logged_in_*\", sid] } }\n";
    let gateway = Gateway::start(&site(&[&backend], "", route)).await;
    ask(&gateway, "/seen", "Cookie: theme=dark; _ga=1\r\n").await;
    ask(&gateway, "/private", "Cookie: wordpress_logged_in_7=x\r\n").await;
    backend.die().await;
    assert_eq!(ask(&gateway, "/seen", "Cookie: other=1\r\n").await.status, 200);
    assert_eq!(ask(&gateway, "/private", "").await.status, 502);
    for personal in ["wordpress_logged_in_8=x", "SID=1", "WordPress.logged_in_1=x", "theme=1, sid=2", "odd"] {
        let answer = ask(&gateway, "/seen", &format!("Cookie: {personal}\r\n")).await;
        assert_eq!(answer.status, 502, "{personal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_does_not_come_back_in_an_outage() {
    for mode in ["fallback", "{ mode: standard, last_good: true }"] {
        let backend = Backend::start(page_of("")).await;
        let gateway = Gateway::start(&site(&[&backend], "", &format!("    cache: {mode}\n"))).await;
        let paths = ["/deleted", "/moved", "/gone", "/missing", "/once", "/overridden", "/failed", "/kept"];
        for path in paths {
            assert_eq!(ask(&gateway, path, "").await.status, 200);
        }
        assert_eq!(send(&gateway, "DELETE", "/deleted", "").await.status, 200);
        let destination = "Destination: http://test/new\r\n";
        assert_eq!(send(&gateway, "MOVE", "/moved", destination).await.status, 200);
        let overridden = "X-HTTP-Method-Override: DELETE\r\n";
        assert_eq!(send(&gateway, "POST", "/overridden", overridden).await.status, 200);
        backend.set(Act::Answer(410));
        ask(&gateway, "/gone", "").await;
        backend.set(Act::Answer(404));
        for path in ["/missing", "/once", "/missing"] {
            assert_eq!(ask(&gateway, path, "").await.status, 404, "it counts once it is confirmed");
        }
        backend.set(Act::Answer(409));
        assert_eq!(send(&gateway, "DELETE", "/failed", "").await.status, 409);
        backend.die().await;
        for (path, expected) in paths.into_iter().zip([502, 502, 502, 502, 200, 502, 200, 200]) {
            assert_eq!(ask(&gateway, path, "").await.status, expected, "{mode}: {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_to_a_visitor_in_person_says_nothing_of_the_page_of_others() {
    let backend = Backend::start(page_of("")).await;
    let gateway = Gateway::start(&site(&[&backend], "", FALLBACK)).await;
    ask(&gateway, "/p", "").await;
    backend.set(Act::Answer(404));
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "/p", "Cookie: session=1\r\n").await.status, 404);
    }
    assert_eq!(ask(&gateway, "/p", "").await.status, 404);
    backend.set(page_of(""));
    assert_eq!(ask(&gateway, "/p", "").await.status, 200, "a good response in between");
    backend.set(Act::Answer(404));
    assert_eq!(ask(&gateway, "/p", "").await.status, 404);
    backend.die().await;
    assert_eq!(ask(&gateway, "/p", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn header_and_log_say_the_same_word() {
    let backend = Backend::start(page_of("")).await;
    let gateway = Gateway::start(&site(&[&backend], "", FALLBACK)).await;
    for _ in 0..2 {
        let answer = ask(&gateway, "/p", "").await;
        assert_eq!(answer.header("cache-status"), Some("goodgate; fwd=bypass; stored"));
        assert_eq!(gateway.record(&answer).await["cache"], "bypass");
    }
}

fn chunks(headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").into_bytes()
}

/// A reload in the browser asks with a condition. Its 304 must not leave a part of the page in place of the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_request_neither_empties_nor_cuts_what_is_stored() {
    for mode in ["fallback", "{ mode: standard, last_good: true }"] {
        for validator in ["ETag: \"v1\"\r\n", "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n"] {
            let rest = || Box::new(Act::Bytes(b"6\r\nsecond\r\n0\r\n\r\n".to_vec()));
            let act = || {
                let gate = crate::harness::backend::Gate::shut();
                gate.open();
                Act::Gated { first: chunks(validator), gate, rest: rest() }
            };
            let backend = Backend::start(act()).await;
            let gateway = Gateway::start(&site(&[&backend], "", &format!("    cache: {mode}\n"))).await;
            assert_eq!(ask(&gateway, "/p", "").await.text(), "firstsecond");
            let condition = match validator.split_once(": ").unwrap() {
                ("ETag", tag) => format!("If-None-Match: {tag}"),
                (_, date) => format!("If-Modified-Since: {date}"),
            };
            for path in ["/p", "/p", "/new"] {
                let answer = ask(&gateway, path, &condition).await;
                assert!([200, 304].contains(&answer.status), "{answer:?}");
            }
            backend.die().await;
            for path in ["/p", "/new"] {
                let answer = ask(&gateway, path, "").await;
                let is_whole = answer.status == 200 && answer.text() == "firstsecond";
                assert!(is_whole || path == "/new" && mode != "fallback", "{mode}, {path}: {answer:?}");
            }
        }
    }
}

/// One failure is no reason to keep a page from its visitors later.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_is_over_brings_no_old_page_back() {
    let backend = Backend::start(page_of("")).await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 0\n", FALLBACK)).await;
    ask(&gateway, "/p", "").await;
    backend.set(Act::Answer(503));
    assert_eq!(ask(&gateway, "/p", "").await.text(), "the page");
    backend.set(page("Cache-Control: private\r\n", "new"));
    eventually("the new page is there", || async { ask(&gateway, "/p", "").await.text() == "new" }).await;
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "/p", "").await.text(), "new");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_another_page_keeps_no_variant_from_answering() {
    let backend = Backend::start(Act::Reply(negotiated)).await;
    let route = "    cache: { mode: fallback, key: { cookies: [theme] }, purge: { allow: [127.0.0.1] } }\n";
    let gateway = Gateway::start(&site(&[&backend], "", route)).await;
    ask(&gateway, "/p", "Accept-Encoding: gzip, deflate\r\n").await;
    assert_eq!(send(&gateway, "PURGE", "/other", "").await.status, 200);
    send(&gateway, "POST", "/third", "").await;
    backend.die().await;
    assert_eq!(ask(&gateway, "/p", "Accept-Encoding: gzip\r\n").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_page_is_missing_in_all_variants() {
    let backend = Backend::start(Act::Reply(negotiated)).await;
    let gateway = Gateway::start(&site(&[&backend], "", FALLBACK)).await;
    let browsers = [
        "Accept-Encoding: gzip\r\nAccept-Language: de\r\n",
        "Accept-Encoding: gzip\r\nAccept-Language: en\r\n",
    ];
    for browser in browsers {
        assert_eq!(ask(&gateway, "/p", browser).await.status, 200);
    }
    backend.set(Act::Answer(404));
    for other in ["", "Accept-Language: fr\r\n"] {
        assert_eq!(ask(&gateway, "/p", other).await.status, 404);
    }
    backend.die().await;
    for browser in browsers {
        assert_eq!(ask(&gateway, "/p", browser).await.status, 502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_covers_the_address_without_its_query_and_with_merged_slashes() {
    let backend = Backend::start(page_of("")).await;
    let gateway =
        Gateway::start(&site(&[&backend], "", "    cache: fallback\n    merge_slashes: true\n")).await;
    for path in ["/posts/15", "/a/b"] {
        assert_eq!(ask(&gateway, path, "").await.status, 200);
    }
    let overriding = "X-HTTP-Method-Override: DELETE\r\n";
    assert_eq!(send(&gateway, "POST", "/posts/15?force=true", overriding).await.status, 200);
    assert_eq!(send(&gateway, "DELETE", "//a//b", "").await.status, 200);
    backend.die().await;
    for path in ["/posts/15", "/a/b"] {
        assert_eq!(ask(&gateway, path, "").await.status, 502, "{path}");
    }
}
