//! A request head as raw bytes: where it ends, and whether it is one unambiguous HTTP/1.1 request.
//!
//! Seen before Pingora's parser, which is lenient in places where a backend may read something else
//! (RFC 9112 section 11.2, request smuggling). What passes here has one reading: CRLF line ends only, no
//! folding, one Host, one framing. The outcome is the framing, so that the stream can hand on exactly the
//! bytes of this request and no more.

use std::net::Ipv6Addr;

use goodgate_config::Limits;
use goodgate_failure::Cause;
use goodgate_telemetry::Refused;
use memchr::{memchr, memchr_iter};
use pingora_http::authority::{RawTargetAuthority, raw_target_authority};

use crate::answer::ErrorAnswer;

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
    /// Under which it is counted.
    pub(crate) reason: Refused,
    /// What is wrong, in a constant phrase.
    pub(crate) what: &'static str,
}

impl From<Malformed> for ErrorAnswer {
    fn from(malformed: Malformed) -> Self {
        Self { status: malformed.status, cause: Cause::HttpRequestError, details: malformed.what }
    }
}

impl Malformed {
    const fn new(status: u16, reason: Refused, what: &'static str) -> Self {
        Self { status, reason, what }
    }

    const fn bad(reason: Refused, what: &'static str) -> Self {
        Self::new(400, reason, what)
    }
}

/// The target is longer than a limit of the configuration or of `http::Uri`.
pub(crate) const TARGET_TOO_LONG: Malformed =
    Malformed::new(414, Refused::TargetTooLong, "the request target is too long");
/// The longest field name in bytes that `http::HeaderName` holds.
const NAME_BYTES_MAX: usize = u16::MAX as usize;

