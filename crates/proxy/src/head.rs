//! A request head as raw bytes: where it ends, and whether it is one unambiguous HTTP/1.1 request.
//!
//! Seen before Pingora's parser, which is lenient in places where a backend may read something else
//! (RFC 9112 section 11.2, request smuggling). What passes here has one reading: CRLF line ends only, no
//! folding, one Host, one framing. The outcome is the framing, so that the stream can hand on exactly the
//! bytes of this request and no more.

use goodgate_config::Limits;
use memchr::{memchr, memchr_iter};

/// How the request's body is framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Exactly this many bytes; zero is no body.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// An upgrade is asked for: after a 101 the bytes are no longer HTTP.
    Upgrade,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The status to answer with.
    pub(crate) status: u16,
    /// What is wrong, in a constant phrase.
    pub(crate) what: &'static str,
}

impl Malformed {
    const fn new(status: u16, what: &'static str) -> Self {
        Self { status, what }
    }

    const fn bad(what: &'static str) -> Self {
        Self::new(400, what)
    }
}

/// Looks for the end of the head in `bytes`, of which the first `seen` were looked at before. The length
/// of the head with its empty line, if it is complete.
pub(crate) fn find_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Malformed> {
    let fresh = bytes.get(seen..).unwrap_or_default();
    for offset in memchr_iter(b'\n', fresh) {
        let end = seen + offset + 1;
        let line = bytes.get(..end).unwrap_or_default();
        if !line.ends_with(b"\r\n") {
            return Err(Malformed::bad("a line ends in a bare LF"));
        }
        if line.ends_with(b"\r\n\r\n") {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// Checks a complete head.
pub(crate) fn check(head: &[u8], limits: &Limits) -> Result<Framing, Malformed> {
    let mut lines = Lines(head);
    let http11 = check_request_line(lines.next().unwrap_or_default(), limits)?;
    let mut fields = Fields { http11, ..Fields::default() };
    for line in lines {
        if line.is_empty() {
            break;
        }
        fields.count += 1;
        if fields.count > limits.headers_max {
            return Err(Malformed::new(431, "too many header fields"));
        }
        fields.take(line)?;
    }
    fields.framing()
}

/// Lines without their CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.0)?;
        let line = self.0.get(..end)?;
        self.0 = self.0.get(end + 1..)?;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// Whether the version is 1.1 (else it is 1.0).
fn check_request_line(line: &[u8], limits: &Limits) -> Result<bool, Malformed> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(Malformed::bad("the method is not a token"));
    }
    let target = parts.next().unwrap_or_default();
    if target.len() > limits.uri_bytes_max {
        return Err(Malformed::new(414, "the request target is too long"));
    }
    if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(Malformed::bad("the request target is not valid"));
    }
    let http11 = match parts.next().unwrap_or_default() {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        version if is_other_version(version) => {
            return Err(Malformed::new(505, "the HTTP version is not supported"));
        }
        _ => return Err(Malformed::bad("the request line is not valid")),
    };
    check_method(method, target)?;
    Ok(http11)
}

