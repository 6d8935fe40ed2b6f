//! Waiting for a place at an upstream that has as many requests as it may.
//!
//! Who has how many, who waits and who is next is the business of `upstream`; here is the wait itself: until the turn
//! comes, the time is over, or the client leaves. A request asks once for each upstream that it uses, before its first
//! attempt there, and has its place until the backend has sent the whole answer. Behind a client's back nobody waits.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_failure::Cause;
use goodgate_upstream::{Admission, Place, Shed, Turn, Upstream};
use pingora_core::protocols::http::ServerSession;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout_at};

use crate::answer::ErrorAnswer;
use crate::context::Context;
use crate::copies;
use crate::exchange::settled;
use crate::route::Route;
use crate::stream::{ClientStream, HALF_CLOSED};

/// What a request has to do with the limit of its upstream.
#[derive(Debug, Default)]
pub(crate) struct Queueing {
    place: Option<Place>,
    /// How long it has waited for it.
    pub(crate) waited: Option<Duration>,
    /// Why the upstream that the request moved to gave it none.
    shed: Option<Shed>,
}

impl Queueing {
    /// The request has its backend.
    pub(crate) fn chosen(&mut self) {
        if let Some(place) = &mut self.place {
            place.chosen();
        }
    }

    /// Why the request got no place after it moved to another upstream.
    pub(crate) fn refusal(&self) -> Option<ErrorAnswer> {
        self.shed.map(refusal)
    }

    /// No backend has anything to do with it any more.
    pub(crate) fn leave(&mut self) {
        self.place = None;
    }
}

/// What a request is told that asks for its turn.
pub(crate) enum Entry {
    /// It goes on.
    Admitted,
    /// It is refused, with this answer if nothing better is found.
    Refused(ErrorAnswer),
    /// It is over: answered while it waited, or nobody would have waited for it.
    Over,
}

/// Gets a place for the request, now or after a while.
pub(crate) async fn enter(session: &mut Session, context: &mut Context) -> Result<Entry> {
    match context.route.as_ref().filter(|route| route.upstream.has_breaker()) {
        None => Ok(Entry::Admitted),
        Some(route) => {
            let route = Arc::clone(route);
            // Boxed, since those without a breaker must not carry it.
            Box::pin(ask(session, context, &route)).await
        }
    }
}

async fn ask(session: &mut Session, context: &mut Context, route: &Arc<Route>) -> Result<Entry> {
    match place(session, context, route).await? {
        Ok((place, waited)) => {
            context.queueing.place = place;
            // Another request may have got the same response meanwhile.
            if waited && copies::answer_late(session, context).await? {
                context.queueing.leave();
                return Ok(Entry::Over);
            }
            Ok(Entry::Admitted)
        }
        Err(_) if context.is_background() => Ok(Entry::Over),
        Err(shed) => Ok(Entry::Refused(refusal(shed))),
    }
}

/// The request goes on at the upstream of this route: it gives back its place where it was, and gets one there, now or
/// after a while. An error: it gets none.
pub(crate) async fn change_upstream(
    session: &mut Session,
    context: &mut Context,
    route: &Arc<Route>,
) -> Result<()> {
    context.queueing.leave();
    match place(session, context, route).await? {
        Ok((place, _)) => {
            context.queueing.place = place;
            Ok(())
        }
        Err(shed) => {
            context.queueing.shed = Some(shed);
            Err(settled(false))
        }
    }
}

/// A place at the upstream, and whether the request has waited for it. A background request does not wait.
async fn place(
    session: &mut Session,
    context: &mut Context,
    route: &Arc<Route>,
) -> Result<Result<(Option<Place>, bool), Shed>> {
    let since = Instant::now();
    let turn = match route.upstream.admit(&route.name, since) {
        Admission::Admitted(place) => return Ok(Ok((place, false))),
        Admission::Shed(shed) => return Ok(Err(noted(route, shed, context))),
        Admission::Waits(_) if context.is_background() => return Ok(Err(Shed::QueueFull)),
        Admission::Waits(turn) => turn,
    };
    context.attempting.counts_from(since);
    let end = context.attempting.end_of_time(since + route.timeout);
    let waited = wait(session, route, turn, since, end).await;
    let time = since.elapsed();
    context.queueing.waited = Some(context.queueing.waited.unwrap_or_default() + time);
    if let Some(metrics) = &route.queue_metrics {
        metrics.waited(time);
    }
    Ok(waited?.map(|place| (Some(place), true)).map_err(|shed| noted(route, shed, context)))
}

