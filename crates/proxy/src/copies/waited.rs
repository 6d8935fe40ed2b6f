//! Requests that have waited for another one's fetch which has failed: they need not find out for themselves.

use std::time::{Duration, Instant};

use pingora_error::Result;
use pingora_proxy::Session;

use super::{answer, choose_this, stored};
use crate::context::Context;

/// Answers from an old copy where the fetch that this request has waited for has failed. Otherwise each of those who
/// waited would ask a backend that is down, one behind the other.
pub(crate) async fn answer_waited(session: &mut Session, context: &mut Context) -> Result<bool> {
    let has_waited = session.cache.lock_duration().is_some_and(|waited| waited > Duration::ZERO);
    if !has_waited || context.is_background() {
        return Ok(false);
    }
    let Some(copy) = stored(session, context) else {
        return Ok(false);
    };
    match copy.refresh_failure(Instant::now()) {
        Some(cause) if choose_this(context, copy, cause) => {
            Box::pin(answer::serve(session, context)).await?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}
