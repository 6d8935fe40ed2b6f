//! A request's first steps: who asks, by which name it will be known, which route it takes.

use std::borrow::Cow;
use std::sync::Arc;

use goodgate_config::{BadTarget, merged_path, normal_target};
use goodgate_failure::Cause;
use goodgate_telemetry::Refused;
use http::header::{self, HeaderMap};
use http::{Method, Version};
use pingora_error::Result;
use pingora_http::RequestHeader;
use pingora_http::authority::{RawTargetAuthority, raw_target_authority};
use pingora_proxy::Session;

use crate::answer::ErrorAnswer;
use crate::classify::TOO_LARGE;
use crate::client_address::{ClientAddress, is_among};
use crate::context::Context;
use crate::head::Malformed;
use crate::mirror::Mirroring;
use crate::request_id::RequestId;
use crate::route::Route;
use crate::snapshot::{Live, Snapshot};
use crate::{copies, forward, head, http2, hygiene, override_method, own, split, ties, trace};

/// Fills the context from the request and the snapshot in force.
pub(crate) fn begin(
    live: &Live,
    session: &mut Session,
    context: &mut Context,
    sender: Option<Sender>,
) -> Result<()> {
    let snapshot = live.snapshot();
    let malformed = if session.is_http2() {
        context.http2_stream = http2::take_stream(session.req_header_mut());
        let malformed = http2::to_http1(session.req_header_mut(), &snapshot.limits)?.err();
        if session.as_downstream_mut().is_body_done() {
            // Pingora makes subrequests of the head as it would be written, and cannot read one of HTTP/2.
            session.req_header_mut().set_version(Version::HTTP_11);
        }
        malformed
    } else {
        None
    };
    context.is_for_good = true;
    if let Mirroring::Copy(copy) = &context.mirroring {
        let route = Arc::clone(&copy.route);
        (context.client_address, context.is_trusted) = (copy.client_address, copy.is_trusted);
        (context.request_id, context.is_https) = (copy.request_id.clone(), copy.is_https);
        return of_copy(&snapshot, session.req_header_mut(), context, route);
    }
    if context.is_background() {
        let sender = sender.unwrap_or_default();
        (context.is_trusted, context.is_https) = (sender.is_trusted, sender.is_https);
    }
    context.has_body = !session.as_downstream_mut().is_body_empty();
    if let Some(reason) = of_request(live, &snapshot, session.req_header_mut(), malformed, context)? {
        live.metrics().refused(reason);
    }
    // Pingora reads only the first field of the name.
    if has_option(&session.req_header().headers, b"close") {
        session.set_keepalive(None);
    }
    Ok(())
}

/// The same for a copy of a request that has come this far already.
fn of_copy(
    snapshot: &Snapshot,
    request: &mut RequestHeader,
    context: &mut Context,
    route: Arc<Route>,
) -> Result<()> {
    // What has no normal form was refused before there was a copy.
    let _ = normalise(request)?;
    ignore_upgrade(request, context.version(request));
    forward::drop_nominated(request);
    let has_tls = context.speaker().is_some_and(|client| client.has_tls);
    forward::settle_forwarded(request, has_tls, context.is_trusted)?;
    context.override_method = override_method::judge(request, &route, |_| true).ok().flatten();
    context.removed_fields = hygiene::drop_claims(request, context, &route.pass_headers);
    ties::take_cookies(request, &snapshot.sticky)?;
    context.route = Some(route);
    Ok(())
}

