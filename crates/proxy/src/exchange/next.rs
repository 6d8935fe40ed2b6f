//! The backend and the connection of the next attempt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::Result;
use pingora_proxy::Session;

use super::settled;
use crate::context::Context;
use crate::kept::KeptConnections;
use crate::peer::{Terms, peer};
use crate::route::Route;
use crate::{connection_auth, copies, mirror, queue, split, ties};

/// Where the last attempt has set off lookups, and no other address is left, waits for those.
pub(crate) async fn await_lookups(context: &mut Context) {
    if context.attempting.awaits_lookups()
        && let Some(route) = context.route.clone()
    {
        Box::pin(context.attempting.await_lookups(&route)).await;
    }
}

/// The peer of the next attempt. An error ends the attempts; what the client gets is decided after it.
pub(crate) async fn next_peer(
    kept: &Arc<KeptConnections>,
    session: &mut Session,
    context: &mut Context,
) -> Result<Box<HttpPeer>> {
    let now = Instant::now();
    context.body_bytes = 0;
    mirror::restart(context);
    let Some(route) = context.route.clone() else {
        return Err(settled(false));
    };
    connection_auth::bind(context);
    if let Taken::MovesTo(rest) = take_backend(session, context, &route, now)? {
        // Boxed, since few requests have to wait here.
        Box::pin(queue::change_upstream(session, context, &rest)).await?;
        take_backend(session, context, &rest, Instant::now())?;
    }
    context.queueing.chosen();
    let route = context.route.clone().unwrap_or(route);
    let fresh = context.attempting.begin(&route, now);
    let Some(backend) = context.attempting.lease().map(|lease| Arc::clone(lease.backend())) else {
        return Err(settled(false));
    };
    let timeouts = &route.upstream.spec().timeouts;
    let terms = Terms {
        backend: &backend,
        timeouts,
        is_upgrade: session.as_ref().is_upgrade_req(),
        fresh,
        connections: connection_auth::choose(context, &backend, fresh || session.as_ref().is_upgrade_req()),
        deadline: context.attempting.deadline(),
        now,
        tls: &route.backend_tls,
        upload_pause: if context.has_body { route.body_timeout } else { Duration::ZERO },
    };
    peer(&terms, context.attempting.expect(kept, &backend, timeouts.idle))
}

/// What comes of looking for a backend.
enum Taken {
    Backend,
    /// The route's share has none: the request belongs to the rest.
    MovesTo(Arc<Route>),
}

/// A backend in rotation, else a copy, else (fail open) the one that failed the longest ago, else one that
/// refused and may have come back. A share of a route hands its request back before it takes one that has failed.
fn take_backend(session: &Session, context: &mut Context, route: &Route, now: Instant) -> Result<Taken> {
    let method = session.req_header().method.clone();
    let ties = ties::of(session.req_header(), context, route);
    if context.attempting.take(route, &method, ties, false, now) {
        return Ok(Taken::Backend);
    }
    if let Some(rest) = &route.rest {
        split::leave(context, rest);
        return Ok(Taken::MovesTo(Arc::clone(rest)));
    }
    let cause = context.attempting.decisive_cause().unwrap_or_else(|| route.upstream.why_none());
    let found = copies::choose(session, context, cause)
        || context.attempting.take(route, &method, ties, true, now)
        || context.attempting.take_again(route, now);
    if found && context.attempting.lease().is_some() {
        return Ok(Taken::Backend);
    }
    if !found {
        let refusal = context.attempting.why_none_left();
        context.attempting.refuse(route, refusal);
    }
    Err(settled(false))
}
