//! Copies of requests for another upstream, whose answers nobody gets.
//!
//! A copy sets off when its request has been sent as a whole, so that a body is there and counted, and the request
//! itself waits for nothing. It is a subrequest of Pingora's on a route of its own: no gate, no copies, no record,
//! no second try once something was sent. How much they may take is bounded: bytes of a body, and copies under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use goodgate_telemetry::{MirrorMetrics, MirrorResult};
use http::{Version, header};
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::subrequest::server::SubrequestHandle;
use pingora_proxy::subrequest::{BodyMode, Ctx as SubrequestContext};
use pingora_proxy::{PreparedSubrequest, Session, SubrequestSpawner};

use crate::client_address::ClientAddress;
use crate::context::{Client, Context};
use crate::request_id::RequestId;
use crate::route::Route;
use crate::route_state::RouteState;
use crate::split::spread;

/// Copies of one route's requests under way. Beyond that none are made until some are done.
const UNDER_WAY_MAX: usize = 128;

/// Where the copies of a route's requests go.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) route: Arc<Route>,
    pub(crate) share: u8,
    pub(crate) body_bytes_max: usize,
    pub(crate) metrics: Arc<MirrorMetrics>,
    pub(crate) state: Arc<RouteState>,
}

/// What a request has to do with mirroring.
#[derive(Debug, Default)]
pub(crate) enum Mirroring {
    #[default]
    Nothing,
    /// It will be copied: its body so far.
    Draft(Vec<Bytes>),
    /// It is a copy.
    Copy(Box<Copy>),
}

/// A copy under way, with what is known of who has sent the request.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) route: Arc<Route>,
    pub(crate) client: Arc<Client>,
    pub(crate) client_address: Option<ClientAddress>,
    pub(crate) is_trusted: bool,
    pub(crate) is_https: bool,
    pub(crate) request_id: RequestId,
    metrics: Arc<MirrorMetrics>,
    _place: Place,
}

/// One of those that there may be.
#[derive(Debug)]
struct Place(Arc<RouteState>);

