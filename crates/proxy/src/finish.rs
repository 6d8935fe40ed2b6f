//! The end of a request: the last fields of its answer, the counters, and the one access record.

use std::sync::atomic::Ordering;
use std::time::Instant;

use goodgate_cache::Mode;
use goodgate_failure::{Cause, ReceivedStatus};
use goodgate_telemetry::{
    AccessRecord, By, CacheResult, LoggedClient, Mask, Origin, TraceContext, is_of_interest,
};
use http::{StatusCode, Version, header};
use pingora_cache::CachePhase;
use pingora_error::{Error, ErrorSource, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::attempt::has_answered;
use crate::classify::refused_body;
use crate::client_address::ClientAddress;
use crate::context::Context;
use crate::copies;
use crate::forward;
use crate::hygiene;
use crate::kept_date;
use crate::mirror;
use crate::replay;
use crate::rules;
use crate::snapshot::Live;
use crate::split;
use crate::ties;

/// Adds what every answer carries. Errors and copies for the case of failure are dressed where they are made.
pub(crate) fn dress(
    session: &mut Session,
    response: &mut ResponseHeader,
    context: &mut Context,
) -> Result<()> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return ties::bind(response, context);
    }
    if response.status.is_informational() {
        return Ok(());
    }
    if session.req_header().version == Version::HTTP_10
        && response.remove_header(&header::TRANSFER_ENCODING).is_some()
    {
        // RFC 9112 section 6.1: an HTTP/1.0 client knows no chunks. The end of the connection ends the body.
        replay::set_keepalive(session, context, None);
    }
    response.insert_header("X-Request-Id", context.request_id.value())?;
    if let Some(status) = copies::status_header(session, context) {
        response.append_header("Cache-Status", status)?;
    }
    copies::give_back_withheld(response, context)?;
    rules::to_client(response, session.req_header(), context)?;
    ties::bind(response, context)?;
    kept_date::keep(session, response);
    Ok(())
}

/// Counts and logs the request.
pub(crate) fn finish(live: &Live, session: &mut Session, context: &mut Context, error: Option<&Error>) {
    let now = Instant::now();
    if context.is_idle_tunnel() {
        context.outcome.detail = Some("nothing moved in the tunnel for timeouts.tunnel");
    }
    context.disarm();
    context.attempting.end(session, now);
    context.queueing.leave();
    // What has not seen the end of its body by now is not whole, error or not.
    context.copying.end(false);
    if context.is_background() {
        mirror::ended(context);
        return;
    }
    let written = session.response_written().filter(|_| has_answered(session));
    let status = written.map_or(499, |response| response.status.as_u16());
    settle(session, context, error);
    let left = error.is_some_and(|error| error.esource() == &ErrorSource::Downstream);
    if left && let Some(route) = &context.route {
        let request_complete = session.as_downstream_mut().is_body_done();
        route.upstream_metrics.client_aborted(request_complete, status != 499);
    }
    let client = session.as_downstream();
    let (sent, received) = (client.body_bytes_sent() as u64, client.body_bytes_read() as u64);
    conclude(live, &Ended { request: session.req_header(), status, sent, received }, context, now);
}

/// A request that has been answered, or not.
pub(crate) struct Ended<'a> {
    pub(crate) request: &'a RequestHeader,
    pub(crate) status: u16,
    /// Bytes of bodies.
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Counts and logs a request whose outcome is settled.
pub(crate) fn conclude(live: &Live, ended: &Ended<'_>, context: &Context, now: Instant) {
    split::forget(context);
    if let Some(client) = &context.client {
        client.is_recorded.store(true, Ordering::Relaxed);
    }
    let status = ended.status;
    count(live, context, status, now);
    context.removed_fields.iter().for_each(|name| live.metrics().removed_field(hygiene::label(name)));
    copies::note_survival(ended.request, context, now);
    let log = &live.snapshot().log;
    let outcome = &context.outcome;
    let is_of_interest = is_of_interest(status, outcome.cause, outcome.rescue);
    let is_logged = live.access_log.is_on() && log.wants(is_of_interest, fastrand::f64);
    let traces = live.traces.as_ref().zip(context.trace.filter(TraceContext::is_sampled));
    if !is_logged && !is_of_interest && traces.is_none() {
        return;
    }
    let record = record(&log.mask, ended, context, now);
    if is_logged {
        live.access_log.write(&record, log.format);
    }
    // What the gateway answers by itself without a cause was meant so.
    if is_of_interest && (record.origin != Origin::Goodgate || record.cause.is_some()) {
        live.ring.note(record.clone(), now);
    }
    if let Some((traces, trace)) = traces {
        traces.send(record.into_owned(), trace);
    }
}

