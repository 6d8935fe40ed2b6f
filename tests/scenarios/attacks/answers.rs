//! Answers of a backend that could be read as two. No part of one ever answers another request, and no field
//! of one becomes two.

use super::CLOSES;
use crate::harness::{Act, Backend, Connection, Gateway};
use crate::site;

const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Other: 1\r\n\r\nstolen";

async fn started(act: Act) -> (Backend, Gateway) {
    let backend = Backend::start(act).await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 1000\n", "")).await;
    (backend, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_answer_reaches_nobody() {
    let cases = [
        ("behind a length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("behind none", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        (
            "behind chunks",
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
        ),
        (
            "behind trailers",
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
            "ok",
        ),
        ("behind a 204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("behind a 204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 200\r\n\r\n", ""),
        (
            "behind a 204 with chunks",
            "GET",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            "",
        ),
        ("behind a 304", "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", ""),
        ("behind a 304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 200\r\n\r\n", ""),
        ("behind an answer to HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", ""),
        (
            "behind an answer to HEAD with chunks",
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "",
        ),
        (
            "behind the body of an answer to HEAD",
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "",
        ),
        ("behind an error", "GET", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "no"),
        (
            "behind an interim answer",
            "GET",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
        ),
    ];
    let (backend, gateway) = started(Act::Answer(200)).await;
    for (name, method, answer, body) in cases {
        for pause in [false, true] {
            let (first, rest) = if pause { (answer, OTHER) } else { ("", "") };
            let whole = Act::Bytes(format!("{}{OTHER}", if pause { "" } else { answer }).into_bytes());
            let later = Act::Slow(
                std::time::Duration::from_millis(30),
                Box::new(Act::Bytes(rest.as_bytes().to_vec())),
            );
            let twice =
                Act::Gated { first: first.as_bytes().to_vec(), gate: open_gate(), rest: Box::new(later) };
            backend.set(if pause { twice } else { whole });
            let mut client = Connection::open(gateway.address).await.unwrap();
            client.send(format!("{method} /first HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
            let got = client.answer(method == "HEAD").await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((got.text().as_str(), got.header("x-other")), (body, None), "{name}: {got:?}");
            if pause {
                tokio::time::sleep(std::time::Duration::from_millis(60)).await;
            }
            backend.set(Act::Answer(200));
            for client in [client, Connection::open(gateway.address).await.unwrap()] {
                let mut client = client;
                // The gateway may have closed the first one; it must not have sent more on it.
                if let Ok(next) = client.get("/next").await {
                    assert!(next.status == 200 && next.text().ends_with(" for /next\n"), "{name}: {next:?}");
                }
                let _ = client.half_close().await;
                assert_eq!(client.rest(CLOSES).await.unwrap(), b"", "{name}");
            }
        }
    }
}

fn open_gate() -> crate::harness::backend::Gate {
    let gate = crate::harness::backend::Gate::shut();
    gate.open();
    gate
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_an_answer_never_becomes_two() {
    let answer =
        |fields: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok").into_bytes();
    let (backend, gateway) = started(Act::Answer(200)).await;
    let cases = [
        ("a folded value", "X: a\r\n Set-Cookie: b=c\r\n"),
        ("a value folded by a tab", "X: a\r\n\tSet-Cookie: b=c\r\n"),
        ("a bare CR", "X: a\rSet-Cookie: b=c\r\n"),
        ("a NUL", "X: a\0Set-Cookie: b=c\r\n"),
        ("a space before the colon, which is removed (RFC 9112 section 5.1)", "X : a\r\n"),
        ("a name with a space", "X Set-Cookie: b=c\r\n"),
        ("no colon", "X\r\n"),
        ("an encoded line end", "X: a%0d%0aSet-Cookie: b=c\r\n"),
        ("letters that a bad decoder takes for a line end", "X: a\u{560d}\u{560a}Set-Cookie: b=c\r\n"),
    ];
    for (name, fields) in cases {
        backend.set(Act::Bytes(answer(fields)));
        let mut client = Connection::open(gateway.address).await.unwrap();
        let got = client.get("/").await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(got.header("set-cookie"), None, "{name}: {got:?}");
        assert!(got.status == 502 || got.status == 200 && got.text() == "ok", "{name}: {got:?}");
        for (_, value) in &got.headers {
            assert!(!value.contains(['\r', '\n', '\0']), "{name}: {got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_two_lengths_is_none() {
    let (backend, gateway) = started(Act::Answer(200)).await;
    let cases = [
        ("two lengths", "Content-Length: 2\r\nContent-Length: 8\r\n"),
        ("a list of two", "Content-Length: 2, 8\r\n"),
        ("a negative one", "Content-Length: -2\r\n"),
        ("a sign", "Content-Length: +2\r\n"),
        ("hex", "Content-Length: 0x2\r\n"),
        ("too much", "Content-Length: 18446744073709551616\r\n"),
        ("a coding twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("a coding of its own", "Transfer-Encoding: cow\r\n"),
        ("identity", "Transfer-Encoding: identity\r\nContent-Length: 2\r\n"),
    ];
    for (name, fields) in cases {
        backend.set(Act::BytesThenClose(format!("HTTP/1.1 200 OK\r\n{fields}\r\nok{OTHER}").into_bytes()));
        let got = gateway.get("/").await;
        assert_eq!((got.status, got.header("x-other")), (502, None), "{name}: {got:?}");
    }
    // Chunks rule (RFC 9112 section 6.3), and the length must not be passed on.
    let both =
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    backend.set(Act::BytesThenClose(both.as_bytes().to_vec()));
    let got = gateway.get("/").await;
    let is_one = got.status == 502 || got.header("content-length").is_none() && got.text() == "ok";
    assert!(is_one, "{got:?}");
}
