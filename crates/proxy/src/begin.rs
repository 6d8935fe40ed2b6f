//! A request's first steps: who asks, by which name it will be known, which route it takes.

use std::sync::Arc;

use goodgate_failure::Cause;
use http::header;
use pingora_proxy::Session;

use crate::answer::ErrorAnswer;
use crate::context::Context;
use crate::request_id::RequestId;
use crate::snapshot::Live;
use crate::{copies, forward, trace};

/// Fills the context from the request and the snapshot in force.
pub(crate) fn begin(live: &Live, session: &Session, context: &mut Context) {
    let snapshot = live.snapshot();
    let request = session.req_header();
    if let Some(client) = &context.client {
        let (ip, is_trusted) =
            forward::client_ip(client.address.ip(), &request.headers, &snapshot.trusted_proxies);
        context.client_ip = Some(ip);
        context.is_trusted = is_trusted;
    }
    context.request_id = RequestId::of(&request.headers, context.is_trusted);
    if live.traces.is_some() {
        let is_background = context.is_background();
        let begin = || trace::begin(&request.headers, snapshot.trace_share);
        context.trace = Some(if is_background { trace::unsampled() } else { begin() });
    }
    let host = forward::asked_host(request).unwrap_or_default();
    let name = std::str::from_utf8(host).unwrap_or_default();
    context.route = snapshot.router.find(name, request.uri.path(), &request.method).map(Arc::clone);
    copies::begin(session, context);
}

/// Why the request is answered with an error before anybody is asked.
pub(crate) fn refusal(session: &Session, context: &Context) -> Option<ErrorAnswer> {
    let Some(route) = &context.route else {
        return Some(ErrorAnswer {
            status: 404,
            cause: Cause::HttpRequestError,
            details: "No route leads from this address to a service.",
        });
    };
    let length = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > route.body_bytes_max).then_some(TOO_LARGE)
}

/// The answer to a request body over the limit.
pub(crate) const TOO_LARGE: ErrorAnswer = ErrorAnswer {
    status: 413,
    cause: Cause::HttpRequestError,
    details: "The request body is larger than what is allowed here.",
};