/// Counts a refusal that a client sees.
fn noted(route: &Route, shed: Shed, context: &Context) -> Shed {
    if let Some(metrics) = &route.queue_metrics
        && !context.is_background()
    {
        metrics.shed(shed);
    }
    shed
}

/// The wait; an error is that the client has left.
async fn wait(
    session: &mut Session,
    route: &Route,
    mut turn: Turn,
    since: Instant,
    end: Instant,
) -> Result<Result<Place, Shed>> {
    keep_time(&route.upstream, since);
    let patience = route.upstream.spec().breaker.map_or(Duration::ZERO, |policy| policy.pending_timeout);
    let deadline = end.min(since + patience);
    let place = timeout_at(deadline.into(), poll_fn(|context| turn.poll_place(context)));
    match unless_left(session.as_downstream_mut(), place).await {
        Some(Ok(place)) => return Ok(Ok(place)),
        Some(Err(_)) => {}
        None => return Err(gone()),
    }
    if since + patience > end {
        return Ok(Err(Shed::Deadline));
    }
    turn.waited_in_vain();
    Ok(Err(Shed::PendingTimeout))
}

fn refusal(shed: Shed) -> ErrorAnswer {
    let details = match shed {
        Shed::QueueFull => "The service is at its limit, and as many requests wait as may.",
        Shed::PendingTimeout => "The service is at its limit, and no place became free in time.",
        Shed::Deadline => "The service is at its limit, and the time for the request is over.",
    };
    ErrorAnswer { details, ..ErrorAnswer::of(Cause::ConnectionLimitReached) }
}

/// What the future gives, for a client that waits in a queue; none if the client leaves before.
pub(crate) async fn unless_left<T>(client: &mut ServerSession, future: impl Future<Output = T>) -> Option<T> {
    queues(client, true);
    let given = tokio::select! {
        biased;
        given = future => Some(given),
        () = left(client) => None,
    };
    queues(client, false);
    given
}

fn queues(client: &ServerSession, is_queued: bool) {
    let stream = client.stream().and_then(|stream| (**stream).as_any().downcast_ref::<ClientStream>());
    if let Some(stream) = stream {
        stream.queues(is_queued);
    }
}

/// The client has left: nothing is owed to it.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora passes its errors boxed")]
pub(crate) fn gone() -> Box<Error> {
    Error::create(ErrorType::ConnectionClosed, ErrorSource::Downstream, None, None)
}

/// Ends when the client has left. Nothing of its request is read.
async fn left(client: &mut ServerSession) {
    if let Some(closed) = client.watch_h2_stream_close() {
        // Whatever the end is called.
        let _ = closed.await;
    } else if client.is_body_done() {
        // The stream keeps what comes for the next request.
        while client.read_body_or_idle(true).await.is_ok() {}
    } else {
        closed(client).await;
    }
}

/// Ends when the client has closed the connection, in the middle of a request of which part may lie in the kernel. Most
/// who close have left; who has only said that it is done has still a while, as everywhere.
async fn closed(client: &ServerSession) {
    let stream = client.stream().and_then(|stream| (**stream).as_any().downcast_ref::<ClientStream>());
    if let Some(stream) = stream
        && hung_up(stream).await.is_ok()
    {
        return tokio::time::sleep(HALF_CLOSED).await;
    }
    std::future::pending::<()>().await;
}

/// Over a handle of its own, since the wait for a hang-up uses up the news that there is something to read.
async fn hung_up(stream: &ClientStream) -> io::Result<()> {
    let Some(tcp) = stream.tcp() else { return Ok(()) };
    let handle = TcpStream::from_std(tcp.as_fd().try_clone_to_owned()?.into())?;
    while !handle.ready(Interest::READABLE).await?.is_read_closed() {
        // Nothing is read: this says that the next news is wanted.
        let _ = handle.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
    }
    Ok(())
}

/// While somebody waits for what time allows after an outage, one task sees to it that it passes.
pub(crate) fn keep_time(upstream: &Arc<Upstream>, now: Instant) {
    if !upstream.claims_clock(now) {
        return;
    }
    let upstream = Arc::clone(upstream);
    tokio::spawn(async move {
        while let Some(next) = upstream.tick(Instant::now()) {
            sleep_until(next.into()).await;
        }
    });
}
