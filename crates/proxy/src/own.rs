//! Answers that a route gives itself: a redirect, or a text of the operator's. No backend is asked, nothing has
//! failed, and the client's connection is kept, unless the request has a body, which nobody reads.

use bytes::Bytes;
use goodgate_config::{Action, FieldValue, Redirect, Respond, Variable};
use goodgate_failure::Cause;
use goodgate_telemetry::Origin;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::answer::ErrorAnswer;
use crate::context::Context;
use crate::{rules, variables};

/// What a route answers without an upstream.
#[derive(Clone, Debug)]
pub(crate) enum OwnAnswer {
    /// Elsewhere.
    Redirect { to: FieldValue, status: StatusCode },
    /// This text.
    Text { status: StatusCode, body: Bytes, media_type: HeaderValue },
}

impl OwnAnswer {
    /// What a route answers itself, if it does.
    pub(crate) fn of(action: &Action) -> Option<Self> {
        match action {
            Action::Forward(_) => None,
            Action::Redirect(Redirect { to, status }) => {
                Some(Self::Redirect { to: to.clone(), status: *status })
            }
            Action::Respond(Respond { status, body, media_type }) => Some(Self::Text {
                status: *status,
                body: Bytes::copy_from_slice(body.as_bytes()),
                media_type: media_type.clone(),
            }),
        }
    }
}

/// Whether the listener sends this request to `https`: not if a trusted proxy in front has spoken it already.
pub(crate) fn is_redirected(request: &RequestHeader, context: &Context) -> bool {
    let client = context.client.as_ref();
    client.is_some_and(|client| client.redirect_to_https.is_some())
        && !context.is_https
        // Authorities prove by it, and only without TLS, who holds a name (RFC 8555 section 8.3).
        && !request.uri.path().starts_with("/.well-known/acme-challenge/")
}

/// Why it cannot be sent there: nobody knows where that is.
pub(crate) fn https_refusal(request: &RequestHeader) -> Option<ErrorAnswer> {
    variables::host(request)
        .is_empty()
        .then(|| ErrorAnswer { details: NO_HOST, ..ErrorAnswer::of(Cause::HttpRequestError) })
}

const NO_HOST: &str = "The Host is missing.";

/// Sends the request to the same address with `https`, where the listener says so.
pub(crate) async fn redirect_to_https(session: &mut Session, context: &mut Context) -> Result<bool> {
    let port = context.client.as_ref().and_then(|client| client.redirect_to_https);
    let Some(port) = port.filter(|_| is_redirected(session.req_header(), context)) else {
        return Ok(false);
    };
    let request = session.req_header();
    let host = variables::host(request);
    let port = if port.get() == 443 { String::new() } else { format!(":{port}") };
    let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let location = ["https://", &*host, &port, target].concat();
    // The method stays what it is.
    let mut response = ResponseHeader::build(StatusCode::PERMANENT_REDIRECT, Some(3))?;
    response.insert_header(header::LOCATION, location)?;
    context.outcome.origin = Origin::Goodgate;
    Box::pin(write(session, context, response, Bytes::new())).await?;
    Ok(true)
}

/// Why the route's own answer cannot be given: it names the host, and the request (HTTP/1.0) has none.
pub(crate) fn refusal(session: &Session, own: &OwnAnswer) -> Option<ErrorAnswer> {
    let OwnAnswer::Redirect { to: FieldValue::Filled(template), .. } = own else {
        return None;
    };
    let lacks_host = template.has(Variable::Host) && variables::host(session.req_header()).is_empty();
    lacks_host.then(|| ErrorAnswer { details: NO_HOST, ..ErrorAnswer::of(Cause::HttpRequestError) })
}

/// Gives the route's own answer, if it has one.
pub(crate) async fn answer(session: &mut Session, context: &mut Context) -> Result<bool> {
    let Some(route) = context.route.clone() else {
        return Ok(false);
    };
    let Some(own) = &route.own else {
        return Ok(false);
    };
    context.outcome.origin = Origin::Goodgate;
    let (response, body) = match own {
        OwnAnswer::Redirect { to, status } => {
            let mut response = ResponseHeader::build(*status, Some(4))?;
            let to = variables::value(to, session.req_header(), context)?;
            response.insert_header(header::LOCATION, to)?;
            (response, Bytes::new())
        }
        OwnAnswer::Text { status, body, media_type } => {
            let mut response = ResponseHeader::build(*status, Some(4))?;
            if !body.is_empty() {
                response.insert_header(header::CONTENT_TYPE, media_type.clone())?;
            }
            (response, body.clone())
        }
    };
    Box::pin(write(session, context, response, body)).await?;
    Ok(true)
}

pub(crate) async fn write(
    session: &mut Session,
    context: &Context,
    mut response: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    if !matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    response.insert_header("X-Request-Id", context.request_id.value())?;
    rules::to_client(&mut response, session.req_header(), context)?;
    let no_body = session.req_header().method == Method::HEAD || body.is_empty();
    session.write_response_header(Box::new(response), no_body).await?;
    if !no_body {
        session.write_response_body(Some(body), true).await?;
    }
    session.as_downstream_mut().finish_body().await?;
    Ok(())
}
