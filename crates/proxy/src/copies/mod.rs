//! The net: when a copy may answer in place of the backends, and keeping one of each good answer.
//!
//! Pingora's cache phases serve what is fresh, revalidate, and coalesce misses (standard mode). What they
//! cannot do is answer for any failure, for HEAD, for a lock holder that failed, or before the attempt; so
//! copies for the case of failure are looked up and written here, in the same store, and Pingora's own
//! stale-if-error stays off. A fresh copy that needs no more than to be sent is sent from here too: that costs
//! two thirds of a hit through the phases.

mod answer;
mod changes;
mod early;
mod keep;
mod phases;
mod preflight;
mod purge;
mod status;
mod survival;
mod waited;

use std::sync::Arc;
use std::time::Instant;

use goodgate_cache::{
    Address, CopyWriter, Generation, Key, Mode, Patience, RequestFacts, Stale, StoredCopy, canonical_host,
    clock, may_serve_stale, survives,
};
use goodgate_failure::{Cause, is_safe};
use goodgate_telemetry::{By, CacheResult};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use smallvec::SmallVec;

use crate::context::Context;
use crate::effective_request::{self, EffectiveRequest};
use crate::forward;
use crate::route::Route;
use crate::snapshot::{Live, Snapshot};

pub(crate) use answer::{cut_to_range, serve};
pub(crate) use early::{answer_early, answer_instead, answer_late, at_hand, take_background};
pub(crate) use keep::{admit_standard, give_back_withheld};
pub(crate) use phases::{
    enable_standard, fills_on_miss, has_left, hold_nothing_back, is_not_modified, judge_hit,
    keep_with_client, must_not_wait, variance,
};
pub(crate) use purge::{answer_purge, purged_route};
pub(crate) use status::status_header;
pub(crate) use survival::note_survival;
pub(crate) use waited::answer_waited;

/// What one request has to do with the cache.
#[derive(Default)]
pub(crate) struct Copying {
    /// Present when the route caches and the request may be answered from a copy.
    pub(crate) request: Option<(Key, RequestFacts)>,
    /// The purges and changes that the request has behind it.
    generation: Generation,
    /// Of a request that may change something: they say which routes cache what it changes. It is that of the request, and
    /// after a reload the one in which the response arrives.
    snapshots: SmallVec<[Arc<Snapshot>; 2]>,
    /// The request asked to be left alone by the cache.
    pub(crate) bypassed: bool,
    /// The copy that will answer in place of the failure.
    chosen: Option<Rescue>,
    /// The last-good copy that is being written.
    writer: Option<CopyWriter>,
    /// The header of a 304 that confirmed a copy, until the copy has taken it over.
    confirmation: Option<HeaderMap>,
    /// A 304 has come that speaks of another answer than the copy.
    is_unconfirmed: bool,
    /// Fields of the answer that its copy must not have: they are for who asked.
    withheld: Vec<(HeaderName, HeaderValue)>,
    /// What the first look at the store has found.
    found: Found,
    /// What became of the answer of the backend.
    pub(crate) stored: bool,
    /// Why it was not kept.
    pub(crate) refused: Option<&'static str>,
}

/// What the first look at the store has found, where it did not answer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Found {
    #[default]
    Nothing,
    /// Answers to other requests for the same address.
    Others,
    /// An old copy.
    Old,
    /// A fresh copy, but the request wants to know better.
    Fresh,
}

/// A copy that answers in place of a failure.
struct Rescue {
    copy: StoredCopy,
    stale: Stale,
    cause: Cause,
}

impl std::fmt::Debug for Copying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying")
            .field("bypassed", &self.bypassed)
            .field("stored", &self.stored)
            .finish_non_exhaustive()
    }
}

