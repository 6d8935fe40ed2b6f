//! The exchange with the backends: from the choice of one to its answer, or to its failure.

mod next;

use std::time::{Duration, Instant};

use bytes::Bytes;
use goodgate_failure::{Cause, Phase, ReceivedStatus};
use http::{HeaderName, StatusCode, header};
use log::debug;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::answer::{self, ErrorAnswer};
use crate::attempt::{Connection, has_answered};
use crate::classify::{self, BODY_TOO_LARGE, SETTLED};
use crate::context::Context;
use crate::kept::{self, KeptConnections};
use crate::queue::{self, Entry};
use crate::replay::{BODY_LOST, KEPT_BY_PINGORA};
use crate::route::Route;
use crate::stream::ClientStream;
use crate::{connection_auth, copies, forward, interim, split};

pub(crate) use next::{await_lookups, next_peer};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Decides early what needs no attempt to be known: an upstream without a single backend, or whose backends are
/// full. The client's connection stays usable then, which it does not after an attempt has failed.
pub(crate) async fn may_proceed(session: &mut Session, context: &mut Context) -> Result<bool> {
    split::hand_back(context);
    let Some(route) = &context.route else {
        return Ok(false);
    };
    let error = if route.upstream.is_full() && !route.upstream.has_breaker() {
        ErrorAnswer::of(Cause::ConnectionLimitReached)
    } else if route.upstream.has_untried(|_| false, true, Instant::now()) {
        if copies::answer_late(session, context).await? || copies::answer_waited(session, context).await? {
            return Ok(false);
        }
        match queue::enter(session, context).await? {
            Entry::Admitted => return Ok(true),
            Entry::Over => return Ok(false),
            Entry::Refused(error) => error,
        }
    } else {
        ErrorAnswer::of(route.upstream.why_none())
    };
    if context.is_background() {
        return Ok(false);
    }
    copies::load(session, context).await;
    if copies::choose(session, context, error.cause) {
        Box::pin(copies::serve(session, context)).await?;
    } else {
        copies::note_none(session, context, error.cause);
        Box::pin(answer::write(session, context, error)).await?;
    }
    Ok(false)
}

/// The attempt failed for this cause. Whether another follows.
pub(crate) fn failed(session: &Session, context: &mut Context, cause: Cause) -> bool {
    let now = Instant::now();
    match context.route.clone() {
        Some(route) => failed_at(session, context, &route, cause, now),
        None => false,
    }
}

/// If no other attempt follows, the copy learns of it before those who wait for this request are let go.
fn failed_at(session: &Session, context: &mut Context, route: &Route, cause: Cause, now: Instant) -> bool {
    let retry = context.attempting.failed(route, session, cause, now);
    if !retry {
        copies::note_failed_refresh(session, context, cause, now);
    }
    retry
}

/// The connection stands; from here the response header has until the request's deadline. A kept one that has
/// been idle for too long is given up for another.
pub(crate) fn connected(
    kept: &KeptConnections,
    session: &mut Session,
    context: &mut Context,
    connection: &Connection<'_>,
) -> Result<()> {
    let Some(route) = context.route.clone() else {
        return Ok(());
    };
    if connection.reused && kept::has_bytes(connection.socket) {
        // They would be read as the response. Pingora looks, too, but sees only what the event loop has reported.
        debug!(request_id:% = context.request_id.as_str(); "an idle connection is closed: the backend sent bytes on it");
        context.attempting.pass_over();
        return Err(settled(true));
    }
    let is_kept = context.replaying.is_on();
    if !context.attempting.connected(&route, kept, connection, || is_repeatable(session, &route, is_kept)) {
        return Err(settled(true));
    }
    let tls_name = context.attempting.lease().and_then(|lease| lease.backend().tls_name.clone());
    if let Some(name) = tls_name.filter(|_| !connection.reused)
        && !route.backend_tls.admits(&name, connection.shown)
    {
        context.attempting.note_detail(Some("the certificate is none of those in tls.ca".into()));
        return Err(settled(failed(session, context, Cause::TlsCertificateError)));
    }
    let is_plain = context.attempting.lease().is_some_and(|lease| lease.backend().tls_name.is_none());
    if is_plain
        && !connection.reused
        && session.as_ref().is_upgrade_req()
        && kept::has_bytes(connection.socket)
    {
        // Pingora would take it for the answer, and the end of this request for that of the tunnel.
        context.attempting.note_detail(Some("it spoke before it was asked".into()));
        return Err(settled(failed(session, context, Cause::HttpProtocolError)));
    }
    let is_uploading = context.has_body && !session.as_downstream_mut().is_body_done();
    let deadline = if is_uploading {
        context.attempting.upload_begins(Instant::now() + UPLOAD_MAX)
    } else {
        context.attempting.deadline()
    };
    context.watch(connection.socket, deadline);
    Ok(())
}

