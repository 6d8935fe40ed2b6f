//! Every byte in every place of a request: whoever answers, and however, there is one record for it; a refusal is ours;
//! and a backend gets the request that is documented, or none.

use std::time::Duration;

use goodgate_config::normal_target;
use serde_json::Value;

use super::recorder::{Received, Recorder};
use crate::harness::frames::{DATA, END_HEADERS, END_STREAM, End, Frames, HEADERS, block, frame};
use crate::harness::{Connection, Gateway, eventually};
use crate::http2_frames;

const LIMIT: Duration = Duration::from_secs(20);

/// Places in a request, each marked with `@`.
const PLACES: [(&str, &str); 16] = [
    ("method", "P@T /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("path", "GET /a@b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("query", "GET /a?b@c HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("absolute", "GET http://a/b@c HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("authority", "GET http://a@a/ HTTP/1.1\r\nHost: a@a\r\n\r\n"),
    ("fragment", "GET /a#b@c HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("protocol", "GET /a HTT@/1.1\r\nHost: a\r\n\r\n"),
    ("version", "GET /a HTTP/1.@\r\nHost: a\r\n\r\n"),
    ("name", "GET /a HTTP/1.1\r\nHost: a\r\nX@Y: b\r\n\r\n"),
    ("value", "GET /a HTTP/1.1\r\nHost: a\r\nX: b@c\r\n\r\n"),
    ("host", "GET /a HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    ("connection", "GET /a HTTP/1.1\r\nHost: a\r\nConnection: x@y\r\n\r\n"),
    ("length", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1@\r\n\r\nx"),
    ("coding", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked@\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
    ("chunk", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1@\r\nx\r\n0\r\n\r\n"),
    (
        "trailer",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX@: b@\r\n\r\n",
    ),
];

fn at(place: &str, byte: u8) -> Vec<u8> {
    place.bytes().map(|other| if other == b'@' { byte } else { other }).collect()
}

/// What a backend must get of a target: the path in its normal form, the query as it is but for what a URI cannot
/// hold. None: the request is refused.
fn expected(target: &[u8]) -> Option<String> {
    if target.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'#') {
        return None;
    }
    let normal = normal_target(target).ok()?;
    let normal = normal.unwrap_or_else(|| String::from_utf8(target.to_vec()).unwrap());
    let (path, query) =
        normal.split_once('?').map_or((normal.as_str(), None), |(path, query)| (path, Some(query)));
    let query = query.map(|query| query.replace('"', "%22").replace('<', "%3C").replace('>', "%3E"));
    Some(query.map_or(path.to_owned(), |query| format!("{path}?{query}")))
}

fn expected_line(place: &str, byte: u8) -> Option<Option<String>> {
    let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match place {
        "method" => Some(is_token.then(|| format!("P{}T /a", char::from(byte)))),
        "path" => Some(expected(&at("/a@b", byte)).map(|target| format!("GET {target}"))),
        "query" => Some(expected(&at("/a?b@c", byte)).map(|target| format!("GET {target}"))),
        "absolute" => Some(expected(&at("/b@c", byte)).map(|target| format!("GET {target}"))),
        _ => None,
    }
}

/// Every record by its request id, once.
fn assert_recorded(records: &[Value], ids: &[String]) {
    for id in ids {
        let count = records.iter().filter(|record| record["request_id"] == id.as_str()).count();
        assert_eq!(count, 1, "records of {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_1_each_request_has_one_record_and_one_reading() {
    let recorder = Recorder::start().await;
    let limits = "limits: { header_timeout: 5s, body_timeout: 5s }\n";
    let config =
        format!("{limits}upstreams: {{ web: ['{}'] }}\nroutes: [{{ upstream: web }}]\n", recorder.address);
    let gateway = Gateway::start(&config).await;
    let (mut sent, mut refused, mut ids) = (0, 0, Vec::new());
    for (name, place) in PLACES {
        for byte in 0..=u8::MAX {
            let case = format!("{byte:#04x} as {name}");
            let mut connection = Connection::open(gateway.address).await.unwrap();
            let _ = connection.send(at(place, byte)).await;
            let _ = connection.half_close().await;
            sent += 1;
            let raw = String::from_utf8_lossy(&connection.rest(LIMIT).await.unwrap()).into_owned();
            assert!(!raw.contains("Pingora"), "{case}: {raw}");
            let status = raw.get(9..12).and_then(|status| status.parse::<u16>().ok());
            let field = |name: &str| {
                let mut fields = raw.lines().filter_map(|line| line.split_once(": "));
                fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            };
            if status.is_some_and(|status| status >= 400) {
                assert!(
                    field("proxy-status").is_some_and(|value| value.starts_with("goodgate")),
                    "{case}: {raw}"
                );
                refused += 1;
            }
            ids.extend(field("x-request-id"));
            let line = expected_line(name, byte);
            if let Some(line) = line {
                let received: Vec<Received> = line.iter().map(|line| Received::new(line, "")).collect();
                let took = recorder.took(&received).await;
                assert!(took.is_ok(), "{case}: {took:?}");
                assert_eq!(status, Some(if line.is_some() { 200 } else { 400 }), "{case}: {raw}");
            } else {
                let took = recorder.take();
                assert!(
                    took.len() <= 1 && (status == Some(200)) == (took.len() == 1),
                    "{case}: {took:?} {raw}"
                );
            }
        }
    }
    assert_eq!(recorder.wrong(), Vec::<String>::new());
    eventually("all records", || async { gateway.records().len() >= sent }).await;
    let records = gateway.records();
    assert_eq!(records.len(), sent, "one record for each request");
    assert_recorded(&records, &ids);
    assert!(gateway.metric("goodgate_requests_refused_total").await as usize >= refused);
    assert_eq!(
        gateway.metric("goodgate_requests_refused_total{reason=\"protocol\"}").await,
        0.0,
        "all are ours"
    );
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_each_request_has_one_record_and_one_reading() {
    let (gateway, authority, recorder) = http2_frames::start().await;
    let get: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "site.test"), (":path", "/a")];
    let places: [(&str, &str); 8] = [
        (":method", "P@T"),
        (":scheme", "http@"),
        (":authority", "site@test"),
        (":path", "/a@b"),
        (":path", "/a?b@c"),
        ("x@y", "b"),
        ("x", "b@c"),
        ("content-length", "1@"),
    ];
    let mut sent = 0;
    for (name, value) in places {
        let mut client = Frames::open(&gateway, &authority).await;
        for byte in 0..=u8::MAX {
            let case = format!("{byte:#04x} in {name}: {value}");
            let changed = (at(name, byte), at(value, byte));
            let mut fields: Vec<(Vec<u8>, Vec<u8>)> = get
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
            match fields.iter_mut().find(|(other, _)| *other == name.as_bytes()) {
                Some(field) => *field = changed,
                None => fields.push(changed),
            }
            let fields: Vec<(&[u8], &[u8])> =
                fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            let has_body = name == "content-length";
            let stream = client.stream();
            let end = if has_body { 0 } else { END_STREAM };
            let mut frames = vec![frame(HEADERS, END_HEADERS | end, stream, &block(&fields))];
            if has_body {
                frames.push(frame(DATA, END_STREAM, stream, b"x"));
            }
            client.send(&frames).await;
            sent += 1;
            let end = client.end(stream).await;
            if matches!(end, End::Closed(_)) || sent % 16 == 0 {
                client = Frames::open(&gateway, &authority).await;
            }
            let took = recorder.take();
            assert!(took.len() <= 1 && (took.is_empty() || end == End::Answered), "{case}: {end:?} {took:?}");
            if let (":path", Some(target), [received]) = (name, expected(&at(value, byte)), took.as_slice()) {
                assert_eq!(received.line, format!("GET {target}"), "{case}");
            }
        }
    }
    assert_eq!(recorder.wrong(), Vec::<String>::new());
    eventually("all records", || async { gateway.records().len() >= sent }).await;
    assert_eq!(gateway.records().len(), sent, "one record for each request");
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
}
