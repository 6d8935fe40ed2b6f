//! What would become of a request if its upstream were dead: looked at when it ends, for a few of them.

use std::time::{Duration, Instant};

use goodgate_cache::{clock, survives};
use goodgate_failure::Cause;
use goodgate_telemetry::{Fate, Origin};
use http::Method;
use pingora_http::RequestHeader;

use super::accepted;
use crate::context::Context;
use crate::effective_request::EffectiveRequest;

/// Notes it for a GET that a backend or a copy answered, or should have.
pub(crate) fn note_survival(request: &RequestHeader, context: &Context, now: Instant) {
    let Some(route) = context.route.as_ref().filter(|route| route.own.is_none()) else {
        return;
    };
    let is_ours = context.outcome.origin == Origin::Goodgate && context.attempting.log.is_empty();
    if request.method != Method::GET || is_ours || !route.metrics.survival_due(now) {
        return;
    }
    let fate = match fate(request, context) {
        // Too large for memory, and the disk's thread is still at it: the next request will tell.
        Err(NOT_FOUND) if is_on_its_way(context) => return,
        Err(reason) => Fate::Lost(reason),
        Ok(left) => Fate::Survives(left),
    };
    route.metrics.survival(fate, now);
}

const NOT_FOUND: &str = "no copy is kept: too large, or evicted";

fn is_on_its_way(context: &Context) -> bool {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    context.copying.stored && cache.is_some_and(|(_, room)| room.store.has_disk())
}

fn fate(request: &RequestHeader, context: &Context) -> Result<Duration, &'static str> {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let (policy, room) = cache.ok_or("the route has no cache")?;
    if context.copying.bypassed {
        return Err("the request goes past the cache");
    }
    let (key, facts) = context.copying.request.as_ref().ok_or("the request is no plain GET")?;
    let standing = room.store.standing(key, &EffectiveRequest::new(request, context));
    let accepted = || accepted(request, context).map(|copy| copy.standing());
    let Some(standing) = standing.or_else(accepted) else {
        return Err(match context.copying.refused {
            Some(reason) => reason,
            None if context.outcome.cause.is_some() => "there was no good answer yet",
            None if facts.is_range => "only a part was asked for",
            None => NOT_FOUND,
        });
    };
    survives(&standing, policy, facts, Cause::DestinationUnavailable, clock::now())
}
