//! The honest error: a status by cause, the cause in `Proxy-Status` (RFC 9209), and a body of the kind
//! that the client asked for. No internals: addresses stay in the log.

use std::time::{Duration, Instant};

use goodgate_failure::Cause;
use goodgate_telemetry::Origin;
use http::{Method, StatusCode, header};
use pingora_error::Result;
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

/// Writes the error as the answer to this request.
pub(crate) async fn write(session: &mut Session, context: &mut Context, error: ErrorAnswer) -> Result<()> {
    context.outcome.origin = Origin::Goodgate;
    context.outcome.cause = Some(error.cause);
    context.outcome.detail = error.detail();
    let request = session.req_header();
    let accept = request.headers.get(header::ACCEPT);
    let kind = Kind::wanted(accept.map(http::HeaderValue::as_bytes).unwrap_or_default());
    let route = context.route.as_deref();
    let known = Content {
        error,
        request_id: context.request_id.as_str(),
        errors: route.map(|route| &route.errors),
        retry_after: retry_after(error, route),
        may_reload: request.method == Method::GET && matches!(error.status, 502..=504),
    };
    let body = kind.body(&known);
    let mut response = head(error, kind, body.len(), &context.request_id)?;
    if let Some(seconds) = known.retry_after.filter(|_| error.status == 503) {
        response.insert_header(header::RETRY_AFTER, seconds)?;
    }
    if route.is_some_and(|route| route.errors.next_hop)
        && let Some(attempt) = context.attempting.log.last()
    {
        let status = format!("{}; next-hop=\"{}\"", proxy_status(error), attempt.backend);
        response.insert_header("Proxy-Status", status)?;
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
    let content = Content { error, request_id, errors: None, retry_after: None, may_reload: false };
    let body = Kind::Text.body(&content);
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

fn head(error: ErrorAnswer, kind: Kind, length: usize, request_id: &RequestId) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build(error.status, Some(8))?;
    response.insert_header(header::CONTENT_TYPE, kind.media_type())?;
    response.insert_header(header::CONTENT_LENGTH, length)?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    response.insert_header("Proxy-Status", proxy_status(error))?;
    response.insert_header("X-Request-Id", request_id.value())?;
    Ok(response)
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
