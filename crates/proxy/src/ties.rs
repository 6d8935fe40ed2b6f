//! What ties a request to a backend: the cookie of a sticky upstream, and what a consistent hash is made of.
//!
//! The cookie is taken out of the request before anything else reads it, so that it makes no request personal for
//! the cache, and no backend gets it. It is put into an answer on its way to the client, behind the cache, so that
//! no copy ever has it.

use std::borrow::Cow;
use std::net::IpAddr;

use goodgate_upstream::{
    BackendId, Balance, HashOn, StickyKey, StickyPolicy, Ties, Upstream, UpstreamSpec, hash_of,
};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use ring::rand::{SecureRandom, SystemRandom};

use crate::client_address::ClientAddress;
use crate::context::Context;
use crate::route::Route;

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// A key for upstreams that are given none. It holds until the process ends.
pub(crate) fn draw_key() -> StickyKey {
    let mut bytes = [0; 32];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // The system has none: then a client may find out an address with much patience, and that is all.
        bytes.fill_with(|| fastrand::u8(..));
    }
    StickyKey::new(bytes)
}

/// The upstream as configured, with a key.
pub(crate) fn keyed(spec: &UpstreamSpec, key: &StickyKey) -> UpstreamSpec {
    let mut spec = spec.clone();
    if let Some(sticky) = &mut spec.sticky {
        sticky.key.get_or_insert_with(|| key.clone());
    }
    spec
}

/// Takes the cookie out of a request. The backend that it names, if it is one of ours.
pub(crate) fn take_cookie(request: &mut RequestHeader, upstream: &Upstream) -> Result<Option<BackendId>> {
    let Some(sticky) = &upstream.spec().sticky else {
        return Ok(None);
    };
    let Some((rest, value)) = without(&request.headers, &sticky.cookie) else {
        return Ok(None);
    };
    if rest.is_empty() {
        request.remove_header(&header::COOKIE);
    } else {
        request.insert_header("Cookie", pingora_http::header_value_from_slice(&rest))?;
    }
    Ok(value)
}

/// The cookies without this one, in one field, and the backend that it names. None if it is not there.
fn without(headers: &HeaderMap, name: &str) -> Option<(Vec<u8>, Option<BackendId>)> {
    let mut ours = all(headers).filter(|cookie| value_of(cookie, name).is_some()).peekable();
    ours.peek()?;
    let id = ours.find_map(|cookie| BackendId::parse(std::str::from_utf8(value_of(cookie, name)?).ok()?));
    let rest: Vec<_> = all(headers).filter(|cookie| value_of(cookie, name).is_none()).collect();
    Some((rest.join(b"; ".as_slice()), id))
}

fn all(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    let cookies = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    cookies.map(<[u8]>::trim_ascii).filter(|cookie| !cookie.is_empty())
}

fn value_of<'a>(cookie: &'a [u8], name: &str) -> Option<&'a [u8]> {
    cookie.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Ties the client to the backend that has answered, unless it is already.
pub(crate) fn bind(response: &mut ResponseHeader, context: &Context) -> Result<()> {
    let Some(route) = &context.route else {
        return Ok(());
    };
    let Some(sticky) = &route.upstream.spec().sticky else {
        return Ok(());
    };
    let answered_by = context.attempting.lease().and_then(|lease| lease.backend().id);
    let Some(id) = answered_by.filter(|id| context.bound != Some(*id)) else {
        return Ok(());
    };
    let value = HeaderValue::try_from(cookie(sticky, id, context.is_https));
    response.append_header(header::SET_COOKIE, value.or_err(ErrorType::InternalError, "a cookie")?)?;
    // A cache in front of us would hand the cookie to everybody.
    let private = HeaderValue::from_static("private");
    if response.headers.contains_key(CDN_CACHE_CONTROL) {
        response.append_header(CDN_CACHE_CONTROL, private.clone())?;
    }
    response.append_header(header::CACHE_CONTROL, private).map(drop)
}

fn cookie(sticky: &StickyPolicy, id: BackendId, is_https: bool) -> String {
    let age = sticky.ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs())).unwrap_or_default();
    let secure = if is_https { "; Secure" } else { "" };
    format!("{}={id}; Path=/; HttpOnly; SameSite=Lax{secure}{age}", sticky.cookie)
}