/// Looks for the end of the head in `bytes`, of which the first `seen` were looked at before. The length
/// of the head with its empty line, if it is complete.
pub(crate) fn find_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Malformed> {
    let fresh = bytes.get(seen..).unwrap_or_default();
    for offset in memchr_iter(b'\n', fresh) {
        let end = seen + offset + 1;
        let line = bytes.get(..end).unwrap_or_default();
        if !line.ends_with(b"\r\n") {
            return Err(Malformed::bad(Refused::LineEnd, "a line ends in a bare LF"));
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
    let (target, http11) = check_request_line(lines.next().unwrap_or_default(), limits)?;
    let mut fields = Fields { http11, ..Fields::default() };
    for line in lines {
        if line.is_empty() {
            break;
        }
        fields.count += 1;
        if fields.count > limits.headers_max {
            return Err(Malformed::new(431, Refused::HeaderTooLarge, "too many header fields"));
        }
        fields.take(line)?;
    }
    fields.check_authority(target)?;
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

/// The target, and whether the version is 1.1 (else it is 1.0).
fn check_request_line<'a>(line: &'a [u8], limits: &Limits) -> Result<(&'a [u8], bool), Malformed> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(Malformed::bad(Refused::RequestLine, "the method is not a token"));
    }
    let target = parts.next().unwrap_or_default();
    if target.len() > limits.uri_bytes_max {
        return Err(TARGET_TOO_LONG);
    }
    if target.is_empty() || !target.iter().copied().all(is_of_target) {
        return Err(Malformed::bad(Refused::Target, "the request target is not valid"));
    }
    let http11 = match parts.next().unwrap_or_default() {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        version if is_other_version(version) => {
            return Err(Malformed::new(505, Refused::Version, "the HTTP version is not supported"));
        }
        _ => return Err(Malformed::bad(Refused::RequestLine, "the request line is not valid")),
    };
    check_method(method, target)?;
    Ok((target, http11))
}

/// Visible ASCII but `#`: a fragment is never sent (RFC 9112 section 3.2), and who drops it routes by another
/// path than who does not.
fn is_of_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

fn is_other_version(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn check_method(method: &[u8], target: &[u8]) -> Result<(), Malformed> {
    if method == b"CONNECT" || method == b"TRACE" {
        return Err(Malformed::new(405, Refused::Method, "the method is not allowed"));
    }
    let origin_form = target.starts_with(b"/");
    let absolute_form =
        starts_with_ignore_case(target, b"http://") || starts_with_ignore_case(target, b"https://");
    let asterisk_form = target == b"*" && method == b"OPTIONS";
    if origin_form || absolute_form || asterisk_form {
        Ok(())
    } else {
        Err(Malformed::bad(Refused::Target, "the form of the request target is not allowed"))
    }
}

/// What the fields say so far, as far as framing and routing hang on it.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one head, each read by name")]
struct Fields<'a> {
    http11: bool,
    count: usize,
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    refuses_upgrade: bool,
    connection_upgrade: bool,
    options: usize,
}

/// Options of `Connection`; Pingora takes no more.
const OPTIONS_MAX: usize = 9;
/// Fields that `Connection` must not name: without them a backend would be told something else.
const OURS: [&[u8]; 4] = [b"host", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"];

impl<'a> Fields<'a> {
    fn take(&mut self, line: &'a [u8]) -> Result<(), Malformed> {
        let colon =
            memchr(b':', line).ok_or(Malformed::bad(Refused::HeaderSyntax, "a header line has no colon"))?;
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Malformed::bad(Refused::HeaderSyntax, "a header name is not a token"));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Malformed::new(431, Refused::HeaderTooLarge, "a header name is too long"));
        }
        let value = value.get(1..).unwrap_or_default();
        if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(Malformed::bad(Refused::HeaderSyntax, "a header value holds a control character"));
        }
        self.note(name, value.trim_ascii())
    }

    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.refuses_upgrade |= self.upgrade || !may_switch(value);
                self.upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            // Applications that see fields as variables cannot tell them from the real ones.
            14 | 17 if is_imitation(name) => {
                Err(Malformed::bad(Refused::Imitation, "a header name imitates one that frames"))
            }
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &'a [u8]) -> Result<(), Malformed> {
        if self.host.replace(value).is_some() {
            return Err(Malformed::bad(Refused::Host, "there is more than one Host"));
        }
        if is_host(value) { Ok(()) } else { Err(Malformed::bad(Refused::Host, "the Host is not valid")) }
    }

    /// What is named here is for this connection alone, and no backend gets it: none of what we add may be.
    fn connection(&mut self, value: &[u8]) -> Result<(), Malformed> {
        self.connection_upgrade |= has_option(value, b"upgrade");
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.options += usize::from(!option.is_empty());
            if self.options > OPTIONS_MAX {
                return Err(Malformed::bad(Refused::Connection, "Connection names too many options"));
            }
            if !option.iter().copied().all(is_token) {
                return Err(Malformed::bad(Refused::Connection, "an option of Connection is not a token"));
            }
            if OURS.iter().any(|name| option.eq_ignore_ascii_case(name)) {
                return Err(Malformed::bad(
                    Refused::Connection,
                    "Connection names a field that is not for this connection",
                ));
            }
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.length.is_some() {
            return Err(Malformed::bad(Refused::ContentLength, "Content-Length is repeated"));
        }
        let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
        let number = digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten();
        self.length =
            Some(number.ok_or(Malformed::bad(Refused::ContentLength, "Content-Length is not a number"))?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if !self.http11 {
            return Err(Malformed::bad(
                Refused::TransferEncoding,
                "Transfer-Encoding in an HTTP/1.0 request",
            ));
        }
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Malformed::bad(
                Refused::TransferEncoding,
                "Transfer-Encoding is not exactly chunked",
            ));
        }
        self.chunked = true;
        Ok(())
    }

    /// A target in absolute form must name the host that `Host` names. Stricter than RFC 9112 section 3.2.2;
    /// Pingora refuses the same, but without a word in the log.
    fn check_authority(&self, target: &[u8]) -> Result<(), Malformed> {
        let authority = match raw_target_authority(target) {
            RawTargetAuthority::None => return Ok(()),
            RawTargetAuthority::AmbiguousAuthority => {
                return Err(Malformed::bad(Refused::Target, "the request target has two readings"));
            }
            RawTargetAuthority::Absolute { authority, .. } => authority,
        };
        if authority.contains(&b'@') || http::uri::Authority::try_from(authority).is_err() {
            return Err(Malformed::bad(Refused::Host, "the host of the request target is not valid"));
        }
        if self.host.is_some_and(|host| host != authority) {
            return Err(Malformed::bad(
                Refused::Host,
                "the request target and the Host name different hosts",
            ));
        }
        Ok(())
    }

    fn framing(&self) -> Result<Framing, Malformed> {
        if self.http11 && self.host.is_none() {
            return Err(Malformed::bad(Refused::Host, "the Host is missing"));
        }
        let switches = self.http11 && self.upgrade && !self.refuses_upgrade && self.connection_upgrade;
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                Err(Malformed::bad(Refused::BothLengths, "both Content-Length and Transfer-Encoding"))
            }
            (false, None | Some(0)) if switches => Ok(Framing::Upgrade),
            _ if switches => {
                Err(Malformed::bad(Refused::Upgrade, "a request to switch protocols has a body"))
            }
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Whether a switch to these protocols may be passed on: to WebSocket alone. Another HTTP or TLS within a
/// connection would lead past every rule there is here, so that any other `Upgrade` is ignored (RFC 9110 section
/// 7.8 allows that).
pub(crate) fn may_switch(protocols: &[u8]) -> bool {
    protocols.eq_ignore_ascii_case(b"websocket")
}

