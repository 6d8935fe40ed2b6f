//! What was made for one visitor is never shown to another, in an outage least of all.

use std::time::Duration;

use crate::harness::backend::page;
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually};
use crate::site;

/// Freshness for everything that says nothing itself: the temptation to store.
const TTL: &str = "ttl: { \"200\": 10m }";

fn caching(mode: &str, more: &str) -> String {
    format!("    cache: {{ mode: {mode}, last_good: true, {TTL}{more} }}\n")
}

/// One GET with more header lines.
async fn ask(gateway: &Gateway, headers: &str) -> Answer {
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.get_with("/account", headers).await.unwrap()
}

/// The body names who asked, by cookie or credential; a caching header may be asked for with `X-Want`.
fn personal(head: &str) -> String {
    let value = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    let who = value("Cookie:") + &value("Authorization:");
    let who = if who.is_empty() { "nobody" } else { &who };
    let body = format!("page of {who}");
    let wanted = value("X-Want:").replace('|', "\r\n");
    let wanted = if wanted.is_empty() { wanted } else { wanted + "\r\n" };
    crate::harness::backend::response(200, &wanted, &body, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_ever_sees_the_page_of_another_session() {
    let wishes = [
        "",
        "Cache-Control: max-age=0",
        "Cache-Control: no-cache|ETag: \"same-for-all\"",
        "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT",
        "Cache-Control: private, max-age=60",
        "Cache-Control: max-age=60|Vary: Cookie",
        "Cache-Control: public, max-age=60|Set-Cookie: session=new",
        "Expires: Thu, 01 Jan 1970 00:00:00 GMT",
    ];
    for mode in ["standard", "fallback"] {
        for wish in wishes {
            let backend = Backend::start(Act::Reply(personal)).await;
            let gateway = Gateway::start(&site(&[&backend], "", &caching(mode, ""))).await;
            let want = if wish.is_empty() { String::new() } else { format!("X-Want: {wish}\r\n") };
            let visitors = ["session=alice", "session=bob"];
            for round in 0..2 {
                for visitor in visitors {
                    let answer = ask(&gateway, &format!("{want}Cookie: {visitor}\r\n")).await;
                    assert_eq!(answer.text(), format!("page of {visitor}"), "{mode}, {wish}, round {round}");
                }
            }
            backend.die().await;
            for visitor in visitors {
                let answer = ask(&gateway, &format!("{want}Cookie: {visitor}\r\n")).await;
                assert_eq!(answer.status, 502, "{mode}, {wish}: {}", answer.text());
            }
            assert_eq!(ask(&gateway, &want).await.status, 502, "{mode}, {wish}: and a stranger neither");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_no_store_and_set_cookie_are_never_served_from_the_store() {
    let headers = [
        "Cache-Control: private, max-age=60\r\n",
        "Cache-Control: no-store, max-age=60\r\n",
        "Cache-Control: private=\"set-cookie\", max-age=60\r\n",
        "Cache-Control: public, max-age=60\r\nSet-Cookie: id=1\r\n",
        "Set-Cookie: id=1\r\n",
    ];
    for mode in ["standard", "fallback"] {
        for header in headers {
            let backend = Backend::start(page(header, "for one")).await;
            let gateway = Gateway::start(&site(&[&backend], "", &caching(mode, ""))).await;
            for _ in 0..3 {
                assert_eq!(ask(&gateway, "").await.text(), "for one");
            }
            assert_eq!(backend.requests(), 3, "{mode}, {header}: every request reaches the backend");
            backend.die().await;
            assert_eq!(ask(&gateway, "").await.status, 502, "{mode}, {header}");
            assert_eq!(gateway.metric("goodgate_cache_objects").await, 0.0, "{mode}, {header}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_turned_private_is_not_answered_from_its_old_copy_for_ever() {
    let backend = Backend::start(page("Cache-Control: max-age=1\r\n", "for all")).await;
    let gateway = Gateway::start(&site(&[&backend], "", &caching("standard", ""))).await;
    assert_eq!(ask(&gateway, "").await.text(), "for all");
    backend.set(page("Cache-Control: private\r\n", "for one"));
    eventually("the backend's word counts", || async { ask(&gateway, "").await.text() == "for one" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_gets_an_anonymous_copy_only_where_the_route_says_so() {
    for mode in ["standard", "fallback"] {
        for serve in [false, true] {
            let backend = Backend::start(Act::Reply(personal)).await;
            let route = caching(mode, &format!(", cookies: {{ serve_anonymous: {serve} }}"));
            let gateway = Gateway::start(&site(&[&backend], "", &route)).await;
            assert_eq!(ask(&gateway, "").await.text(), "page of nobody");
            backend.die().await;
            assert_eq!(
                ask(&gateway, "").await.text(),
                "page of nobody",
                "{mode}: who is nobody gets the copy"
            );
            let answer = ask(&gateway, "Cookie: session=alice\r\n").await;
            if serve {
                assert_eq!(answer.text(), "page of nobody", "{mode}");
            } else {
                assert_eq!(answer.status, 502, "{mode}: {}", answer.text());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_cookies_make_nobody_personal_and_others_do() {
    for mode in ["standard", "fallback"] {
        let backend = Backend::start(Act::Reply(personal)).await;
        let gateway =
            Gateway::start(&site(&[&backend], "", &caching(mode, ", cookies: { ignore: ['_ga*', lang] }")))
                .await;
        assert_eq!(
            ask(&gateway, "Cookie: session=alice; lang=de\r\n").await.text(),
            "page of session=alice; lang=de"
        );
        assert_eq!(ask(&gateway, "Cookie: _ga_X=1; lang=de\r\n").await.text(), "page of _ga_X=1; lang=de");
        backend.die().await;
        for cookies in ["", "Cookie: _gat=2\r\n"] {
            assert_eq!(
                ask(&gateway, cookies).await.text(),
                "page of _ga_X=1; lang=de",
                "{mode}: kept as anybody's"
            );
        }
        assert_eq!(ask(&gateway, "Cookie: lang=de; session=bob\r\n").await.status, 502, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_credential_is_shared_only_if_it_says_so() {
    for mode in ["standard", "fallback"] {
        for (wish, shared) in
            [("Cache-Control: max-age=60", false), ("Cache-Control: public, max-age=60", true)]
        {
            let backend = Backend::start(Act::Reply(personal)).await;
            let gateway = Gateway::start(&site(&[&backend], "", &caching(mode, ""))).await;
            let answer = ask(&gateway, &format!("X-Want: {wish}\r\nAuthorization: Basic alice\r\n")).await;
            assert_eq!(answer.text(), "page of Basic alice");
            backend.die().await;
            for headers in ["", "Authorization: Basic bob\r\n"] {
                let answer = ask(&gateway, headers).await;
                if shared {
                    assert_eq!(answer.text(), "page of Basic alice", "{mode}");
                } else {
                    assert_eq!(answer.status, 502, "{mode}: {}", answer.text());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_asks_to_be_left_alone_neither_fills_nor_reads() {
    for mode in ["standard", "fallback"] {
        let backend = Backend::start(page("Cache-Control: max-age=60\r\n", "page")).await;
        let route = caching(mode, ", bypass: { headers: [X-Preview] }");
        let gateway = Gateway::start(&site(&[&backend], "", &route)).await;
        for headers in ["X-Preview: 1\r\n", "Cache-Control: no-store\r\n"] {
            assert_eq!(ask(&gateway, headers).await.status, 200);
        }
        assert_eq!(gateway.metric("goodgate_cache_objects").await, 0.0, "{mode}");
        assert_eq!(ask(&gateway, "").await.status, 200);
        eventually("the copy is kept", || async { gateway.metric("goodgate_cache_objects").await == 1.0 })
            .await;
        assert_eq!(ask(&gateway, "X-Preview: 1\r\n").await.status, 200);
        assert_eq!(backend.requests(), 4, "{mode}: it was not answered from the copy");
        backend.die().await;
        assert_eq!(ask(&gateway, "X-Preview: 1\r\n").await.status, 502, "{mode}");
        assert_eq!(ask(&gateway, "").await.status, 200, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_in_flight_at_once_each_get_their_own_page() {
    let backend = Backend::start(Act::Slow(Duration::from_millis(100), Box::new(Act::Reply(personal)))).await;
    let gateway = Gateway::start(&site(&[&backend], "", &caching("standard", ""))).await;
    let mut visitors = tokio::task::JoinSet::new();
    for visitor in 0..20 {
        let address = gateway.address;
        visitors.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            let answer =
                connection.get_with("/account", &format!("Cookie: session={visitor}\r\n")).await.unwrap();
            assert_eq!(answer.text(), format!("page of session={visitor}"));
        });
    }
    while let Some(visitor) = visitors.join_next().await {
        visitor.unwrap();
    }
    assert_eq!(backend.requests(), 20, "nobody waited for the answer of another");
}
