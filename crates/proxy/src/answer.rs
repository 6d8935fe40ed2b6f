//! The honest error: a status by cause, the cause in `Proxy-Status` (RFC 9209), and a body of the kind
//! that the client asked for. No internals: addresses stay in the log.

use std::time::{Duration, Instant};

use goodgate_config::ErrorPage;
use goodgate_failure::Cause;
use goodgate_telemetry::Origin;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::context::Context;
use crate::page::{Content, Kind};
use crate::request_id::RequestId;
use crate::route::Route;
use crate::rules;

/// An error that goodgate answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorAnswer {
    pub(crate) status: u16,
    pub(crate) cause: Cause,
    /// What is wrong in this very case, in a constant phrase.
    pub(crate) details: &'static str,
}

/// How long a shortage lasts for all we know.
const SHORTAGE: Duration = Duration::from_secs(1);

impl ErrorAnswer {
    /// The answer for a cause, with its own status and sentence.
    pub(crate) const fn of(cause: Cause) -> Self {
        Self { status: cause.status(), cause, details: cause.sentence() }
    }

    /// What the cause alone does not say.
    pub(crate) fn detail(&self) -> Option<&'static str> {
        (self.details != self.cause.sentence()).then_some(self.details)
    }
}

/// What an answer carries besides.
#[derive(Debug, Default)]
pub(crate) struct More {
    /// Seconds after which it may be worth trying again.
    pub(crate) retry_after: Option<u64>,
    /// Names in the spelling in which they go out.
    pub(crate) fields: Vec<(&'static str, HeaderValue)>,
}

/// Writes the error as the answer to this request.
pub(crate) async fn write(session: &mut Session, context: &mut Context, error: ErrorAnswer) -> Result<()> {
    let retry_after = retry_after(error, context.route.as_deref());
    write_with(session, context, error, More { retry_after, fields: Vec::new() }).await
}

/// The same with more fields, and with a time that is known better.
pub(crate) async fn write_with(
    session: &mut Session,
    context: &mut Context,
    error: ErrorAnswer,
    mut more: More,
) -> Result<()> {
    context.outcome.cause = Some(error.cause);
    context.outcome.detail = error.detail();
    let mut status = proxy_status(error);
    if context.route.as_ref().is_some_and(|route| route.errors.next_hop)
        && let Some(attempt) = context.attempting.log.last()
    {
        status = format!("{status}; next-hop=\"{}\"", attempt.backend);
    }
    let status = HeaderValue::try_from(status).or_err(ErrorType::InternalError, "Proxy-Status")?;
    more.fields.push(("Proxy-Status", status));
    let ErrorAnswer { status, cause, details } = error;
    say(session, context, &Notice { status, cause: Some(cause), details, page: None, more }).await
}

/// An answer of ours in the form that the client asked for.
pub(crate) struct Notice<'a> {
    pub(crate) status: u16,
    /// None if nothing has failed.
    pub(crate) cause: Option<Cause>,
    pub(crate) details: &'static str,
    /// Instead of the page for errors.
    pub(crate) page: Option<&'a ErrorPage>,
    pub(crate) more: More,
}

/// Writes it.
pub(crate) async fn say(session: &mut Session, context: &mut Context, notice: &Notice<'_>) -> Result<()> {
    context.outcome.origin = Origin::Goodgate;
    let request = session.req_header();
    let accept = request.headers.get(header::ACCEPT);
    let kind = Kind::wanted(accept.map(HeaderValue::as_bytes).unwrap_or_default());
    let errors = context.route.as_deref().map(|route| &route.errors);
    let body = kind.body(&Content {
        status: notice.status,
        cause: notice.cause,
        details: notice.details,
        request_id: context.request_id.as_str(),
        page: notice.page.or_else(|| errors.and_then(|errors| errors.page.as_deref())),
        contact: errors.and_then(|errors| errors.contact.as_deref()),
        retry_after: notice.more.retry_after,
        may_reload: request.method == Method::GET && matches!(notice.status, 502..=504),
    });
    let mut response = ResponseHeader::build(notice.status, Some(8))?;
    response.insert_header(header::CONTENT_TYPE, kind.media_type())?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    response.insert_header("X-Request-Id", context.request_id.value())?;
    if let Some(seconds) = notice.more.retry_after {
        response.insert_header("Retry-After", seconds)?;
    }
    for (name, value) in &notice.more.fields {
        response.insert_header(*name, value)?;
    }
    rules::to_client(&mut response, request, context)?;
    let no_body = request.method == Method::HEAD;
    session.write_response_header(Box::new(response), no_body).await?;
    if !no_body {
        session.write_response_body(Some(body), true).await?;
    }
    session.as_downstream_mut().finish_body().await
}

/// When a backend may be back: as far as it is known, for an error that time can heal.
fn retry_after(error: ErrorAnswer, route: Option<&Route>) -> Option<u64> {
    if !matches!(error.status, 502..=504) {
        return None;
    }
    let known = route.and_then(|route| route.upstream.next_chance(Instant::now()));
    let wait = if error.status == 503 { known.or(Some(SHORTAGE)) } else { known };
    wait.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).map(|seconds| seconds.max(1))
}

/// The error as bytes, for a connection whose request never became one.
pub(crate) fn raw(error: ErrorAnswer, request_id: &RequestId) -> Vec<u8> {
    let request_id = request_id.as_str();
    let body = Kind::Text.body(&Content {
        status: error.status,
        cause: Some(error.cause),
        details: error.details,
        request_id,
        page: None,
        contact: None,
        retry_after: None,
        may_reload: false,
    });
    let reason =
        StatusCode::from_u16(error.status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Proxy-Status: {}\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n",
        error.status,
        httpdate::fmt_http_date(std::time::SystemTime::now()),
        Kind::Text.media_type(),
        body.len(),
        proxy_status(error),
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

/// RFC 9209: our name, the error type, and a sentence.
fn proxy_status(error: ErrorAnswer) -> String {
    if let Cause::Received(status) = error.cause {
        return format!("goodgate; received-status={}; details=\"{}\"", status.code(), error.details);
    }
    format!("goodgate; error={}; details=\"{}\"", error.cause.name(), error.details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_status_names_the_cause() {
        let refused = proxy_status(ErrorAnswer::of(Cause::ConnectionRefused));
        assert_eq!(
            refused,
            "goodgate; error=connection_refused; details=\"The service refused the connection.\""
        );
    }
}
