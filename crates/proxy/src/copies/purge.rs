//! The `PURGE` method: who may, purges the copies of an address, or those with the tags that the request names.

use bytes::Bytes;
use goodgate_cache::{PurgeMode, PurgeScope, tag_names};
use goodgate_failure::Cause;
use goodgate_telemetry::Origin;
use http::{HeaderValue, header};
use log::info;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::key;
use crate::answer::{self, ErrorAnswer};
use crate::client_address::{ClientAddress, is_among};
use crate::context::Context;
use crate::own;

const NOT_A_MODE: ErrorAnswer =
    ErrorAnswer { status: 400, cause: Cause::HttpRequestError, details: "Purge-Mode is soft or hard." };
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers a `PURGE` on a route that lets somebody purge; everywhere else it is a method like any other.
pub(crate) async fn answer_purge(session: &mut Session, context: &mut Context) -> Result<bool> {
    if session.req_header().method.as_str() != "PURGE" || session.subrequest_ctx.is_some() {
        return Ok(false);
    }
    let Some(route) = context.route.clone() else {
        return Ok(false);
    };
    match &route.cache {
        Some((policy, _)) if !policy.purge_allow.is_empty() => {}
        Some(_) | None => return Ok(false),
    }
    match purge(session, context) {
        Ok(said) => Box::pin(confirm(session, context, said)).await?,
        Err(error) => Box::pin(answer::write(session, context, error)).await?,
    }
    Ok(true)
}

fn purge(session: &Session, context: &Context) -> Result<String, ErrorAnswer> {
    let denied = ErrorAnswer::of(Cause::HttpRequestDenied);
    let (policy, room) = context.route.as_ref().and_then(|route| route.cache.as_ref()).ok_or(denied)?;
    let client = context.client_address.and_then(ClientAddress::known).ok_or(denied)?;
    if !is_among(client, &policy.purge_allow) {
        return Err(denied);
    }
    let request = session.req_header();
    let mode = match request.headers.get("purge-mode").map(HeaderValue::as_bytes) {
        None | Some(b"soft") => PurgeMode::Soft,
        Some(b"hard") => PurgeMode::Hard,
        Some(_) => return Err(NOT_A_MODE),
    };
    let tags = tag_names(&request.headers);
    let scopes = if tags.is_empty() {
        vec![key(&policy.key, request, context.scheme(), &request.uri).scope()]
    } else {
        tags.into_iter().map(PurgeScope::Tag).collect()
    };
    for scope in &scopes {
        room.store.purge_scope(scope, mode);
    }
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    info!(mode = mode.name(), stores:? = [&room.name], scopes:? = scopes, client:% = client; "copies are purged");
    Ok(format!("purged ({}): {}\n", mode.name(), scopes.join(", ")))
}

async fn confirm(session: &mut Session, context: &mut Context, said: String) -> Result<()> {
    context.outcome.origin = Origin::Goodgate;
    let mut response = ResponseHeader::build(200, Some(4))?;
    response.insert_header(header::CONTENT_TYPE, TEXT)?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    own::write(session, context, response, Bytes::from(said)).await
}
