//! Requests whose end could be read in two ways, with another request hidden behind them.

use super::{Case, LIMITS, SMUGGLED, run};
use crate::harness::{Connection, Gateway};

use super::recorder::{Received, Recorder};

fn post(fields: &str, body: &str) -> String {
    format!("POST /case HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// Framing that is refused whatever the body is.
const TWO_READINGS: [(&str, &str); 65] = [
    ("CL.TE", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    ("CL.TE in lower case", "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
    ("TE.CL in upper case", "TRANSFER-ENCODING: CHUNKED\r\nCONTENT-LENGTH: 5\r\n"),
    ("CL 0 and TE", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    ("CL and TE with a field between", "Content-Length: 5\r\nX: y\r\nTransfer-Encoding: chunked\r\n"),
    ("CL and TE: identity", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n"),
    ("TE: chunked, identity", "Transfer-Encoding: chunked, identity\r\n"),
    ("TE: identity, chunked", "Transfer-Encoding: identity, chunked\r\n"),
    ("TE: identity", "Transfer-Encoding: identity\r\n"),
    ("TE: gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
    ("TE: chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n"),
    ("TE: chunked with an empty element", "Transfer-Encoding: chunked,\r\n"),
    ("TE: an empty element and chunked", "Transfer-Encoding: , chunked\r\n"),
    ("TE: xchunked", "Transfer-Encoding: xchunked\r\n"),
    ("TE: chunkedx", "Transfer-Encoding: chunkedx\r\n"),
    ("TE: chunked;q=1", "Transfer-Encoding: chunked;q=1\r\n"),
    ("TE: chunked VT", "Transfer-Encoding: chunked\x0b\r\n"),
    ("TE: VT chunked", "Transfer-Encoding: \x0bchunked\r\n"),
    ("TE: FF chunked", "Transfer-Encoding: \x0cchunked\r\n"),
    ("TE: chunked NUL", "Transfer-Encoding: chunked\0\r\n"),
    ("TE: DEL chunked", "Transfer-Encoding: \x7fchunked\r\n"),
    ("TE: chunked CR", "Transfer-Encoding: chunked\r\r\n"),
    ("TE: CR chunked", "Transfer-Encoding:\rchunked\r\n"),
    ("TE: no-break space", "Transfer-Encoding: \u{a0}chunked\r\n"),
    ("TE quoted", "Transfer-Encoding: \"chunked\"\r\n"),
    ("TE in single quotes", "Transfer-Encoding: 'chunked'\r\n"),
    ("TE empty", "Transfer-Encoding:\r\n"),
    ("TE twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    ("TE twice, cow first", "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n"),
    ("TE twice, identity second", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    (
        "Transfer_Encoding: as Envoy by choice and nginx by default, never passed on",
        "Transfer_Encoding: chunked\r\n",
    ),
    ("space before the colon of TE", "Transfer-Encoding : chunked\r\n"),
    ("tab before the colon of TE", "Transfer-Encoding\t: chunked\r\n"),
    ("a space before the name TE", "X: y\r\n Transfer-Encoding: chunked\r\n"),
    ("a NUL in the name TE", "Transfer-\0Encoding: chunked\r\n"),
    ("TE folded", "Transfer-Encoding:\r\n chunked\r\n"),
    ("TE folded with a tab", "Transfer-Encoding:\r\n\tchunked\r\n"),
    ("TE folded behind", "Transfer-Encoding: chunked\r\n , identity\r\n"),
    ("TE behind a bare LF", "X: y\nTransfer-Encoding: chunked\r\n"),
    ("TE behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\n"),
    ("CL twice the same; HAProxy joins them, nginx refuses", "Content-Length: 5\r\nContent-Length: 5\r\n"),
    ("CL twice, different", "Content-Length: 5\r\nContent-Length: 6\r\n"),
    ("CL twice, 0 first", "Content-Length: 0\r\ncontent-length: 44\r\n"),
    ("CL as a list", "Content-Length: 5, 5\r\n"),
    ("CL as a list of two", "Content-Length: 5,6\r\n"),
    ("CL with +", "Content-Length: +5\r\n"),
    ("CL with -", "Content-Length: -5\r\n"),
    ("CL -0", "Content-Length: -0\r\n"),
    ("CL with a space inside", "Content-Length: 5 5\r\n"),
    ("CL in hex", "Content-Length: 0x5\r\n"),
    ("CL in hex digits", "Content-Length: 5a\r\n"),
    ("CL empty", "Content-Length:\r\n"),
    ("CL in octal", "Content-Length: 0o5\r\n"),
    ("CL 2^64", "Content-Length: 18446744073709551616\r\n"),
    ("CL 2^64 and 5", "Content-Length: 18446744073709551621\r\n"),
    ("CL of 1000 digits", LONG_LENGTH),
    ("CL with NUL", "Content-Length: 5\0\r\n"),
    ("CL with a semicolon", "Content-Length: 5;\r\n"),
    ("CL as a fraction", "Content-Length: 5.0\r\n"),
    ("CL quoted", "Content-Length: \"5\"\r\n"),
    ("Content_Length", "Content_Length: 5\r\n"),
    ("space before the colon of CL", "Content-Length : 5\r\n"),
    ("CL folded", "Content-Length:\r\n 5\r\n"),
    ("CL folded behind", "Content-Length: 5\r\n 5\r\n"),
];
const LONG_LENGTH: &str =
    concat!("Content-Length: ", "0000000000000000000000000000000000000000000000000005", "\r\n");

#[tokio::test(flavor = "multi_thread")]
async fn a_framing_with_two_readings_is_refused_with_what_is_behind_it() {
    let bodies = ["0\r\n\r\n", "hello"];
    let cases = TWO_READINGS.iter().flat_map(|(name, fields)| {
        bodies.map(|body| {
            Case::refused(format!("{name}, {body:?}"), post(fields, &format!("{body}{SMUGGLED}")), 400)
        })
    });
    run(LIMITS, cases.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_only_unusual_is_taken_by_its_digits() {
    let two = [("POST /case", "hello"), ("GET /smuggled", "")];
    let accept =
        |name: &str, fields: &str| Case::accepted(name, post(fields, &format!("hello{SMUGGLED}")), &two);
    let cases = vec![
        accept("leading zeros are digits (RFC 9110 section 8.6)", "Content-Length: 0005\r\n"),
        accept("white space around", "Content-Length: \t 5 \t\r\n"),
        accept("no white space", "Content-Length:5\r\n"),
        accept("upper case", "CONTENT-LENGTH: 5\r\n"),
        Case::refused(
            "2^63 - 1 is a number, and too much",
            post("Content-Length: 9223372036854775807\r\n", SMUGGLED),
            413,
        ),
        Case::refused("2^63", post("Content-Length: 9223372036854775808\r\n", SMUGGLED), 413),
        Case::refused(
            "HTTP/1.0 has no chunks",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        Case::refused(
            "nor with a length",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        Case::accepted(
            "TE in upper case",
            post("TRANSFER-ENCODING: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            &two[..1],
        ),
        Case::accepted(
            "TE in white space",
            post("Transfer-Encoding: \t chunked \t\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            &two[..1],
        ),
        Case::accepted(
            "X-Transfer-Encoding is no framing",
            post("X-Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
            &two[..1],
        ),
    ];
    run(LIMITS, cases).await;
}

/// Chunks that are cut off or refused; the request behind them is not read.
const BAD_CHUNKS: [(&str, &str); 54] = [
    ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("+", "+5\r\nhello\r\n0\r\n\r\n"),
    ("-", "-5\r\nhello\r\n0\r\n\r\n"),
    ("a space before", " 5\r\nhello\r\n0\r\n\r\n"),
    ("a space behind; llhttp refuses it too", "5 \r\nhello\r\n0\r\n\r\n"),
    ("an extension without a name", "5;\r\nhello\r\n0\r\n\r\n"),
    ("two semicolons", "5;;a\r\nhello\r\n0\r\n\r\n"),
    ("an extension of two words", "5;a b\r\nhello\r\n0\r\n\r\n"),
    ("an extension with = and nothing", "5;a=\r\nhello\r\n0\r\n\r\n"),
    ("an extension with two values", "5;a=b=c\r\nhello\r\n0\r\n\r\n"),
    ("something behind a quoted value", "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n"),
    ("a space behind an extension", "5;a=b \r\nhello\r\n0\r\n\r\n"),
    ("a comma for a semicolon", "5,a=b\r\nhello\r\n0\r\n\r\n"),
    ("a bad extension of the last chunk", "5\r\nhello\r\n0;;\r\n\r\n"),
    ("a digit beyond ASCII", "\u{665}\r\nhello\r\n0\r\n\r\n"),
    ("a fraction", "5.0\r\nhello\r\n0\r\n\r\n"),
    ("digits of h", "5h\r\nhello\r\n0\r\n\r\n"),
    ("-0 at the end", "5\r\nhello\r\n-0\r\n\r\n"),
    ("0x0 at the end", "5\r\nhello\r\n0x0\r\n\r\n"),
    ("CR LF CR at the end", "5\r\nhello\r\n0\r\n\r"),
    ("a trailer without a name", "5\r\nhello\r\n0\r\n: x\r\n\r\n"),
    ("a trailer with NUL", "5\r\nhello\r\n0\r\nx: \0\r\n\r\n"),
    ("a bare CR in a trailer", "5\r\nhello\r\n0\r\nx: y\rz: w\r\n\r\n"),
    ("a folded first trailer", "5\r\nhello\r\n0\r\n x: y\r\n\r\n"),
    ("a tab behind", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("a space inside", "0 5\r\nhello\r\n0\r\n\r\n"),
    ("an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("no hex", "g\r\nhello\r\n0\r\n\r\n"),
    ("17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("17 digits that wrap to 5", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("16 digits of f, more than there is memory", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("only an extension", ";a\r\nhello\r\n0\r\n\r\n"),
    ("an empty line between", "5\r\nhello\r\n\r\n0\r\n\r\n"),
    ("no CRLF behind the data", "5\r\nhello0\r\n\r\n"),
    ("more data than said", "5\r\nhello!\r\n0\r\n\r\n"),
    ("LF behind the data", "5\r\nhello\n0\r\n\r\n"),
    ("CR behind the data", "5\r\nhello\r0\r\n\r\n"),
    ("LF behind the size", "5\nhello\r\n0\r\n\r\n"),
    ("CR behind the size", "5\rhello\r\n0\r\n\r\n"),
    ("LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
    ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
    ("CRLF in quotes in an extension", "5;a=\"\r\nhello\r\n0\r\n\r\n"),
    ("NUL in the size", "5\0\r\nhello\r\n0\r\n\r\n"),
    ("LF ends the body", "5\r\nhello\r\n0\n\n"),
    ("LF ends the trailers", "5\r\nhello\r\n0\r\n\n"),
    ("CR ends the trailers", "5\r\nhello\r\n0\r\n\rx\r\n\r\n"),
    ("data behind the last chunk", "5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a trailer without a colon", "5\r\nhello\r\n0\r\nx\r\n\r\n"),
    ("a trailer with a space before the colon", "5\r\nhello\r\n0\r\nx : y\r\n\r\n"),
    ("a folded trailer", "5\r\nhello\r\n0\r\nx: y\r\n z\r\n\r\n"),
    ("a trailer with a control character", "5\r\nhello\r\n0\r\nx: \x01\r\n\r\n"),
    ("a trailer ended by LF", "5\r\nhello\r\n0\r\nx: y\n\r\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_read_by_the_letter() {
    let refuse = |(name, body): &(&str, &str)| {
        Case::refused(format!("chunks: {name}"), chunked(&format!("{body}{SMUGGLED}")), 400)
    };
    let mut cases: Vec<Case> = BAD_CHUNKS.iter().map(refuse).collect();
    let long = |length: usize| format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(length));
    cases.push(Case::refused("an extension of 20 KiB", chunked(&long(20 << 10)), 400));
    cases.push(Case::refused(
        "a trailer of 20 KiB",
        chunked(&format!("0\r\nx: {}\r\n\r\n", "y".repeat(20 << 10))),
        400,
    ));
    cases.push(Case::refused(
        "many extensions",
        chunked(&format!("{}0\r\n\r\n", "1;abcdefghij\r\nx\r\n".repeat(2000))),
        400,
    ));
    cases.push(Case::refused(
        "a chunk of 2^63 that does not come",
        chunked("8000000000000000\r\nhello"),
        408,
    ));
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_chunks_arrive_and_the_next_request_is_the_next() {
    let bodies = [
        ("plain", "5\r\nhello\r\n0\r\n\r\n"),
        ("several", "1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n"),
        ("leading zeros", "0000000000000005\r\nhello\r\n000\r\n\r\n"),
        ("extensions", "5;a=b\r\nhello\r\n0;c=\"d;\\\"e\"\r\n\r\n"),
        (
            "white space before an extension (RFC 9112 section 7.1.1 must be parsed)",
            "5 \t;a\r\nhello\r\n0\r\n\r\n",
        ),
        // Trailers are dropped, whatever they say.
        ("capital hex digits", "5\r\nhello\r\n0\r\n\r\n"),
        ("extensions in every form", "5;a;b=c ; d = \"e \\\"f\\\\\"\t;g\r\nhello\r\n0;h\r\n\r\n"),
        ("a trailer Content-Length", "5\r\nhello\r\n0\r\nContent-Length: 44\r\n\r\n"),
        ("a trailer Transfer-Encoding", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("a trailer Host", "5\r\nhello\r\n0\r\nHost: b\r\nX: y\r\n\r\n"),
        ("a chunk that looks like the end", "7\r\n0\r\n\r\nab\r\n0\r\n\r\n"),
    ];
    let cases = bodies.iter().flat_map(|(name, body)| {
        let data = if name.contains("looks like") { "0\r\n\r\nab" } else { "hello" };
        let alone = Case::accepted(format!("{name}, alone"), chunked(body), &[("POST /case", data)]);
        let both = [("POST /case", data), ("GET /smuggled", "")];
        let next = Case::accepted(format!("{name}, pipelined"), chunked(&format!("{body}{SMUGGLED}")), &both);
        [alone, next]
    });
    run(LIMITS, cases.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_may_have_a_body_and_what_follows_is_the_next_request() {
    let mut cases = Vec::new();
    for method in
        ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH", "QUERY", "get", "Post", "M!#$%&'*+-.^_`|~9"]
    {
        let line = format!("{method} /x");
        for (framing, fields, sent, body) in [
            ("a length", "Content-Length: 5\r\n", "hello", "hello"),
            ("a length of none", "Content-Length: 0\r\n", "", ""),
            ("chunks", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ] {
            let bytes = format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{sent}{SMUGGLED}");
            let received = [(line.as_str(), body), ("GET /smuggled", "")];
            cases.push(Case::accepted(format!("{method} with {framing}"), bytes, &received));
        }
    }
    let get = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let two = [("GET /a", ""), ("GET /smuggled", "")];
    cases.push(Case::accepted("no body at all", format!("{get}{SMUGGLED}"), &two));
    cases.push(
        Case::accepted("and a bad one behind", format!("{get}nonsense\r\n\r\n"), &two[..1]).then_refused(400),
    );
    let close = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    cases.push(
        Case::accepted("behind the last one nothing is read", format!("{close}{SMUGGLED}"), &two[..1])
            .then_closed(),
    );
    let long = post("Content-Length: 5\r\n", "hello, and more\r\n\r\n");
    cases.push(Case::accepted("a body longer than said", long, &[("POST /case", "hello")]).then_refused(400));
    cases.push(Case::refused("a body shorter than said", post("Content-Length: 50\r\n", "hello"), 408));
    cases.push(Case::refused("a chunk shorter than said", chunked("32\r\nhello"), 408));
    cases.push(Case::refused("a chunk that swallows a request", chunked(&format!("fff\r\n{SMUGGLED}")), 408));
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expectations_and_upgrades_hide_nothing() {
    let expect = |value: &str, version: &str| {
        format!(
            "POST /e HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"
        )
    };
    let upgrade =
        |fields: &str| format!("GET /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{fields}\r\n{SMUGGLED}");
    let expected = [("POST /e", "hello"), ("GET /smuggled", "")];
    let upgraded = [("GET /u", ""), ("GET /smuggled", "")];
    let cases = vec![
        Case::accepted("100-continue with the body at once", expect("100-continue", "1.1"), &expected),
        Case::accepted("100-Continue", expect("100-Continue", "1.1"), &expected),
        Case::accepted("HTTP/1.0 expects nothing", expect("100-continue", "1.0"), &expected),
        Case::accepted("another expectation", expect("200-ok", "1.1"), &expected),
        Case::accepted("two of them", expect("100-continue, 100-continue", "1.1"), &expected),
        Case::accepted(
            "h2c is not switched to",
            upgrade("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
            &upgraded,
        ),
        Case::accepted("nor beside websocket", upgrade("Upgrade: websocket, h2c\r\n"), &upgraded),
        Case::accepted(
            "nor in a field of its own",
            upgrade("Upgrade: websocket\r\nUpgrade: h2c\r\n"),
            &upgraded,
        ),
        Case::accepted("nor TLS", upgrade("Upgrade: TLS/1.0\r\n"), &upgraded),
        Case::accepted("nor another protocol", upgrade("Upgrade: other\r\n"), &upgraded),
        Case::accepted(
            "nor WebSocket twice",
            upgrade("Upgrade: websocket\r\nUpgrade: websocket\r\n"),
            &upgraded,
        ),
        Case::accepted("nor HTTP/2.0", upgrade("Upgrade: HTTP/2.0, SHTTP/1.3\r\n"), &upgraded),
        Case::refused("a switch with a body", upgrade("Upgrade: websocket\r\nContent-Length: 5\r\n"), 400),
        Case::refused(
            "a switch with chunks",
            upgrade("Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
    ];
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_refused_upgrade_is_not_passed_through() {
    let recorder = Recorder::start().await;
    let config = format!("upstreams: {{ web: ['{}'] }}\nroutes: [{{ upstream: web }}]\n", recorder.address);
    let gateway = Gateway::start(&config).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    let switch = "GET /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(format!("{switch}{SMUGGLED}")).await.unwrap();
    // The backend answers 200: what was sent ahead was meant for another protocol, and is dropped.
    assert_eq!(client.answer(false).await.unwrap().status, 200);
    assert_eq!(client.rest(super::CLOSES).await.unwrap(), b"");
    assert_eq!(recorder.took(&[Received::new("GET /u", "")]).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reading_does_not_hang_on_how_the_bytes_are_cut() {
    let recorder = Recorder::start().await;
    let config = format!("upstreams: {{ web: ['{}'] }}\nroutes: [{{ upstream: web }}]\n", recorder.address);
    let gateway = Gateway::start(&config).await;
    let first = post("Content-Length: 5\r\n", "hello");
    let bytes = format!("\r\n{first}{}{SMUGGLED}", chunked("3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n"));
    let expected = [("POST /case", "hello"), ("POST /case", "abcde"), ("GET /smuggled", "")];
    let expected: Vec<Received> = expected.iter().map(|(line, body)| Received::new(line, body)).collect();
    for cut in 1..bytes.len() {
        let mut client = Connection::open(gateway.address).await.unwrap();
        let (one, two) = bytes.split_at(cut);
        client.send(one).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        client.send(two).await.unwrap();
        for _ in &expected {
            assert_eq!(client.answer(false).await.expect("an answer").status, 200, "{cut}");
        }
        assert_eq!(recorder.took(&expected).await, Ok(()), "{cut}");
    }
}