/// Finds out what the request has to do with the route's cache, from what the backend will receive.
pub(crate) fn begin(
    snapshot: &Arc<Snapshot>,
    request: &mut RequestHeader,
    context: &mut Context,
) -> Result<()> {
    if !is_safe(&request.method) {
        context.copying.snapshots.push(Arc::clone(snapshot));
    }
    let route = context.route.clone().filter(|_| context.connections.are_shared());
    let Some(route) = route else {
        return Ok(());
    };
    let Some((policy, room)) = &route.cache else {
        return Ok(());
    };
    let is_preflight = preflight::is_one(request);
    let is_read = matches!(request.method, Method::GET | Method::HEAD) || is_preflight;
    if !is_read || request.headers.contains_key(header::UPGRADE) {
        return Ok(());
    }
    canonicalize_host(request, context)?;
    let method = if is_preflight { Method::HEAD } else { request.method.clone() };
    let sent = EffectiveRequest::new(request, context);
    let mut facts = RequestFacts::of(&method, &request.headers, &sent, policy);
    if facts.bypasses() || context.has_body {
        context.copying.bypassed = true;
        return Ok(());
    }
    if effective_request::is_identified(request, context) {
        facts = facts.identified();
    }
    let forwarded = effective_request::keyed_lines(request, context, &route);
    let address = address(request, context.scheme());
    let key = if is_preflight {
        policy.key.preflight_key(address, &sent, &forwarded)
    } else {
        policy.key.key(address, &sent, &forwarded)
    };
    context.copying.generation = room.store.generation(context.started);
    context.copying.request = Some((key, facts));
    Ok(())
}

/// The backend gets the host in the form that the key has: a response may quote it.
fn canonicalize_host(request: &mut RequestHeader, context: &Context) -> Result<()> {
    let host = forward::asked_host(request).unwrap_or_default();
    let canonical = canonical_host(context.scheme(), host);
    if canonical == host {
        return Ok(());
    }
    let canonical = pingora_http::header_value_from_slice(&canonical);
    request.insert_header(header::HOST, canonical)
}

/// The address of a request.
fn address<'a>(request: &'a RequestHeader, scheme: &'a str) -> Address<'a> {
    let authority = forward::asked_host(request).unwrap_or_default();
    let target = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    Address { scheme, authority, target }
}

/// A response arrives under this snapshot, perhaps after a reload.
pub(crate) fn note_snapshot(context: &mut Context, live: &Live) {
    let snapshots = &mut context.copying.snapshots;
    if let Some(first) = snapshots.first() {
        let now = live.snapshot();
        if !Arc::ptr_eq(first, &now) {
            snapshots.truncate(1);
            snapshots.push(Arc::clone(&now));
        }
    }
}

/// A final answer of a backend has come: what it means for the copies there are, and for one of itself.
pub(crate) fn note_answer(context: &mut Context, session: &Session, response: &mut ResponseHeader) {
    note_alive(context, session, response);
    changes::invalidate(context, session, response);
    changes::compare_head(context, session, response);
    changes::note_missing(context, session, response);
    keep::note_confirmation(context, session, response);
    keep::keep_last_good(context, session, response);
    preflight::keep(context, session.req_header(), response);
    if forward::has_no_body(&session.req_header().method, response) {
        context.copying.end(true);
    }
}

/// The backend answers for what is stored, though it may not replace it: an earlier failure counts no more.
fn note_alive(context: &Context, session: &Session, response: &ResponseHeader) {
    if !response.status.is_server_error()
        && let Some(copy) = stored(session, context)
    {
        copy.refresh_succeeded();
    }
}

/// The copy for this request, of whatever kind.
fn stored(session: &Session, context: &Context) -> Option<StoredCopy> {
    stored_for(session.req_header(), context)
}

fn stored_for(request: &RequestHeader, context: &Context) -> Option<StoredCopy> {
    let (_, room) = context.route.as_ref()?.cache.as_ref()?;
    let (key, _) = context.copying.request.as_ref()?;
    room.store.find(key, &EffectiveRequest::new(request, context))
}

/// Reads the copy for this request from disk, if memory lacks it and the disk has it. All that looks for a copy
/// afterwards finds it in memory. Where a backend may be asked, the disk is not waited for if it is slow.
pub(crate) async fn load(session: &Session, context: &Context) {
    let is_out = context.route.as_ref().is_some_and(|route| route.upstream.is_out());
    let may_ask = !is_out && context.attempting.log.is_empty();
    load_within(session, context, if may_ask { Patience::Little } else { Patience::Much }).await;
}