/// Whether a value of `Connection` names this option.
pub(crate) fn has_option(value: &[u8], option: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
}

fn is_imitation(name: &[u8]) -> bool {
    let is_like = |real: &[u8]| {
        let like =
            |(one, other): (&u8, &u8)| one.eq_ignore_ascii_case(other) || (*one == b'_' && *other == b'-');
        name.len() == real.len() && name.iter().zip(real).all(like)
    };
    is_like(b"content-length") || is_like(b"transfer-encoding")
}

/// RFC 9110 section 4.2.1 and 7.2: a host that is not empty, and a port that there is. No user, no path.
fn is_host(value: &[u8]) -> bool {
    let (host, rest) = if value.starts_with(b"[") {
        let end = memchr(b']', value).map_or(value.len(), |end| end + 1);
        value.split_at(end)
    } else {
        value.split_at(memchr(b':', value).unwrap_or(value.len()))
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let is_valid = match host {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|it| it.parse::<Ipv6Addr>().is_ok())
        }
        name => !name.is_empty() && name.iter().all(is_name),
    };
    is_valid && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

/// None at all is allowed behind the colon (RFC 3986 section 3.2.3).
fn is_port(digits: &[u8]) -> bool {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok());
    digits.is_empty() || digits.iter().all(u8::is_ascii_digit) && number.is_some()
}

/// Whether these bytes may begin a request: TLS on a port without it is told at once.
pub(crate) fn may_begin(bytes: &[u8]) -> Result<(), Malformed> {
    match bytes.first() {
        Some(byte) if !is_token(*byte) && *byte != b'\r' => {
            Err(Malformed::bad(Refused::RequestLine, "this is not HTTP"))
        }
        Some(_) | None => Ok(()),
    }
}

fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            header_bytes_max: 32 << 10,
            headers_max: 5,
            uri_bytes_max: 64,
            body_bytes_max: 1 << 20,
            ..Limits::default()
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
            "Content_Length: 1\r\n",
            "Transfer-encoding: chunked\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
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
    fn no_other_http_is_switched_to() {
        for ignored in ["h2c", "websocket, h2c", "HTTP/2.0", "TLS/1.0", "H2", "other", ""] {
            let fields = format!("Upgrade: {ignored}\r\nConnection: Upgrade\r\n");
            assert_eq!(with_fields(&fields), Ok(Framing::Length(0)), "{ignored}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        let host = |host: &str| status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_ok();
        for good in
            ["a", "a.b.:80", "1.2.3.4:65535", "[::1]", "[2001:db8::1]:8080", "a:", "xn--nxasmq6b", "a_b"]
        {
            assert!(host(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:b",
            "a:65536",
            "a:+80",
            "a:80:80",
            "u@a",
            "a/b",
            "a b",
            "[::1",
            "[::1]x",
            "[a]",
            "::1",
            "a?",
            "a#",
            "a\\b",
            "\u{e9}",
            "[::1%25eth0]",
        ] {
            assert!(!host(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_request_line_is_checked() {
        let line = |line: &str| status(&format!("{line}\r\nHost: a\r\n\r\n"));
        assert!(line("GET /a?b HTTP/1.1").is_ok());
        assert!(line("OPTIONS * HTTP/1.1").is_ok());
        assert!(line("GET http://a/b HTTP/1.1").is_ok());
        assert_eq!(line("GET http://b/ HTTP/1.1"), Err(400), "two hosts");
        assert_eq!(line("GET http://u@a/ HTTP/1.1"), Err(400));
        assert_eq!(line("GET http:///a HTTP/1.1"), Err(400));
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
            "GET /a#b HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
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
