//! Interim responses (RFC 9110 section 15.2) on their way from a backend to the client.

use goodgate_failure::Cause;
use http::{StatusCode, Version};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::context::Context;
use crate::exchange::{failed, settled};
use crate::{http2, replay};

/// More of them to one request than this are no HTTP that anybody means.
const INTERIM_MAX: u32 = 32;

/// An interim response goes on to the client, unless there is no end of them. Pingora sends none over HTTP/2. Where an answer is stored Pingora loses
/// those that come together with it, so they are written here, and Pingora then passes over them.
pub(crate) async fn pass_on(
    session: &mut Session,
    response: &ResponseHeader,
    context: &mut Context,
) -> Result<()> {
    // To Pingora it is an answer before the end of the request, and closes the connection.
    context.kept_for = context.kept_for.or(replay::keepalive(session, context));
    if context.attempting.interim() > INTERIM_MAX {
        context.disarm();
        return Err(settled(failed(session, context, Cause::HttpProtocolError)));
    }
    if let Some(stream) = context.http2_stream.filter(|_| !context.is_background()) {
        http2::send_interim(stream, response.status, &response.headers);
        return Ok(());
    }
    let is_understood = context.version(session.req_header()) == Version::HTTP_11;
    if !is_understood && !context.is_http2 && !context.is_background() {
        // RFC 9110 section 15.2: a client of HTTP/1.0 would take it for the response.
        session.as_downstream_mut().set_ignore_info_resp(true);
    }
    if is_understood
        && session.cache.enabled()
        && response.status != StatusCode::CONTINUE
        && !context.is_background()
    {
        let client = session.as_downstream_mut();
        client.set_ignore_info_resp(false);
        // A client that has left is noticed with the answer, which others may wait for.
        let _ = client.write_response_header(Box::new(response.clone())).await;
        client.set_ignore_info_resp(true);
    }
    Ok(())
}
