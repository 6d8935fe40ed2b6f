//! Traces: what backends are told of them, what a collector gets, and that one that does not take it harms nobody.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::backend::page;
use crate::harness::collector::{Collector, attribute, hex};
use crate::harness::{Act, Backend, Gateway, backends, eventually, get, request};
use crate::site;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn traced(collector: &Collector, sample: &str, site: &str) -> String {
    format!("tracing: {{ otlp: \"http://{}\", sample: {sample} }}\n{site}", collector.address())
}

/// The fields of a head with this name.
fn fields(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
}

async fn get_with(gateway: &Gateway, path: &str, headers: &str) -> crate::harness::Answer {
    let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}Connection: close\r\n\r\n");
    request(gateway.address, &head).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_request_is_one_span_with_two_attempts() {
    let [a, b] = backends([Act::Close, Act::Close]).await;
    let collector = Collector::start().await;
    let gateway = Gateway::start(&traced(&collector, "1.0", &site(&[&a, &b], "", ""))).await;
    b.set(Act::Answer(200));
    let mut answers = Vec::new();
    while a.requests() == 0 {
        answers.push(gateway.get("/a?x=1&token=SECRET").await);
    }
    let record = gateway.record(answers.last().unwrap()).await;
    let id = record["trace_id"].as_str().unwrap().to_owned();
    let spans = collector.trace(&id, 3).await;
    let [whole, first, second] = &spans[..] else { unreachable!() };

    assert_eq!((whole.kind, first.kind, second.kind), (2, 3, 3), "server, client, client");
    assert_eq!((whole.name.as_str(), first.name.as_str()), ("GET */", "GET"));
    assert!(whole.parent_span_id.is_empty());
    assert_eq!((&first.parent_span_id, &second.parent_span_id), (&whole.span_id, &whole.span_id));
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/a"),
        ("url.query", "x=1&token=***"),
        ("server.address", "test"),
        ("client.address", "127.0.0.1"),
        ("http.response.status_code", "200"),
        ("goodgate.route", "*/"),
        ("goodgate.upstream", "web"),
        ("goodgate.rescue", "retry"),
        ("goodgate.cause", "connection_terminated"),
        ("goodgate.request_id", record["request_id"].as_str().unwrap()),
    ] {
        assert_eq!(attribute(whole, name), value, "{name}");
    }
    assert_eq!(whole.status.as_ref().map_or(0, |status| status.code), 0, "the client saw no error");
    let failed = first.status.as_ref().unwrap();
    assert_eq!((failed.code, failed.message.as_str()), (2, "connection_terminated"));
    assert_eq!(attribute(first, "goodgate.retry"), "replayable");
    assert_eq!(attribute(first, "server.port"), a.address.port().to_string());
    assert_eq!(attribute(second, "server.port"), b.address.port().to_string());
    assert_eq!(attribute(second, "http.response.status_code"), "200");
    assert_eq!(attribute(second, "http.request.resend_count"), "1");
    assert!(whole.start_time_unix_nano <= first.start_time_unix_nano);
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    assert!(second.end_time_unix_nano <= whole.end_time_unix_nano);

    for (backend, attempt) in [(&a, first), (&b, second)] {
        let head = backend.heads().pop().unwrap();
        let parent = format!("00-{id}-{}-01", hex(&attempt.span_id));
        assert_eq!(fields(&head, "traceparent"), [parent], "each backend is told of its own attempt");
    }
    let all = format!("{:?}", collector.spans());
    assert!(!all.contains("SECRET"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_trace_is_continued_and_a_broken_one_is_not() {
    let backend = Backend::start(Act::Answer(200)).await;
    let collector = Collector::start().await;
    let site = site(&[&backend], "", "");
    let gateway = Gateway::start(&traced(&collector, "0.0", &site)).await;
    let sent = |headers: &'static str| {
        let (gateway, backend) = (&gateway, &backend);
        async move {
            let answer = get_with(gateway, "/", headers).await;
            let head = backend.heads().pop().unwrap();
            let record = gateway.record(&answer).await;
            (fields(&head, "traceparent"), fields(&head, "tracestate"), record["trace_id"].clone())
        }
    };
    let valid = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=1\r\n";
    let (parent, state, id) = sent(valid).await;
    let spans = collector.trace(TRACE, 2).await;
    assert_eq!(hex(&spans[0].parent_span_id), "b7ad6b7169203331");
    assert_eq!(parent, [format!("00-{TRACE}-{}-01", hex(&spans[1].span_id))]);
    assert_eq!((state, id), (vec!["a=1".to_owned()], TRACE.into()));

    let unsampled = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n";
    let (parent, ..) = sent(unsampled).await;
    assert!(parent[0].starts_with(&format!("00-{TRACE}-")) && parent[0].ends_with("-00"), "{parent:?}");
    let two = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01\r\n";
    for wrong in ["", "traceparent: rubbish\r\ntracestate: a=1\r\n", two] {
        let (parent, state, id) = sent(wrong).await;
        assert_eq!((parent.len(), state.len()), (1, 0), "{parent:?}");
        assert!(!parent[0].contains(TRACE) && parent[0].ends_with("-00"), "{parent:?}");
        assert!(parent[0].contains(id.as_str().unwrap()));
    }

    gateway.write_config(&traced(&collector, "1.0", &site));
    gateway.reload("ok").await;
    let (parent, _, id) = sent("").await;
    assert!(parent[0].ends_with("-01"), "the share is changed by a reload: {parent:?}");
    collector.trace(id.as_str().unwrap(), 2).await;
    assert_eq!(collector.spans().len(), 4, "nothing else was sampled");
    gateway.write_config(&site);
    gateway.reload("ok").await;
    assert!(gateway.errors().contains("takes effect only after a restart setting=tracing.otlp"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_traces_nothing_is_added_or_changed() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let record = gateway.record(&gateway.get("/").await).await;
    assert!(record["trace_id"].is_null());
    let head = backend.heads().pop().unwrap();
    assert!(fields(&head, "traceparent").is_empty(), "{head}");
    let headers = format!("traceparent: {PARENT}\r\ntraceparent: rubbish\r\ntracestate: a=1\r\n");
    assert_eq!(get_with(&gateway, "/", &headers).await.status, 200);
    let head = backend.heads().pop().unwrap();
    assert_eq!(fields(&head, "traceparent"), [PARENT, "rubbish"]);
    assert_eq!(fields(&head, "tracestate"), ["a=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_an_error_of_the_request_and_of_its_attempt() {
    let refusing = Backend::refusing().await;
    let collector = Collector::start().await;
    let gateway = Gateway::start(&traced(&collector, "1.0", &site(&[&refusing], "", ""))).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502);
    let record = gateway.record(&answer).await;
    for span in collector.trace(record["trace_id"].as_str().unwrap(), 2).await {
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "connection_refused"));
        assert_eq!(attribute(&span, "error.type"), "connection_refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_slow_or_refuses_harms_no_request() {
    let backend = Backend::start(Act::Answer(200)).await;
    let site = site(&[&backend], "", "");
    for act in [None, Some(Act::Hang), Some(Act::Answer(503)), Some(Act::Bytes(b"rubbish\r\n".to_vec()))] {
        let collector = Collector::start().await;
        let mut gateway = Gateway::start(&traced(&collector, "1.0", &site)).await;
        match &act {
            Some(act) => collector.set(act.clone()),
            None => collector.die().await,
        }
        let mut slowest = Duration::ZERO;
        let dropped = "goodgate_trace_spans_dropped_total";
        let start = Instant::now();
        while gateway.metric(dropped).await == 0.0 {
            assert!(start.elapsed() < crate::harness::PATIENCE, "nothing is dropped: {act:?}");
            let start = Instant::now();
            assert_eq!(get(gateway.address, "/").await.unwrap().status, 200);
            slowest = slowest.max(start.elapsed());
        }
        assert!(slowest < Duration::from_secs(1), "{act:?}: {slowest:?}");
        let said = || gateway.errors().matches("spans cannot be sent to the collector").count();
        eventually("it is said", || async { said() == 1 }).await;
        let stopping = Instant::now();
        gateway.signal(Signal::SIGTERM);
        assert_eq!(gateway.ends(Duration::from_secs(20)).await, Some(0));
        assert!(stopping.elapsed() < Duration::from_secs(6), "{act:?}: {:?}", stopping.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refreshes_a_copy_behind_a_client_is_not_traced() {
    let backend = Backend::start(page("Cache-Control: max-age=1\r\n", "old")).await;
    let collector = Collector::start().await;
    let site = site(&[&backend], "", "    cache: { use_stale: [updating] }\n");
    let gateway = Gateway::start(&traced(&collector, "0.0", &site)).await;
    let headers = format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n");
    let get = || async { get_with(&gateway, "/", &headers).await };
    let mut answers = vec![get().await];
    eventually("the copy is refreshed", || async { get().await.status == 200 && backend.requests() > 1 })
        .await;
    answers.push(get().await);
    let [asked, refresh] = &backend.heads()[..2] else { unreachable!() };
    assert!(fields(asked, "traceparent")[0].contains(TRACE));
    let parent = fields(refresh, "traceparent");
    assert!(parent.len() == 1 && !parent[0].contains(TRACE) && parent[0].ends_with("-00"), "{parent:?}");
    assert!(fields(refresh, "tracestate").is_empty(), "{refresh}");
    let record = gateway.record(&answers[1]).await;
    assert_eq!((&record["trace_id"], &record["origin"]), (&TRACE.into(), &"cache".into()));
    let hits = || collector.spans().into_iter().filter(|span| attribute(span, "goodgate.origin") == "cache");
    eventually("hits are spans too", || async { hits().count() > 0 }).await;
    let attempts = collector.spans().into_iter().filter(|span| span.kind == 3).count();
    assert_eq!(attempts, 1, "the client's own attempt, and not the refresh");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_at_the_stop_is_sent() {
    let backend = Backend::start(Act::Answer(200)).await;
    let collector = Collector::start().await;
    let mut gateway = Gateway::start(&traced(&collector, "1.0", &site(&[&backend], "", ""))).await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(20)).await, Some(0));
    assert_eq!(collector.spans().len(), 20);
    assert!(collector.requests() > 0);
}