impl Place {
    fn take(state: &Arc<RouteState>) -> Option<Self> {
        let one_more = |taken: usize| (taken < UNDER_WAY_MAX).then_some(taken + 1);
        let taken = state.mirrored_in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Self(Arc::clone(state)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.mirrored_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Decides whether a request that is about to be sent is copied.
pub(crate) fn begin(session: &Session, context: &mut Context) {
    let Some(mirror) = context.route.as_ref().and_then(|route| route.mirror.as_ref()) else {
        return;
    };
    if context.is_background() || session.as_ref().is_upgrade_req() || !context.connections.are_shared() {
        return;
    }
    if spread(mirror.state.mirror_requests.fetch_add(1, Ordering::Relaxed)) < mirror.share {
        context.mirroring = Mirroring::Draft(Vec::new());
    }
}

/// The request is sent from its beginning, for the first time or once more.
pub(crate) fn restart(context: &mut Context) {
    if let Mirroring::Draft(body) = &mut context.mirroring {
        body.clear();
    }
}

/// A piece of the request's body has been sent. Behind the last one the copy sets off.
pub(crate) fn sent(session: &mut Session, context: &mut Context, piece: Option<&Bytes>, is_end: bool) {
    let Mirroring::Draft(body) = &mut context.mirroring else {
        return;
    };
    let Some(mirror) = context.route.as_ref().and_then(|route| route.mirror.as_ref()) else {
        return;
    };
    body.extend(piece.filter(|piece| !piece.is_empty()).cloned());
    let bytes: usize = body.iter().map(Bytes::len).sum();
    if bytes > mirror.body_bytes_max {
        mirror.metrics.count(MirrorResult::BodyTooLarge);
        context.mirroring = Mirroring::Nothing;
        return;
    }
    if !is_end {
        return;
    }
    let body = std::mem::take(body);
    match (Place::take(&mirror.state), session.subrequest_spawner.take()) {
        (Some(place), Some(spawner)) => {
            if let Some(copy) = copy(mirror, context, place) {
                in_http1(session, !body.is_empty(), |session| send(&spawner, session, copy, body));
            }
            session.subrequest_spawner = Some(spawner);
        }
        (_, spawner) => {
            session.subrequest_spawner = spawner;
            mirror.metrics.count(MirrorResult::Dropped);
        }
    }
    context.mirroring = Mirroring::Nothing;
}

fn copy(mirror: &Mirror, context: &Context, place: Place) -> Option<Copy> {
    Some(Copy {
        route: Arc::clone(&mirror.route),
        client: Arc::clone(context.client.as_ref()?),
        client_address: context.client_address,
        is_trusted: context.is_trusted,
        is_https: context.is_https,
        request_id: context.request_id.clone(),
        metrics: Arc::clone(&mirror.metrics),
        _place: place,
    })
}

/// Pingora writes the head of an HTTP/2 request down as such, and cannot read that when it makes a subrequest of it.
fn in_http1(session: &mut Session, has_body: bool, make: impl FnOnce(&Session)) {
    let request = session.req_header_mut();
    let version = request.version;
    if version != Version::HTTP_2 {
        return make(session);
    }
    request.set_version(Version::HTTP_11);
    let is_unframed = has_body && !request.headers.contains_key(header::CONTENT_LENGTH);
    if is_unframed {
        // Nothing but its memory can fail here, and then the copy goes without its body.
        let _ = request.insert_header(header::TRANSFER_ENCODING, "chunked");
    }
    make(session);
    let request = session.req_header_mut();
    if is_unframed {
        request.remove_header(&header::TRANSFER_ENCODING);
    }
    request.set_version(version);
}

fn send(spawner: &SubrequestSpawner, session: &Session, copy: Copy, body: Vec<Bytes>) {
    let context = SubrequestContext::builder().user_ctx(Box::new(Some(copy)));
    if body.is_empty() {
        let context = context.body_mode(BodyMode::NoBody).build();
        drop(spawner.spawn_background_subrequest(session.as_ref(), context));
    } else {
        let context = context.body_mode(BodyMode::ExpectBody).build();
        let (subrequest, handle) = spawner.create_subrequest(session.as_ref(), context);
        drop(tokio::spawn(run(subrequest, handle, body)));
    }
}

/// Gives the copy its body, and takes its answer, which nobody wants.
async fn run(subrequest: PreparedSubrequest, handle: SubrequestHandle, body: Vec<Bytes>) {
    let SubrequestHandle { tx, mut rx, .. } = handle;
    let feed = async {
        let last = body.len().saturating_sub(1);
        for (at, piece) in body.into_iter().enumerate() {
            // It has ended without the rest.
            if tx.send(HttpTask::Body(Some(piece), at == last)).await.is_err() {
                break;
            }
        }
    };
    let drain = async { while rx.recv().await.is_some() {} };
    tokio::join!(subrequest.run(), feed, drain);
}

/// Takes over what is known of a copy.
pub(crate) fn hand(session: &mut Session, context: &mut Context) {
    let parent = session.subrequest_ctx.as_mut().and_then(|parent| parent.user_ctx_mut());
    if let Some(copy) = parent.and_then(|parent| parent.downcast_mut::<Option<Copy>>()?.take()) {
        // It has its whole body, and nobody would see the 100.
        session.req_header_mut().remove_header(&header::EXPECT);
        context.mirroring = Mirroring::Copy(Box::new(copy));
    }
}

/// A subrequest is over: counts what became of it if it was a copy.
pub(crate) fn ended(context: &Context) {
    if let Mirroring::Copy(copy) = &context.mirroring {
        let last = context.attempting.log.last();
        let is_answered = last.is_some_and(|last| last.cause.is_none() && last.status.is_some());
        let result = if is_answered { MirrorResult::Ok } else { MirrorResult::Failed };
        copy.metrics.count(result);
    }
}
