//! The `PURGE` method: who may, purges the copies of an address, or those with the tags that the request names.

use std::sync::Arc;

use bytes::Bytes;
use goodgate_cache::{PurgeMode, PurgeScope, tag_names};
use goodgate_failure::Cause;
use goodgate_telemetry::Origin;
use http::{HeaderValue, Method, header};
use log::info;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::address;
use super::changes::{caching_routes, plain_key};
use crate::answer::{self, ErrorAnswer};
use crate::client_address::{ClientAddress, is_among};
use crate::context::Context;
use crate::own;
use crate::route::Route;
use crate::snapshot::Snapshot;

const NOT_A_MODE: ErrorAnswer =
    ErrorAnswer { status: 400, cause: Cause::HttpRequestError, details: "Purge-Mode is soft or hard." };
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers a `PURGE` on a route that lets somebody purge; everywhere else it is a method like any other.
pub(crate) async fn answer_purge(session: &mut Session, context: &mut Context) -> Result<bool> {
    if session.req_header().method.as_str() != "PURGE" || session.subrequest_ctx.is_some() {
        return Ok(false);
    }
    if !context.route.as_ref().is_some_and(|route| takes_purge(route)) {
        return Ok(false);
    }
    match purge(session, context) {
        Ok(said) => Box::pin(confirm(session, context, said)).await?,
        Err(error) => Box::pin(answer::write(session, context, error)).await?,
    }
    Ok(true)
}

fn purge(session: &Session, context: &Context) -> Result<String, ErrorAnswer> {
    let denied = ErrorAnswer::of(Cause::HttpRequestDenied);
    let (policy, _) = context.route.as_ref().and_then(|route| route.cache.as_ref()).ok_or(denied)?;
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
    let mut purged = Vec::new();
    let asked = address(request, context.scheme());
    for route in caching_routes(context, asked) {
        let Some((policy, room)) = &route.cache else { continue };
        let room = *room;
        let scopes = if tags.is_empty() {
            vec![plain_key(&route, policy, asked).scope()]
        } else {
            tags.iter().cloned().map(PurgeScope::Tag).collect()
        };
        purged.extend(scopes.into_iter().map(|scope| (room, scope)));
    }
    purged.dedup_by(|(room, scope), (other, before)| room.name == other.name && scope == before);
    for (room, scope) in &purged {
        room.store.purge_scope(scope, mode);
    }
    let mut stores: Vec<&str> = purged.iter().map(|(room, _)| room.name.as_str()).collect();
    stores.sort_unstable();
    stores.dedup();
    let mut scopes: Vec<String> = purged.iter().map(|(_, scope)| scope.to_string()).collect();
    scopes.sort_unstable();
    scopes.dedup();
    info!(mode = mode.name(), stores:? = stores, scopes:? = scopes, client:% = client; "cached responses are purged");
    Ok(format!("purged ({}): {}\n", mode.name(), scopes.join(", ")))
}

fn takes_purge(route: &Route) -> bool {
    route.cache.as_ref().is_some_and(|(policy, _)| !policy.purge_allow.is_empty())
}

/// The route that decides about a `PURGE`: of those that requests for the address can take, whatever their method, the
/// first that takes purges from this client, or else from anyone. Neither the methods of a route nor a split keep a purge
/// from the cached responses of its address.
pub(crate) fn purged_route(
    snapshot: &Snapshot,
    host: &str,
    path: &str,
    method: &Method,
    client: Option<ClientAddress>,
) -> Option<Arc<Route>> {
    if method.as_str() != "PURGE" || !snapshot.has_caches {
        return None;
    }
    let mut routes = snapshot.routes_of(host, path);
    routes.retain(|route| takes_purge(route));
    let allows = |route: &&Arc<Route>| {
        let policy = route.cache.as_ref().map(|(policy, _)| policy);
        client.zip(policy).is_some_and(|(client, policy)| client.is_in(&policy.purge_allow))
    };
    routes.iter().find(allows).or_else(|| routes.first()).cloned()
}

async fn confirm(session: &mut Session, context: &mut Context, said: String) -> Result<()> {
    context.outcome.origin = Origin::Goodgate;
    let mut response = ResponseHeader::build(200, Some(4))?;
    response.insert_header(header::CONTENT_TYPE, TEXT)?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    own::write(session, context, response, Bytes::from(said)).await
}
