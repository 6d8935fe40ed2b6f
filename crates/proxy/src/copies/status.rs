//! `Cache-Status` (RFC 9211) of answers that no failure had a hand in.

use std::time::Duration;

use goodgate_cache::{CachePolicy, Mode, clock};
use http::{HeaderValue, Method};
use pingora_cache::CachePhase;
use pingora_proxy::Session;

use super::Found;
use crate::context::Context;

/// What it says: answered from the store, or why not, and what became of the answer.
pub(crate) fn status_header(session: &Session, context: &Context) -> Option<HeaderValue> {
    let (policy, _) = context.route.as_ref()?.cache.as_ref()?;
    if !policy.status_header {
        return None;
    }
    let found = context.copying.found;
    let stored = if context.copying.stored { "; stored" } else { "" };
    let text = match session.cache.phase() {
        CachePhase::Hit if has_waited(session) => format!("goodgate; fwd={}; collapsed", why_asked(found)),
        CachePhase::Hit => format!("goodgate; hit; ttl={}", seconds_left(session)),
        CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_) => {
            format!("goodgate; fwd={}; fwd-status=304{stored}", why_asked(found))
        }
        CachePhase::Miss | CachePhase::Stale | CachePhase::StaleUpdating | CachePhase::Expired => {
            format!("goodgate; fwd={}{stored}", why_asked(found))
        }
        CachePhase::Disabled(_) | CachePhase::Uninit | CachePhase::Bypass | CachePhase::CacheKey => {
            format!("goodgate; fwd={}{stored}", why_past(session, context, policy))
        }
    };
    HeaderValue::try_from(text).ok()
}

/// Why the request went on: what the store had was not enough, or is for others, or is not there.
const fn why_asked(found: Found) -> &'static str {
    match found {
        Found::Fresh => "request",
        Found::Old => "stale",
        Found::Others => "vary-miss",
        Found::Nothing => "uri-miss",
    }
}

/// Why the store had no part in it.
fn why_past(session: &Session, context: &Context, policy: &CachePolicy) -> &'static str {
    if !matches!(session.req_header().method, Method::GET | Method::HEAD) {
        "method"
    } else if context.copying.bypassed || context.copying.request.is_none() {
        "request"
    } else if policy.mode == Mode::Fallback {
        "bypass"
    } else {
        why_asked(context.copying.found)
    }
}

/// Whether it is the answer to another request that this one waited for.
fn has_waited(session: &Session) -> bool {
    session.cache.lock_duration().is_some_and(|waited| !waited.is_zero())
}

fn seconds_left(session: &Session) -> i64 {
    let until = session.cache.cache_meta().fresh_until();
    let now = clock::now();
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    until.duration_since(now).map_or_else(|past| -seconds(past.duration()), seconds)
}
