//! What an answer says of copies that it is no copy of: after a change they are out of date (RFC 9111 section 4.4), and
//! the answer to a HEAD tells whether the stored answer to a GET still holds (section 4.3.5).
//!
//! Both happen when the header has come, before the client sees it: who has seen it can rely on it.

use std::time::SystemTime;

use goodgate_cache::{
    Admission, CopyKind, HeadVerdict, Header, KeyPolicy, Store, admit, is_same_authority, judge_head,
    may_share, refresh_header,
};
use goodgate_config::normal_target;
use http::{HeaderName, Method, StatusCode, Uri, header};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{key, stored};
use crate::context::Context;
use crate::forward;

/// After an unsafe request that went well, what was kept under its address, and under those of the same origin
/// that the answer names, is out of date. It is left for the case of failure and for nothing else.
pub(crate) fn invalidate(context: &Context, session: &Session, response: &ResponseHeader) {
    let request = session.req_header();
    let went_well = response.status.is_success() || response.status.is_redirection();
    if request.method.is_safe() || !went_well {
        return;
    }
    let Some((policy, room)) = context.route.as_ref().and_then(|route| route.cache.as_ref()) else {
        return;
    };
    let scheme = context.scheme();
    drop_copies(&room.store, &policy.key, request, scheme, &request.uri);
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if let Some(place) = named_place(request, scheme, response, &name) {
            drop_copies(&room.store, &policy.key, request, scheme, &place);
        }
    }
}

fn drop_copies(store: &Store, policy: &KeyPolicy, request: &RequestHeader, scheme: &str, uri: &Uri) {
    store.invalidate(&key(policy, request, scheme, uri));
}

/// The address that a field names, if it is of the same origin, in the one form that paths have here.
fn named_place(
    request: &RequestHeader,
    scheme: &str,
    response: &ResponseHeader,
    name: &HeaderName,
) -> Option<Uri> {
    let text = response.headers.get(name)?.to_str().ok()?.trim();
    let text = text.split('#').next().filter(|text| !text.is_empty())?;
    let target = if let Some(rest) = text.strip_prefix("//") {
        of_same_host(request, scheme, rest)?
    } else if text.starts_with('/') {
        text.to_owned()
    } else if let Some((other, rest)) = text.split_once("://") {
        other.eq_ignore_ascii_case(scheme).then_some(())?;
        of_same_host(request, scheme, rest)?
    } else {
        let folder = request.uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{text}")
    };
    let normal = normal_target(target.as_bytes()).ok()?;
    normal.unwrap_or(target).parse().ok()
}

/// The path behind a host and port, if those are the ones that were asked.
fn of_same_host(request: &RequestHeader, scheme: &str, rest: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let asked = forward::asked_host(request)?;
    let is_same = is_same_authority(scheme, authority.as_bytes(), asked);
    is_same.then(|| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
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
    let now = SystemTime::now();
    if judge_head(&held.headers, copy.body_len(), &response.headers) == HeadVerdict::Same {
        let mut newer = held.clone();
        refresh_header(&mut newer, &response.headers, now);
        let as_get = facts.as_get();
        if let Admission::Store(meta) = admit(policy, &as_get, &newer, now) {
            room.store.renew_copy(key, &copy, meta);
            return;
        }
    }
    room.store.expire_copy(key, &copy);
}
