//! Header hygiene: what a backend is sent beyond the client's own fields, and what a client is not shown.

use std::time::Duration;

use goodgate_upstream::{Backend, HostHeader};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use crate::context::Context;
use crate::effective_request::without_addresses;
use crate::hops::Trail;
use crate::route::Route;
use crate::{hygiene, rules, trace};

/// Prepares a request for its backend. Hop-by-hop fields are gone already: Pingora removes them, and what
/// `Connection` names, before this is called.
pub(crate) fn request(
    request: &mut RequestHeader,
    original: &RequestHeader,
    context: &Context,
    route: &Route,
    backend: &Backend,
    trail: &Trail,
) -> Result<()> {
    let host = &route.upstream.spec().host;
    let asked = original.headers.get(header::HOST).cloned();
    match host {
        HostHeader::Client if asked.is_some() => {}
        HostHeader::Client | HostHeader::Backend => request.insert_header(header::HOST, backend.host())?,
        HostHeader::Name(name) => request.insert_header(header::HOST, name.as_str())?,
    }
    forwarded(request, context, asked)?;
    if let Some(trace) = &context.trace {
        trace::pass_on(request, trace, context.attempting.log.len().saturating_sub(1))?;
    }
    request.insert_header("X-Request-Id", context.request_id.value())?;
    trail.leave(request, original, context.version(original))?;
    rules::to_backend(request, original, context, route)
}

/// Who asks, and how, for the backend.
fn forwarded(request: &mut RequestHeader, context: &Context, host: Option<HeaderValue>) -> Result<()> {
    if let Some(identity) = context.speaker().and_then(|client| client.identity.as_ref()) {
        request.insert_header("Client-Cert", identity.certificate.clone())?;
        request.remove_header(&CLIENT_CERT_CHAIN);
    }
    if let Some(chain) = forwarded_for(&request.headers, context) {
        request.insert_header("X-Forwarded-For", chain)?;
    }
    request.insert_header("X-Forwarded-Proto", HeaderValue::from_static(context.scheme()))?;
    match host {
        Some(host) if !has_other_host(&request.headers, context) => {
            request.insert_header("X-Forwarded-Host", host)
        }
        _ => Ok(()),
    }
}

/// The chain of addresses that the backend gets: the peer's, behind those that a trusted proxy names.
pub(crate) fn forwarded_for(headers: &HeaderMap, context: &Context) -> Option<HeaderValue> {
    let client = context.speaker()?;
    if !context.is_trusted {
        return Some(client.ip.clone());
    }
    // Bytes, so that the backend reads the chain that was read here.
    let chain = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    let chain: Vec<&[u8]> = chain.chain([client.ip.as_bytes()]).collect();
    Some(pingora_http::header_value_from_slice(&chain.join(b", ".as_slice())))
}

