//! Requests that have waited for another one's fetch which has failed, or does not get on: they need not find out for
//! themselves.

use std::time::{Duration, Instant};

use goodgate_cache::{REFRESH_BACKOFF, clock};
use goodgate_failure::Cause;
use pingora_cache::{CachePhase, NoCacheReason};
use pingora_error::Result;
use pingora_proxy::Session;

use super::{answer, choose_this, stored};
use crate::context::Context;

/// Answers from an old copy where the fetch that this request has waited for has failed, or has not been answered in
/// the time that anybody waits. Otherwise each of those who waited would ask a backend that is down, one behind the
/// other, and wait again. Whoever has come in the last moment of that time is the one to ask.
pub(crate) async fn answer_waited(session: &mut Session, context: &mut Context) -> Result<bool> {
    let waited = session.cache.lock_duration().unwrap_or(Duration::ZERO);
    // The backend has answered, though not with what may be shared: it is to be asked.
    let is_answered = session.cache.phase() == CachePhase::Disabled(NoCacheReason::CacheLockGiveUp);
    if waited.is_zero() || is_answered || context.is_background() {
        return Ok(false);
    }
    let Some(copy) = stored(session, context) else {
        return Ok(false);
    };
    let now = Instant::now();
    let failed = copy.refresh_failure(now);
    // A copy that has come meanwhile was brought by the fetch: that has ended, and the backend is to be asked.
    let began = clock::now().checked_sub(context.started.elapsed());
    let is_older = began.is_some_and(|began| copy.info().stored < began);
    let hangs = (waited >= REFRESH_BACKOFF && is_older).then_some(Cause::HttpResponseTimeout);
    let Some(cause) = failed.or(hangs) else {
        return Ok(false);
    };
    if !choose_this(context, copy.clone(), cause) {
        return Ok(false);
    }
    if failed.is_none() {
        // For those who come now it is as if it had failed: they are served at once.
        copy.refresh_failed(cause, now);
    }
    Box::pin(answer::serve(session, context)).await?;
    Ok(true)
}
