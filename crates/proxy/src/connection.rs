//! The connection loop in front of Pingora: accept, wait for a request, read and check its head, hand it
//! on, and again.
//!
//! Pingora has no limit on a whole header, answers bad heads without telling, and keeps large buffers for
//! idle connections. Here a connection that waits holds no buffer, a head has one deadline and one size
//! limit, every refusal has its counter and its log record, and a stop is gentle: a request that is on its
//! way when the stop comes is still answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use goodgate_config::{Limits, TARGET_BYTES_MAX};
use goodgate_telemetry::{ListenerMetrics, Refused};
use log::warn;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use pingora_timeout::fast_timeout::fast_timeout;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};

use crate::admission::Admitted;
use crate::chunks::Chunks;
use crate::context::Client;
use crate::gateway::Gateway;
use crate::grant::Grant;
use crate::head::{self, Framing, Malformed};
use crate::lane::{self, Luck, Outcome};
use crate::listener::Entrance;
use crate::places::Place;
use crate::snapshot::Live;
use crate::stream::ClientStream;
use crate::target_escape::{self, TargetEdit};
use crate::watchdog::Alarm;

/// How long a kept connection may still bring a request after the stop has begun.
const STOP_GRACE: Duration = Duration::from_millis(250);
/// How long a connection waits for its next request before it gives up its buffers.
pub(crate) const DOZE_AFTER: Duration = Duration::from_secs(1);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// RFC 9112 section 2.2: an empty line or two before a request is ignored.
const EMPTY_LINES_MAX: u32 = 8;

/// One listener with all that its connections need.
#[derive(Debug)]
pub struct Door {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) live: Arc<Live>,
    pub(crate) entrance: Arc<Entrance>,
    pub(crate) metrics: ListenerMetrics,
    pub(crate) shutdown: ShutdownWatch,
}

/// Pingora's proxy, shared by all listeners: it holds the pool of backend connections.
pub struct Proxy(pub(crate) Arc<HttpProxy<Gateway>>);

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proxy")
    }
}

impl Proxy {
    /// Pingora's proxy over the running state.
    pub fn new(live: &Arc<Live>, conf: &Arc<ServerConf>) -> Arc<Self> {
        Arc::new(Self(Arc::new(http_proxy(conf, Gateway::new(Arc::clone(live))))))
    }
}

/// What a wait for the next request ended with.
enum Wait {
    Request,
    Closed,
}

impl Wait {
    /// Closed or broken: nobody waits for an answer.
    fn of(read: &io::Result<usize>) -> Self {
        if matches!(read, Ok(count) if *count > 0) { Self::Request } else { Self::Closed }
    }
}

impl Door {
    /// The door of the listener that stands at this place in the configuration, bound to `address`. None if there
    /// is no such listener.
    pub fn new(
        proxy: &Arc<Proxy>,
        live: &Arc<Live>,
        shutdown: ShutdownWatch,
        at: usize,
        address: SocketAddr,
    ) -> Option<Arc<Self>> {
        let entrance = Arc::clone(live.entrance(at)?);
        let metrics = ListenerMetrics::new(live.metrics(), address);
        Some(Arc::new(Self { proxy: Arc::clone(proxy), live: Arc::clone(live), entrance, metrics, shutdown }))
    }