/// The same with as much patience.
pub(crate) async fn load_within(session: &Session, context: &Context, patience: Patience) {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    if let (Some((_, room)), Some((key, _))) = (cache, &context.copying.request)
        && room.store.has_disk()
    {
        // Rare beside what memory answers, so that it must not make the future of every request larger.
        let sent = EffectiveRequest::new(session.req_header(), context);
        let found = Box::pin(room.store.load(key, &sent, patience)).await;
        if found.is_none() && patience == Patience::Much {
            Box::pin(room.store.load_variants(key, patience)).await;
        }
    }
}

/// Whether a copy may answer for this failure; it is kept for [`serve`].
pub(crate) fn choose(session: &Session, context: &mut Context, cause: Cause) -> bool {
    if context.is_background() || context.copying.chosen.is_some() {
        return context.copying.chosen.is_some();
    }
    context.copying.chosen = usable(session, context, cause);
    context.copying.chosen.is_some()
}

/// The same with a copy that has been looked up already.
fn choose_this(context: &mut Context, copy: StoredCopy, cause: Cause) -> bool {
    context.copying.chosen = rescue(context, copy, cause);
    context.copying.chosen.is_some()
}

fn usable(session: &Session, context: &Context, cause: Cause) -> Option<Rescue> {
    let own = stored(session, context).and_then(|copy| rescue(context, copy, cause));
    own.or_else(|| rescue(context, accepted(session.req_header(), context)?, cause))
}

/// Another variant that the request accepts.
fn accepted(request: &RequestHeader, context: &Context) -> Option<StoredCopy> {
    let (_, room) = context.route.as_ref()?.cache.as_ref()?;
    let (key, _) = context.copying.request.as_ref()?;
    room.store.find_accepted(key, &EffectiveRequest::new(request, context))
}

/// Nothing stored could answer in place of this failure: says why for the record.
pub(crate) fn note_none(session: &Session, context: &mut Context, cause: Cause) {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let (Some((policy, _)), Some((_, facts))) = (cache, &context.copying.request) else {
        return;
    };
    let reason = stored(session, context)
        .and_then(|copy| survives(&copy.standing(), policy, facts, cause, clock::now()).err());
    context.outcome.cache_detail = reason.or(context.copying.refused);
    context.outcome.cache = Some(CacheResult::Miss);
}

fn rescue(context: &Context, copy: StoredCopy, cause: Cause) -> Option<Rescue> {
    let (policy, _) = context.route.as_ref()?.cache.as_ref()?;
    let (_, facts) = context.copying.request.as_ref()?;
    let stale = may_serve_stale(&copy.standing(), policy, facts, cause, clock::now())?;
    Some(Rescue { copy, stale, cause })
}

/// Fallback mode: whether the client's preconditions are left out, since a 304 would leave nothing to keep: nothing is
/// stored for such a request yet. The client then gets the whole response, as any client may.
pub(crate) fn hides_validators(session: &Session, context: &Context) -> bool {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let is_fallback = cache.is_some_and(|(policy, _)| policy.mode == Mode::Fallback);
    let facts = context.copying.request.as_ref().map(|(_, facts)| facts);
    let may_fill = |facts: &RequestFacts| facts.is_get && !facts.is_range && facts.is_conditional;
    is_fallback
        && facts.is_some_and(may_fill)
        && !session.cache.enabled()
        && stored(session, context).is_none()
}

/// Notes on the object that asking for it has failed just now, so that the next ones need not wait.
pub(crate) fn note_failed_refresh(session: &Session, context: &Context, cause: Cause, now: Instant) {
    if let Some((policy, _)) = context.route.as_ref().and_then(|route| route.cache.as_ref())
        && policy.use_stale.covers(cause)
        && let Some(copy) = stored(session, context)
    {
        copy.refresh_failed(cause, now);
    }
}

/// A refresh behind a client's back has failed: the client who set it off has got the old copy instead of
/// the failure, which makes it a rescue. Trials are not on anybody's behalf.
pub(crate) fn note_failed_behind(session: &Session, context: &Context, cause: Cause) {
    if let Some(route) = &context.route
        && !context.attempting.is_trial
        && usable(session, context, cause).is_some()
    {
        route.metrics.rescue(By::Stale, cause);
    }
}

/// The route, if it caches.
fn caching(context: &Context) -> Option<Arc<Route>> {
    context.route.as_ref().filter(|route| route.cache.is_some()).map(Arc::clone)
}
