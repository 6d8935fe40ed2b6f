//! What stands between a request and its route's answer, copies included: how often one may ask, who one
//! must be, and whether it is open at all. Who is refused here reaches no backend, and a route without any of it pays for one look.

mod auth;
mod checks;
mod gcra;
mod limit;
mod maintenance;
mod table;

use std::sync::Arc;
use std::time::Instant;

use goodgate_config::{Maintenance, RouteSpec};
use goodgate_failure::Cause;
use goodgate_telemetry::RouteMetrics;
use http::StatusCode;
use pingora_error::Result;
use pingora_proxy::Session;

use crate::answer::{self, ErrorAnswer};
use crate::context::Context;
use crate::queue;
use crate::route::Route;
use auth::{Auth, Verdict};
use checks::Busy;
use limit::{Limiter, TooMany};

pub(crate) use auth::Verifier;

/// The conditions of a route.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Vec<Limiter>,
    auth: Option<Auth>,
    maintenance: Option<Maintenance>,
}

impl Gate {
    /// The gate of a route, if it has any conditions; `previous` is that of the route's last configuration.
    pub(crate) fn new(
        spec: &RouteSpec,
        previous: Option<&Self>,
        verifier: &Arc<Verifier>,
        metrics: &RouteMetrics,
    ) -> Option<Arc<Self>> {
        if spec.rate_limits.is_empty() && spec.basic_auth.is_none() && spec.maintenance.is_none() {
            return None;
        }
        if !spec.rate_limits.is_empty() {
            metrics.expect_limits();
            metrics.expect_error(StatusCode::TOO_MANY_REQUESTS.as_u16(), Cause::HttpRequestDenied);
        }
        let previous = previous.map(|gate| gate.limits.as_slice()).unwrap_or_default();
        let limits = Limiter::all(&spec.rate_limits, previous);
        let auth = spec.basic_auth.as_ref().map(|auth| Auth::new(auth, verifier));
        Some(Arc::new(Self { limits, auth, maintenance: spec.maintenance.clone() }))
    }
}

/// Answers a request that does not meet the conditions of its route. What refreshes a copy behind a client's
/// back has none to meet.
pub(crate) async fn answer(session: &mut Session, context: &mut Context) -> Result<bool> {
    let has_gate = context.route.as_ref().is_some_and(|route| route.gate.is_some());
    if !has_gate || session.subrequest_ctx.is_some() {
        return Ok(false);
    }
    let Some(route) = context.route.clone() else {
        return Ok(false);
    };
    let Some(gate) = &route.gate else {
        return Ok(false);
    };
    Box::pin(pass(gate, &route, session, context)).await
}

async fn pass(gate: &Gate, route: &Route, session: &mut Session, context: &mut Context) -> Result<bool> {
    if let Some(refused) = too_many(gate, route, session, context) {
        let mut fields = vec![("RateLimit-Policy", refused.policy.clone())];
        fields.extend(refused.state().map(|state| ("RateLimit", state)));
        let more = answer::More { retry_after: Some(refused.retry_after), fields };
        answer::write_with(session, context, TOO_MANY, more).await?;
        return Ok(true);
    }
    if let Some(auth) = &gate.auth {
        let (error, more) = match identify(auth, session, context).await? {
            Verdict::Good => return maintenance(gate, session, context).await,
            Verdict::Wrong => {
                let fields = vec![("WWW-Authenticate", auth.challenge.clone())];
                (UNKNOWN, answer::More { retry_after: None, fields })
            }
            Verdict::Busy(busy) => {
                let error = if busy == Busy::Client { CLIENT_BUSY } else { BUSY };
                (error, answer::More { retry_after: Some(1), fields: Vec::new() })
            }
        };
        answer::write_with(session, context, error, more).await?;
        return Ok(true);
    }
    maintenance(gate, session, context).await
}

/// Whether the client has a password. An error: it left while that was checked.
async fn identify(auth: &Auth, session: &mut Session, context: &Context) -> Result<Verdict> {
    let unchecked = match auth.look(&session.req_header().headers) {
        Ok(unchecked) => unchecked,
        Err(verdict) => return Ok(verdict),
    };
    let client = context.client_address.map_or(0, limit::client_number);
    // The credentials are copied: the session is free to watch for a client that leaves.
    let verdict = queue::unless_left(session.as_downstream_mut(), unchecked.check(client)).await;
    verdict.ok_or_else(queue::gone)
}

async fn maintenance(gate: &Gate, session: &mut Session, context: &mut Context) -> Result<bool> {
    match &gate.maintenance {
        Some(maintenance) => maintenance::answer(session, context, maintenance).await,
        None => Ok(false),
    }
}

/// The limit of the route that the client must wait for the longest, if one does not admit the request. It is counted by
/// all of them or by none.
fn too_many(gate: &Gate, route: &Route, session: &Session, context: &Context) -> Option<TooMany> {
    let client = context.client_address?;
    let headers = &session.req_header().headers;
    let forgets = || route.metrics.client_forgotten();
    Limiter::admit_all(&gate.limits, client, headers, Instant::now(), forgets).err()
}

const TOO_MANY: ErrorAnswer = ErrorAnswer {
    status: 429,
    cause: Cause::HttpRequestDenied,
    details: "Too many requests have come in too short a time.",
};

const UNKNOWN: ErrorAnswer = ErrorAnswer {
    status: 401,
    cause: Cause::HttpRequestDenied,
    details: "A user name and its password are needed here.",
};

const CLIENT_BUSY: ErrorAnswer = ErrorAnswer {
    status: 429,
    cause: Cause::HttpRequestDenied,
    details: "Too many passwords of this client are being checked at the moment.",
};

const BUSY: ErrorAnswer = ErrorAnswer {
    status: 503,
    cause: Cause::HttpRequestDenied,
    details: "Too many passwords are being checked at the moment.",
};