    /// Accepts until the stop; then takes what has been waiting in the queue, and returns.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut shutdown = self.shutdown.clone();
        while !*shutdown.borrow() {
            tokio::select! {
                accepted = listener.accept() => self.enter(accepted).await,
                // An error means that the sender is gone, and that is the stop as well.
                _ = shutdown.changed() => {}
            }
        }
        while let Ok(accepted) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
            self.enter(accepted).await;
        }
    }

    async fn enter(self: &Arc<Self>, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((tcp, address)) => {
                let door = Arc::clone(self);
                pingora_runtime::current_handle().spawn(async move { door.serve(tcp, address).await });
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                warn!(error:% = error; "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Serves one connection to its end.
    async fn serve(self: &Arc<Self>, tcp: TcpStream, address: SocketAddr) {
        self.metrics.idle.inc();
        let admitted = self.admit(tcp, address).await;
        self.metrics.idle.dec();
        let Some(Admitted { mut stream, client, place }) = admitted else {
            return;
        };
        if stream.speaks_http2() {
            return self.serve_http2(stream, &client, &place).await;
        }
        let (mut alarm, mut idle_alarm) = (Alarm::default(), Alarm::default());
        let (mut requests, mut luck): (u32, _) = (0, Luck::default());
        loop {
            let limits = Arc::clone(&self.live.snapshot().limits);
            stream.keep_pace(&limits);
            self.metrics.idle.inc();
            let wait = self.wait(&mut stream, limits.keepalive_timeout, &mut idle_alarm, &place).await;
            self.metrics.idle.dec();
            let Wait::Request = wait else {
                return stream.say_goodbye();
            };
            let _under_way = UnderWay::new(&self.live, &self.metrics.active);
            match read_head(&mut stream, &limits).await {
                Ok(Some((length, Framing::Length(0))))
                    if requests + 1 < limits.requests_per_connection_max =>
                {
                    match lane::try_to_answer(&self.live, &mut stream, &client, length, &mut luck).await {
                        Outcome::Passed => grant(&mut stream, length, Framing::Length(0)),
                        Outcome::Answered => {
                            requests += 1;
                            continue;
                        }
                        Outcome::Gone => return,
                    }
                }
                Ok(Some((length, framing))) => grant(&mut stream, length, framing),
                Ok(None) => return,
                Err(malformed) => {
                    self.live.metrics().refused(malformed.reason);
                    return self.refuse(stream, &client, &limits, malformed.into()).await;
                }
            }
            requests = requests.saturating_add(1);
            let is_last = requests >= limits.requests_per_connection_max;
            match self.request(stream, &client, &limits, is_last, &mut alarm).await {
                // Whatever is left of a request must not be read as the next one.
                Some(next) if next.is_spent() => stream = next,
                Some(_) | None => return,
            }
        }
    }

    /// One request, from its head to its end; the stream if the connection is kept.
    async fn request(
        &self,
        stream: Box<ClientStream>,
        client: &Arc<Client>,
        limits: &Limits,
        is_last: bool,
        alarm: &mut Alarm,
    ) -> Option<Box<ClientStream>> {
        let is_last = is_last || stream.asks_to_switch();
        let mut session = ServerSession::new_http1(stream);
        session.set_connection_user_context(Some(Box::new(Arc::clone(client))));
        session.set_keepalive(Some(limits.keepalive_timeout.as_secs().max(1)));
        session.set_keepalive_reuses_remaining(is_last.then_some(0));
        session.set_read_timeout(Some(limits.body_timeout));
        session.set_total_drain_timeout(Some(limits.body_timeout));
        client.is_recorded.store(false, Ordering::Relaxed);
        let exchange = self.proxy.0.process_new_http(session, &self.shutdown);
        let kept = client.watchdog.watch(alarm, exchange).await;
        self.record_if_missing(client);
        let kept = kept?;
        let (stream, _settings) = kept.consume();
        stream.into_any().downcast().ok()
    }

    /// Waits for the first byte of a request.
    async fn wait(
        &self,
        stream: &mut ClientStream,
        limit: Duration,
        alarm: &mut Alarm,
        place: &Place,
    ) -> Wait {
        stream.end_request();
        if !stream.ahead().is_empty() {
            return Wait::Request;
        }
        let limit = if self.live.is_draining() { STOP_GRACE } else { limit };
        // A busy client is back in no time: only one that is not makes the connection give up its buffers.
        let deadline = Instant::now() + limit.min(DOZE_AFTER);
        if let Some(read) = alarm.race(deadline, stream.read_ahead()).await {
            return Wait::of(&read);
        }
        match limit.checked_sub(DOZE_AFTER) {
            Some(left) => self.doze(stream, left, place).await,
            None => Wait::Closed,
        }
    }

    /// The long wait, without buffers; a stop ends it, and so does the need for its place.
    async fn doze(&self, stream: &mut ClientStream, limit: Duration, place: &Place) -> Wait {
        stream.rest();
        let mut shutdown = self.shutdown.clone();
        let idle = place.places().idle(Instant::now());
        let read = tokio::select! {
            biased;
            read = fast_timeout(limit, stream.read_ahead()) => read,
            _ = shutdown.changed() => fast_timeout(STOP_GRACE, stream.read_ahead()).await,
            () = idle.must_leave() => return Wait::Closed,
        };
        read.map_or(Wait::Closed, |read| Wait::of(&read))
    }
}

/// Reads until the head is complete and checks it: its length and framing; nothing if the client left.
async fn read_head(
    stream: &mut ClientStream,
    limits: &Limits,
) -> Result<Option<(usize, Framing)>, Malformed> {
    let mut deadline = None;
    let mut seen = 0;
    let mut empty_lines = 0;
    loop {
        while empty_lines < EMPTY_LINES_MAX && stream.ahead().starts_with(b"\r\n") {
            stream.discard(2);
            (empty_lines, seen) = (empty_lines + 1, 0);
        }
        if let Some(length) = head::find_end(stream.ahead(), seen)? {
            let bytes = stream.ahead().get(..length).unwrap_or_default();
            if length > limits.header_bytes_max {
                return Err(TOO_LONG);
            }
            let framing = head::check(bytes, limits)?;
            return Ok(Some((escape_target(stream, length, limits)?, framing)));
        }
        seen = stream.ahead().len();
        if seen > limits.header_bytes_max {
            return Err(TOO_LONG);
        }
        head::may_begin(stream.ahead())?;
        // Most heads come in one piece: only those that do not need a deadline.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.header_timeout);
        let left = deadline.saturating_duration_since(Instant::now());
        match fast_timeout(left, stream.read_ahead()).await {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return Ok(None),
            Err(_) => return Err(TOO_SLOW),
        }
    }
}

/// Escapes the target of the checked head in front of the stream, if it must be. The length of the head.
fn escape_target(stream: &mut ClientStream, head: usize, limits: &Limits) -> Result<usize, Malformed> {
    let bytes = stream.ahead().get(..head).unwrap_or_default();
    let Some(TargetEdit { at, with }) = target_escape::escape_target(bytes) else {
        return Ok(head);
    };
    let length = head - at.len() + with.len();
    if with.len() > TARGET_BYTES_MAX {
        return Err(head::TARGET_TOO_LONG);
    }
    if length > limits.header_bytes_max {
        return Err(TOO_LONG);
    }
    stream.replace_ahead(at, &with);
    Ok(length)
}

const TOO_LONG: Malformed =
    Malformed { status: 431, reason: Refused::HeaderTooLarge, what: "the request header is too long" };
const TOO_SLOW: Malformed = Malformed {
    status: 408,
    reason: Refused::HeaderTimeout,
    what: "the request header did not come in time",
};

fn grant(stream: &mut ClientStream, head: usize, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            stream.grant(Grant::Bytes((head as u64).saturating_add(length)), length > 0);
        }
        Framing::Chunked => stream.grant(Grant::Chunked(Chunks::behind(head)), true),
        Framing::Upgrade => stream.grant_switch(head),
    }
}

/// Errors of `accept` that concern one client only.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Counts a request as under way as long as it lives, whatever ends it.
pub(crate) struct UnderWay<'a> {
    live: &'a Live,
    active: &'a IntGauge,
}

impl<'a> UnderWay<'a> {
    pub(crate) fn new(live: &'a Live, active: &'a IntGauge) -> Self {
        live.request_begins();
        active.inc();
        Self { live, active }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.active.dec();
        self.live.request_ends();
    }
}
