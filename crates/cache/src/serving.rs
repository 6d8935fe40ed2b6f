//! May this copy be served: fresh, or stale in place of a failure? Time is an argument.

use std::time::{Duration, SystemTime};

use goodgate_failure::Cause;
use pingora_cache::CacheMeta;

use crate::{Audience, CachePolicy, CopyInfo, CopyKind, Mode, RequestFacts};

/// A copy that may be served in place of a failure, and how old it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Its age as in the `Age` field (RFC 9111 section 4.2.3).
    pub age: Duration,
    /// How long ago it ceased to be fresh, a last-good copy: how long ago it was stored. Zero while fresh.
    pub past_freshness: Duration,
}

/// Privacy on the way out: whether this request may see the copy at all.
pub fn may_share(info: &CopyInfo, request: &RequestFacts, policy: &CachePolicy) -> bool {
    match info.audience {
        Audience::Everyone => true,
        Audience::Anonymous => {
            !request.is_authorized && (!request.is_personal || policy.serve_anonymous)
        }
    }
}

/// Whether the copy answers the request without asking (RFC 9111 section 4, and the request's directives of
/// section 5.2.1).
pub fn may_serve_fresh(
    meta: &CacheMeta,
    policy: &CachePolicy,
    request: &RequestFacts,
    now: SystemTime,
) -> bool {
    let info = CopyInfo::of(meta);
    let age = age(meta, now);
    policy.mode == Mode::Standard
        && info.kind == CopyKind::Standard
        && may_read(&info, request, policy)
        && !request.no_cache
        && request.max_age.is_none_or(|limit| age <= limit && !limit.is_zero())
        && meta.is_fresh(now + request.min_fresh.unwrap_or(Duration::ZERO))
}

/// Whether the copy may be served in place of a failure. The request's wish for a newer answer (`no-cache`,
/// `max-age`) does not count then: there is none.
pub fn may_serve_stale(
    meta: &CacheMeta,
    policy: &CachePolicy,
    request: &RequestFacts,
    cause: Cause,
    now: SystemTime,
) -> Option<Stale> {
    let info = CopyInfo::of(meta);
    if !policy.use_stale.covers(cause) || !may_read(&info, request, policy) {
        return None;
    }
    let age = age(meta, now);
    if info.kind == CopyKind::Standard && meta.is_fresh(now) {
        return Some(Stale { age, past_freshness: Duration::ZERO });
    }
    let since = match info.kind {
        CopyKind::Standard => meta.fresh_until(),
        CopyKind::LastGood => info.stored,
    };
    let past_freshness = now.duration_since(since).unwrap_or(Duration::ZERO);
    let window = info.stale_window.filter(|_| policy.mode == Mode::Standard).unwrap_or(policy.stale_for);
    (!info.stale_forbidden && past_freshness <= window).then_some(Stale { age, past_freshness })
}

fn may_read(info: &CopyInfo, request: &RequestFacts, policy: &CachePolicy) -> bool {
    request.is_readable && !request.bypasses() && may_share(info, request, policy)
}

/// Zero where the clock was set back.
fn age(meta: &CacheMeta, now: SystemTime) -> Duration {
    now.duration_since(meta.epoch()).unwrap_or(Duration::ZERO)
}
