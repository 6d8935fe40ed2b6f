//! What the frames of HTTP/2 become towards a backend that speaks HTTP/1.1: whatever the frames, one request with one
//! end, or an error.

use crate::attacks::recorder::{Received, Recorder};
use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, End, Frames, HEADERS, PADDED, POST, block, frame,
};
use crate::harness::gateway::folder;
use crate::harness::tls::{Authority, valid};
use crate::harness::{Gateway, eventually};

const PROTOCOL_ERROR: u32 = 1;

/// A gateway that offers HTTP/2 before a backend that reads by the letter.
pub(crate) async fn start() -> (Gateway, Authority, Recorder) {
    let (recorder, authority, folder) = (Recorder::start().await, Authority::new(), folder());
    authority.write(&folder, "site", valid("site.test"));
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', http2: true, tls: {{ certificates: [{{ cert: site.crt, key: site.key }}] }} }}]\n\
         admin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\nlimits: {{ body_timeout: 1s }}\n\
         upstreams:\n  app: {{ backends: ['{}'] }}\nroutes: [{{ upstream: app }}]\n",
        folder.join("access.log").display(),
        recorder.address
    );
    (Gateway::start_in(folder, &text).await, authority, recorder)
}

type Field<'a> = (&'a [u8], &'a [u8]);

