//! Orders of operators at run time: backends drained, disabled, weighed, added and removed over the API.

use std::collections::HashMap;

use serde_json::Value;

use crate::harness::backend::{Gate, page};
use crate::harness::gateway::folder;
use crate::harness::{Act, Answer, Backend, Gateway, Load, backends, eventually, request};
use crate::upstream;

const TOKEN: &str = "Authorization: Bearer s3cret\r\n";

async fn gateway(of: &[&Backend], settings: &str) -> Gateway {
    let folder = folder();
    std::fs::write(folder.join("token"), "s3cret\n").unwrap();
    Gateway::start_in(folder, &config(of, settings)).await
}

fn config(of: &[&Backend], settings: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0', token_file: token }}\n\
         access_log: {{ path: off }}\n{}",
        body(of, settings)
    )
}

fn body(of: &[&Backend], settings: &str) -> String {
    format!("{}routes: [{{ upstream: web }}]\n", upstream(of, settings))
}

async fn order_as(gateway: &Gateway, token: &str, form: &str) -> Answer {
    let (host, length) = (gateway.admin, form.len());
    let text = format!(
        "POST /api/v1/backends HTTP/1.1\r\nHost: {host}\r\n{token}Content-Length: {length}\r\nConnection: close\r\n\r\n{form}"
    );
    request(gateway.admin, &text).await.unwrap()
}

