//! The faults: what the backend does, and what must be said of it.

use std::time::Duration;

use crate::harness::Act;

/// One fault.
pub struct Fault {
    pub name: String,
    pub kind: Kind,
    pub cause: &'static str,
    /// What a client gets if nothing rescues it.
    pub status: u16,
    /// The header has gone out: the answer can only break off.
    pub cuts: bool,
}

/// How it comes about.
pub enum Kind {
    /// A backend that does this.
    Act(Act),
    /// Nobody listens.
    Refuses,
    /// Connections are neither accepted nor refused.
    BlackHole,
    /// A name that the name server does not know, or is silent about.
    Name(&'static str),
    /// TLS is spoken to it, and this is wrong with it.
    Tls(TlsFault),
}

/// What can be wrong with a backend's TLS.
#[derive(Clone, Copy)]
pub enum TlsFault {
    Expired,
    WrongName,
    UnknownIssuer,
    PlainHttp,
    WantsClientCertificate,
    ClosesInHandshake,
}

fn fault(name: &str, cause: &'static str, status: u16, kind: Kind) -> Fault {
    Fault { name: name.to_owned(), kind, cause, status, cuts: false }
}

fn act(name: &str, cause: &'static str, status: u16, act: Act) -> Fault {
    fault(name, cause, status, Kind::Act(act))
}

fn cut(name: &str, cause: &'static str, act: Act) -> Fault {
    Fault { cuts: true, ..fault(name, cause, 200, Kind::Act(act)) }
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// A response header with a field of this many bytes.
fn large_header(size: usize) -> Act {
    Act::Bytes(bytes(&format!(
        "HTTP/1.1 200 OK\r\nX-Large: {}\r\nContent-Length: 0\r\n\r\n",
        "x".repeat(size)
    )))
}

const TEN_OF_HUNDRED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789";
const FIRST_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n";

pub fn unreachable() -> Vec<Fault> {
    let tls = |name, cause, kind| fault(name, cause, 502, Kind::Tls(kind));
    vec![
        fault("refused", "connection_refused", 502, Kind::Refuses),
        fault("black-hole", "connection_timeout", 504, Kind::BlackHole),
        fault("no-such-name", "dns_error", 502, Kind::Name("missing.test")),
        fault("silent-resolver", "dns_timeout", 504, Kind::Name("silent.test")),
        tls("tls-expired", "tls_certificate_error", TlsFault::Expired),
        tls("tls-wrong-name", "tls_certificate_error", TlsFault::WrongName),
        tls("tls-unknown-issuer", "tls_certificate_error", TlsFault::UnknownIssuer),
        tls("tls-plain-http", "tls_protocol_error", TlsFault::PlainHttp),
        tls("tls-closes", "tls_protocol_error", TlsFault::ClosesInHandshake),
        tls("tls-alert", "tls_alert_received", TlsFault::WantsClientCertificate),
    ]
}

pub fn early() -> Vec<Fault> {
    let (closed, late) = ("connection_terminated", "http_response_timeout");
    let half = bytes("HTTP/1.1 200 OK\r\nContent-Le");
    vec![
        act("closes", closed, 502, Act::Close),
        act("resets", closed, 502, Act::Reset),
        act("closes-in-header", closed, 502, Act::BytesThenClose(half.clone())),
        act("resets-in-header", closed, 502, Act::BytesThenReset(half.clone())),
        act("hangs", late, 504, Act::Hang),
        act("hangs-in-header", late, 504, Act::BytesThenHang(half)),
        act(
            "drips",
            late,
            504,
            Act::Drip(bytes(&"HTTP/1.1 200 OK\r\n".repeat(20)), Duration::from_millis(20)),
        ),
    ]
}

pub fn not_http() -> Vec<Fault> {
    let wrong = "http_protocol_error";
    let head =
        |fields: &str| Act::BytesThenClose(bytes(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n0123456789")));
    let large = "http_response_header_section_size";
    vec![
        act("garbage", wrong, 502, Act::BytesThenClose(bytes("SSH-2.0-OpenSSH_9.2\r\n\r\n"))),
        act("http-0.9", wrong, 502, Act::BytesThenClose(bytes("<html>hello</html>\r\n\r\n"))),
        act("no-colon", wrong, 502, head("Content-Length: 10\r\nno colon here")),
        act("space-in-name", wrong, 502, head("Content-Length: 10\r\nBad Name: x")),
        act("two-lengths", wrong, 502, head("Content-Length: 10\r\nContent-Length: 5")),
        act("negative-length", wrong, 502, head("Content-Length: -1")),
        act("wordy-length", wrong, 502, head("Content-Length: ten")),
        act("gzip-coding", wrong, 502, head("Transfer-Encoding: gzip")),
        act("chunked-1.0", wrong, 502, Act::BytesThenClose(bytes(&FIRST_CHUNK.replace("1.1", "1.0")))),
        act("chunked-twice", wrong, 502, head("Transfer-Encoding: chunked, chunked")),
        act("unasked-101", wrong, 502, Act::BytesThenHang(bytes("HTTP/1.1 101 Switching Protocols\r\n\r\n"))),
        act("storm-of-1xx", wrong, 502, Act::Storm(bytes("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"))),
        act("header-80k", large, 502, large_header(80 << 10)),
        act("header-2m", large, 502, large_header(2 << 20)),
    ]
}

pub fn in_the_body() -> Vec<Fault> {
    let (short, coding) = ("http_response_incomplete", "http_response_transfer_coding");
    let broken_chunk = format!("{FIRST_CHUNK}zz\r\n0123456789\r\n0\r\n\r\n");
    vec![
        cut("closes-in-body", short, Act::BytesThenClose(bytes(TEN_OF_HUNDRED))),
        cut("resets-in-body", short, Act::BytesThenReset(bytes(TEN_OF_HUNDRED))),
        cut("closes-in-chunks", short, Act::BytesThenClose(bytes(FIRST_CHUNK))),
        cut("resets-in-chunks", short, Act::BytesThenReset(bytes(FIRST_CHUNK))),
        cut("hangs-in-body", "connection_read_timeout", Act::BytesThenHang(bytes(TEN_OF_HUNDRED))),
        cut("hangs-in-chunks", "connection_read_timeout", Act::BytesThenHang(bytes(FIRST_CHUNK))),
        cut("bad-chunk", coding, Act::BytesThenHang(bytes(&broken_chunk))),
    ]
}

pub fn received() -> Vec<Fault> {
    let answers = |(status, cause)| act(cause, cause, status, Act::Answer(status));
    [
        (500, "received_500"),
        (502, "received_502"),
        (503, "received_503"),
        (504, "received_504"),
        (429, "received_429"),
        (403, "received_403"),
        (404, "received_404"),
    ]
    .map(answers)
    .into()
}
