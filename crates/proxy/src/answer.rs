//! The honest error: a status by cause, the cause in `Proxy-Status` (RFC 9209), and a body of the kind
//! that the client asked for. No internals: addresses stay in the log.

use bytes::Bytes;
use goodgate_failure::Cause;
use goodgate_telemetry::Origin;
use http::{StatusCode, header};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::context::Context;
use crate::request_id::RequestId;

/// An error that goodgate answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorAnswer {
    pub(crate) status: u16,
    pub(crate) cause: Cause,
    /// What is wrong in this very case, in a constant phrase.
    pub(crate) details: &'static str,
}

/// Seconds after which it may be worth trying again when there is no capacity: one ejection later.
const RETRY_AFTER_SECONDS: u32 = 5;

impl ErrorAnswer {
    /// The answer for a cause, with its own status and sentence.
    pub(crate) const fn of(cause: Cause) -> Self {
        Self { status: cause.status(), cause, details: cause.sentence() }
    }
}

/// Writes the error as the answer to this request.
pub(crate) async fn write(session: &mut Session, context: &mut Context, error: ErrorAnswer) -> Result<()> {
    context.outcome.origin = Origin::Goodgate;
    context.outcome.cause = Some(error.cause);
    let accept = session.req_header().headers.get(header::ACCEPT);
    let kind = Kind::wanted(accept.map(http::HeaderValue::as_bytes).unwrap_or_default());
    let body = kind.body(error, context.request_id.as_str());
    let response = head(error, kind, body.len(), &context.request_id)?;
    let no_body = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(response), no_body).await?;
    if !no_body {
        session.write_response_body(Some(body), true).await?;
    }
    session.as_downstream_mut().finish_body().await
}

/// The error as bytes, for a connection whose request never became one.
pub(crate) fn raw(error: ErrorAnswer, request_id: &RequestId) -> Vec<u8> {
    let request_id = request_id.as_str();
    let body = Kind::Text.body(error, request_id);
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
    if error.status == 503 {
        response.insert_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)?;
    }
    Ok(response)
}

/// RFC 9209: our name, the error type, and a sentence.
fn proxy_status(error: ErrorAnswer) -> String {
    if let Cause::Received(status) = error.cause {
        return format!("goodgate; received-status={}", status.code());
    }
    format!("goodgate; error={}; details=\"{}\"", error.cause.name(), error.details)
}

/// The form of an error's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Html,
    Problem,
    Text,
}

impl Kind {
    /// The first of the forms we have that `Accept` names; plain text if it names none.
    fn wanted(accept: &[u8]) -> Self {
        let ranges = accept.split(|byte| *byte == b',').map(|range| {
            range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
        });
        for range in ranges {
            match range.as_slice() {
                b"text/html" | b"application/xhtml+xml" => return Self::Html,
                b"application/json" | b"application/problem+json" => return Self::Problem,
                b"text/plain" => return Self::Text,
                _ => {}
            }
        }
        Self::Text
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Problem => "application/problem+json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// The request id is ours or was checked to be a token: nothing here needs escaping.
    fn body(self, error: ErrorAnswer, request_id: &str) -> Bytes {
        let ErrorAnswer { status, cause, details } = error;
        let code = StatusCode::from_u16(status).ok();
        let title = code.and_then(|code| code.canonical_reason()).unwrap_or("Error");
        let text = match self {
            Self::Html => html(status, title, details, request_id),
            Self::Problem => format!(
                "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{details}\",\
                 \"cause\":\"{}\",\"request_id\":\"{request_id}\"}}\n",
                cause.name()
            ),
            Self::Text => format!("{status} {title}: {details} (request {request_id})\n"),
        };
        Bytes::from(text)
    }
}

fn html(status: u16, title: &str, details: &str, request_id: &str) -> String {
    let advice = if status >= 500 {
        "It is not your fault. Please try again in a moment."
    } else {
        "Please check the address and try again."
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{status} {title}</title>\
         <style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;color:#222}}\
         small{{color:#666}}</style></head>\n<body><h1>{title}</h1><p>{details} {advice}</p>\
         <p><small>Error {status}, request {request_id}</small></p></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_of_the_kind_that_was_asked_for() {
        assert_eq!(Kind::wanted(b"text/html,application/xhtml+xml,*/*;q=0.8"), Kind::Html);
        assert_eq!(Kind::wanted(b"Application/JSON; q=1"), Kind::Problem);
        assert_eq!(Kind::wanted(b"*/*"), Kind::Text);
        assert_eq!(Kind::wanted(b""), Kind::Text);
    }

    #[test]
    fn proxy_status_names_the_cause() {
        let refused = proxy_status(ErrorAnswer::of(Cause::ConnectionRefused));
        assert_eq!(
            refused,
            "goodgate; error=connection_refused; details=\"The service refused the connection.\""
        );
    }
}
