//! The net: when a copy may answer in place of the backends, and keeping one of each good answer.
//!
//! Pingora's cache phases serve what is fresh, revalidate, and coalesce misses (standard mode). What they
//! cannot do is answer for any failure, for HEAD, for a lock holder that failed, or before the attempt; so
//! copies for the case of failure are looked up and written here, in the same store, and Pingora's own
//! stale-if-error stays off.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use goodgate_cache::{
    Admission, CopyInfo, CopyKind, CopyWriter, Key, Mode, RequestFacts, Stale, StoredCopy, admit,
    may_serve_fresh, may_serve_stale, may_share,
};
use goodgate_failure::{Cause, Word};
use goodgate_telemetry::{By, CacheResult, Origin};
use goodgate_upstream::{Lease, Wish};
use http::{HeaderValue, Method, StatusCode, header};
use pingora_cache::lock::CacheKeyLockImpl;
use pingora_cache::{CacheMeta, CachePhase, ForcedFreshness, NoCacheReason, RespCacheable};
use pingora_core::protocols::http::conditional_filter::{not_modified_filter, to_304};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::subrequest::{BodyMode, Ctx as SubrequestContext};
use pingora_proxy::{Session, SubrequestSpawner};

use crate::context::Context;
use crate::route::Route;

/// What one request has to do with the cache.
#[derive(Default)]
pub(crate) struct Copying {
    /// Present when the route caches and the request may be answered from a copy.
    pub(crate) request: Option<(Key, RequestFacts)>,
    /// The request asked to be left alone by the cache.
    pub(crate) bypassed: bool,
    /// The copy that will answer in place of the failure.
    chosen: Option<(StoredCopy, Stale, Cause)>,
    /// The last-good copy that is being written.
    writer: Option<CopyWriter>,
    /// What became of the answer of the backend.
    pub(crate) stored: bool,
    pub(crate) refused: bool,
}

impl std::fmt::Debug for Copying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying")
            .field("bypassed", &self.bypassed)
            .field("stored", &self.stored)
            .finish_non_exhaustive()
    }
}

/// Finds out what the request has to do with the route's cache.
pub(crate) fn begin(session: &Session, context: &mut Context, host: &[u8]) {
    let Some((policy, _)) = context.route.as_deref().and_then(|route| route.cache.as_ref()) else {
        return;
    };
    let request = session.req_header();
    if !matches!(request.method, Method::GET | Method::HEAD) || session.as_ref().is_upgrade_req() {
        return;
    }
    let facts = RequestFacts::new(&request.method, &request.headers, policy);
    if facts.bypasses() {
        context.copying.bypassed = true;
        return;
    }
    let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    context.copying.request = Some((Key::new("http", &host.to_ascii_lowercase(), target.as_bytes()), facts));
}

/// Answers at once from a copy if it is known before any attempt that one would be in vain: nothing is in
/// rotation, or the last refresh of this object failed a moment ago. A trial that is due goes out behind.
pub(crate) async fn answer_early(session: &mut Session, context: &mut Context) -> Result<bool> {
    let now = Instant::now();
    let Some(cause) = known_in_vain(session, context, now) else {
        return Ok(false);
    };
    if !choose(session, context, cause) {
        return Ok(false);
    }
    if let Some(route) = &context.route
        && route.upstream.is_out()
    {
        send_trial(session, route, now);
    }
    serve(session, context).await?;
    Ok(true)
}

/// Why an attempt would be in vain, as far as that is known beforehand.
fn known_in_vain(session: &Session, context: &Context, now: Instant) -> Option<Cause> {
    let route = context.route.as_ref()?;
    let (policy, room) = route.cache.as_ref()?;
    let (key, _) = context.copying.request.as_ref()?;
    let is_out = route.upstream.is_out();
    if context.is_background() || (!is_out && policy.mode == Mode::Standard) {
        // In standard mode the back-off of an object is asked for where Pingora finds it stale.
        return None;
    }
    let copy = room.store.find(key, &session.req_header().headers)?;
    if policy.mode == Mode::Standard && is_fresh_standard(&copy) {
        return None;
    }
    if is_out { Some(Cause::DestinationUnavailable) } else { copy.claim_refresh(now) }
}