/// What ties a request to a backend of its route.
pub(crate) fn of(request: &RequestHeader, context: &Context, route: &Route) -> Ties {
    let UpstreamSpec { balance, hash_on, .. } = route.upstream.spec();
    let is_hashed = matches!(balance, Balance::ConsistentHash { .. });
    let hash = || hash(hash_on, request, context.client_address.and_then(ClientAddress::known));
    Ties { bound: context.bound, hash: is_hashed.then(hash).flatten() }
}

/// The hash of a request, if it has what it is made of.
pub(crate) fn hash(on: &HashOn, request: &RequestHeader, client: Option<IpAddr>) -> Option<u64> {
    let bytes: Cow<'_, [u8]> = match on {
        HashOn::Uri => request.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes().into(),
        HashOn::Path => request.uri.path().as_bytes().into(),
        HashOn::Header(name) => request.headers.get(name)?.as_bytes().into(),
        HashOn::Cookie(name) => all(&request.headers).find_map(|cookie| value_of(cookie, name))?.into(),
        HashOn::ClientIp => return client.map(hash_of_address),
    };
    Some(hash_of(&bytes))
}

/// Of IPv6 only the network that one customer has at least: the rest changes daily.
fn hash_of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash_of(&address.octets()),
        IpAddr::V6(address) => hash_of(&(address.to_bits() >> 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[&'static str]) -> HeaderMap {
        fields.iter().map(|field| (header::COOKIE, HeaderValue::from_static(field))).collect()
    }

    fn id(text: &str) -> Option<BackendId> {
        BackendId::parse(text)
    }

    #[test]
    fn the_cookie_is_found_and_taken_out_wherever_it_stands() {
        let ours = "gg=00000000000000ab";
        for (fields, rest) in [
            (vec![ours], ""),
            (vec!["a=1; gg=00000000000000ab; b=2"], "a=1; b=2"),
            (vec!["gg=wrong;gg=00000000000000ab;;a=1"], "a=1"),
            (vec!["a=1", ours, "b=2"], "a=1; b=2"),
            (vec!["ggg=1; gg=00000000000000ab; xgg=2; GG=3"], "ggg=1; xgg=2; GG=3"),
        ] {
            let taken = without(&headers(&fields), "gg");
            assert_eq!(taken, Some((rest.as_bytes().to_vec(), id("00000000000000ab"))), "{fields:?}");
        }
        assert_eq!(without(&headers(&["a=1; gg=10.0.0.1:80"]), "gg"), Some((b"a=1".to_vec(), None)));
        assert_eq!(without(&headers(&["a=gg=1; ggx=1"]), "gg"), None);
        assert_eq!(without(&headers(&[]), "gg"), None);
    }

    #[test]
    fn the_cookie_says_how_long_and_over_what_it_may_be_sent() {
        let mut sticky = StickyPolicy { cookie: "gg".to_owned(), ttl: None, key: None };
        let id = id("00000000000000ab").unwrap();
        assert_eq!(cookie(&sticky, id, false), "gg=00000000000000ab; Path=/; HttpOnly; SameSite=Lax");
        sticky.ttl = Some(std::time::Duration::from_hours(1));
        let full = "gg=00000000000000ab; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600";
        assert_eq!(cookie(&sticky, id, true), full);
    }

    #[test]
    fn a_request_is_hashed_by_what_it_is_told_to_and_by_nothing_else() {
        let request = |target: &'static str, fields: &[(&'static str, &'static str)]| {
            let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            for (name, value) in fields {
                request.append_header(*name, *value).unwrap();
            }
            request
        };
        let one = request("/a?b", &[("x-user", "7"), ("cookie", "s=1; t=2")]);
        let same = |on: &HashOn, other: &RequestHeader| {
            hash(on, &one, None).is_some() && hash(on, &one, None) == hash(on, other, None)
        };
        let other = request("/a?c", &[("cookie", "t=2"), ("x-user", "7")]);
        assert!(!same(&HashOn::Uri, &other) && same(&HashOn::Path, &other));
        assert!(same(&HashOn::Header(HeaderName::from_static("x-user")), &other));
        assert!(same(&HashOn::Cookie("t".into()), &other) && !same(&HashOn::Cookie("s".into()), &other));
        assert_eq!(hash(&HashOn::Cookie("none".into()), &one, None), None);
        let of = |address: &str| hash(&HashOn::ClientIp, &one, Some(address.parse().unwrap()));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3"), "one network");
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
    }
}