/// The same for a request by itself. Why it is refused, as far as that is to be counted.
pub(crate) fn of_request(
    live: &Live,
    snapshot: &Arc<Snapshot>,
    request: &mut RequestHeader,
    malformed: Option<Malformed>,
    context: &mut Context,
) -> Result<Option<Refused>> {
    let target = normalise(request)?;
    ignore_upgrade(request, context.version(request));
    forward::drop_nominated(request);
    meet_client(snapshot, request, context)?;
    if context.is_background() {
        forward::settle_forwarded(request, false, context.is_trusted)?;
    } else if context.is_trusted {
        context.is_https = forward::is_https(&request.headers);
    }
    context.request_id = RequestId::of(&request.headers, context.is_trusted);
    if live.traces.is_some() {
        let is_background = context.is_background();
        let begin = || trace::begin(&request.headers, snapshot.trace_share);
        context.trace = Some(if is_background { trace::unsampled() } else { begin() });
    }
    if let Some(malformed) = malformed {
        context.refused = Some(malformed.into());
        return Ok(Some(malformed.reason));
    }
    if let Err(bad) = target {
        let details = bad.sentence();
        context.refused = Some(ErrorAnswer { details, ..ErrorAnswer::of(Cause::HttpRequestError) });
        return Ok(Some(Refused::Path));
    }
    let host = forward::asked_host(request).unwrap_or_default();
    let name = std::str::from_utf8(host).unwrap_or_default();
    if let Some(objection) = context.client.as_ref().and_then(|client| client.objection(name)) {
        context.refused = Some(objection.answer());
        return Ok(None);
    }
    // `OPTIONS *` is about the host as a whole.
    let path = if request.uri.path() == "*" { "/" } else { request.uri.path() };
    let purged = copies::purged_route(snapshot, name, path, &request.method, context.client_address);
    context.route = purged.or_else(|| {
        let route = snapshot.router.find(name, path, &request.method);
        route.map(|route| split::share(route, request, context))
    });
    if let Some(route) = context.route.clone() {
        let takes_same = |method: &Method| {
            let other = snapshot.router.find(name, path, method);
            other.is_some_and(|other| other.name == route.name)
        };
        let judged = override_method::judge(request, &route, takes_same);
        context.refused = judged.as_ref().err().copied();
        context.override_method = judged.unwrap_or_default();
        clean(snapshot, request, context, &route)?;
    }
    if live.trail.has_looped(request, snapshot.limits.passages_max) {
        context.refused = Some(ErrorAnswer::of(Cause::ProxyLoopDetected));
    }
    copies::begin(snapshot, request, context)?;
    Ok(None)
}

/// Takes out what the backend does not get.
fn clean(
    snapshot: &Snapshot,
    request: &mut RequestHeader,
    context: &mut Context,
    route: &Route,
) -> Result<()> {
    if route.merges_slashes || route.own.is_some() {
        merge_slashes(request)?;
    }
    context.affinity = ties::take_cookies(request, &snapshot.sticky)?;
    if context.is_for_good || context.is_trusted || !route.pass_headers.is_empty() {
        context.removed_fields = hygiene::drop_claims(request, context, &route.pass_headers);
    }
    if context.is_background() {
        forward::forget_client(request, route);
    }
    Ok(())
}

/// Makes each run of slashes in the path one: where the route says so, and where it answers itself, since a redirect to
/// `{path}` with two slashes at its beginning would lead to another host.
fn merge_slashes(request: &mut RequestHeader) -> Result<()> {
    let Cow::Owned(path) = merged_path(request.uri.path()) else {
        return Ok(());
    };
    let target = match request.uri.query() {
        Some(query) => [path.as_str(), "?", query].concat(),
        None => path,
    };
    request.set_raw_path(target.as_bytes())
}

/// What the client's connection says of the request.
fn meet_client(snapshot: &Snapshot, request: &mut RequestHeader, context: &mut Context) -> Result<()> {
    let Some(client) = &context.client else {
        return Ok(());
    };
    let peer = client.address.ip().to_canonical();
    let is_trusted = !client.is_unnamed && is_among(peer, &snapshot.trusted_proxies);
    context.client_address = Some(if is_trusted {
        ClientAddress::behind(peer, &request.headers, &snapshot.trusted_proxies)
    } else {
        ClientAddress::Known(peer)
    });
    context.is_trusted = is_trusted;
    context.is_https = client.has_tls;
    let is_single_user = !is_trusted && !context.is_http2;
    context.connections = client.own.of_request(&request.headers, is_single_user);
    forward::settle_forwarded(request, client.has_tls, is_trusted)
}

/// Who has sent the request that a request behind its back is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sender {
    pub(crate) is_trusted: bool,
    pub(crate) is_https: bool,
}