/// Standard mode: Pingora's lookup has found a stale copy.
fn judge_stale(session: &Session, context: &mut Context) -> Option<ForcedFreshness> {
    let copy = stored(session, context)?;
    if let Some(cause) = copy.claim_refresh(Instant::now())
        && choose(session, context, cause)
        && let Some((_, stale, cause)) = context.copying.chosen.take()
    {
        // Its last refresh failed a moment ago: it is served as if it were fresh, at the cost of a hit.
        note_served(context, &stale, cause);
        return Some(ForcedFreshness::ForceFresh);
    }
    copy.is_outlived().then_some(ForcedFreshness::ForceExpired)
}

/// The copy for this request, of whatever kind.
fn stored(session: &Session, context: &Context) -> Option<StoredCopy> {
    let (_, room) = context.route.as_ref()?.cache.as_ref()?;
    let (key, _) = context.copying.request.as_ref()?;
    room.store.find(key, &session.req_header().headers)
}

/// Whether a copy may answer for this failure; it is kept for [`serve`].
pub(crate) fn choose(session: &Session, context: &mut Context, cause: Cause) -> bool {
    if context.is_background() || context.copying.chosen.is_some() {
        return context.copying.chosen.is_some();
    }
    context.copying.chosen = usable(session, context, cause);
    context.copying.chosen.is_some()
}

fn usable(session: &Session, context: &Context, cause: Cause) -> Option<(StoredCopy, Stale, Cause)> {
    let (policy, room) = context.route.as_ref()?.cache.as_ref()?;
    let (key, facts) = context.copying.request.as_ref()?;
    let copy = room.store.find(key, &session.req_header().headers)?;
    let stale = may_serve_stale(copy.meta(), policy, facts, cause, SystemTime::now())?;
    Some((copy, stale, cause))
}

/// Standard mode: lets Pingora's cache phases handle the request. Identical misses wait for one fetch, but
/// nobody waits whose own answer might be another one: a personal request, HEAD, a part.
pub(crate) fn enable_standard(session: &mut Session, context: &Context) {
    let Some((policy, room)) = context.route.as_ref().and_then(|route| route.cache.as_ref()) else {
        return;
    };
    let Some((_, facts)) = &context.copying.request else {
        return;
    };
    if policy.mode == Mode::Fallback || context.attempting.is_trial {
        return;
    }
    let alone = facts.is_personal || facts.is_authorized || facts.is_range || !facts.is_get;
    let lock: Option<&'static CacheKeyLockImpl> = if alone { None } else { Some(&room.lock) };
    session.cache.enable(&room.store, None, None, lock, None);
}

/// Whether requests for this copy must not wait for one another: it is never fresh (`no-cache`), so each has
/// to ask anyway, and they would queue up one behind the other.
pub(crate) fn must_not_wait(meta: &CacheMeta) -> bool {
    meta.fresh_until() <= meta.updated()
}

/// What Pingora is to think of the copy it found.
pub(crate) fn judge_hit(
    session: &Session,
    context: &mut Context,
    meta: &CacheMeta,
    is_fresh: bool,
) -> Option<ForcedFreshness> {
    let route = context.route.clone()?;
    let (policy, _) = route.cache.as_ref()?;
    let (_, facts) = context.copying.request.as_ref()?;
    if !may_share(&CopyInfo::of(meta), facts, policy) {
        return Some(ForcedFreshness::ForceMiss);
    }
    if is_fresh {
        let serves = may_serve_fresh(meta, policy, facts, SystemTime::now());
        return (!serves).then_some(ForcedFreshness::ForceExpired);
    }
    judge_stale(session, context)
}

/// Whether the answer to a miss fills the cache. For HEAD and ranges it does not, so that the backend is
/// asked for just that and not for the whole.
pub(crate) fn fills_on_miss(_session: &Session, context: &Context) -> bool {
    context.copying.request.as_ref().is_some_and(|(_, facts)| facts.is_get && !facts.is_range)
}

