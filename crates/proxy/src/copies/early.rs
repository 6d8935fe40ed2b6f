//! Answers that need no attempt: a fresh copy, or an old one where an attempt is known to be in vain.

use std::time::Instant;

use goodgate_cache::{CopyKind, Mode, Part, StoredCopy, clock, may_serve_fresh, may_serve_updating};
use goodgate_failure::Cause;
use goodgate_upstream::{Lease, Wish};
use http::StatusCode;
use pingora_cache::CachePhase;
use pingora_error::Result;
use pingora_http::RequestHeader;
use pingora_proxy::subrequest::{BodyMode, Ctx as SubrequestContext};
use pingora_proxy::{Session, SubrequestSpawner};

use super::{Found, Rescue, answer, choose_this, load, rescue, stored, stored_for};
use crate::answer::{More, Notice, say};
use crate::begin::Sender;
use crate::context::Context;
use crate::effective_request::EffectiveRequest;
use crate::route::Route;

/// Answers at once from a copy: from a fresh one, or if nothing is in rotation, or if the last refresh of
/// this object failed a moment ago. A trial of the upstream that is due goes out behind.
pub(crate) async fn answer_early(session: &mut Session, context: &mut Context) -> Result<bool> {
    if context.is_background() {
        return Ok(false);
    }
    let Some(copy) = early_copy(session, context).await else {
        context.copying.found = beside(context);
        return refuse_to_ask(session, context).await;
    };
    if is_hit(session.req_header(), context, &copy) {
        Box::pin(answer::serve_fresh(session, context, &copy)).await?;
        return Ok(true);
    }
    context.copying.found = if is_fresh_standard(&copy) { Found::Fresh } else { Found::Old };
    let now = Instant::now();
    if may_update_behind(session, context, &copy, now) {
        if copy.begin_refresh(now) {
            send_refresh(session, context);
        }
        Box::pin(answer::serve_updating(session, context, &copy)).await?;
        return Ok(true);
    }
    let Some(cause) = known_in_vain(context, &copy, |copy| copy.claim_refresh(now)) else {
        return refuse_to_ask(session, context).await;
    };
    if !choose_this(context, copy, cause) {
        return refuse_to_ask(session, context).await;
    }
    if let Some(route) = &context.route
        && route.upstream.is_out()
    {
        send_trial(session, context, route, now);
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
        Some(copy) if is_hit(session.req_header(), context, &copy) => {
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
    if is_hit(session.req_header(), context, &copy) {
        answer::serve_fresh(session, context, &copy).await?;
        return Ok(true);
    }
    let Some(Rescue { copy, stale, .. }) = rescue(context, copy, Cause::DestinationUnavailable) else {
        return Ok(false);
    };
    answer::serve_instead(session, context, &copy, stale).await?;
    Ok(true)
}

/// The copy on disk, where reading it is a matter of copying memory. Where copies are for failures only, see
/// [`early_copy`].
fn page_cached(request: &RequestHeader, context: &Context) -> Option<StoredCopy> {
    let route = context.route.as_ref()?;
    let (policy, room) = route.cache.as_ref()?;
    if policy.mode == Mode::Fallback && !route.upstream.is_out() {
        return None;
    }
    let (key, _) = context.copying.request.as_ref()?;
    room.store.load_at_once(key, &EffectiveRequest::new(request, context))?;
    stored_for(request, context)
}

/// The copy that answers a plain GET without anything to wait for, neither disk nor backend nor trial. It leaves
/// no trace unless there is one.
pub(crate) fn at_hand(request: &RequestHeader, context: &mut Context) -> Option<answer::Ready> {
    let copy = stored_for(request, context).or_else(|| page_cached(request, context))?;
    if !copy.is_in_memory() {
        return None;
    }
    if is_hit(request, context, &copy) {
        return Some(answer::fresh(context, &copy));
    }
    let now = Instant::now();
    let cause = known_in_vain(context, &copy, |copy| copy.refresh_failure(now))?;
    if is_trial_due(context, now) {
        return None;
    }
    choose_this(context, copy, cause).then(|| answer::rescuing(context)).flatten()
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

/// Whether the copy answers without asking. Several parts at once are left to Pingora.
fn is_hit(request: &RequestHeader, context: &Context, copy: &StoredCopy) -> bool {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let (Some((policy, _)), Some((_, facts))) = (cache, &context.copying.request) else {
        return false;
    };
    let now = clock::now();
    let standing = copy.standing();
    !facts.is_for_server
        && may_serve_fresh(&standing, policy, facts, now)
        && (!copy.is_outlived() || standing.is_fresh(now))
        && !(facts.is_range && answer::wanted_part(request, copy, now) == Part::Several)
}

/// What there is under the address though not for this request.
fn beside(context: &Context) -> Found {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let has_others = cache.zip(context.copying.request.as_ref()).is_some_and(|((policy, room), (key, _))| {
        policy.mode == Mode::Standard && policy.status_header && room.store.has(key)
    });
    if has_others { Found::Others } else { Found::Nothing }
}

/// A request that wants an answer out of the store or none gets 504 (RFC 9111 section 5.2.1.7).
async fn refuse_to_ask(session: &mut Session, context: &mut Context) -> Result<bool> {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let is_standard = cache.is_some_and(|(policy, _)| policy.mode == Mode::Standard);
    let facts = context.copying.request.as_ref().map(|(_, facts)| facts);
    if !is_standard || !facts.is_some_and(|facts| facts.only_if_cached) {
        return Ok(false);
    }
    let notice = Notice {
        status: StatusCode::GATEWAY_TIMEOUT.as_u16(),
        cause: None,
        details: "There is no copy that meets the request, and it wants nobody to be asked.",
        page: None,
        more: More::default(),
    };
    Box::pin(say(session, context, &notice)).await?;
    Ok(true)
}

/// Why an attempt would be in vain, as far as that is known beforehand; `failed` says of the copy whether asking
/// for a newer one has failed a moment ago.
fn known_in_vain(
    context: &Context,
    copy: &StoredCopy,
    failed: impl FnOnce(&StoredCopy) -> Option<Cause>,
) -> Option<Cause> {
    let route = context.route.as_ref()?;
    let (policy, _) = route.cache.as_ref()?;
    if policy.mode == Mode::Standard && is_fresh_standard(copy) {
        // Asked for in part, or to be confirmed: Pingora's phases see to it.
        return None;
    }
    if route.upstream.is_out() { Some(Cause::DestinationUnavailable) } else { failed(copy) }
}

fn is_fresh_standard(copy: &StoredCopy) -> bool {
    let standing = copy.standing();
    standing.info.kind == CopyKind::Standard && standing.is_fresh(clock::now())
}

/// Whether an old copy answers while a request behind the client's back fetches a newer response. That request speaks for
/// nobody, so that it must ask for the same variant without saying who the client is.
fn may_update_behind(session: &Session, context: &Context, copy: &StoredCopy, now: Instant) -> bool {
    let Some(route) = context.route.as_ref() else {
        return false;
    };
    let (Some((policy, _)), Some((_, facts))) = (&route.cache, &context.copying.request) else {
        return false;
    };
    let request = session.req_header();
    may_serve_updating(&copy.standing(), copy.while_revalidate(), policy, facts, clock::now())
        && !facts.is_range
        && !facts.is_for_server
        && !copy.is_outlived()
        && !route.upstream.is_out()
        && copy.refresh_failure(now).is_none()
        && session.subrequest_spawner.is_some()
        && copy.is_variant_of(&EffectiveRequest::without_client(request, context))
}

/// Sends the request for a newer response.
fn send_refresh(session: &Session, context: &Context) {
    if let Some(spawner) = &session.subrequest_spawner {
        spawn(spawner, session, Background { sender: sender_of(context), lease: None });
    }
}

/// Whether nothing is in rotation, and it is time to see whether that still holds.
fn is_trial_due(context: &Context, now: Instant) -> bool {
    let upstream = context.route.as_ref().map(|route| &route.upstream);
    upstream.is_some_and(|upstream| upstream.is_out() && upstream.is_trial_due(now))
}

/// Sends the trial that is due in the background, so that no client waits for it.
fn send_trial(session: &Session, context: &Context, route: &Route, now: Instant) {
    if !route.upstream.is_trial_due(now) {
        return;
    }
    let Some(spawner) = &session.subrequest_spawner else {
        return;
    };
    if let Some(lease) = route.upstream.select(|_| false, TRIAL, now) {
        spawn(spawner, session, Background { sender: sender_of(context), lease: Some(lease) });
    }
}

/// What a trial behind a client's back asks for.
const TRIAL: Wish = Wish { is_retry: false, may_be_trial: true };

/// What a request behind a client's back takes over from the client's.
struct Background {
    sender: Sender,
    /// The backend that it is to try.
    lease: Option<Lease>,
}

fn sender_of(context: &Context) -> Sender {
    Sender { is_trusted: context.is_trusted, is_https: context.is_https }
}

/// It is made of the head that the client has sent, and begins as that did: what it asks for has the same key.
fn spawn(spawner: &SubrequestSpawner, session: &Session, background: Background) {
    let context = SubrequestContext::builder().body_mode(BodyMode::NoBody);
    let context = context.user_ctx(Box::new(Some(background))).build();
    // Nobody waits for it: it reports to the backend's health and refreshes the copy.
    drop(spawner.spawn_background_subrequest(session.as_ref(), context));
}

/// Takes over what a request behind a client's back is given.
pub(crate) fn take_background(session: &mut Session, context: &mut Context) -> Option<Sender> {
    let given = session.subrequest_ctx.as_mut()?.user_ctx_mut()?;
    let Background { sender, lease } = given.downcast_mut::<Option<Background>>()?.take()?;
    context.attempting.hand(lease);
    Some(sender)
}
