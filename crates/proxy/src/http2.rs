//! HTTP/2 connections of clients. Pingora reads the frames; each request becomes what an HTTP/1.1 client would have
//! sent, and is held to the same rules.

mod fields;
mod frames;
mod interim;
mod stalled;
mod windows;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goodgate_config::Limits;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{
    H2Accept, H2Options, HttpSession, default_h2_options, handshake,
};
use pingora_error::Result;
use pingora_http::RequestHeader;
use pingora_timeout::fast_timeout::fast_timeout;
use stalled::LOOK_EVERY;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use crate::connection::{DOZE_AFTER, Door, UnderWay};
use crate::context::Client;
use crate::head::{self, Malformed};
use crate::places::{Idle, Place};
use crate::stream::ClientStream;
use crate::watchdog::Alarm;
pub(crate) use frames::{Frames, Http2Facts};
pub(crate) use stalled::StalledResponses;

/// Requests of one connection at the same time.
const STREAMS_MAX: u32 = 100;
/// What a client may send of one body, and of all, before somebody takes it.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What of one answer waits for a client that reads slowly.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// What the field that names the stream adds to the header (RFC 9113 section 6.5.2).
const TAG_BYTES: usize = 64;
/// Malformed requests before a connection is given up.
const MALFORMED_MAX: u32 = 32;

/// The requests of a connection that the HTTP library refuses by itself.
struct RefusedRequests<'a> {
    door: &'a Door,
    client: &'a Client,
    facts: &'a Http2Facts,
    /// Requests that have been accepted or noted.
    known: u64,
    /// The connection takes no further requests: the library ignores them, and the client sends them elsewhere.
    is_ending: bool,
}

impl<'a> RefusedRequests<'a> {
    const fn new(door: &'a Door, client: &'a Client, facts: &'a Http2Facts) -> Self {
        Self { door, client, facts, known: 0, is_ending: false }
    }

    const fn accepted(&mut self) {
        self.known += 1;
    }

    /// Waits for the next request. The library has read all that came when it has to wait: what it has not handed on
    /// by then was refused.
    async fn note<T>(&mut self, accept: impl Future<Output = T>) -> T {
        let mut accept = pin!(accept);
        poll_fn(|context| {
            let accepted = accept.as_mut().poll(context);
            if accepted.is_pending() && !self.facts.is_blocked.load(Ordering::Relaxed) {
                self.note_all();
            }
            accepted
        })
        .await
    }

    fn note_all(&mut self) {
        while !self.is_ending && self.known < self.facts.opened.load(Ordering::Relaxed) {
            self.known += 1;
            self.door.record_refused_by_library(self.client);
        }
    }
}

tokio::task_local! {
    /// Whose request the task serves, and on which connection: Pingora hands on nothing of a connection to its streams.
    static CLIENT: (Arc<Client>, Arc<Http2Facts>);
}

/// The client of the HTTP/2 request that this task serves.
pub(crate) fn client() -> Option<Arc<Client>> {
    CLIENT.try_with(|(client, _)| Arc::clone(client)).ok()
}

/// Sends an interim response to the request of this task, on its stream.
pub(crate) fn send_interim(stream: u32, status: StatusCode, fields: &HeaderMap) {
    // Without a connection it is a request of ours, for which there is no client.
    let _ = CLIENT.try_with(|(_, facts)| facts.send_interim(stream, status, fields));
}

impl Door {
    /// Serves a connection whose handshake has chosen HTTP/2, to its end.
    pub(crate) async fn serve_http2(
        self: &Arc<Self>,
        stream: Box<ClientStream>,
        client: &Client,
        place: &Place,
    ) {
        let limits = Arc::clone(&self.live.snapshot().limits);
        let facts = Arc::new(Http2Facts::default());
        let mut rest = Rest::begin(place);
        let Some(mut connection) = greet(stream, &facts, &limits, &mut rest).await else {
            return;
        };
        let (mut streams, mut requests, mut malformed) = (JoinSet::new(), 0, 0);
        let mut refused = RefusedRequests::new(self, client, &facts);
        let mut stalled = self.live.stalled.of_connection(place.number(), &facts);
        let mut looks = looks();
        let mut shutdown = self.shutdown.clone();
        loop {
            let is_idle = streams.is_empty();
            let limit = idle_limit(&limits, refused.is_ending).saturating_sub(rest.so_far());
            tokio::select! {
                biased;
                _ = shutdown.changed(), if !refused.is_ending => end(&mut connection, &mut refused, &mut rest),
                _ = streams.join_next(), if !is_idle => rest.begin_again(),
                accepted = refused.note(HttpSession::from_h2_conn(&mut connection, Arc::default())) => match accepted {
                    Ok(Some(H2Accept::Session(session))) => {
                        requests += 1;
                        refused.accepted();
                        rest.begin_again();
                        let is_last = requests >= limits.requests_per_connection_max
                            || client.distrust().is_some();
                        if is_last {
                            end(&mut connection, &mut refused, &mut rest);
                        }
                        let client = Arc::new(client.of_stream(Instant::now()));
                        let serving = Arc::clone(self).serve_stream(session, client, Arc::clone(&facts));
                        streams.spawn_on(serving, &pingora_runtime::current_handle());
                    }
                    Ok(Some(H2Accept::Rejected)) => {
                        // Answered or reset by Pingora.
                        malformed += 1;
                        if malformed > MALFORMED_MAX {
                            break;
                        }
                    }
                    Ok(None) | Err(_) => break,
                },
                () = facts.has_news.notified() => {}
                _ = looks.tick(), if !is_idle => stalled.look(Instant::now()),
                // Its place is needed.
                () = rest.ends(), if is_idle && !refused.is_ending => {
                    end(&mut connection, &mut refused, &mut rest);
                }
                () = tokio::time::sleep(limit), if is_idle => break,
            }
        }
        refused.note_all();
        // What is under way hears of it, and writes its record.
        streams.detach_all();
    }

