//! The fast lane: a plain GET whose answer is at hand goes no further than the connection loop.
//!
//! What Pingora does around a request costs more than a hit itself. So a request that needs none of it is answered
//! here, by the same rules: it is begun, judged, dressed, counted and recorded by the rooms that do so for every
//! request. Whatever is not plain (a condition of the route, a body, a part of several, a copy on disk, a trial to
//! be sent) takes the long way, from its first byte, as if nothing had been tried. A connection whose requests
//! found nothing at hand is not tried each time.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use goodgate_cache::BodyReader;
use goodgate_failure::Cause;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::io::AsyncWriteExt;

use crate::begin;
use crate::context::{Client, Context};
use crate::copies;
use crate::finish::{Ended, conclude};
use crate::snapshot::Live;
use crate::stream::ClientStream;

/// More fields than this are not plain.
const FIELDS_MAX: usize = 64;
/// Of a connection that has found nothing at hand twice, one request in so many is tried.
const TRY_EVERY: u8 = 8;

/// Whether a connection's requests are tried.
#[derive(Debug, Default)]
pub(crate) struct Luck(u8);

impl Luck {
    /// Whether the next one is.
    fn is_worth_it(&mut self) -> bool {
        if self.0 < 2 {
            return true;
        }
        self.0 = if self.0 >= TRY_EVERY { 1 } else { self.0 + 1 };
        self.0 == 1
    }

    fn note(&mut self, found: bool) {
        self.0 = if found { 0 } else { self.0 + 1 };
    }
}

/// What became of a request.
pub(crate) enum Outcome {
    /// It takes the long way; nothing was touched.
    Passed,
    /// It was answered, and the connection is ready for the next.
    Answered,
    /// The client has gone.
    Gone,
}

/// Answers the request whose checked head is in front of the stream, if that is plain.
pub(crate) async fn try_to_answer(
    live: &Live,
    stream: &mut ClientStream,
    client: &Arc<Client>,
    head: usize,
    luck: &mut Luck,
) -> Outcome {
    if !live.has_caches() || live.traces.is_some() || live.is_draining() || !luck.is_worth_it() {
        return Outcome::Passed;
    }
    let found = at_hand(live, stream.ahead().get(..head).unwrap_or_default(), client);
    luck.note(found.is_some());
    let Some(found) = found else {
        return Outcome::Passed;
    };
    stream.discard(head);
    let Plain { request, mut context, status, head, body } = *found;
    let mut sent = 0;
    let written = write(stream, &head, body, &mut sent).await;
    if written.is_err() && context.outcome.rescue.is_none() {
        context.outcome.cause = Some(Cause::ClientDisconnected);
    }
    let ended = Ended { request: &request, status: status.as_u16(), sent, received: 0 };
    conclude(live, &ended, &context, Instant::now());
    if written.is_ok() { Outcome::Answered } else { Outcome::Gone }
}

/// A request with its answer.
struct Plain {
    request: RequestHeader,
    context: Context,
    status: StatusCode,
    head: BytesMut,
    body: Option<BodyReader>,
}

fn at_hand(live: &Live, head: &[u8], client: &Arc<Client>) -> Option<Box<Plain>> {
    let mut request = parse(head)?;
    let mut context = Context::new();
    context.client = Some(Arc::clone(client));
    let snapshot = live.snapshot();
    let refused = begin::of_request(live, &snapshot, &mut request, None, &mut context).ok()?;
    let is_plain = refused.is_none() && begin::is_plain(&request, &context);
    let ready = is_plain.then(|| copies::at_hand(&request, &mut context)).flatten()?;
    let mut head = BytesMut::new();
    let (status, body) = if let Some(status) = ready.plain_head(&context, &mut head) {
        (status, Some(ready.copy.read()))
    } else {
        let (header, bytes) = ready.header(&request, &context).ok()?;
        put_head(&header, &mut head);
        let body = if bytes.is_empty() { None } else { Some(ready.copy.read_part(bytes).ok()?) };
        (header.status, body)
    };
    head.put_slice(b"Connection: keep-alive\r\n\r\n");
    Some(Box::new(Plain { request, context, status, head, body }))
}