/// Works out what the outcome is from what happened on the way.
fn settle(session: &Session, context: &mut Context, error: Option<&Error>) {
    let phase = session.cache.phase();
    if context.outcome.cache.is_none() {
        context.outcome.cache = cache_result(context, phase);
    }
    if context.outcome.origin == Origin::Backend && is_from_copy(phase) {
        context.outcome.origin = Origin::Cache;
        context.outcome.age = Some(session.cache.cache_meta().age());
    }
    let received = context.attempting.log.last().map_or(0, |attempt| attempt.bytes_in);
    if copies::has_left(session) && (session.as_downstream().body_bytes_sent() as u64) < received {
        // Pingora goes on for the cache without a word.
        context.outcome.cause = Some(Cause::ClientDisconnected);
        return;
    }
    if let Some(error) = error {
        let left = error.esource() == &ErrorSource::Downstream;
        let cause = if left { Some(Cause::ClientDisconnected) } else { context.attempting.decisive_cause() };
        if context.outcome.rescue.is_none() {
            context.outcome.cause = context.outcome.cause.or(cause);
        }
        return;
    }
    if context.outcome.origin == Origin::Backend && context.outcome.rescue.is_none() {
        // An error of the backend's own that is passed on.
        let status = context.attempting.log.last().and_then(|attempt| attempt.status);
        let received = status.filter(|status| *status >= 500).and_then(ReceivedStatus::from_code);
        context.outcome.cause = context.outcome.cause.or(received.map(Cause::Received));
    }
    let ended_well =
        context.attempting.log.last().is_some_and(|attempt| {
            attempt.cause.is_none() && attempt.status.is_none_or(|status| status < 500)
        });
    if ended_well
        && context.outcome.rescue.is_none()
        && let Some(cause) = context.attempting.last_cause()
    {
        let by = if context.attempting.was_only_race() { By::ConnectionRace } else { By::Retry };
        context.outcome.rescue = Some((by, cause));
    }
}

fn is_from_copy(phase: CachePhase) -> bool {
    matches!(
        phase,
        CachePhase::Hit
            | CachePhase::StaleUpdating
            | CachePhase::Revalidated
            | CachePhase::RevalidatedNoCache(_)
    )
}

fn cache_result(context: &Context, phase: CachePhase) -> Option<CacheResult> {
    let (policy, _) = context.route.as_ref()?.cache.as_ref()?;
    let is_fallback = policy.mode == Mode::Fallback;
    Some(match phase {
        CachePhase::Hit => CacheResult::Hit,
        CachePhase::StaleUpdating => CacheResult::Updating,
        CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_) => CacheResult::Revalidated,
        CachePhase::Miss | CachePhase::Expired | CachePhase::Stale => CacheResult::Miss,
        CachePhase::Disabled(_) | CachePhase::Uninit | CachePhase::Bypass | CachePhase::CacheKey => {
            if context.copying.bypassed || context.copying.request.is_none() {
                CacheResult::Bypass
            } else if context.copying.refused.is_some() {
                CacheResult::Uncacheable
            } else if is_fallback {
                CacheResult::Bypass
            } else {
                CacheResult::Miss
            }
        }
    })
}

fn count(live: &Live, context: &Context, status: u16, now: Instant) {
    let outcome = &context.outcome;
    let metrics = context.route.as_ref().map_or(&live.no_route, |route| &route.metrics);
    metrics.response(status, outcome.origin, now.saturating_duration_since(context.started));
    if let (Origin::Goodgate, Some(cause)) = (outcome.origin, outcome.cause) {
        metrics.gateway_error(status, cause);
        let body = (cause == Cause::HttpRequestError).then(|| refused_body(status, outcome.detail));
        if let Some(reason) = body.flatten() {
            live.metrics().refused(reason);
        }
    }
    if let Some((by, cause)) = outcome.rescue {
        metrics.rescue(by, cause);
    }
    if let Some(result) = outcome.cache {
        metrics.cache(result);
    }
}

/// All that is known of the request, masked.
fn record<'a>(mask: &Mask, ended: &Ended<'a>, context: &'a Context, now: Instant) -> AccessRecord<'a> {
    let request = ended.request;
    let outcome = &context.outcome;
    let route = context.route.as_ref();
    AccessRecord {
        time: context.started_at,
        request_id: context.request_id.as_str().into(),
        trace_id: context.trace.map(|trace| trace.trace_id()),
        client: context.client_address.map(|client| logged(client, mask)),
        method: request.method.as_str().into(),
        host: forward::asked_host(request).map(String::from_utf8_lossy).unwrap_or_default(),
        path: request.uri.path().into(),
        query: request.uri.query().map(|query| mask.query(query)),
        version: version(context.version(request)),
        route: route.map_or("none", |route| &route.name).into(),
        upstream: route.map_or("none", |route| &route.upstream.spec().name).into(),
        status: ended.status,
        origin: outcome.origin,
        cause: outcome.cause,
        detail: outcome.detail,
        rescue: outcome.rescue,
        cache: outcome.cache,
        cache_detail: outcome.cache_detail.or(context.copying.refused),
        age: outcome.age,
        bytes_sent: ended.sent,
        bytes_received: ended.received,
        duration: now.saturating_duration_since(context.started),
        queued: context.queueing.waited,
        user_agent: request
            .headers
            .get(header::USER_AGENT)
            .map(|agent| String::from_utf8_lossy(agent.as_bytes())),
        removed_fields: context.removed_fields.as_slice().into(),
        attempts: context.attempting.log.as_slice().into(),
    }
}

fn logged(client: ClientAddress, mask: &Mask) -> LoggedClient {
    client.known().map_or(LoggedClient::Unknown, |ip| LoggedClient::Address(mask.client(ip)))
}

/// As the record has it.
const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