    async fn serve_stream(self: Arc<Self>, stream: HttpSession, client: Arc<Client>, facts: Arc<Http2Facts>) {
        let limits = Arc::clone(&self.live.snapshot().limits);
        let _under_way = UnderWay::new(&self.live, &self.metrics.active);
        let mut session = ServerSession::new_http2(stream);
        session.set_write_timeout(Some(limits.write_timeout));
        session.set_total_drain_timeout(Some(limits.body_timeout));
        let exchange = self.proxy.0.process_new_http(session, &self.shutdown);
        let exchange = CLIENT.scope((Arc::clone(&client), facts), exchange);
        // Streams are not reused.
        let _ = client.watchdog.watch(&mut Alarm::default(), exchange).await;
        self.record_if_missing(&client);
    }
}

type Http2Connection = h2::server::Connection<Stream, Bytes>;

/// The first frames of a connection. None: they did not come, or its place was needed.
async fn greet(
    mut stream: Box<ClientStream>,
    facts: &Arc<Http2Facts>,
    limits: &Limits,
    rest: &mut Rest<'_>,
) -> Option<Http2Connection> {
    stream.keep_pace(limits);
    stream.grant_frames(Arc::clone(facts), limits.header_bytes_max);
    let greeting = fast_timeout(limits.header_timeout, handshake(stream, Some(options(limits))));
    tokio::select! {
        biased;
        greeted = greeting => greeted.ok()?.ok(),
        () = rest.ends() => None,
    }
}

/// When to look for stalled responses.
fn looks() -> Interval {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// The connection takes no further requests.
fn end(connection: &mut Http2Connection, refused: &mut RefusedRequests<'_>, rest: &mut Rest<'_>) {
    if !std::mem::replace(&mut refused.is_ending, true) {
        connection.graceful_shutdown();
    }
    rest.begin_again();
}

/// A connection that has no request.
struct Rest<'a> {
    place: &'a Place,
    since: Instant,
    /// Set once that has been so for a while: a busy connection never meets the others at their lock.
    idle: Option<Idle<'a>>,
}

impl<'a> Rest<'a> {
    fn begin(place: &'a Place) -> Self {
        Self { place, since: Instant::now(), idle: None }
    }

    fn begin_again(&mut self) {
        (self.since, self.idle) = (Instant::now(), None);
    }

    fn so_far(&self) -> Duration {
        self.since.elapsed()
    }

    /// Ready when another connection needs the place. May be dropped and asked again.
    async fn ends(&mut self) {
        if self.idle.is_none() {
            sleep_until((self.since + DOZE_AFTER).into()).await;
        }
        let place = self.place;
        self.idle.get_or_insert_with(|| place.places().idle(self.since)).must_leave().await;
    }
}

fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(limits.header_bytes_max + TAG_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    options
}

/// How long a connection without a request is kept.
fn idle_limit(limits: &Limits, is_ending: bool) -> Duration {
    if is_ending { Duration::from_millis(250) } else { limits.keepalive_timeout }
}

/// The stream of the request, which the frames have put into it. Fields of this name are not the client's.
pub(crate) fn take_stream(request: &mut RequestHeader) -> Option<u32> {
    let stream = request.headers.get_all(interim::STREAM).iter().next_back();
    let stream = stream.and_then(|stream| stream.to_str().ok()?.parse().ok());
    request.remove_header(&interim::STREAM);
    stream
}

/// Makes of the request what an HTTP/1.1 client would have sent, and checks it by the same rules (RFC 9113
/// section 8.3.1: the authority stands for the Host; section 8.2.3: a cookie may come in pieces).
pub(crate) fn to_http1(
    request: &mut RequestHeader,
    limits: &Limits,
) -> Result<std::result::Result<(), Malformed>> {
    if let Some(authority) = request.uri.authority().map(|authority| authority.as_str().to_owned()) {
        request.insert_header(header::HOST, authority)?;
    }
    let path = request.raw_path().to_vec();
    request.set_raw_path(&path)?;
    if request.headers.contains_key(header::COOKIE) {
        let crumbs: Vec<&[u8]> =
            request.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let cookie = pingora_http::header_value_from_slice(&crumbs.join(b"; ".as_slice()));
        *request = spelt(request, cookie)?;
    }
    Ok(head::check(&written(request), limits).map(|_| ()))
}

/// The same request with this cookie, whose name is spelt as backends know it: some look for `Cookie` alone. Pingora
/// keeps no spelling for requests over HTTP/2.
fn spelt(request: &RequestHeader, cookie: HeaderValue) -> Result<RequestHeader> {
    let fields = request.headers.len();
    let mut spelt = RequestHeader::build(request.method.clone(), request.raw_path(), Some(fields))?;
    spelt.set_version(request.version);
    for (name, value) in request.headers.iter().filter(|(name, _)| **name != header::COOKIE) {
        spelt.append_header(name.clone(), value.clone())?;
    }
    spelt.append_header("Cookie", cookie)?;
    Ok(spelt)
}

/// The head as HTTP/1.1 has it on the wire.
fn written(request: &RequestHeader) -> Vec<u8> {
    let mut head = [request.method.as_str().as_bytes(), b" ", request.raw_path(), b" HTTP/1.1\r\n"].concat();
    for (name, value) in &request.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