/// Whether a trusted proxy says which host the client has asked it for.
pub(crate) fn has_other_host(headers: &HeaderMap, context: &Context) -> bool {
    context.is_trusted && headers.contains_key(FORWARDED_HOST)
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the client has asked a proxy in front for.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// RFC 9213 section 2.1.
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// RFC 9440 section 2.
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Leaves of `X-Forwarded-*` only what is believed, and notes there that the client speaks https. What refreshes
/// a copy behind its back is made of its request, and says the same.
pub(crate) fn settle_forwarded(request: &mut RequestHeader, has_tls: bool, is_trusted: bool) -> Result<()> {
    // A look at each name costs less than three searches.
    if !is_trusted && request.headers.keys().any(|name| name.as_str().starts_with("x-forwarded-")) {
        for name in [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST] {
            request.remove_header(&name);
        }
    }
    if has_tls && !request.headers.contains_key(FORWARDED_PROTO) {
        request.insert_header("X-Forwarded-Proto", "https")?;
    }
    Ok(())
}

/// Removes who the client is: a request behind a client's back is made of its head, and answered for everyone. What the
/// route lets through stays: it is in the key.
pub(crate) fn forget_client(request: &mut RequestHeader, route: &Route) {
    request.remove_header(&FORWARDED_FOR);
    hygiene::drop_client(request, &route.pass_headers);
    let lines = request.headers.get_all(header::FORWARDED).iter();
    let lines: Vec<Vec<u8>> =
        lines.map(|line| without_addresses(&header::FORWARDED, line.as_bytes())).collect();
    request.remove_header(&header::FORWARDED);
    for line in lines.iter().filter(|line| !line.is_empty()) {
        // What was a field value is one without some of its bytes.
        let _ = request.append_header(header::FORWARDED, pingora_http::header_value_from_slice(line));
    }
}

/// Removes the fields that `Connection` nominates: they end at this gateway (RFC 9110 section 7.6.1). A head with an
/// `Upgrade` keeps them, since the handshake may need them; it is neither cached nor answered from the cache.
pub(crate) fn drop_nominated(request: &mut RequestHeader) {
    if !request.headers.contains_key(header::CONNECTION) || request.headers.contains_key(header::UPGRADE) {
        return;
    }
    let lines = request.headers.get_all(header::CONNECTION).iter();
    let names: SmallVec<[HeaderName; 2]> =
        lines.flat_map(nominated).filter(|name| !is_protected(name)).collect();
    for name in names {
        request.remove_header(&name);
    }
}

/// Fields that no client can take back: the request is refused that nominates one of them.
fn is_protected(name: &HeaderName) -> bool {
    *name == header::HOST
        || *name == header::CONNECTION
        || [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST].contains(name)
}

/// Whether the client speaks https, once that is settled.
pub(crate) fn is_https(headers: &HeaderMap) -> bool {
    headers.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// The host that the client asked for. A target that named it has given it to `Host` (see `begin`).
pub(crate) fn asked_host(request: &RequestHeader) -> Option<&[u8]> {
    request.headers.get(header::HOST).map(HeaderValue::as_bytes)
}

/// How long the sender of a `Keep-Alive: timeout=N` field keeps an idle connection (RFC 2068 section 19.7.1.1).
pub(crate) fn idle_hint(value: &HeaderValue) -> Option<Duration> {
    let parameters = value.to_str().ok()?.split(',').filter_map(|parameter| parameter.split_once('='));
    let mut timeouts = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
    let seconds: u32 = timeouts.next()?.1.trim().parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}

/// Whether the body of a response is framed in a way that can be told (RFC 9112 section 6.1): we ask for no
/// transfer coding, so that `chunked` alone may be there, once, and HTTP/1.0 has none.
pub(crate) fn is_framing_known(response: &ResponseHeader) -> bool {
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(_), None) if response.version != Version::HTTP_11 => false,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a 101 switches to a protocol that the request named (RFC 9110 section 7.8).
pub(crate) fn is_upgrade_asked_for(asked: &HeaderMap, switched: &HeaderMap) -> bool {
    let protocols = |headers: &HeaderMap| -> Vec<String> {
        let values = headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
    };
    let asked = protocols(asked);
    let switched = protocols(switched);
    !switched.is_empty() && switched.iter().all(|protocol| asked.contains(protocol))
}

/// Whether nothing follows the header of a final response (RFC 9112 section 6.3).
pub(crate) fn has_no_body(method: &Method, response: &ResponseHeader) -> bool {
    *method == Method::HEAD
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0")
}

/// Removes what concerns only the connection to the backend (RFC 9110 section 7.6.1). The framing stays:
/// Pingora needs it. A 101 keeps what makes it one.
pub(crate) fn response(response: &mut ResponseHeader) -> Result<()> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    drop_hop_by_hop(response);
    let has_no_body = response.status.is_informational() || response.status == StatusCode::NO_CONTENT;
    if has_no_body {
        // RFC 9110 section 8.6, RFC 9112 section 6.1: neither may be there.
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
    } else {
        unify_length(response)?;
    }
    if response.version != Version::HTTP_11 {
        response.set_version(Version::HTTP_11);
    }
    if !response.status.is_informational() && !response.headers.contains_key(header::DATE) {
        // RFC 9110 section 6.6.1: who has a clock adds the time when it came.
        response.insert_header(header::DATE, get_cached_date())?;
    }
    Ok(())
}

/// One length where the same one was said several times (RFC 9110 section 8.6); that they are the same was
/// checked when the header was read.
fn unify_length(response: &mut ResponseHeader) -> Result<()> {
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), second) = (lengths.next(), lengths.next()) else {
        return Ok(());
    };
    let one = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if second.is_none() && one.len() == first.len() {
        return Ok(());
    }
    let one = HeaderValue::from_bytes(one).or_err(ErrorType::InternalError, "a length that was a number")?;
    response.insert_header(header::CONTENT_LENGTH, one)
}

/// Removes the fields that are for this connection only: known ones, and those that `Connection` names, but for
/// those that frame the message. One pass over the fields, since most answers have one such field or none.
fn drop_hop_by_hop(response: &mut ResponseHeader) {
    let mut found = SmallVec::<[HeaderName; 2]>::new();
    for (name, value) in &response.headers {
        if *name == header::CONNECTION {
            found.extend(nominated(value).filter(|name| !says_who_may_see_it(name)));
        }
        if is_hop_by_hop(name) {
            found.push(name.clone());
        }
    }
    for name in found {
        response.remove_header(&name);
    }
}

/// Fields that say to whom a response may be shown. They are never for one connection only, whatever `Connection` says.
fn says_who_may_see_it(name: &HeaderName) -> bool {
    [
        header::CACHE_CONTROL,
        header::SET_COOKIE,
        header::VARY,
        header::EXPIRES,
        header::PRAGMA,
        CDN_CACHE_CONTROL,
    ]
    .contains(name)
}

/// Fields that concern one connection only, in either direction.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::UPGRADE
        || *name == header::PROXY_AUTHENTICATE
        || *name == header::TE
        // Trailers are not passed on (RFC 9110 section 6.5.1 allows that): none is to be announced.
        || *name == header::TRAILER
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn nominated(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let options = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let own =
        |option: &&[u8]| option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive");
    let framing = |name: &HeaderName| *name == header::TRANSFER_ENCODING || *name == header::CONTENT_LENGTH;
    options
        .filter(move |option| !own(option))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(move |name| !framing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_of_an_idle_limit_is_read_however_it_is_written() {
        let hint = |text| idle_hint(&HeaderValue::from_static(text)).map(|limit| limit.as_secs());
        assert_eq!(hint("timeout=5"), Some(5));
        assert_eq!(hint("max=100, Timeout = 15"), Some(15));
        for none in ["", "timeout", "timeout=", "timeout=-1", "timeout=0", "max=5", "timeout=99999999999"] {
            assert_eq!(hint(none), None, "{none}");
        }
    }

    #[test]
    fn a_response_loses_its_hop_by_hop_fields() {
        let mut answer = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Connection", "close, X-Secret"),
            ("X-Secret", "1"),
            ("Keep-Alive", "timeout=5"),
            ("X-Kept", "1"),
        ] {
            answer.append_header(name, value).unwrap();
        }
        response(&mut answer).unwrap();
        answer.remove_header(&header::DATE).unwrap();
        assert_eq!(answer.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
