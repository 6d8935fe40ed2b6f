//! Answers that need no attempt: a fresh copy, or an old one where an attempt is known to be in vain.

use std::time::{Instant, SystemTime};

use goodgate_cache::{CopyInfo, CopyKind, Mode, StoredCopy, may_serve_fresh};
use goodgate_failure::Cause;
use goodgate_upstream::{Lease, Wish};
use pingora_cache::CachePhase;
use pingora_error::Result;
use pingora_proxy::subrequest::{BodyMode, Ctx as SubrequestContext};
use pingora_proxy::{Session, SubrequestSpawner};

use super::{Rescue, answer, choose_this, load, rescue, stored};
use crate::context::Context;
use crate::route::Route;

/// Answers at once from a copy: from a fresh one, or if nothing is in rotation, or if the last refresh of
/// this object failed a moment ago. A trial of the upstream that is due goes out behind.
pub(crate) async fn answer_early(session: &mut Session, context: &mut Context) -> Result<bool> {
    if context.is_background() {
        return Ok(false);
    }
    let Some(copy) = early_copy(session, context).await else {
        return Ok(false);
    };
    if is_hit(context, &copy) {
        Box::pin(answer::serve_fresh(session, context, &copy)).await?;
        return Ok(true);
    }
    let now = Instant::now();
    let Some(cause) = known_in_vain(context, &copy, now) else {
        return Ok(false);
    };
    if !choose_this(context, copy, cause) {
        return Ok(false);
    }
    if let Some(route) = &context.route
        && route.upstream.is_out()
    {
        send_trial(session, route, now);
    }
    Box::pin(answer::serve(session, context)).await?;
    Ok(true)
}

/// Answers from a fresh copy that came into being while this request made up its mind: it had missed, and
/// took the lock for filling only after another one had filled and let go of it.
pub(crate) async fn answer_late(session: &mut Session, context: &mut Context) -> Result<bool> {
    if context.is_background() || session.cache.phase() != CachePhase::Miss {
        return Ok(false);
    }
    match stored(session, context) {
        Some(copy) if is_hit(context, &copy) => {
            Box::pin(answer::serve_fresh(session, context, &copy)).await?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

/// Answers from a copy, fresh or old, where nobody is to be asked though nothing has failed.
pub(crate) async fn answer_instead(session: &mut Session, context: &mut Context) -> Result<bool> {
    load(session, context).await;
    let Some(copy) = stored(session, context) else {
        return Ok(false);
    };
    if is_hit(context, &copy) {
        answer::serve_fresh(session, context, &copy).await?;
        return Ok(true);
    }
    let Some(Rescue { copy, stale, .. }) = rescue(context, copy, Cause::DestinationUnavailable) else {
        return Ok(false);
    };
    answer::serve_instead(session, context, &copy, stale).await?;
    Ok(true)
}

/// The copy that may answer early. Where copies are for failures only, the disk is not asked before there is one.
async fn early_copy(session: &Session, context: &Context) -> Option<StoredCopy> {
    let copy = stored(session, context);
    let route = context.route.as_ref()?;
    let (policy, _) = route.cache.as_ref()?;
    if copy.is_some() || policy.mode == Mode::Fallback && !route.upstream.is_out() {
        return copy;
    }
    load(session, context).await;
    stored(session, context)
}

/// Whether the copy is fresh and the whole of it is wanted. Parts are left to Pingora.
fn is_hit(context: &Context, copy: &StoredCopy) -> bool {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let (Some((policy, _)), Some((_, facts))) = (cache, &context.copying.request) else {
        return false;
    };
    !facts.is_range && may_serve_fresh(copy.meta(), policy, facts, SystemTime::now())
}

/// Why an attempt would be in vain, as far as that is known beforehand.
fn known_in_vain(context: &Context, copy: &StoredCopy, now: Instant) -> Option<Cause> {
    let route = context.route.as_ref()?;
    let (policy, _) = route.cache.as_ref()?;
    if policy.mode == Mode::Standard && is_fresh_standard(copy) {
        // Asked for in part, or to be confirmed: Pingora's phases see to it.
        return None;
    }
    if route.upstream.is_out() { Some(Cause::DestinationUnavailable) } else { copy.claim_refresh(now) }
}

fn is_fresh_standard(copy: &StoredCopy) -> bool {
    CopyInfo::of(copy.meta()).kind == CopyKind::Standard && copy.meta().is_fresh(SystemTime::now())
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
