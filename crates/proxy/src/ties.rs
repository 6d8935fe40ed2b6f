//! What ties a request to a backend: the cookie of a sticky upstream, and what a consistent hash is made of.
//!
//! The cookie is taken out of the request before anything else reads it, so that it makes no request personal for
//! the cache, and no backend gets it. It is put into an answer on its way to the client, behind the cache, so that
//! no copy ever has it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use goodgate_cache::Cookie;
use goodgate_upstream::{
    BackendId, Balance, HashOn, StickyKey, StickyPolicy, Ties, Upstream, UpstreamSpec, hash_of,
};
use http::header::{self, HeaderName, HeaderValue};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use ring::rand::{SecureRandom, SystemRandom};
use smallvec::SmallVec;

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

/// The backends that the affinity cookies of a request name, one for each upstream that clients stay with.
#[derive(Debug, Default)]
pub(crate) struct Affinity(SmallVec<[(Arc<Upstream>, BackendId); 1]>);

impl Affinity {
    /// The backend of this upstream that the client stays with.
    fn backend_of(&self, upstream: &Upstream) -> Option<BackendId> {
        let of_upstream =
            |(known, _): &&(Arc<Upstream>, BackendId)| known.spec().name == upstream.spec().name;
        self.0.iter().find(of_upstream).map(|(_, id)| *id)
    }
}

/// Takes the affinity cookies of these upstreams out of a request: browsers send them to every route, they concern no
/// backend, and they make no request personal.
pub(crate) fn take_cookies(request: &mut RequestHeader, upstreams: &[Arc<Upstream>]) -> Result<Affinity> {
    let sticky =
        || upstreams.iter().filter_map(|upstream| Some((upstream, upstream.spec().sticky.as_ref()?)));
    let is_affinity = |cookie: &Cookie<'_>| sticky().any(|(_, sticky)| cookie.is_named(&sticky.cookie));
    if sticky().next().is_none() || !Cookie::all(&request.headers).any(|cookie| is_affinity(&cookie)) {
        return Ok(Affinity::default());
    }
    let id = |sticky: &StickyPolicy| {
        let mut named = Cookie::all(&request.headers).filter(|cookie| cookie.is_named(&sticky.cookie));
        named.find_map(|cookie| BackendId::parse(std::str::from_utf8(cookie.value).ok()?))
    };
    let affinity =
        sticky().filter_map(|(upstream, sticky)| Some((Arc::clone(upstream), id(sticky)?))).collect();
    let rest: Vec<_> = Cookie::all(&request.headers).filter(|cookie| !is_affinity(cookie)).collect();
    let rest: Vec<_> = rest.iter().map(|cookie| cookie.text).collect();
    let rest = rest.join(b"; ".as_slice());
    if rest.is_empty() {
        request.remove_header(&header::COOKIE);
    } else {
        request.insert_header("Cookie", pingora_http::header_value_from_slice(&rest))?;
    }
    Ok(Affinity(affinity))
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
    let Some(id) = answered_by.filter(|id| context.affinity.backend_of(&route.upstream) != Some(*id)) else {
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
    Ties { bound: context.affinity.backend_of(&route.upstream), hash: is_hashed.then(hash).flatten() }
}

/// The hash of a request, if it has what it is made of.
pub(crate) fn hash(on: &HashOn, request: &RequestHeader, client: Option<IpAddr>) -> Option<u64> {
    let bytes: Cow<'_, [u8]> = match on {
        HashOn::Uri => request.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes().into(),
        HashOn::Path => request.uri.path().as_bytes().into(),
        HashOn::Header(name) => request.headers.get(name)?.as_bytes().into(),
        HashOn::Cookie(name) => {
            Cookie::all(&request.headers).find(|cookie| cookie.is_named(name))?.value.into()
        }
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

    fn upstream(name: &str, cookie: &str) -> Arc<Upstream> {
        let second = std::time::Duration::from_secs(1);
        let timeouts = goodgate_upstream::Timeouts {
            connect: second,
            first_byte: second,
            read: second,
            write: second,
            idle: second,
            tunnel: second,
        };
        let sticky = StickyPolicy { cookie: cookie.to_owned(), ttl: None, key: None };
        let spec = UpstreamSpec { sticky: Some(sticky), ..UpstreamSpec::plain(name, timeouts) };
        Upstream::new(spec, None, std::time::Instant::now())
    }

    /// The cookies that are left, and the backend of each of these upstreams.
    fn taken(fields: &[&'static str], upstreams: &[Arc<Upstream>]) -> (Vec<String>, Vec<Option<BackendId>>) {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for field in fields {
            request.append_header("Cookie", *field).unwrap();
        }
        let affinity = take_cookies(&mut request, upstreams).unwrap();
        let left = request.headers.get_all("cookie").iter().map(|line| line.to_str().unwrap().to_owned());
        (left.collect(), upstreams.iter().map(|upstream| affinity.backend_of(upstream)).collect())
    }

    fn id(text: &str) -> Option<BackendId> {
        BackendId::parse(text)
    }

    #[test]
    fn the_cookie_is_found_and_taken_out_wherever_it_stands() {
        let ours = "gg=00000000000000ab";
        let one = [upstream("app", "gg")];
        for (fields, rest) in [
            (vec![ours], ""),
            (vec!["a=1; gg=00000000000000ab; b=2"], "a=1; b=2"),
            (vec!["gg=wrong;gg=00000000000000ab;;a=1"], "a=1"),
            (vec!["a=1", ours, "b=2"], "a=1; b=2"),
            (vec!["ggg=1; gg=00000000000000ab; xgg=2; GG=3"], "ggg=1; xgg=2; GG=3"),
            (vec!["a=1; gg =00000000000000ab"], "a=1"),
        ] {
            let left = if rest.is_empty() { vec![] } else { vec![rest.to_owned()] };
            assert_eq!(taken(&fields, &one), (left, vec![id("00000000000000ab")]), "{fields:?}");
        }
        assert_eq!(taken(&["a=1; gg=10.0.0.1:80"], &one), (vec!["a=1".to_owned()], vec![None]));
        assert_eq!(taken(&["a=gg=1; ggx=1"], &one), (vec!["a=gg=1; ggx=1".to_owned()], vec![None]));
        assert_eq!(taken(&[], &one), (vec![], vec![None]));
    }

    #[test]
    fn the_cookies_of_all_sides_are_taken_out_and_each_side_keeps_its_backend() {
        let sides = [upstream("rest", "gg"), upstream("share", "share")];
        let fields = ["gg=00000000000000ab; a=1", "share = 00000000000000cd"];
        let ids = vec![id("00000000000000ab"), id("00000000000000cd")];
        assert_eq!(taken(&fields, &sides), (vec!["a=1".to_owned()], ids));
        let alike = [upstream("rest", "gg"), upstream("share", "gg")];
        assert_eq!(taken(&["gg=00000000000000ab"], &alike), (vec![], vec![id("00000000000000ab"); 2]));
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
