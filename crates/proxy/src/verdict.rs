//! What becomes of a request that no backend has answered: a copy, or the honest error, and whose failure it is.

use std::time::Instant;

use goodgate_failure::Cause;
use pingora_error::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use crate::answer::{self, ErrorAnswer};
use crate::attempt::has_answered;
use crate::context::Context;
use crate::{classify, copies};

/// The request cannot be answered by a backend: a copy, else the honest error. The status for the log of
/// Pingora.
pub(crate) async fn give_up(session: &mut Session, context: &mut Context, error: &Error) -> u16 {
    if context.is_idle_tunnel() {
        return 0;
    }
    context.queueing.leave();
    let answer = verdict(context, error);
    let ErrorAnswer { status, cause, .. } = answer;
    if cause != Cause::ClientDisconnected && !context.attempting.log.is_empty() {
        copies::note_failed_refresh(session, context, cause, Instant::now());
    }
    if context.is_background() {
        copies::note_failed_behind(session, context, cause);
        return 0;
    }
    context.outcome.cause = Some(cause);
    context.outcome.detail = answer.detail();
    if has_answered(session) || cause == Cause::ClientDisconnected {
        return 0;
    }
    // Pingora closes the connection after an error whatever we do: say so.
    session.set_keepalive(None);
    copies::load(session, context).await;
    let written = if copies::choose(session, context, cause) {
        copies::serve(session, context).await
    } else {
        copies::note_none(session, context, cause);
        answer::write(session, context, answer).await
    };
    // If the client cannot be written to, it has left, and the log says what became of the request.
    written.map_or(0, |()| status)
}

/// Whose failure it is in the end, and the answer for it.
fn verdict(context: &Context, error: &Error) -> ErrorAnswer {
    if error.esource() == &ErrorSource::Downstream {
        return classify::client(error);
    }
    if error.etype() == &ErrorType::FileReadError {
        // A copy on disk, of which part has gone out already.
        return ErrorAnswer::of(Cause::ProxyInternalError);
    }
    if let Some(refusal) = context.queueing.refusal() {
        return refusal;
    }
    let empty =
        || context.route.as_ref().map_or(Cause::ProxyInternalError, |route| route.upstream.why_none());
    let cause = context.attempting.decisive_cause().unwrap_or_else(empty);
    ErrorAnswer::of(cause)
}