fn post(more: &[Field<'_>]) -> Vec<u8> {
    block(&[POST.as_slice(), more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_exactly_one_end_whatever_its_frames() {
    let (gateway, authority, recorder) = start().await;
    let mut client = Frames::open(&gateway, &authority).await;
    let padded = [&[3], b"hello".as_slice(), &[0; 3]].concat();
    let trailers = block(&[(b"x-checksum", b"1")]);
    let length: [Field<'_>; 1] = [(b"content-length", b"5")];
    let none: [Field<'_>; 1] = [(b"content-length", b"0")];
    type Body<'a> = (&'a str, &'a [Field<'a>], Vec<(u8, u8, &'a [u8])>, &'a str);
    let bodies: [Body<'_>; 12] = [
        ("no body", &[], vec![], ""),
        ("one frame", &[], vec![(DATA, END_STREAM, b"hello")], "hello"),
        ("an empty frame as the end", &[], vec![(DATA, 0, b"hello"), (DATA, END_STREAM, b"")], "hello"),
        (
            "empty frames between",
            &[],
            vec![
                (DATA, 0, b""),
                (DATA, 0, b"he"),
                (DATA, 0, b""),
                (DATA, 0, b""),
                (DATA, END_STREAM, b"llo"),
            ],
            "hello",
        ),
        ("only an empty frame", &[], vec![(DATA, END_STREAM, b"")], ""),
        ("several empty frames", &[], vec![(DATA, 0, b""), (DATA, 0, b""), (DATA, END_STREAM, b"")], ""),
        ("padding", &[], vec![(DATA, PADDED, &padded), (DATA, PADDED | END_STREAM, &[3, 0, 0, 0])], "hello"),
        (
            "trailers as the end",
            &[],
            vec![(DATA, 0, b"hello"), (HEADERS, END_HEADERS | END_STREAM, &trailers)],
            "hello",
        ),
        (
            "an empty frame before trailers",
            &[],
            vec![(DATA, 0, b"hello"), (DATA, 0, b""), (HEADERS, END_HEADERS | END_STREAM, &trailers)],
            "hello",
        ),
        (
            "a length, and an empty frame as the end",
            &length,
            vec![(DATA, 0, b"hello"), (DATA, END_STREAM, b"")],
            "hello",
        ),
        (
            "a length, and trailers as the end",
            &length,
            vec![(DATA, 0, b"hello"), (HEADERS, END_HEADERS | END_STREAM, &trailers)],
            "hello",
        ),
        ("a length of zero, and an empty frame", &none, vec![(DATA, END_STREAM, b"")], ""),
    ];
    for (name, fields, body, expected) in &bodies {
        // Sent at once, and frame by frame.
        for is_slow in [false, true] {
            let stream = client.stream();
            let end = if body.is_empty() { END_STREAM } else { 0 };
            let mut frames = vec![frame(HEADERS, END_HEADERS | end, stream, &post(fields))];
            frames.extend(body.iter().map(|(kind, flags, payload)| frame(*kind, *flags, stream, payload)));
            if is_slow {
                for frame in frames {
                    client.send(&[frame]).await;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            } else {
                client.send(&frames).await;
            }
            assert_eq!(client.end(stream).await, End::Answered, "{name}");
            // The next one shows whether the connection to the backend has more bytes on it.
            let next = client.stream();
            client.send(&[frame(HEADERS, END_HEADERS | END_STREAM, next, &post(&[]))]).await;
            assert_eq!(client.end(next).await, End::Answered, "{name}");
            let expected = [Received::new("POST /case", expected), Received::new("POST /case", "")];
            let took = recorder.took(&expected).await;
            assert!(took.is_ok(), "{name}, {is_slow}: {took:?}");
        }
    }
    let sent = bodies.len() * 4;
    eventually("one record for each", || async { gateway.records().len() == sent }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_length_than_announced_never_looks_complete() {
    let (gateway, authority, recorder) = start().await;
    let length: [Field<'_>; 1] = [(b"content-length", b"5")];
    let cases: [(&str, &[Field<'_>], u8, &[u8]); 3] = [
        ("shorter", &length, 0, b"hell"),
        ("longer", &length, 0, b"hello!"),
        ("none", &length, END_STREAM, b""),
    ];
    for (name, fields, end, body) in cases {
        let mut client = Frames::open(&gateway, &authority).await;
        let stream = client.stream();
        let mut frames = vec![frame(HEADERS, END_HEADERS | end, stream, &post(fields))];
        if end == 0 {
            frames.push(frame(DATA, END_STREAM, stream, body));
        }
        client.send(&frames).await;
        assert_eq!(client.end(stream).await, End::Reset(PROTOCOL_ERROR), "{name}");
    }
    eventually("one record for each", || async { gateway.records().len() == cases.len() }).await;
    assert_eq!(recorder.took(&[]).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_trailers_are_a_stream_error() {
    let (gateway, authority, recorder) = start().await;
    let mut client = Frames::open(&gateway, &authority).await;
    let mut sent = 0;
    let fields: [Field<'_>; 6] = [
        (b":path", b"/other"),
        (b":method", b"GET"),
        (b":status", b"200"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"gzip"),
    ];
    let mut blocks: Vec<Vec<u8>> = fields.iter().map(|field| block(&[*field])).collect();
    // `:method: POST` of the static table, and the same behind another field.
    blocks.push(vec![0x83]);
    blocks.push([block(&[(b"x-a", b"1")]), vec![0x83]].concat());
    // `:path` as a name of the static table with a value of its own, that is stored, and then is in the dynamic table.
    blocks.push([vec![0x44, 2], b"/x".to_vec()].concat());
    blocks.push(vec![0xbe]);
    for trailers in blocks {
        let stream = client.stream();
        client
            .send(&[
                frame(HEADERS, END_HEADERS, stream, &post(&[])),
                frame(DATA, 0, stream, b"hello"),
                frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers),
            ])
            .await;
        sent += 1;
        let end = client.end(stream).await;
        assert_eq!(end, End::Reset(PROTOCOL_ERROR), "{}", trailers.escape_ascii());
    }
    let good = client.stream();
    client.send(&[frame(HEADERS, END_HEADERS | END_STREAM, good, &post(&[]))]).await;
    assert_eq!(client.end(good).await, End::Answered, "the connection serves other requests");
    // Names that no field has are an error of the connection.
    for field in [(b":other".as_slice(), b"1".as_slice()), (b"X-Upper", b"1")] {
        let mut client = Frames::open(&gateway, &authority).await;
        let stream = client.stream();
        client
            .send(&[
                frame(HEADERS, END_HEADERS, stream, &post(&[])),
                frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[field])),
            ])
            .await;
        sent += 1;
        assert_eq!(client.end(stream).await, End::Closed(Some(PROTOCOL_ERROR)));
    }
    eventually("one record for each", || async { gateway.records().len() == sent + 1 }).await;
    assert_eq!(recorder.took(&[Received::new("POST /case", "")]).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_library_resets_has_its_record() {
    let (gateway, authority, recorder) = start().await;
    let mut client = Frames::open(&gateway, &authority).await;
    let get = |path: &'static [u8]| {
        let fields: [Field<'_>; 4] =
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", path)];
        block(&fields)
    };
    for path in [b"/?q=\"x\"".as_slice(), b"/<a>", b"/a b", b"", b"a"] {
        let stream = client.stream();
        client.send(&[frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(path))]).await;
        assert_eq!(client.end(stream).await, End::Reset(PROTOCOL_ERROR), "{}", path.escape_ascii());
    }
    eventually("their records", || async { gateway.records().len() == 5 }).await;
    for record in gateway.records() {
        assert_eq!(
            (&record["status"], &record["cause"]),
            (&400.into(), &"http_request_error".into()),
            "{record}"
        );
        assert!(record["detail"].is_string() && record["client"] == "127.0.0.1", "{record}");
    }
    assert_eq!(gateway.metric("goodgate_requests_refused_total{reason=\"protocol\"}").await, 5.0);
    assert_eq!(recorder.took(&[]).await, Ok(()));
}
