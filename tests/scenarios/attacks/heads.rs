//! Heads that are no request, or more than one.

use super::{Case, LIMITS, SMUGGLED, run};

fn with(fields: &str) -> String {
    format!("GET /case HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n{SMUGGLED}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_has_three_parts_and_nothing_else() {
    let refused = [
        ("no version", "GET /", 400),
        ("HTTP/1.2; nginx takes it for 1.1, Envoy does not", "GET / HTTP/1.2", 505),
        ("HTTP/2.0", "GET / HTTP/2.0", 505),
        ("HTTP/0.9 said aloud", "GET / HTTP/0.9", 505),
        ("HTTP/1.10", "GET / HTTP/1.10", 400),
        ("HTTP/11", "GET / HTTP/11", 400),
        ("HTTP/1", "GET / HTTP/1", 400),
        ("HTTP/01.1", "GET / HTTP/01.1", 400),
        ("a version in lower case", "GET / http/1.1", 400),
        ("another protocol", "GET / HTTPS/1.1", 400),
        ("a word behind the version", "GET / HTTP/1.1 x", 400),
        ("a space behind the version", "GET / HTTP/1.1 ", 400),
        ("a CR behind the version", "GET / HTTP/1.1\r", 400),
        ("two spaces before the target", "GET  / HTTP/1.1", 400),
        ("two spaces before the version", "GET /  HTTP/1.1", 400),
        ("a tab before the target", "GET\t/ HTTP/1.1", 400),
        ("a tab before the version", "GET /\tHTTP/1.1", 400),
        ("a space before the method", " GET / HTTP/1.1", 400),
        ("a tab before the method", "\tGET / HTTP/1.1", 400),
        ("only a method", "GET", 400),
        ("a CR as a space", "GET\r/\rHTTP/1.1", 400),
        ("a form feed as a space", "GET\x0c/\x0cHTTP/1.1", 400),
        ("a NUL in the method", "G\0T / HTTP/1.1", 400),
        ("a colon in the method", "GET: / HTTP/1.1", 400),
        ("a DEL in the method", "G\x7fT / HTTP/1.1", 400),
        ("a letter beyond ASCII in the method", "G\u{c9}T / HTTP/1.1", 400),
        ("CONNECT", "CONNECT a:443 HTTP/1.1", 405),
        ("CONNECT of a path", "CONNECT / HTTP/1.1", 405),
        ("TRACE", "TRACE / HTTP/1.1", 405),
        ("the preface of HTTP/2", "PRI * HTTP/2.0", 505),
        ("an authority for a target", "GET a:80 HTTP/1.1", 400),
        ("an asterisk for a target", "GET * HTTP/1.1", 400),
        ("an asterisk and more", "OPTIONS *x HTTP/1.1", 400),
        ("a relative path", "GET a/b HTTP/1.1", 400),
        ("another scheme", "GET ftp://a/ HTTP/1.1", 400),
        ("a scheme alone", "GET http:// HTTP/1.1", 400),
        ("one slash behind the scheme", "GET http:/a HTTP/1.1", 400),
        ("backslashes behind the scheme", "GET http:\\\\a/ HTTP/1.1", 400),
        ("another host in the target", "GET http://b/ HTTP/1.1", 400),
        ("another port in the target", "GET http://a:81/ HTTP/1.1", 400),
        ("a user in the target", "GET http://a@a/ HTTP/1.1", 400),
        ("a user that looks like the host", "GET http://a:80@b/ HTTP/1.1", 400),
        ("a bad port in the target", "GET http://a:x/ HTTP/1.1", 400),
        ("a fragment, as HAProxy since 2.8.2", "GET /public#/../admin HTTP/1.1", 400),
        ("a fragment behind a query", "GET /?a#b HTTP/1.1", 400),
        ("a NUL in the target", "GET /\0 HTTP/1.1", 400),
        ("a form feed in the target", "GET /a\x0cb HTTP/1.1", 400),
        ("a DEL in the target", "GET /\x7f HTTP/1.1", 400),
        ("letters beyond ASCII in the target, as HAProxy", "GET /\u{e9} HTTP/1.1", 400),
        ("a CR in the target", "GET /\rX: y HTTP/1.1", 400),
        ("a target of 8 KiB and one", LONG_TARGET, 414),
    ];
    let mut cases: Vec<Case> = refused
        .iter()
        .map(|(name, text, status)| {
            let text = text.replace(LONG_TARGET, &format!("GET /{} HTTP/1.1", "x".repeat(8 << 10)));
            Case::refused(*name, line(&text), *status)
        })
        .collect();
    let two = |first: &str| [(first.to_owned(), String::new()), ("GET /smuggled".to_owned(), String::new())];
    let long = "x".repeat((8 << 10) - 1);
    for (name, method, target, seen) in [
        ("a backslash separates nothing", "GET", "/a\\..\\b", Some("GET /a%5C..%5Cb")),
        ("an asterisk is a question about the server", "OPTIONS", "*", None),
        ("a method of our own", "BREW", "/", None),
        ("a long method", &*"M".repeat(1000), "/", None),
        ("a target of 8 KiB", "GET", &*format!("/{long}"), None),
        ("a target in absolute form", "GET", "http://a/x?y=http://b/", Some("GET /x?y=http://b/")),
        ("the same without a path", "GET", "http://a?y", Some("GET /?y")),
        ("the same in capitals", "GET", "HTTP://a/x", Some("GET /x")),
        ("two slashes are a path, and no host", "GET", "//b/x", Some("GET //b/x")),
    ] {
        let seen = seen.map_or_else(|| format!("{method} {target}"), str::to_owned);
        let seen = two(&seen);
        let seen = seen.each_ref().map(|(line, body)| (line.as_str(), body.as_str()));
        cases.push(Case::accepted(name, line(&format!("{method} {target} HTTP/1.1")), &seen));
    }
    let old = "GET http://b/x HTTP/1.0\r\n\r\n";
    cases.push(
        Case::accepted(
            "a target in absolute form is a host where HTTP/1.0 needs none",
            old,
            &[("GET /x", "")],
        )
        .then_closed(),
    );
    run(LIMITS, cases).await;
}
const LONG_TARGET: &str = "(long)";

#[tokio::test(flavor = "multi_thread")]
async fn lines_end_in_crlf() {
    let once = [("GET /smuggled", "")];
    let mut cases = vec![
        Case::accepted("an empty line before", format!("\r\n{SMUGGLED}"), &once),
        Case::accepted("eight empty lines before", format!("{}{SMUGGLED}", "\r\n".repeat(8)), &once),
        Case::refused("nine", format!("{}{SMUGGLED}", "\r\n".repeat(9)), 400),
        Case::refused("a bare LF before", format!("\n{SMUGGLED}"), 400),
        Case::refused("a bare CR before", format!("\r{SMUGGLED}"), 400),
        Case::refused("CR CR LF before", format!("\r\r\n{SMUGGLED}"), 400),
        Case::silent("nothing at all", ""),
        Case::silent("only an empty line", "\r\n"),
        Case::silent("half a head", "GET / HTTP/1.1\r\nHost: a\r\n"),
        Case::silent("HTTP/0.9 without a version, and no more", "GET /\r\n"),
        Case::refused("HTTP/0.9 that waits", "GET /\r\n", 408),
        Case::refused("HTTP/0.9 with LF", "GET /\n", 400),
    ];
    for (at, _) in SMUGGLED.match_indices("\r\n") {
        for (name, end) in [("LF", "\n"), ("LF CR", "\n\r"), ("LF LF", "\n\n")] {
            let text = format!("{}{end}{}", &SMUGGLED[..at], &SMUGGLED[at + 2..]);
            cases.push(Case::refused(format!("{name} at {at}"), text, 400));
        }
        for (name, end) in [("CR CR LF", "\r\r\n"), ("CR", "\r"), ("CR NUL LF", "\r\0\n")] {
            let text = format!("{}{end}{}\r\n\r\n", &SMUGGLED[..at], &SMUGGLED[at + 2..]);
            cases.push(Case::refused(format!("{name} at {at}"), text, 400));
        }
    }
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_has_a_name_a_colon_and_no_control_character() {
    let mut cases: Vec<Case> = [
        ("a folded field", "X: y\r\n z\r\n"),
        ("a field folded by a tab", "X: y\r\n\tz\r\n"),
        ("the first field folded", " X: y\r\n"),
        ("a space before the colon", "X : y\r\n"),
        ("a tab before the colon", "X\t: y\r\n"),
        ("no colon", "X\r\n"),
        ("no name", ": y\r\n"),
        ("a space for a name", " : y\r\n"),
        ("a space in the name", "X Y: z\r\n"),
        ("quotes around the name", "\"X\": y\r\n"),
        ("a slash in the name", "X/Y: z\r\n"),
        ("brackets in the name", "X[1]: z\r\n"),
        ("a name beyond ASCII", "\u{e9}: y\r\n"),
        ("a request for a field", "GET /smuggled HTTP/1.1\r\n"),
        ("a second request line with a colon", "GET http://a/smuggled HTTP/1.1\r\n"),
    ]
    .iter()
    .map(|(name, fields)| Case::refused(*name, with(fields), 400))
    .collect();
    for byte in (0..=0x1f_u8).chain([0x7f]) {
        if matches!(byte, b'\t' | b'\n' | b'\r') {
            continue;
        }
        for (name, before, behind) in
            [("name", "X", "Y: z\r\n"), ("value", "X: y", "z\r\n"), ("end", "X: y", "\r\n")]
        {
            let bytes = [
                b"GET /case HTTP/1.1\r\nHost: a\r\n",
                before.as_bytes(),
                &[byte],
                behind.as_bytes(),
                b"\r\n",
            ];
            cases.push(Case::refused(format!("byte {byte:#04x} in the {name}"), bytes.concat(), 400));
        }
    }
    let name = "N".repeat(1000);
    for (what, fields) in [
        ("bytes beyond ASCII in a value are text (RFC 9110 section 5.5)", "X: \u{e9}\u{ff}\r\n"),
        ("a tab in a value", "X: y\tz\r\n"),
        ("an empty value", "X:\r\nY: \t \r\n"),
        ("a long name", &*format!("{name}: y\r\n")),
        ("100 fields", &*"X: y\r\n".repeat(99)),
        ("almost 32 KiB", &*format!("X: {}\r\n", "y".repeat(32_000))),
    ] {
        cases.push(Case::accepted(what, with(fields), &[("GET /case", "")]));
    }
    let some_kilobytes = format!("X: {}\r\n", "y".repeat(1000));
    for (what, fields) in [
        ("101 fields", "X: y\r\n".repeat(100)),
        ("more than 32 KiB in one", format!("X: {}\r\n", "y".repeat(33_000))),
        ("more than 32 KiB in many", some_kilobytes.repeat(40)),
        ("a name of 40 KiB", format!("{}: y\r\n", "N".repeat(40 << 10))),
    ] {
        cases.push(Case::refused(what, with(&fields), 431));
    }
    cases.push(Case::refused("1 MiB without a line end", "A".repeat(1 << 20), 431));
    cases.push(Case::refused(
        "a method of 1 MiB",
        format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(1 << 20)),
        431,
    ));
    run(LIMITS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_host_and_it_is_one() {
    let request = |fields: &str| format!("GET /case HTTP/1.1\r\n{fields}\r\n{SMUGGLED}");
    let mut cases = vec![
        Case::refused("none", request(""), 400),
        Case::refused("two", request("Host: a\r\nHost: b\r\n"), 400),
        Case::refused("twice the same", request("Host: a\r\nhost: a\r\n"), 400),
        Case::refused("two, folded", request("Host: a\r\n b\r\n"), 400),
        Case::refused("two in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        Case::accepted("none in HTTP/1.0", "GET /old HTTP/1.0\r\n\r\n", &[("GET /old", "")]).then_closed(),
    ];
    for host in [
        "",
        "a, b",
        "a,b:80 c",
        "a b",
        "u@a",
        "u:p@a",
        "a/",
        "a/path",
        "a?q",
        "a#f",
        "http://a",
        "a:99999",
        "a:65536",
        "a:-1",
        "a:+80",
        "a:8o",
        "a:80:80",
        ":80",
        "[::1",
        "::1]",
        "::1",
        "[::1]a",
        "[::1]:x",
        "[]",
        "[::g]",
        "[a]",
        "[1.2.3.4]",
        "[::1%eth0]",
        "a\\b",
        "a\tb",
        "\u{e9}.test",
        "<a>",
        "a\"",
        "a|b",
        "a^b",
        "{a}",
        "a`b",
    ] {
        cases.push(Case::refused(format!("Host {host:?}"), request(&format!("Host: {host}\r\n")), 400));
    }
    for host in [
        "a.test",
        "A.TEST:80",
        "127.0.0.1:8080",
        "[::1]",
        "[::ffff:1.2.3.4]:65535",
        "a:",
        "a.",
        "a_b",
        " \ta \t",
    ] {
        let both = [("GET /case", ""), ("GET /smuggled", "")];
        cases.push(Case::accepted(format!("Host {host:?}"), request(&format!("Host:{host}\r\n")), &both));
    }
    run(LIMITS, cases).await;
}
