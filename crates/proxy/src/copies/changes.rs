//! What an answer says of copies that it is no copy of: after a change they are out of date (RFC 9111 section 4.4), and
//! the answer to a HEAD tells whether the stored answer to a GET still holds (section 4.3.5).
//!
//! Both happen when the header has come, before the client sees it: who has seen it can rely on it.

use std::fmt::Write;
use std::sync::Arc;

use goodgate_cache::{
    Address, Admission, CachePolicy, CopyKind, HeadVerdict, Header, Key, Moment, RequestFacts, StoredCopy,
    admit, judge_head, may_share, refresh_header,
};
use goodgate_config::{merged_path, normal_target};
use goodgate_failure::is_safe;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{address, stored};
use crate::context::Context;
use crate::route::Route;
use crate::target_escape::escape;

/// After an unsafe request that went well, what was kept under its address, and under those of the same origin
/// that the answer names, is out of date. It is left for the case of failure and for nothing else. What was deleted or
/// moved away is gone: an outage must not bring it back.
pub(crate) fn invalidate(context: &Context, session: &Session, response: &ResponseHeader) {
    let request = session.req_header();
    let went_well = response.status.is_success() || response.status.is_redirection();
    if is_safe(&request.method) || !went_well {
        return;
    }
    let asked = address(request, context.scheme());
    let method = context.override_method.as_ref().unwrap_or(&request.method);
    let is_removed = response.status.is_success() && (method == Method::DELETE || method.as_str() == "MOVE");
    change_address(context, asked, is_removed);
    if is_removed && let Some((path, _)) = asked.target.split_once('?') {
        // The query says how to remove it (`?force=true`), not what.
        change_address(context, Address { target: path, ..asked }, true);
    }
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        invalidate_named(context, request, asked, response.headers.get(name));
    }
    // What COPY and MOVE have written to (RFC 4918 section 10.3).
    invalidate_named(context, request, asked, request.headers.get("destination"));
}

fn invalidate_named(
    context: &Context,
    request: &RequestHeader,
    asked: Address<'_>,
    field: Option<&HeaderValue>,
) {
    if let Some(target) = field.and_then(|field| named_target(request, asked, field)) {
        change_address(context, Address { target: &target, ..asked }, false);
    }
}

/// A change belongs to the address: it reaches every store in which a route keeps responses of it, whichever route the
/// request itself has taken.
fn change_address(context: &Context, address: Address<'_>, is_removed: bool) {
    for route in caching_routes(context, address) {
        let Some((policy, room)) = &route.cache else {
            continue;
        };
        let key = plain_key(&route, policy, address);
        if is_removed {
            room.store.remove_address(&key);
        } else {
            room.store.invalidate(&key);
        }
    }
}

/// A backend says that there is no such page any more: what is stored of it must not come back in an outage. A 410 says
/// so for good. A 404 may be the mistake of a new version, so that it counts once it is the second in a row.
pub(crate) fn note_missing(context: &Context, session: &Session, response: &ResponseHeader) {
    let is_gone = response.status == StatusCode::GONE;
    if !is_gone && response.status != StatusCode::NOT_FOUND || session.req_header().method != Method::GET {
        return;
    }
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let (Some((policy, room)), Some((key, facts))) = (cache, &context.copying.request) else {
        return;
    };
    let may_judge = |copy: &StoredCopy| {
        !facts.is_range && !copy.status().is_client_error() && may_share(&copy.info(), facts, policy)
    };
    if room.store.note_missing(key, may_judge) || is_gone && !facts.is_range && is_for_all(facts) {
        room.store.remove(key);
    }
}

/// Whether a response to the request is one that everyone would get.
fn is_for_all(facts: &RequestFacts) -> bool {
    !facts.is_personal && !facts.is_authorized
}

/// The routes that cache responses of an address.
pub(super) fn caching_routes(context: &Context, address: Address<'_>) -> Vec<Arc<Route>> {
    let host = std::str::from_utf8(address.authority).unwrap_or_default();
    let snapshots = context.copying.snapshots.iter();
    let mut routes: Vec<_> =
        snapshots.flat_map(|snapshot| snapshot.routes_of(host, address.target)).collect();
    routes.retain(|route| route.cache.is_some());
    routes
}

/// The key of an address with nothing besides it, as requests on this route have it.
pub(super) fn plain_key(route: &Route, policy: &CachePolicy, address: Address<'_>) -> Key {
    let merged = route.merges_slashes.then(|| {
        let (path, query) = address.target.split_at(address.target.find('?').unwrap_or(address.target.len()));
        merged_path(path) + query
    });
    let target = merged.as_deref().unwrap_or(address.target);
    Key::new(address.scheme, address.authority, policy.key.target(target).as_bytes())
}

/// The target that a field names, if it is of the same origin, in the one form that paths have here.
fn named_target(request: &RequestHeader, asked: Address<'_>, field: &HeaderValue) -> Option<String> {
    let text = as_uri(field.as_bytes());
    let text = text.split('#').next().filter(|text| !text.is_empty())?;
    let path = request.uri.path();
    let target = if let Some(rest) = text.strip_prefix("//") {
        of_same_host(asked, rest)?
    } else if text.starts_with('/') {
        text.to_owned()
    } else if text.starts_with('?') {
        format!("{path}{text}")
    } else if let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) {
        scheme.eq_ignore_ascii_case(asked.scheme).then_some(())?;
        of_same_host(asked, rest.strip_prefix("//")?)?
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{text}")
    };
    let normal = normal_target(target.as_bytes()).ok()?;
    Some(normal.unwrap_or(target))
}

/// A field value as the request for it would be written: bytes that are no part of a URI are escaped.
fn as_uri(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in escape(value.trim_ascii()) {
        if byte.is_ascii_graphic() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// The path behind a host and port, if those are the ones that were asked.
fn of_same_host(asked: Address<'_>, rest: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    asked
        .is_of_host(authority.as_bytes())
        .then(|| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

/// The answer to a HEAD updates the copy that it fits, and makes stale one that it does not fit.
pub(crate) fn compare_head(context: &Context, session: &Session, response: &ResponseHeader) {
    let request = session.req_header();
    if request.method != Method::HEAD || response.status != StatusCode::OK {
        return;
    }
    let Some((policy, room)) = context.route.as_ref().and_then(|route| route.cache.as_ref()) else {
        return;
    };
    let Some((key, facts)) = &context.copying.request else {
        return;
    };
    let Some(copy) = stored(session, context) else {
        return;
    };
    let is_comparable = copy.info().kind == CopyKind::Standard && copy.status() == StatusCode::OK;
    if !is_comparable || !may_share(&copy.info(), facts, policy) {
        return;
    }
    let Ok(held) = copy.header() else {
        return;
    };
    let now = Moment::now();
    match judge_head(&held.headers, copy.body_len(), &response.headers) {
        // What a change or a purge has put out of date needs more than an equal length to be fresh again.
        HeadVerdict::Alike if copy.is_outlived() => return,
        HeadVerdict::Same | HeadVerdict::Alike => {
            let mut newer = held.clone();
            refresh_header(&mut newer, &response.headers, now.wall);
            if let Admission::Store(mut meta) = admit(policy, &facts.as_get(), &newer, now) {
                context.copying.generation.stamp(&mut meta);
                room.store.renew_copy(key, &copy, meta);
                return;
            }
        }
        HeadVerdict::Changed => {}
    }
    room.store.expire_copy(key, &copy);
}
