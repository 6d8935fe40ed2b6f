//! Fields that would reach the backend, or be kept from it, by a trick.

use super::{Case, LIMITS, run};

fn with(name: &str, fields: &str) -> Case {
    let bytes = format!("GET /case HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    Case::accepted(name, bytes, &[("GET /case", "")])
}

fn refused(name: &str, fields: &str) -> Case {
    Case::refused(name, format!("GET /case HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"), 400)
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_takes_away_what_is_the_clients_and_nothing_that_is_ours() {
    let framed = |name: &str, nominated: &str, framing: &str| {
        let text = format!("POST /case HTTP/1.1\r\nHost: a\r\nConnection: {nominated}\r\n{framing}");
        Case::accepted(name, text, &[("POST /case", "hello")])
    };
    let (length, chunks) =
        ("Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let cases = vec![
        refused("X-Forwarded-For", "Connection: X-Forwarded-For\r\nX-Forwarded-For: 6.6.6.6\r\n"),
        refused("in a list", "Connection: keep-alive, x-forwarded-for\r\n"),
        refused("in a second field", "Connection: keep-alive\r\nConnection: X-Forwarded-Proto\r\n"),
        refused("without white space", "Connection: close,X-Forwarded-Host\r\n"),
        refused("Host", "Connection: Host\r\n"),
        // The framing is of this connection anyway: the backend gets it anew.
        framed("Content-Length", "Content-Length", length),
        framed("Content-Length beside keep-alive", "keep-alive, content-length", length),
        framed("Transfer-Encoding", "Transfer-Encoding", chunks),
        framed("Transfer-Encoding in lower case", "transfer-encoding, keep-alive", chunks),
        refused("ten options", "Connection: a,b,c,d,e,f,g,h,i,j\r\n"),
        refused("ten options in ten fields", &"Connection: a\r\n".repeat(10)),
        refused("an option with a space", "Connection: keep alive\r\n"),
        refused("an option in quotes", "Connection: \"X-Forwarded-For\"\r\n"),
        refused("a pseudo field", "Connection: :authority\r\n"),
        with("nine options", "Connection: a, b,c ,,d,e,f,g,h,i\r\n"),
        with("Cookie goes, as the client wishes", "Connection: Cookie\r\nCookie: a=b\r\n")
            .without(&["cookie"]),
        with("a field of its own goes", "Connection: X-Hop\r\nX-Hop: 1\r\nX-Kept: 2\r\n")
            .with_field("x-kept: 2")
            .without(&["x-hop"]),
        with("all fields of the name go", "X-Hop: 1\r\nConnection: x-hop\r\nX-HOP: 2\r\n")
            .without(&["x-hop"]),
        with("the request id stays ours", "Connection: X-Request-Id, Via\r\n")
            .with_field("via: 1.1 goodgate"),
        with("Keep-Alive", "Keep-Alive: timeout=5\r\n").without(&["keep-alive"]),
        with("Proxy-Connection", "Proxy-Connection: keep-alive\r\n").without(&["proxy-connection"]),
        with("Proxy-Authorization", "Proxy-Authorization: Basic eA==\r\n").without(&["proxy-authorization"]),
        with("TE", "TE: trailers, deflate\r\n").without(&["\r\nte:"]),
        with(
            "Upgrade",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        )
        .without(&["upgrade", "http2-settings"]),
    ];
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_in_our_name() {
    let mine = "x-forwarded-for: 127.0.0.1";
    let cases = vec![
        with("a forged address", "X-Forwarded-For: 6.6.6.6\r\n").with_field(mine).without(&["6.6.6.6"]),
        with("twice", "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 6.6.6.6\r\n")
            .with_field(mine)
            .without(&["6.6.6.6"]),
        with("with an underscore", "X_Forwarded_For: 6.6.6.6\r\n").with_field(mine).without(&["6.6.6.6"]),
        with("with one underscore", "X-Forwarded_For: 6.6.6.6\r\n").with_field(mine).without(&["6.6.6.6"]),
        with("Forwarded", "Forwarded: for=6.6.6.6;host=evil\r\n").without(&["6.6.6.6", "evil"]),
        with("X-Real-IP", "X-Real-IP: 6.6.6.6\r\n").without(&["6.6.6.6"]),
        with("a forged protocol", "X-Forwarded-Proto: https\r\n").with_field("x-forwarded-proto: http"),
        with("a forged host", "X-Forwarded-Host: evil\r\n")
            .with_field("x-forwarded-host: a.test")
            .without(&["evil"]),
        with("another path", "X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n").without(&["/admin"]),
        with("a proxy for the backend's own requests", "Proxy: http://evil/\r\n").without(&["evil"]),
        with("an empty forged address", "X-Forwarded-For:\r\n").with_field(mine),
        refused("a length with an underscore", "Content_Length: 5\r\n"),
        refused("a coding with an underscore", "Transfer_Encoding: chunked\r\n"),
        refused("a host with a space", "Host : evil\r\n"),
        with("a host with an underscore", "Ho_st: evil\r\n").with_field("host: a.test").without(&["evil"]),
    ];
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailer_never_becomes_a_field() {
    let bad = [
        ("Content-Length", "Content-Length: 44"),
        ("Transfer-Encoding", "Transfer-Encoding: identity"),
        ("Host", "Host: evil"),
        ("Connection", "Connection: close"),
        ("Authorization", "Authorization: Basic evil"),
        ("X-Forwarded-For", "X-Forwarded-For: 6.6.6.6"),
        ("Cookie", "Cookie: evil=1"),
        ("Expect", "Expect: 100-continue"),
        ("Upgrade", "Upgrade: websocket"),
        ("a field of no meaning", "X-Evil: 1"),
        ("a request line", "GET http://evil/ HTTP/1.1"),
    ];
    let cases = bad.map(|(name, trailer)| {
        let bytes = format!(
            "POST /case HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n\
             5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"
        );
        let bytes = bytes.replace("Trailer: a field of no meaning", "Trailer: X-Evil");
        if trailer.starts_with("GET ") {
            return Case::refused(name, bytes, 400);
        }
        let case = Case::accepted(format!("trailer {name}"), bytes, &[("POST /case", "hello")]);
        case.without(&["evil: ", "6.6.6.6", "evil=", "host: evil", "basic evil", "content-length"])
            .with_field("host: a.test")
    });
    run(LIMITS, cases.into()).await;
}