/// While the client still sends, its own limits count (`body_timeout`, `min_body_rate`, `write_timeout` for a backend that
/// does not take the body), and the deadline of the response does not run.
const UPLOAD_MAX: Duration = Duration::from_hours(24);

/// Whether the request could be sent once more if its connection dies: by its method, and because its body is
/// kept, by Pingora if not by us. A body whose length is not known may be too long for that.
fn is_repeatable(session: &Session, route: &Route, is_kept: bool) -> bool {
    let request = session.req_header();
    if !route.retry.replay.allows(&request.method) {
        return false;
    }
    let length = request.headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().ok()?.parse().ok());
    match length {
        Some(length) => length.is_some_and(|length: u64| is_kept || length <= KEPT_BY_PINGORA),
        None => !request.headers.contains_key(header::TRANSFER_ENCODING),
    }
}

/// A piece of the request's body goes out; after the last one the first byte of the answer is due.
pub(crate) fn request_body(context: &mut Context, body: Option<&Bytes>, is_end: bool) -> Result<()> {
    let Some(route) = &context.route else {
        return Ok(());
    };
    if let Some(body) = body {
        context.body_bytes += body.len() as u64;
        if context.body_bytes > route.body_bytes_max {
            return Err(Error::create(BODY_TOO_LARGE, ErrorSource::Downstream, None, None));
        }
    }
    if context.has_body {
        context.attempting.piece_sent(Instant::now(), is_end);
    }
    if is_end {
        let sent = if context.body_bytes == 0 { context.attempting.connected_at() } else { Instant::now() };
        let due = sent + route.upstream.spec().timeouts.first_byte;
        context.tighten(due.min(context.attempting.deadline()));
    }
    Ok(())
}

/// A piece of the response's body has come, or of what a tunnel's backend sends.
pub(crate) fn response_body(context: &mut Context, body: Option<&Bytes>, is_end: bool) -> Result<()> {
    context.attempting.received(body.map_or(0, Bytes::len));
    if is_end && !context.is_tunnel {
        if context.is_idle() {
            // The watchdog has closed the connection, which for some bodies looks like their end.
            return Err(Error::create(ErrorType::ReadTimedout, ErrorSource::Upstream, None, None));
        }
        context.attempting.done(Instant::now());
        context.queueing.leave();
    }
    context.moved();
    context.copying.push(body, is_end);
    Ok(())
}

/// A response header has come: is it an answer, and one to pass on?
pub(crate) async fn response_header(
    session: &mut Session,
    response: &mut ResponseHeader,
    context: &mut Context,
) -> Result<()> {
    let is_upgrade = response.status == StatusCode::SWITCHING_PROTOCOLS;
    if response.status.is_informational() && !is_upgrade {
        forward::response(response)?;
        return interim::pass_on(session, response, context).await;
    }
    context.disarm();
    let Some(route) = context.route.clone() else {
        return Ok(());
    };
    let now = Instant::now();
    if let Some((cause, detail)) = unacceptable(session, response, &route) {
        context.attempting.note_detail(detail);
        return Err(settled(failed_at(session, context, &route, cause, now)));
    }
    context.attempting.answered(&route, response.status.as_u16(), now);
    connection_auth::note_challenge(context, response);
    note_idle_hint(context, response, now);
    if let Some(field) = &route.upstream.spec().drain_header
        && response.remove_header(field).is_some()
    {
        context.attempting.announced(&route, now);
    }
    if let Some(status) = ReceivedStatus::from_code(response.status.as_u16()) {
        judge_status(session, context, &route, Cause::Received(status), now)?;
    } else {
        context.attempting.succeeded(&route, now);
    }
    queue::keep_time(&route.upstream, now);
    if session.as_ref().is_upgrade_req() {
        limit_idle(session, context, &route, is_upgrade);
    }
    forward::response(response)?;
    if !is_upgrade && forward::has_no_body(&session.req_header().method, response) {
        context.attempting.done(now);
        context.queueing.leave();
    }
    copies::note_answer(context, session, response);
    Ok(())
}

/// Behind the answer to a request to switch: a tunnel has its own limit, for both directions together, and none of
/// those of bodies.
fn limit_idle(session: &mut Session, context: &mut Context, route: &Route, is_tunnel: bool) {
    let timeouts = &route.upstream.spec().timeouts;
    context.is_tunnel = is_tunnel;
    if is_tunnel {
        context.queueing.leave();
    }
    context.limit_idle(if is_tunnel { timeouts.tunnel } else { timeouts.read });
    if is_tunnel {
        let client = session.as_downstream_mut();
        client.set_read_timeout(None);
        let stream = client.stream().and_then(|stream| (**stream).as_any().downcast_ref::<ClientStream>());
        if let Some(stream) = stream {
            stream.switch();
        }
    }
}