fn is_other_version(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn check_method(method: &[u8], target: &[u8]) -> Result<(), Malformed> {
    if method == b"CONNECT" || method == b"TRACE" {
        return Err(Malformed::new(405, "the method is not allowed"));
    }
    let origin_form = target.starts_with(b"/");
    let absolute_form =
        starts_with_ignore_case(target, b"http://") || starts_with_ignore_case(target, b"https://");
    let asterisk_form = target == b"*" && method == b"OPTIONS";
    if origin_form || absolute_form || asterisk_form {
        Ok(())
    } else {
        Err(Malformed::bad("the form of the request target is not allowed"))
    }
}

/// What the fields say so far, as far as framing and routing hang on it.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one head, each read by name")]
struct Fields {
    http11: bool,
    count: usize,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
}

impl Fields {
    fn take(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let colon = memchr(b':', line).ok_or(Malformed::bad("a header line has no colon"))?;
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Malformed::bad("a header name is not a token"));
        }
        let value = value.get(1..).unwrap_or_default();
        if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(Malformed::bad("a header value holds a control character"));
        }
        self.note(name, value.trim_ascii())
    }

    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                let mut options = value.split(|byte| *byte == b',');
                self.connection_upgrade |=
                    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Malformed> {
        self.hosts += 1;
        if self.hosts > 1 {
            return Err(Malformed::bad("there is more than one Host"));
        }
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
        if value.iter().all(allowed) { Ok(()) } else { Err(Malformed::bad("the Host is not valid")) }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.length.is_some() {
            return Err(Malformed::bad("Content-Length is repeated"));
        }
        let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
        let number = digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten();
        self.length = Some(number.ok_or(Malformed::bad("Content-Length is not a number"))?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if !self.http11 {
            return Err(Malformed::bad("Transfer-Encoding in an HTTP/1.0 request"));
        }
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Malformed::bad("Transfer-Encoding is not exactly chunked"));
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self) -> Result<Framing, Malformed> {
        if self.http11 && self.hosts == 0 {
            return Err(Malformed::bad("the Host is missing"));
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Malformed::bad("both Content-Length and Transfer-Encoding")),
            _ if self.http11 && self.upgrade && self.connection_upgrade => Ok(Framing::Upgrade),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limits() -> Limits {
        Limits {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(75),
            header_bytes_max: 32 << 10,
            headers_max: 5,
            uri_bytes_max: 64,
            body_bytes_max: 1 << 20,
            response_header_bytes_max: 64 << 10,
        }
    }

    fn status(head: &str) -> Result<Framing, u16> {
        check(head.as_bytes(), &limits()).map_err(|malformed| malformed.status)
    }

    fn with_fields(fields: &str) -> Result<Framing, u16> {
        status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn finds_the_end_over_several_reads_and_refuses_bare_lf() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for seen in 0..27 {
            assert_eq!(find_end(head, seen), Ok(Some(27)), "{seen}");
        }
        assert_eq!(find_end(&head[..26], 0), Ok(None));
        assert!(find_end(b"GET / HTTP/1.1\nHost: a\n\n", 0).is_err());
    }

    #[test]
    fn framing_is_read_and_ambiguity_refused() {
        assert_eq!(with_fields(""), Ok(Framing::Length(0)));
        assert_eq!(with_fields("Content-Length: 12\r\n"), Ok(Framing::Length(12)));
        assert_eq!(with_fields("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(with_fields("Upgrade: websocket\r\nConnection: x, Upgrade\r\n"), Ok(Framing::Upgrade));
        for refused in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Host: b\r\n",
            "X : y\r\n",
            " X: folded\r\n",
            "X: a\0b\r\n",
            "X: a\rb\r\n",
            ": empty\r\n",
            "no colon\r\n",
        ] {
            assert_eq!(with_fields(refused), Err(400), "{refused:?}");
        }
    }

    #[test]
    fn the_request_line_is_checked() {
        let line = |line: &str| status(&format!("{line}\r\nHost: a\r\n\r\n"));
        assert!(line("GET /a?b HTTP/1.1").is_ok());
        assert!(line("OPTIONS * HTTP/1.1").is_ok());
        assert!(line("GET http://a/b HTTP/1.1").is_ok());
        assert_eq!(line("GET / HTTP/2.0"), Err(505));
        assert_eq!(line("CONNECT a:443 HTTP/1.1"), Err(405));
        assert_eq!(line("TRACE / HTTP/1.1"), Err(405));
        assert_eq!(line(&format!("GET /{} HTTP/1.1", "a".repeat(64))), Err(414));
        for refused in [
            "GET /",
            "GET",
            "",
            "G T / HTTP/1.1",
            "GET / HTTP/1.1 x",
            "GET  / HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET a HTTP/1.1",
        ] {
            assert_eq!(line(refused), Err(400), "{refused:?}");
        }
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), Err(400), "no Host");
        assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), Ok(Framing::Length(0)), "HTTP/1.0 needs none");
        assert_eq!(status("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400));
    }

    #[test]
    fn too_many_fields_are_431() {
        assert_eq!(with_fields(&"X: y\r\n".repeat(4)), Ok(Framing::Length(0)));
        assert_eq!(with_fields(&"X: y\r\n".repeat(5)), Err(431));
    }
}
