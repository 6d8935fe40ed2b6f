//! Backends that answer with something else than one answer. The client gets an honest error or an answer that
//! is plainly cut, and the next one gets its own.

use crate::harness::{Act, Answer, Backend, Connection, Gateway};
use crate::site;

/// What the client must see.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// An error of ours.
    Error,
    /// An answer that does not end as its framing says, or an error of ours.
    Cut,
    /// This body, or an error of ours.
    Body(&'static str),
}

use Seen::{Body, Cut, Error};

const NO_HEAD: [(&str, &str, Seen); 27] = [
    ("nothing", "", Error),
    ("garbage", "\0\x01\x02\x03garbage\r\n\r\n", Error),
    ("HTTP/0.9", "hello", Error),
    ("a page without a header", "<html><body>hello</body></html>\r\n\r\n", Error),
    ("another protocol", "SSH-2.0-OpenSSH_9.6\r\n\r\n", Error),
    ("a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Error),
    ("HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("HTTP/1.2", "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", Body("ok")),
    ("a version in lower case", "http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a version alone", "HTTP/1.1\r\n\r\n", Error),
    ("another name for it", "ICY 200 OK\r\n\r\n", Error),
    ("a space before", " HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("no space before the status", "HTTP/1.1200 OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a status below 100", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a status of no digits", "HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a negative status", "HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\nok", Error),
    ("no reason, which is allowed", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Body("ok")),
    ("an empty reason", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Body("ok")),
    ("a control character in the reason", "HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok", Body("ok")),
    ("a status line alone", "HTTP/1.1 200 OK\r\n", Error),
    ("half a status line", "HTTP/1.1 20", Error),
    ("half a header", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y", Error),
    ("only an interim answer", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Error),
    ("a switch that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Error),
    (
        "a switch to WebSocket that nobody asked for",
        "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nx",
        Error,
    ),
];

/// Behind the status line.
const FIELDS: [(&str, &str, Seen); 22] = [
    ("no colon", "X\r\nContent-Length: 2\r\n\r\nok", Error),
    ("no name", ": x\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a space in a name", "X Y: z\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a NUL in a name", "X\0: z\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a NUL in a value", "X: a\0Set-Cookie: evil\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a bare CR in a value", "X: a\rSet-Cookie: evil\r\nContent-Length: 2\r\n\r\nok", Error),
    ("an escape in a value", "X: \x1b[2J\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a DEL in a value", "X: \x7f\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a folded first field", " X: y\r\nContent-Length: 2\r\n\r\nok", Error),
    ("a space before the colon of the length", "Content-Length : 2\r\n\r\nok", Body("ok")),
    ("two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!", Error),
    ("a length with a sign", "Content-Length: +2\r\n\r\nok", Error),
    ("a length in hex", "Content-Length: 0x2\r\n\r\nok", Error),
    ("a length that is empty", "Content-Length:\r\n\r\nok", Error),
    ("a length of 2^64", "Content-Length: 18446744073709551616\r\n\r\nok", Error),
    ("a length as a fraction", "Content-Length: 2.0\r\n\r\nok", Error),
    (
        "a length and chunks",
        "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Body("ok"),
    ),
    (
        "chunks and a length",
        "Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Body("ok"),
    ),
    ("gzip and chunks", "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Error),
    ("chunks and gzip", "Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n", Error),
    (
        "chunks twice",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Error,
    ),
    (
        "chunks with an underscore are none",
        "Transfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
        Body("ok"),
    ),
];

/// Behind a header that says chunked.
const CHUNKS: [(&str, &str, Seen); 16] = [
    // Pingora reads no size as 0: the answer is empty, and the connection with the rest of it is dropped.
    ("no size", "\r\nok\r\n0\r\n\r\n", Body("")),
    ("no hex", "zz\r\nok\r\n0\r\n\r\n", Cut),
    ("a sign", "+2\r\nok\r\n0\r\n\r\n", Cut),
    ("0x", "0x2\r\nok\r\n0\r\n\r\n", Cut),
    ("more than 64 bits", "10000000000000002\r\nok\r\n0\r\n\r\n", Cut),
    ("almost 64 bits", "fffffffffffffffe\r\nok\r\n0\r\n\r\n", Cut),
    ("63 bits", "7fffffffffffffff\r\nok\r\n0\r\n\r\n", Cut),
    ("more data than said", "2\r\nokay\r\n0\r\n\r\n", Cut),
    ("less data than said", "5\r\nok\r\n0\r\n\r\n", Cut),
    ("no end", "2\r\nok\r\n", Cut),
    ("half an end", "2\r\nok\r\n0\r\n", Cut),
    ("a bad second chunk", "2\r\nok\r\nx\r\n", Cut),
    ("CR behind the data", "2\r\nok\rx0\r\n\r\n", Cut),
    ("nothing", "", Cut),
    (
        "a trailer that is none, and is dropped as one",
        "2\r\nok\r\n0\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
        Body("ok"),
    ),
    (
        "an answer behind the end",
        "2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
        Body("ok"),
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_an_honest_error() {
    let cases = NO_HEAD.map(|(name, bytes, seen)| (name, bytes.to_owned(), seen));
    run(cases.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_field_of_an_answer_goes_no_further() {
    let many: String = (0..300).map(|at| format!("X-{at}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(70 << 10));
    let no_end = format!("X: {}", "y".repeat(2 << 20));
    let whole = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}");
    let mut cases: Vec<_> = FIELDS.iter().map(|(name, fields, seen)| (*name, whole(fields), *seen)).collect();
    cases.push(("300 fields", whole(&format!("{many}Content-Length: 2\r\n\r\nok")), Error));
    cases.push(("70 KiB in one field", whole(&format!("{long}Content-Length: 2\r\n\r\nok")), Error));
    cases.push(("a field without an end", whole(&no_end), Error));
    run(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_chunks_of_an_answer_never_look_whole() {
    let whole = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let cases = CHUNKS.map(|(name, body, seen)| (name, whole(body), seen));
    let mut cases: Vec<_> = cases.into();
    let short = |length| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nok");
    cases.push(("a length that is not reached", short(3), Cut));
    cases.push(("a length of 2^63 that is not reached", short(1_u64 << 63), Cut));
    run(cases).await;
}

/// One case after another; between them the gateway is in order.
async fn run(cases: Vec<(&str, String, Seen)>) {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 0\n", "")).await;
    let mut wrong = Vec::new();
    for (name, bytes, seen) in cases {
        for closes in [true, false] {
            // What is cut off is known only when the connection ends.
            if !closes && (matches!(seen, Cut) || !bytes.ends_with("ok")) {
                continue;
            }
            let bytes = bytes.clone().into_bytes();
            backend.set(if closes { Act::BytesThenClose(bytes) } else { Act::Bytes(bytes) });
            let mut client = Connection::open(gateway.address).await.unwrap();
            match client.get("/").await {
                Ok(got) => wrong.extend(judge(&got, seen).map(|what| format!("{name}: {what}: {got:?}"))),
                Err(_) if matches!(seen, Cut) => {}
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
            backend.set(Act::Answer(200));
            for next in [client.get("/next").await, Ok(gateway.get("/next").await)].into_iter().flatten() {
                if next.status != 200 || !next.text().ends_with(" for /next\n") {
                    wrong.push(format!("{name}: the next one gets {next:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
    for record in gateway.records() {
        assert_eq!(
            record["status"] == 502,
            record["cause"].is_string() && record["origin"] == "goodgate",
            "{record}"
        );
    }
}

/// What is wrong with it, if something is.
fn judge(got: &Answer, seen: Seen) -> Option<&'static str> {
    let is_error = got.status == 502 && got.complete && got.header("proxy-status").is_some();
    let is_split = got.headers.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case("set-cookie")
            || format!("{name}{value}").bytes().any(|byte| byte < b' ' && byte != b'\t')
    });
    let framings = got.headers.iter().filter(|(name, _)| {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    });
    match seen {
        _ if is_split => Some("a field became two"),
        _ if framings.count() > 1 => Some("two framings"),
        _ if is_error => None,
        Error => Some("not an error"),
        Cut if got.complete => Some("it looks whole"),
        Body(body) if !got.complete || got.text() != body => Some("not its body"),
        Cut | Body(_) => None,
    }
}