/// Takes note of how long the backend keeps an idle connection, if it says so.
fn note_idle_hint(context: &Context, response: &ResponseHeader, now: Instant) {
    if let Some(value) = response.headers.get(KEEP_ALIVE)
        && let Some(limit) = forward::idle_hint(value)
        && let Some(lease) = context.attempting.lease()
    {
        lease.backend().hinted_idle_close(limit, now);
    }
}

/// What is no answer at all: a 101 that nobody asked for, or to another protocol; a body in a coding that was
/// not asked for; a header over the limit.
fn unacceptable(
    session: &Session,
    response: &ResponseHeader,
    route: &Route,
) -> Option<(Cause, Option<Box<str>>)> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS && !session.as_ref().is_upgrade_req() {
        return Some((Cause::HttpProtocolError, Some("101 without a request to switch".into())));
    }
    if response.status == StatusCode::SWITCHING_PROTOCOLS
        && !forward::is_upgrade_asked_for(&session.req_header().headers, &response.headers)
    {
        return Some((Cause::HttpUpgradeFailed, Some("101 to another protocol than asked for".into())));
    }
    if !forward::is_framing_known(response) {
        return Some((Cause::HttpProtocolError, Some("a Transfer-Encoding other than chunked".into())));
    }
    let fields = response.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let (size, limit) = (fields.sum::<usize>(), route.response_header_bytes_max);
    let detail = || format!("{size} bytes, limits.max_response_header_bytes is {limit}").into();
    (size > limit).then(|| (Cause::HttpResponseHeaderSectionSize, Some(detail())))
}

/// A status that may count as a failure: another backend first, then a copy, else it is passed on, or replaced
/// by an error of ours if the route says so.
fn judge_status(
    session: &mut Session,
    context: &mut Context,
    route: &Route,
    cause: Cause,
    now: Instant,
) -> Result<()> {
    let stale_for_it = route.cache.as_ref().is_some_and(|(policy, _)| policy.use_stale.covers(cause));
    let backend_blamed =
        context.attempting.lease().is_some_and(|lease| lease.backend().ejection.fail_on.covers(cause));
    if !backend_blamed {
        context.attempting.succeeded(route, now);
    }
    let is_replaced = route.errors.replace.covers(cause);
    if !(route.retry.on.covers(cause) || backend_blamed || stale_for_it || is_replaced) {
        return Ok(());
    }
    if failed_at(session, context, route, cause, now) {
        return Err(settled(true));
    }
    let may_replace = !has_answered(session);
    // Behind a client's back nobody sees the error, and it must not pass for an answer.
    let is_behind = context.is_background();
    if may_replace && (is_replaced || stale_for_it && (is_behind || copies::choose(session, context, cause)))
    {
        return Err(settled(false));
    }
    Ok(())
}

/// The attempt ended in an error after the connection stood. Whether another follows.
pub(crate) fn broke(session: &mut Session, context: &mut Context, error: &mut Error) -> bool {
    if context.is_idle_tunnel() {
        return false;
    }
    let timed_out = context.disarm();
    if *error.etype() == SETTLED {
        return error.retry();
    }
    let Some(route) = context.route.clone() else {
        return false;
    };
    let now = Instant::now();
    let in_vain = timed_out || *error.etype() == ErrorType::ReadTimedout;
    let is_unanswered = context.attempting.log.last().is_some_and(|attempt| attempt.phase == Phase::Request);
    let is_uploading = is_unanswered && context.has_body && !session.as_downstream_mut().is_body_done();
    if in_vain && is_uploading {
        // The backend has nothing to answer yet: it was the client that let the time pass.
        (error.etype, error.esource) = (ErrorType::ReadTimedout, ErrorSource::Downstream);
    }
    if is_uploading {
        context.attempting.upload_broke(now);
    }
    if *error.etype() == BODY_LOST {
        // To Pingora whatever reads a body is the client.
        error.esource = ErrorSource::Internal;
    }
    if error.esource() == &ErrorSource::Downstream {
        context.attempting.abandoned(&route, now);
        return false;
    }
    let phase = context.attempting.log.last().map_or(Phase::Connect, |attempt| attempt.phase);
    let cause = match (timed_out, phase) {
        (false, _) => classify::attempt(error, phase),
        (true, Phase::Response) => Cause::ConnectionReadTimeout,
        (true, Phase::Connect | Phase::Request) => Cause::HttpResponseTimeout,
    };
    context.attempting.note_detail(classify::detail(error).filter(|_| !timed_out));
    failed_at(session, context, &route, cause, now)
}

/// An error for what has been decided and recorded.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora passes its errors boxed")]
pub(crate) fn settled(retry: bool) -> Box<Error> {
    let mut error = Error::create(SETTLED, ErrorSource::Upstream, None, None);
    error.set_retry(retry);
    error
}
