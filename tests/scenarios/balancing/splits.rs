//! A share of a route's requests for another upstream.

use std::collections::HashMap;

use super::from;
use crate::harness::backend::page;
use crate::harness::{Act, Backend, Connection, Gateway, backends, eventually};

/// `app` and `next`, and one route to `app` with this `split` and more settings.
fn site(app: &Backend, next: &Backend, split: &str, route: &str) -> String {
    format!(
        "trusted_proxies: [127.0.0.1]\nupstreams:\n  app: ['{}']\n  next: {{ backends: ['{}'], max_fails: 1, fail_timeout: 60s }}\nroutes:\n  - upstream: app\n    split: {{ {split} }}\n{route}",
        app.address, next.address
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn of_each_hundred_requests_exactly_the_share_goes_elsewhere() {
    for cache in ["", "    cache: standard\n"] {
        let [app, next] = backends([Act::Answer(200), Act::Answer(200)]).await;
        let gateway = Gateway::start(&site(&app, &next, "shares: { next: 7% }", cache)).await;
        let mut connection = Connection::open(gateway.address).await.unwrap();
        for at in 0..300 {
            assert_eq!(connection.get(&format!("/{at}")).await.unwrap().status, 200);
        }
        assert_eq!((app.requests(), next.requests()), (279, 21), "{cache:?}");
        let of_next = "goodgate_responses_total{upstream=\"next\",status=\"200\"}";
        eventually("it is counted", || async { gateway.metric(of_next).await == 21.0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_stays_on_its_side_and_a_share_that_grows_keeps_whom_it_has() {
    let [app, next] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let split = |share| site(&app, &next, &format!("shares: {{ next: {share}% }}, by: client_ip"), "");
    let gateway = Gateway::start(&split(20)).await;
    let sides = async || {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        let mut sides = HashMap::new();
        for client in 0..200 {
            let field = format!("X-Forwarded-For: 10.0.{}.7\r\n", client);
            sides.insert(client, from(&connection.get_with("/", &field).await.unwrap()));
        }
        sides
    };
    let before = sides().await;
    let moved = before.values().filter(|port| **port == next.address.port()).count();
    assert!((20..=60).contains(&moved), "about a fifth: {moved}");
    assert_eq!(sides().await, before);
    gateway.write_config(&split(50));
    gateway.reload("ok").await;
    let after = sides().await;
    assert!(before.iter().all(|(client, port)| *port == app.address.port() || after[client] == *port));
    assert!(after.values().filter(|port| **port == next.address.port()).count() > moved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_or_a_cookie_may_decide_and_who_has_none_stays() {
    for (by, field) in [("header:X-User", "X-User: "), ("cookie:user", "Cookie: a=1; user=")] {
        let [app, next] = backends([Act::Answer(200), Act::Answer(200)]).await;
        let split = format!("shares: {{ next: 50% }}, by: '{by}'");
        let gateway = Gateway::start(&site(&app, &next, &split, "")).await;
        let mut connection = Connection::open(gateway.address).await.unwrap();
        for _ in 0..20 {
            assert_eq!(from(&connection.get("/").await.unwrap()), app.address.port());
        }
        let mut sides = Vec::new();
        for user in 0..40 {
            let field = format!("{field}{user}\r\n");
            let first = from(&connection.get_with("/a", &field).await.unwrap());
            assert_eq!(from(&connection.get_with("/b", &field).await.unwrap()), first, "{by}");
            sides.push(first);
        }
        for backend in [&app, &next] {
            assert!(sides.contains(&backend.address.port()), "{by}: {sides:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_the_share_is_answered_by_the_rest() {
    let [app, next] = backends([Act::Answer(200), Act::Reset]).await;
    let gateway = Gateway::start(&site(&app, &next, "shares: { next: 50% }", "")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..20 {
        let answer = connection.get("/").await.unwrap();
        assert_eq!((answer.status, from(&answer)), (200, app.address.port()));
    }
    assert_eq!(next.requests(), 1, "it is ejected, and gets nothing more");
    let rescues = "goodgate_rescues_total{by=\"retry\",cause=\"connection_terminated\"}";
    eventually("it is counted", || async { gateway.metric(rescues).await == 1.0 }).await;
    assert_eq!(gateway.state(next.address).await, "ejected");
    let whole = site(&app, &next, "shares: { next: 100% }", "");
    app.die().await;
    gateway.write_config(&whole);
    gateway.reload("ok").await;
    let failed = gateway.get("/").await;
    assert_eq!(failed.status, 502, "nobody is left: {failed:?}");
    assert_eq!(next.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_is_made_of_what_the_share_answers_nor_served_there() {
    let fresh = "Cache-Control: max-age=60\r\n";
    let [app, next] = backends([page(fresh, "old"), page(fresh, "new")]).await;
    let split = "shares: { next: 50% }, by: 'header:X-User'";
    let gateway = Gateway::start(&site(&app, &next, split, "    cache: standard\n")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let mut seen = HashMap::new();
    for round in 0..3 {
        for user in 0..20 {
            let answer = connection.get_with("/page", &format!("X-User: {user}\r\n")).await.unwrap();
            let text = answer.text();
            assert_eq!(*seen.entry(user).or_insert_with(|| text.clone()), text, "{round}");
        }
    }
    let of_next = seen.values().filter(|text| *text == "new").count() as u64;
    assert!(of_next > 0 && app.requests() == 1, "{seen:?}");
    assert_eq!(next.requests(), of_next * 3, "each of them is asked");
}
