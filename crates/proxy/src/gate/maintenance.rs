//! A route that is closed on purpose: 503 and when to come back, or a copy. Nothing has failed, so there is no
//! cause, no `Proxy-Status`, and nothing among the gateway's errors that an alert would look at.

use goodgate_cache::Patience;
use goodgate_config::Maintenance;
use http::StatusCode;
use pingora_error::Result;
use pingora_proxy::Session;

use crate::answer::{self, More, Notice};
use crate::context::Context;
use crate::copies;

/// Answers whoever is not let through.
pub(super) async fn answer(
    session: &mut Session,
    context: &mut Context,
    maintenance: &Maintenance,
) -> Result<bool> {
    if context.client_address.is_some_and(|client| client.is_in(&maintenance.allow)) {
        return Ok(false);
    }
    if maintenance.use_stale {
        copies::load_within(session, context, Patience::Much).await;
        if copies::answer_instead(session, context).await? {
            return Ok(true);
        }
    }
    let notice = Notice {
        status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
        cause: None,
        details: "The site is being worked on.",
        page: maintenance.page.as_deref(),
        more: More { retry_after: Some(maintenance.retry_after.as_secs()), fields: Vec::new() },
    };
    answer::say(session, context, &notice).await?;
    Ok(true)
}
