//! What Pingora's cache phases ask (standard mode).

use std::time::{Duration, SystemTime};

use goodgate_cache::{Mode, RequestFacts, Standing, clock, may_serve_fresh, may_share};
use pingora_cache::key::HashBinary;
use pingora_cache::lock::CacheKeyLockImpl;
use pingora_cache::storage::HitHandler;
use pingora_cache::{CacheMeta, ForcedFreshness};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::context::Context;
use crate::effective_request::EffectiveRequest;
use crate::stream::ClientStream;

/// Standard mode: lets Pingora's cache phases handle a GET. Identical misses wait for one fetch, but nobody waits
/// whose own answer might be another one: a personal request, a part; nor where the last response could not be stored. A HEAD goes on as it is, since the phases would
/// make a GET of it.
pub(crate) fn enable_standard(session: &mut Session, context: &Context) {
    let Some((policy, room)) = context.route.as_ref().and_then(|route| route.cache.as_ref()) else {
        return;
    };
    let Some((key, facts)) = &context.copying.request else {
        return;
    };
    let is_past = !facts.is_get || facts.is_for_server;
    if policy.mode == Mode::Fallback || context.attempting.is_trial || is_past {
        return;
    }
    let alone = facts.is_personal || facts.is_authorized || facts.is_range || room.store.is_unstorable(key);
    let lock: Option<&'static CacheKeyLockImpl> = if alone { None } else { Some(&room.lock) };
    session.cache.enable(&room.store, None, None, lock, None);
    // What is stored comes in at the backend's pace, whatever that of the client is: others may wait for it.
    session.set_proxy_tasks_enabled(!context.is_background());
}

/// A response that turns out too large to be stored comes in at the client's pace again: what the client has not taken
/// would pile up. How long the backend should pause until then.
pub(crate) fn keep_with_client(session: &mut Session, context: &Context) -> Option<Duration> {
    if !session.as_downstream().supports_proxy_task_api() {
        return None;
    }
    let (_, room) = context.route.as_ref()?.cache.as_ref()?;
    let received = context.attempting.log.last()?.bytes_in;
    if received <= room.store.object_bytes_max() {
        return None;
    }
    if session.has_pending_downstream_tasks() && !has_left(session) {
        // Nothing is written meanwhile, so that it must be short; and the longer, the more has piled up.
        let behind = received.saturating_sub(session.as_downstream().body_bytes_sent() as u64);
        return Some(Duration::from_millis((2 + (behind >> 20)).min(50)));
    }
    session.set_proxy_tasks_enabled(false);
    None
}

/// Whether the client cannot be written to any more: its response is only passed on to others.
pub(crate) fn has_left(session: &Session) -> bool {
    let stream = session.as_downstream().stream();
    stream
        .and_then(|stream| (**stream).as_any().downcast_ref::<ClientStream>())
        .is_some_and(ClientStream::has_left)
}

/// Whether requests for this copy must not wait for one another: it is never fresh (`no-cache`), so each has
/// to ask anyway, and they would queue up one behind the other.
pub(crate) fn must_not_wait(meta: &CacheMeta) -> bool {
    meta.fresh_until() <= meta.updated() && meta.stale_while_revalidate_sec() == 0
}

/// A copy that is still coming in may pause: the client gets what there is of it.
pub(crate) fn hold_nothing_back(session: &mut Session, hit: &HitHandler) {
    let is_coming = !hit.can_seek();
    let stream = session.as_downstream_mut().stream().filter(|_| is_coming);
    if let Some(stream) = stream.and_then(|stream| (**stream).as_any().downcast_ref::<ClientStream>()) {
        stream.go_live();
    }
}

/// What Pingora is to think of the copy it found.
pub(crate) fn judge_hit(context: &Context, meta: &CacheMeta, is_fresh: bool) -> Option<ForcedFreshness> {
    let (policy, _) = context.route.as_ref()?.cache.as_ref()?;
    let (_, facts) = context.copying.request.as_ref()?;
    let standing = Standing::of(meta);
    if !may_share(&standing.info, facts, policy) {
        return Some(ForcedFreshness::ForceMiss);
    }
    let now = clock::now();
    let serves = standing.is_fresh(now) && may_serve_fresh(&standing, policy, facts, now);
    // Pingora judges by the wall clock, which may have been set.
    match (serves, is_fresh) {
        (true, true) | (false, false) => None,
        (true, false) => Some(ForcedFreshness::ForceFresh),
        (false, true) => Some(ForcedFreshness::ForceExpired),
    }
}

/// The variant of a stored response that the request is for.
pub(crate) fn variance(request: &RequestHeader, context: &Context, meta: &CacheMeta) -> Option<HashBinary> {
    goodgate_cache::variance(meta.headers(), &EffectiveRequest::new(request, context))
}

/// Whether the answer to a miss fills the cache. That to a part does not, so that the backend is asked for just that
/// and not for the whole; nor that to somebody in person who has a copy of their own: the backend hears of it.
pub(crate) fn fills_on_miss(context: &Context) -> bool {
    let fills = |facts: &RequestFacts| {
        let has_own = facts.is_conditional && (facts.is_personal || facts.is_authorized);
        facts.is_get && !facts.is_range && !has_own
    };
    context.copying.request.as_ref().is_some_and(|(_, facts)| fills(facts))
}

/// Whether a 304 will do for what the phases are about to send.
pub(crate) fn is_not_modified(session: &Session, response: &ResponseHeader) -> bool {
    goodgate_cache::is_not_modified(&session.req_header().headers, response, SystemTime::now())
}