/// Fallback mode: whether the backend must not see the client's preconditions, since a 304 would leave
/// nothing to keep. Pingora then answers them itself.
pub(crate) fn hides_validators(session: &Session, context: &Context) -> bool {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let is_fallback = cache.is_some_and(|(policy, _)| policy.mode == Mode::Fallback);
    let facts = context.copying.request.as_ref().map(|(_, facts)| facts);
    is_fallback && facts.is_some_and(|facts| facts.is_get && !facts.is_range) && !session.cache.enabled()
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

/// Writes the chosen copy as the answer.
pub(crate) async fn serve(session: &mut Session, context: &mut Context) -> Result<()> {
    let Some((copy, stale, cause)) = context.copying.chosen.take() else {
        return Ok(());
    };
    let mut response = copy.meta().response_header_copy();
    let is_head = session.req_header().method == Method::HEAD;
    let not_modified =
        response.status == StatusCode::OK && not_modified_filter(session.req_header(), &response);
    if not_modified {
        to_304(&mut response);
    } else {
        response.insert_header(header::CONTENT_LENGTH, copy.body_len())?;
    }
    dress(&mut response, context, &stale, cause)?;
    note_served(context, &stale, cause);
    let no_body = is_head || not_modified || copy.body_len() == 0;
    session.write_response_header(Box::new(response), no_body).await?;
    if !no_body {
        let last = copy.body().len().saturating_sub(1);
        for (at, chunk) in copy.body().iter().enumerate() {
            session.write_response_body(Some(chunk.clone()), at == last).await?;
        }
    }
    session.as_downstream_mut().finish_body().await
}

fn dress(response: &mut ResponseHeader, context: &Context, stale: &Stale, cause: Cause) -> Result<()> {
    response.set_version(http::Version::HTTP_11);
    response.remove_header(&header::TRANSFER_ENCODING);
    response.insert_header(header::AGE, stale.age.as_secs())?;
    response.insert_header("X-Request-Id", context.request_id.value())?;
    if context
        .route
        .as_ref()
        .and_then(|route| route.cache.as_ref())
        .is_some_and(|(policy, _)| policy.status_header)
    {
        let left = 0 - i64::try_from(stale.past_freshness.as_secs()).unwrap_or(i64::MAX);
        let status = format!("goodgate; hit; ttl={left}; detail=stale-{}", cause.name());
        response.insert_header("Cache-Status", status)?;
    }
    Ok(())
}

fn note_served(context: &mut Context, stale: &Stale, cause: Cause) {
    context.outcome.origin = Origin::Cache;
    context.outcome.cause = None;
    context.outcome.rescue = Some((By::Stale, cause));
    context.outcome.cache = Some(CacheResult::Stale);
    context.outcome.age = Some(stale.age);
    if let Some(route) = &context.route {
        route.metrics.stale_age(stale.past_freshness);
    }
}

/// Sends the trial that is due in the background, so that no client waits for it.
fn send_trial(session: &Session, route: &Route, now: Instant) {
    if !route.upstream.is_trial_due(now) {
        return;
    }
    let Some(spawner) = &session.subrequest_spawner else {
        return;
    };
    if let Some(lease) = route.upstream.select(|_| false, TRIAL, now) {
        spawn(spawner, session, lease);
    }
}

/// What a trial behind a client's back asks for.
const TRIAL: Wish = Wish { is_retry: false, may_be_trial: true };

fn spawn(spawner: &SubrequestSpawner, session: &Session, lease: Lease) {
    let context =
        SubrequestContext::builder().body_mode(BodyMode::NoBody).user_ctx(Box::new(Some(lease))).build();
    // Nobody waits for it: it reports to the backend's health and refreshes the copy.
    drop(spawner.spawn_background_subrequest(session.as_ref(), context));
}

/// Decides about a good final answer of a backend in the rooms that Pingora's phases do not reach: in
/// fallback mode always, in standard mode for what has no freshness.
pub(crate) fn keep_last_good(context: &mut Context, session: &Session, response: &ResponseHeader) {
    let Some(route) = caching(context) else {
        return;
    };
    let Some((policy, room)) = &route.cache else {
        return;
    };
    if policy.mode == Mode::Standard || session.req_header().method != Method::GET {
        return;
    }
    let Some((key, facts)) = &context.copying.request else {
        return;
    };
    match admit(policy, facts, response, SystemTime::now()) {
        Admission::Store(meta) | Admission::KeepLastGood(meta) => {
            let writer = room.store.write(key, &session.req_header().headers, meta);
            context.copying.writer = Some(writer);
            context.copying.stored = true;
        }
        Admission::Refuse(_) => context.copying.refused = true,
    }
}

/// Decides about the answer for Pingora's cache phases (standard mode).
pub(crate) fn admit_standard(
    context: &mut Context,
    session: &Session,
    response: &ResponseHeader,
) -> RespCacheable {
    let refuse = RespCacheable::Uncacheable(NoCacheReason::OriginNotCache);
    let Some(route) = caching(context) else {
        return refuse;
    };
    let Some((policy, room)) = &route.cache else {
        return refuse;
    };
    let Some((key, facts)) = &context.copying.request else {
        return refuse;
    };
    match admit(policy, facts, response, SystemTime::now()) {
        Admission::Store(meta) if room.store.takes(key, response) => {
            context.copying.stored = true;
            RespCacheable::Cacheable(meta)
        }
        Admission::KeepLastGood(meta) => {
            if session.req_header().method == Method::GET {
                context.copying.writer = Some(room.store.write(key, &session.req_header().headers, meta));
            }
            context.copying.refused = true;
            refuse
        }
        Admission::Store(_) | Admission::Refuse(_) => {
            context.copying.refused = true;
            if !response.status.is_server_error()
                && let Some(copy) = room.store.find(key, &session.req_header().headers)
            {
                copy.outlive();
            }
            refuse
        }
    }
}

impl Copying {
    /// A piece of the answer's body.
    pub(crate) fn push(&mut self, data: Option<&bytes::Bytes>) {
        if let (Some(writer), Some(data)) = (&mut self.writer, data)
            && !writer.push(data)
        {
            self.writer = None;
            self.stored = false;
        }
    }

    /// The answer is complete (or was not: then nothing is kept).
    pub(crate) fn end(&mut self, complete: bool) {
        if let Some(writer) = self.writer.take()
            && complete
        {
            writer.finish();
        }
    }
}

/// What `Cache-Status` says of an answer that no failure had a hand in.
pub(crate) fn status_header(session: &Session, context: &Context) -> Option<HeaderValue> {
    let (policy, _) = context.route.as_ref()?.cache.as_ref()?;
    if !policy.status_header || !matches!(session.req_header().method, Method::GET | Method::HEAD) {
        return None;
    }
    let stored = if context.copying.stored { "; stored" } else { "" };
    let text = match session.cache.phase() {
        CachePhase::Hit => {
            return HeaderValue::try_from(format!("goodgate; hit; ttl={}", seconds_left(session))).ok();
        }
        CachePhase::StaleUpdating => {
            let text = format!("goodgate; hit; ttl={}; detail=updating", seconds_left(session));
            return HeaderValue::try_from(text).ok();
        }
        CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_) => {
            "goodgate; hit; fwd=stale; fwd-status=304"
        }
        CachePhase::Miss => "goodgate; fwd=uri-miss",
        CachePhase::Stale | CachePhase::Expired => "goodgate; fwd=stale",
        CachePhase::Disabled(_) | CachePhase::Uninit | CachePhase::Bypass | CachePhase::CacheKey => {
            if context.copying.bypassed || context.copying.request.is_none() {
                "goodgate; fwd=request"
            } else if policy.mode == Mode::Fallback {
                "goodgate; fwd=bypass"
            } else {
                "goodgate; fwd=miss"
            }
        }
    };
    HeaderValue::try_from(format!("{text}{stored}")).ok()
}

fn seconds_left(session: &Session) -> i64 {
    let until = session.cache.cache_meta().fresh_until();
    let now = SystemTime::now();
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    until.duration_since(now).map_or_else(|past| -seconds(past.duration()), seconds)
}

/// Whether Pingora's phases will serve it as a hit.
fn is_fresh_standard(copy: &StoredCopy) -> bool {
    CopyInfo::of(copy.meta()).kind == CopyKind::Standard && copy.meta().is_fresh(SystemTime::now())
}

/// The route, if it caches.
fn caching(context: &Context) -> Option<Arc<Route>> {
    context.route.as_ref().filter(|route| route.cache.is_some()).map(Arc::clone)
}

/// Whether stale copies may be served while they are refreshed.
pub(crate) fn may_update_behind(context: &Context) -> bool {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    cache.is_some_and(|(policy, _)| policy.use_stale.contains(Word::Updating))
}
