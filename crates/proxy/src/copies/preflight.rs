//! CORS preflights: a browser asks by OPTIONS before a page of another site may use an answer. While the backends are
//! down that question has to be answered too, or the copies of the answers are of no use to such pages.

use goodgate_cache::{Moment, admit_preflight};
use http::{Method, header};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::context::Context;
use crate::effective_request::EffectiveRequest;

/// Whether a request is a preflight. Browsers send them without credentials.
pub(super) fn is_one(request: &RequestHeader) -> bool {
    let has = |name| request.headers.contains_key(name);
    request.method == Method::OPTIONS
        && has(header::ORIGIN)
        && has(header::ACCESS_CONTROL_REQUEST_METHOD)
        && !has(header::COOKIE)
        && !has(header::AUTHORIZATION)
}

/// Keeps the answer of a backend to a preflight.
pub(super) fn keep(context: &mut Context, request: &RequestHeader, response: &ResponseHeader) {
    if request.method != Method::OPTIONS {
        return;
    }
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let (Some((policy, room)), Some((key, facts))) = (cache, &context.copying.request) else {
        return;
    };
    if let Some(mut meta) = admit_preflight(policy, facts, response, Moment::now()) {
        context.copying.generation.stamp(&mut meta);
        let sent = EffectiveRequest::new(request, context);
        context.copying.writer = Some(room.store.write(key, &sent, meta));
    }
}