async fn order(gateway: &Gateway, backend: &Backend, action: &str) {
    let form = format!("upstream=web&backend={}&action={action}", backend.address);
    let answer = order_as(gateway, TOKEN, &form).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn read(gateway: &Gateway, path: &str) -> Vec<Value> {
    let text = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{TOKEN}Connection: close\r\n\r\n", gateway.admin);
    let answer = request(gateway.admin, &text).await.unwrap();
    serde_json::from_str(&answer.text()).unwrap()
}

async fn row(gateway: &Gateway, backend: &Backend) -> Value {
    let address = backend.address.to_string();
    let rows = read(gateway, "/api/v1/backends").await;
    rows.into_iter().find(|row| row["address"] == address.as_str()).unwrap_or_default()
}

/// How many of 60 requests each backend answered.
async fn shares(gateway: &Gateway) -> HashMap<String, u32> {
    let mut shares = HashMap::new();
    for _ in 0..60 {
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        *shares.entry(answer.text()).or_default() += 1;
    }
    shares
}

fn of<const N: usize>(shares: [(&str, u32); N]) -> HashMap<String, u32> {
    shares.into_iter().map(|(name, share)| (name.to_owned(), share)).collect()
}

async fn three() -> [Backend; 3] {
    backends([page("", "a"), page("", "b"), page("", "c")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_drained_disabled_weighed_and_enabled_while_requests_run() {
    let [a, b, _c] = three().await;
    let gateway = gateway(&[&a, &b], "").await;
    let load = Load::start(
        gateway.address,
        4,
        |_, _| "/".to_owned(),
        |_: &str, answer: &Answer| answer.status == 200,
    );
    load.more(20).await;
    for (action, state) in [("drain", "draining"), ("disable", "disabled")] {
        order(&gateway, &a, action).await;
        let shown = row(&gateway, &a).await;
        assert_eq!((&shown["state"], &shown["ordered"]["mode"]), (&state.into(), &action.into()));
        assert!(gateway.metric(&format!("goodgate_backend_state{{state=\"{state}\"}}")).await > 0.5);
        let frozen = a.requests();
        load.more(100).await;
        assert!(a.requests() <= frozen + 4, "what was under way and no more");
    }
    order(&gateway, &a, "enable").await;
    assert_eq!(row(&gateway, &a).await["ordered"], Value::Null);
    load.stop().await.assert_good();
    order(&gateway, &a, "weight&weight=5").await;
    assert_eq!(shares(&gateway).await, of([("a", 50), ("b", 10)]));
    let shown = row(&gateway, &a).await;
    assert_eq!((&shown["weight"], &shown["ordered"]["weight_in_file"]), (&5.into(), &1.into()));
    order(&gateway, &a, "reset").await;
    assert_eq!(shares(&gateway).await, of([("a", 30), ("b", 30)]));
    let log = gateway.errors();
    assert!(log.contains("an operator has changed a backend") && log.contains("action=weight"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_added_and_removed_and_it_holds_over_a_reload_until_the_file_says_so() {
    let [a, b, c] = three().await;
    let gateway = gateway(&[&a, &b], "").await;
    order(&gateway, &c, "add").await;
    order(&gateway, &a, "remove").await;
    assert_eq!(shares(&gateway).await, of([("b", 30), ("c", 30)]));
    assert_eq!(row(&gateway, &c).await["ordered"]["added"], true);
    let shown = &read(&gateway, "/api/v1/upstreams").await[0];
    assert_eq!(shown["added"], serde_json::json!([c.address.to_string()]));
    assert_eq!(shown["removed"], serde_json::json!([a.address.to_string()]));
    gateway.rewrite(&body(&[&a, &b], "    max_fails: 7\n"));
    gateway.reload("ok").await;
    assert_eq!(shares(&gateway).await, of([("b", 30), ("c", 30)]));
    gateway.rewrite(&body(&[&b, &c], ""));
    gateway.reload("ok").await;
    let shown = &read(&gateway, "/api/v1/upstreams").await[0];
    assert_eq!((&shown["added"], &shown["removed"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(shares(&gateway).await, of([("b", 30), ("c", 30)]));
    assert_eq!(a.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_backend_finishes_what_it_has_under_way() {
    let [a, b, _c] = three().await;
    let gate = Gate::shut();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_vec();
    a.set(Act::Gated { first: head, gate: gate.clone(), rest: Box::new(Act::Bytes(b"done".to_vec())) });
    let gateway = gateway(&[&a], "").await;
    let address = gateway.address;
    let client = tokio::spawn(async move { crate::harness::get(address, "/").await });
    eventually("it is under way", || async { a.requests() == 1 }).await;
    order(&gateway, &b, "add").await;
    order(&gateway, &a, "remove").await;
    assert_eq!(shares(&gateway).await, of([("b", 60)]));
    gate.open();
    assert_eq!(client.await.unwrap().unwrap().text(), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_needs_the_token_and_what_is_wrong_with_it_is_said() {
    let [a, b, _c] = three().await;
    let gateway = gateway(&[&a, &b], "").await;
    let good = format!("upstream=web&backend={}&action=drain", a.address);
    assert_eq!(order_as(&gateway, "", &good).await.status, 403);
    assert_eq!(order_as(&gateway, "Authorization: Bearer no\r\n", &good).await.status, 403);
    let backend = format!("upstream=web&backend={}", a.address);
    for (form, why) in [
        ("", "upstream is needed"),
        ("upstream=nope&backend=x&action=drain", "there is no upstream nope"),
        ("upstream=web&action=drain", "backend is needed"),
        ("upstream=web&backend=10.9.9.9:1&action=drain", "web has no backend 10.9.9.9:1"),
        (&format!("{backend}&action=explode"), "action is one of drain, disable"),
        (&format!("{backend}&action=weight"), "weight is needed"),
        (&format!("{backend}&action=weight&weight=0"), "weight is a whole number from 1 to 1000"),
        (&format!("{backend}&action=drain&weight=1"), "weight belongs to action=weight"),
        (&format!("{backend}&action=add"), "has a backend"),
        ("upstream=web&backend=no-port&action=add", "backend is"),
        (&format!("{backend}&action=drain&colour=red"), "there is no parameter colour"),
    ] {
        let answer = order_as(&gateway, TOKEN, form).await;
        assert_eq!(answer.status, 400, "{form}");
        assert!(answer.text().contains(why), "{form}: {}", answer.text());
    }
    assert_eq!(shares(&gateway).await, of([("a", 30), ("b", 30)]), "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_drained_requests_are_refused_and_never_sent_there() {
    let [a, b, _c] = three().await;
    let gateway = gateway(&[&a, &b], "").await;
    order(&gateway, &a, "drain").await;
    order(&gateway, &b, "disable").await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("proxy-status").unwrap().contains("destination_unavailable"));
    assert_eq!((a.requests(), b.requests()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_backend_is_not_probed() {
    let [a, b, _c] = three().await;
    let check = "    health_check: { http: { path: /health }, interval: 20ms, interval_down: 20ms }\n";
    let gateway = gateway(&[&a, &b], check).await;
    let probed = |backend: &Backend| backend.requests();
    eventually("both are probed", || async { probed(&a) > 2 && probed(&b) > 2 }).await;
    order(&gateway, &a, "disable").await;
    // Two rounds may have begun before.
    let b_then = probed(&b);
    eventually("the other is probed on", || async { probed(&b) > b_then + 3 }).await;
    let frozen = probed(&a);
    let b_then = probed(&b);
    eventually("the other is probed on", || async { probed(&b) > b_then + 10 }).await;
    assert_eq!(probed(&a), frozen);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_the_table() {
    let [a, b, c] = three().await;
    let gateway = gateway(&[&a, &b], "").await;
    shares(&gateway).await;
    order(&gateway, &a, "drain").await;
    order(&gateway, &b, "remove").await;
    order(&gateway, &c, "add").await;
    let admin = gateway.admin.to_string();
    let ask = ["backends", "--address", &admin];
    let (code, text) = gateway.command(&[&ask[..], &["--config"]].concat()).await;
    assert_eq!(code, 0, "{text}");
    let line = |backend: &Backend| {
        let address = backend.address.to_string();
        let line = text.lines().find(|line| line.starts_with("web ") && line.contains(&address));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (of_a, of_c) = (line(&a), line(&c));
    assert_eq!(of_a.get(2).map(String::as_str), Some("draining"), "{text}");
    assert_eq!(of_a.get(8).map(String::as_str), Some("30"), "{text}");
    assert_eq!(of_a.iter().filter(|word| *word == "ms").count(), 2, "times are shown: {text}");
    assert_eq!(of_c.get(2).map(String::as_str), Some("up"), "{text}");
    for note in [
        format!("web {}: drain was ordered by an operator", a.address),
        format!("web {}: added by an operator", c.address),
        format!("web {}: removed by an operator", b.address),
    ] {
        assert!(text.contains(&note), "{note} is not in {text}");
    }
    let (code, json) =
        gateway.command(&[&ask[..], &["--json", "--upstream", "web", "--config"]].concat()).await;
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!((code, rows.len()), (0, 2));
    let (code, none) =
        gateway.command(&[&ask[..], &["--json", "--upstream", "other", "--config"]].concat()).await;
    assert_eq!((code, none.trim()), (1, "goodgate: there is no upstream other; there are: web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_drained_backend_counts_from_the_drain() {
    let [a, b, _c] = three().await;
    let gateway = gateway(&[&a, &b], "").await;
    let seconds = async || row(&gateway, &a).await["for_s"].as_f64().unwrap();
    eventually("it has been up for a while", || async { seconds().await > 0.5 }).await;
    order(&gateway, &a, "drain").await;
    assert!(seconds().await < 0.5);
    eventually("the time goes on", || async { seconds().await > 0.2 }).await;
    let before = seconds().await;
    let form = format!("upstream=web&backend={}&action=weight&weight=5", a.address);
    assert_eq!(order_as(&gateway, TOKEN, &form).await.status, 200);
    assert!(seconds().await >= before, "another weight is no other state");
}