/// Gives the target its one form, once for all that look at it: in origin form, with the host beside it (RFC
/// 9112 section 3.2.1), and normal. The outer result is a failure of ours.
fn normalise(request: &mut RequestHeader) -> Result<Result<(), BadTarget>> {
    if request.raw_path() == b"*" {
        return Ok(Ok(()));
    }
    if !request.raw_path().starts_with(b"/") {
        to_origin_form(request)?;
    }
    match normal_target(request.raw_path()) {
        Ok(None) => Ok(Ok(())),
        Ok(Some(normal)) => request.set_raw_path(normal.as_bytes()).map(Ok),
        Err(bad) => Ok(Err(bad)),
    }
}

/// The head was checked: a target in absolute form names the host that `Host` names, if there is one.
fn to_origin_form(request: &mut RequestHeader) -> Result<()> {
    let RawTargetAuthority::Absolute { authority, path_and_query, .. } =
        raw_target_authority(request.raw_path())
    else {
        return Ok(());
    };
    let authority = pingora_http::header_value_from_slice(authority);
    let slash: &[u8] = if path_and_query.starts_with(b"/") { b"" } else { b"/" };
    let target = [slash, path_and_query].concat();
    request.insert_header(header::HOST, authority)?;
    request.set_raw_path(&target)
}

/// A wish to switch protocols that is not passed on, or that `Connection` does not repeat: the request is served
/// as any other. Pingora looks at `Upgrade` alone.
fn ignore_upgrade(request: &mut RequestHeader, version: Version) {
    if !request.headers.contains_key(header::UPGRADE) {
        return;
    }
    let mut asked = request.headers.get_all(header::UPGRADE).iter();
    let switches = version == Version::HTTP_11
        && asked.next().is_some_and(|protocols| head::may_switch(protocols.as_bytes()))
        && asked.next().is_none()
        && has_option(&request.headers, b"upgrade");
    if !switches {
        request.remove_header(&header::UPGRADE);
    }
}

/// Whether `Connection` has this option, in any of its fields.
fn has_option(headers: &HeaderMap, option: &[u8]) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| head::has_option(value.as_bytes(), option))
}

/// Whether nothing stands between a request and a copy that may answer it.
pub(crate) fn is_plain(request: &RequestHeader, context: &Context) -> bool {
    let Some(route) = &context.route else {
        return false;
    };
    context.refused.is_none()
        && context.copying.request.is_some()
        && route.own.is_none()
        && route.gate.is_none()
        && !own::is_redirected(request, context)
        && context.client_address.is_some_and(|client| route.access.admits(client.known()))
}

/// The answer to a client that the lists of addresses do not admit.
const fn denied(client: ClientAddress) -> ErrorAnswer {
    let denied = ErrorAnswer::of(Cause::HttpRequestDenied);
    match client {
        ClientAddress::Known(_) => denied,
        ClientAddress::Unknown { .. } => ErrorAnswer {
            details: "The client's address cannot be read from the fields of the proxy in front.",
            ..denied
        },
    }
}

/// Whether the client's connection is kept behind this error: the request was understood, and nothing of it is unread.
pub(crate) fn keeps_connection(session: &Session, context: &Context, error: ErrorAnswer) -> bool {
    matches!(error.status, 403 | 404) && !context.has_body && session.get_keepalive().is_some()
}

/// Why the request is answered with an error before anybody is asked.
pub(crate) fn refusal(session: &Session, context: &Context) -> Option<ErrorAnswer> {
    if context.refused.is_some() {
        return context.refused;
    }
    if own::is_redirected(session.req_header(), context) {
        return own::https_refusal(session.req_header());
    }
    let Some(route) = &context.route else {
        return Some(ErrorAnswer {
            status: 404,
            cause: Cause::HttpRequestError,
            details: "No route leads from this address to a service.",
        });
    };
    match context.client_address {
        Some(client) if !route.access.admits(client.known()) => return Some(denied(client)),
        Some(_) | None => {}
    }
    if let Some(error) = route.own.as_ref().and_then(|own| own::refusal(session, own)) {
        return Some(error);
    }
    let length = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > route.body_bytes_max).then_some(TOO_LARGE)
}
