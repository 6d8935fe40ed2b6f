//! What Pingora's cache phases ask (standard mode).

use std::time::{Duration, SystemTime};

use goodgate_cache::{CopyInfo, Mode, may_serve_fresh, may_share};
use goodgate_failure::Word;
use http::{HeaderValue, Method};
use pingora_cache::lock::CacheKeyLockImpl;
use pingora_cache::{CacheMeta, CachePhase, ForcedFreshness};
use pingora_proxy::Session;

use super::stored;
use crate::context::Context;

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
    context: &Context,
    meta: &CacheMeta,
    is_fresh: bool,
) -> Option<ForcedFreshness> {
    let (policy, _) = context.route.as_ref()?.cache.as_ref()?;
    let (_, facts) = context.copying.request.as_ref()?;
    if !may_share(&CopyInfo::of(meta), facts, policy) {
        return Some(ForcedFreshness::ForceMiss);
    }
    if is_fresh {
        let serves = may_serve_fresh(meta, policy, facts, SystemTime::now());
        return (!serves).then_some(ForcedFreshness::ForceExpired);
    }
    stored(session, context)?.is_outlived().then_some(ForcedFreshness::ForceExpired)
}

/// Whether the answer to a miss fills the cache. For HEAD and ranges it does not, so that the backend is
/// asked for just that and not for the whole.
pub(crate) fn fills_on_miss(context: &Context) -> bool {
    context.copying.request.as_ref().is_some_and(|(_, facts)| facts.is_get && !facts.is_range)
}

/// Whether stale copies may be served while they are refreshed.
pub(crate) fn may_update_behind(context: &Context) -> bool {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    cache.is_some_and(|(policy, _)| policy.use_stale.contains(Word::Updating))
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