/// A GET of HTTP/1.1 that asks for nothing of the connection.
fn parse(head: &[u8]) -> Option<RequestHeader> {
    if !head.starts_with(b"GET /") {
        return None;
    }
    let own = Bytes::copy_from_slice(head);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    if !parsed.parse(&own).ok()?.is_complete() || parsed.version != Some(1) {
        return None;
    }
    let target = PathAndQuery::from_maybe_shared(own.slice_ref(parsed.path?.as_bytes())).ok()?;
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::GET;
    parts.uri = Uri::from(target);
    parts.headers.reserve(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if is_of_the_connection(&name, field.value) {
            return None;
        }
        let value = HeaderValue::from_maybe_shared(own.slice_ref(field.value)).ok()?;
        parts.headers.try_append(name, value).ok()?;
    }
    Some(RequestHeader::from(parts))
}

/// Whether a field asks for more than an answer.
fn is_of_the_connection(name: &HeaderName, value: &[u8]) -> bool {
    match *name {
        header::CONNECTION => !value.eq_ignore_ascii_case(b"keep-alive"),
        header::CONTENT_LENGTH
        | header::TRANSFER_ENCODING
        | header::UPGRADE
        | header::EXPECT
        | header::TE
        | header::TRAILER => true,
        _ => false,
    }
}

/// Writes the answer; `sent` counts the bytes of its body.
async fn write(
    stream: &mut ClientStream,
    head: &[u8],
    body: Option<BodyReader>,
    sent: &mut u64,
) -> io::Result<()> {
    stream.write_all(head).await?;
    if let Some(mut body) = body {
        while !body.piece().is_empty() {
            stream.write_all(body.piece()).await?;
            *sent += body.piece().len() as u64;
            body.pass();
        }
    }
    stream.flush().await
}

/// All but its last line.
fn put_head(header: &ResponseHeader, head: &mut BytesMut) {
    head.reserve(512);
    head.put_slice(b"HTTP/1.1 ");
    head.put_slice(header.status.as_str().as_bytes());
    head.put_slice(b" ");
    head.put_slice(header.get_reason_phrase().unwrap_or_default().as_bytes());
    head.put_slice(b"\r\n");
    header.header_to_h1_wire(head);
    if !header.headers.contains_key(header::DATE) {
        head.put_slice(b"Date: ");
        head.put_slice(get_cached_date().as_bytes());
        head.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_for_nothing_more_is_plain() {
        let plain = |line: &str, fields: &str| {
            parse(format!("{line}\r\nHost: a\r\n{fields}\r\n").as_bytes()).is_some()
        };
        assert!(plain("GET /a?b HTTP/1.1", ""));
        assert!(plain("GET / HTTP/1.1", "Connection: Keep-Alive\r\nCookie: a=1\r\nIf-None-Match: \"a\"\r\n"));
        for line in [
            "GET / HTTP/1.0",
            "HEAD / HTTP/1.1",
            "POST / HTTP/1.1",
            "GET http://a/ HTTP/1.1",
            "GET * HTTP/1.1",
        ] {
            assert!(!plain(line, ""), "{line}");
        }
        for field in [
            "Connection: close",
            "Connection: keep-alive, close",
            "Upgrade: websocket",
            "Expect: 100-continue",
            "Content-Length: 0",
            "TE: trailers",
        ] {
            assert!(!plain("GET / HTTP/1.1", &format!("{field}\r\n")), "{field}");
        }
        assert!(!plain("GET / HTTP/1.1", &"a: b\r\n".repeat(FIELDS_MAX)), "too many fields");
    }

    #[test]
    fn a_connection_without_luck_is_tried_now_and_then() {
        let mut luck = Luck::default();
        let mut tried = 0;
        for _ in 0..100 {
            if luck.is_worth_it() {
                tried += 1;
                luck.note(false);
            }
        }
        assert!((12..=20).contains(&tried), "{tried}");
        while !luck.is_worth_it() {}
        luck.note(true);
        assert!(luck.is_worth_it() && luck.is_worth_it());
    }
}
