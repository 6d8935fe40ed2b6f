//! What the standards allow works, however unusual it looks: strict is not the same as deaf.

use super::{Case, LIMITS, SMUGGLED, run};

/// A GET on `/case` whose fields are these, with its only Host.
fn get(fields: &str) -> String {
    format!("GET /case HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn once(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    Case::accepted(name, bytes, &[("GET /case", "")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_as_its_requests_ask() {
    let kept = |version: &str, fields: &str| format!("GET /case HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
    let cases = vec![
        once("HTTP/1.1 says nothing", kept("1.1", "")),
        once("HTTP/1.1 with keep-alive", kept("1.1", "Connection: keep-alive\r\n")),
        once("HTTP/1.1 with Keep-Alive in capitals", kept("1.1", "CONNECTION: KEEP-ALIVE\r\n")),
        once("HTTP/1.1 with close", kept("1.1", "Connection: close\r\n")).then_closed(),
        once("with Close", kept("1.1", "connection: Close\r\n")).then_closed(),
        once("close in a list", kept("1.1", "Connection: x, close\r\nX: y\r\n")).then_closed(),
        once("close in a second field", kept("1.1", "Connection: x\r\nConnection: close\r\n")).then_closed(),
        once("close wins over keep-alive", kept("1.1", "Connection: keep-alive, close\r\n")).then_closed(),
        once("and in the other order", kept("1.1", "Connection: close, keep-alive\r\n")).then_closed(),
        once("in two fields as well", kept("1.1", "Connection: keep-alive\r\nConnection: close\r\n"))
            .then_closed(),
        once("empty elements of a list", kept("1.1", "Connection: , ,keep-alive,\r\n")),
        once("HTTP/1.0 says nothing", kept("1.0", "")).then_closed(),
        once("HTTP/1.0 with keep-alive", kept("1.0", "Connection: keep-alive\r\n")),
        once("HTTP/1.0 with Keep-Alive in capitals", kept("1.0", "CONNECTION: KEEP-ALIVE\r\n")),
        once("HTTP/1.0 with both", kept("1.0", "Connection: keep-alive, close\r\n")).then_closed(),
    ];
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_read_however_they_are_written() {
    let cases = vec![
        once("one empty line before", format!("\r\n{}", get(""))),
        once("names in lower case", "GET /case HTTP/1.1\r\nhost: a\r\naccept: */*\r\n\r\n"),
        once("names in capitals", "GET /case HTTP/1.1\r\nHOST: a\r\nACCEPT: */*\r\n\r\n")
            .with_field("accept: */*"),
        once("names in both", "GET /case HTTP/1.1\r\nhOsT: a\r\n\r\n"),
        once("Host last", "GET /case HTTP/1.1\r\nAccept: */*\r\nHost: a\r\n\r\n"),
        once("no white space", get("X:y\r\n")).with_field("x: y"),
        once("much white space", get("X: \t  y  \t \r\n")).with_field("x: y"),
        once("a value with colons", get("X: a:b: c\r\n")).with_field("x: a:b: c"),
        once("a value with quotes", get("X: \"a, \\\"b\\\"\"\r\n")).with_field("x: \"a, \\\"b\\\"\""),
        once("a field twice", get("X: 1\r\nX: 2\r\n")).with_field("x: 1").with_field("x: 2"),
        once("a name of one letter", get("a: b\r\n")).with_field("a: b"),
        once("every character that a name may have", get("!#$%&'*+-.^`|~09aZ: y\r\n")),
        once(
            "a value with bytes beyond ASCII",
            [get("").trim_end().as_bytes(), b"\r\nX: \xff\xc3\xa9\r\n\r\n"].concat(),
        ),
        once("many cookies", get("Cookie: a=b; c=\"d\"\r\nCookie: e=f\r\n")),
        once("a date", get("If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT\r\n")),
        once("a range", get("Range: bytes=0-1,3-\r\n")).with_field("range: bytes=0-1,3-"),
        once("a host with a port", "GET /case HTTP/1.1\r\nHost: a:8080\r\n\r\n").with_field("host: a:8080"),
        once("a host in IPv6", "GET /case HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").with_field("host: [::1]:80"),
        once("TE: trailers", get("TE: trailers\r\nConnection: TE\r\n")).without(&["\r\nte:"]),
        once("a Trailer that is announced", get("Trailer: X\r\n")),
        once("a priority", get("Priority: u=1, i\r\n")),
        once("Upgrade-Insecure-Requests is no Upgrade", get("Upgrade-Insecure-Requests: 1\r\n")),
        once("Upgrade without Connection is nothing", get("Upgrade: websocket\r\n"))
            .without(&["\r\nupgrade:"]),
    ];
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_taken_in_each_form() {
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let case = |name: &str, sent: &str, seen: &str| Case::accepted(name, line(sent), &[(seen, "")]);
    let long = format!("/{}", "p".repeat(4000));
    let cases = vec![
        case("a path", "GET /", "GET /"),
        case("a path with a query", "GET /a?b=c&d", "GET /a?b=c&d"),
        case("an empty query", "GET /a?", "GET /a?"),
        case("a second question mark", "GET /a??b", "GET /a??b"),
        case("a slash and a colon in the query", "GET /a?u=http://b:1/", "GET /a?u=http://b:1/"),
        case("what a path may hold", "GET /-._~!$&'()*+,;=:@", "GET /-._~!$&'()*+,;=:@"),
        case("escapes", "GET /a%20b%C3%A9", "GET /a%20b%C3%A9"),
        case("a long path", &format!("GET {long}"), &format!("GET {long}")),
        case("an absolute target", "GET http://a.test/x", "GET /x").with_field("host: a.test"),
        case("without a path", "GET http://a.test", "GET /").with_field("host: a.test"),
        case("with a query only", "GET http://a.test?q", "GET /?q"),
        case("of https", "GET https://a.test/x", "GET /x"),
        case("with a scheme in capitals", "GET HTTPS://a.test/x", "GET /x"),
        case("OPTIONS of the server", "OPTIONS *", "OPTIONS *"),
        case("OPTIONS of a path", "OPTIONS /x", "OPTIONS /x"),
        case("HEAD", "HEAD /x", "HEAD /x"),
        case("DELETE", "DELETE /x", "DELETE /x"),
        case("PROPFIND", "PROPFIND /x", "PROPFIND /x"),
        case("a method in lower case is another one", "get /x", "get /x"),
        Case::accepted(
            "an absolute target in HTTP/1.0, whose host is that of the target",
            "GET http://b.test:81/x HTTP/1.0\r\n\r\n",
            &[("GET /x", "")],
        )
        .with_field("host: b.test:81")
        .then_closed(),
    ];
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_until_one_is_none() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    let chunks = |path: &str| {
        format!(
            "PUT {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA;x\r\n0123456789\r\n0\r\nT: u\r\n\r\n"
        )
    };
    let mixed = [get("/1"), post("/2"), chunks("/3"), format!("\r\n{}", get("/4")), post("/5")].concat();
    let seen =
        [("GET /1", ""), ("POST /2", "abc"), ("PUT /3", "0123456789"), ("GET /4", ""), ("POST /5", "abc")];
    let many: String = (0..50).map(|at| get(&format!("/{at}"))).collect();
    let lines: Vec<String> = (0..50).map(|at| format!("GET /{at}")).collect();
    let lines: Vec<(&str, &str)> = lines.iter().map(|line| (line.as_str(), "")).collect();
    let head = "HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n";
    let closing = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let two = &seen[..2];
    let behind = |name: &str, bytes: &str, status| {
        Case::accepted(name, format!("{}{}{bytes}", get("/1"), post("/2")), two).then_refused(status)
    };
    let cases = vec![
        Case::accepted("five of all kinds", mixed, &seen),
        Case::accepted("fifty", many, &lines),
        Case::accepted(
            "HEAD between",
            [&get("/1"), head, &get("/1")].concat(),
            &[seen[0], ("HEAD /h", ""), seen[0]],
        ),
        Case::accepted(
            "nothing behind a close",
            format!("{}{closing}{SMUGGLED}", get("/1")),
            &[seen[0], ("GET /last", "")],
        )
        .then_closed(),
        behind("garbage behind two", "\0\0\0\0", 400),
        behind(
            "a bad head behind two",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
            400,
        ),
        behind(
            "two framings behind two",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        behind("another version behind two", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        behind("a tunnel behind two", "CONNECT b:443 HTTP/1.1\r\nHost: b\r\n\r\n", 405),
        behind("half a head behind two", "GET / HTTP/1.1\r\nHo", 408),
        behind("half a body behind two", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", 408),
        behind(
            "a bad chunk behind two",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        behind(
            "too long a body behind two",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nabc",
            413,
        ),
        behind(
            "too long a target behind two",
            &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)),
            414,
        ),
        behind("too long a head behind two", &format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(40_000)), 431),
    ];
    run(LIMITS, cases).await;
}
