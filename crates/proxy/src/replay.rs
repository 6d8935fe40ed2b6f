//! Bodies that can be sent again though they are longer than what Pingora keeps.
//!
//! Pingora keeps 64 KiB of a body for another attempt, and reads a longer one from the client only once. So where a
//! route wants more, the client's session is wrapped into one of our own before the first attempt: it passes everything
//! on, keeps what it reads of the body, and at each further attempt begins with that. It stays one request, with
//! one context, one record, and Pingora's own loop. At the end, or when an error is to be answered, the wrapper
//! is taken off again.

mod paced;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session as CustomSession;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::context::Context;
use crate::kept_date;
use paced::Paced;
use spool::Body;
pub(crate) use spool::Spool;

/// What Pingora keeps of a body by itself.
pub(crate) const KEPT_BY_PINGORA: u64 = 64 << 10;
/// The error type of a body that was kept and cannot be had again.
pub(crate) const BODY_LOST: ErrorType = ErrorType::Custom("RequestBodyLost");

/// What a request has to do with it.
#[derive(Debug, Default)]
pub(crate) struct Replaying(Option<Arc<Shared>>);

impl Replaying {
    /// Whether the body is kept.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

/// What the wrapper and the hooks tell each other.
#[derive(Default)]
struct Shared {
    keepalive: Mutex<Keepalive>,
    /// The session that was wrapped, when it is given back.
    given_back: Mutex<Option<Box<ServerSession>>>,
}

/// What is to become of the client's connection.
#[derive(Debug, Default)]
struct Keepalive {
    /// None: it is closed.
    seconds: Option<u64>,
    /// The client's session has not been told yet.
    is_news: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("keepalive", &self.keepalive).finish_non_exhaustive()
    }
}

/// Wraps the client's session if its body is to be kept, and may have to be sent again; or if the response is to be stored,
/// and an HTTP/2 client must not set its pace.
pub(crate) fn begin(session: &mut Session, context: &mut Context, spool: &Arc<Spool>) {
    if context.is_http2 && session.cache.enabled() && !context.is_background() && !context.has_body {
        wrap(session, context, Body::new(spool, KEPT_BY_PINGORA), true);
        return;
    }
    keep_body(session, context, spool);
}

fn keep_body(session: &mut Session, context: &mut Context, spool: &Arc<Spool>) {
    let Some(route) = &context.route else { return };
    let bytes_max = route.retry.body_bytes_max.min(route.body_bytes_max);
    if bytes_max <= KEPT_BY_PINGORA || context.is_background() || session.as_ref().is_upgrade_req() {
        return;
    }
    let request = session.req_header();
    let may_repeat = route.retry.tries.get() > 1 && route.retry.replay.allows(&request.method);
    let has_others = route.rest.is_some() || route.upstream.backends().len() > 1;
    let length = request.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let is_worth_it = length.is_none_or(|length| (KEPT_BY_PINGORA + 1..=bytes_max).contains(&length));
    if !may_repeat || !has_others || !is_worth_it || session.as_downstream_mut().is_body_done() {
        return;
    }
    wrap(session, context, Body::new(spool, bytes_max), false);
}

fn wrap(session: &mut Session, context: &mut Context, body: Body, is_paced: bool) {
    let keepalive = Mutex::new(Keepalive { seconds: session.get_keepalive(), is_news: false });
    let shared = Arc::new(Shared { keepalive, ..Shared::default() });
    let real = std::mem::replace(&mut session.downstream_session, nobody());
    let wrapper = Wrapper { real, body, shared: Arc::clone(&shared), paced: Paced::new(is_paced) };
    *session.downstream_session = ServerSession::new_custom(Box::new(wrapper));
    context.replaying = Replaying(Some(shared));
}

/// No other attempt comes: the client's session is itself again.
pub(crate) async fn end(session: &mut Session, context: &mut Context) {
    let Some(shared) = context.replaying.0.take() else { return };
    if let Some(wrapper) = session.downstream_session.as_custom_mut() {
        // It cannot fail.
        let _ = wrapper.finish_custom().await;
    }
    let given_back = shared.given_back.lock().take();
    if let Some(real) = given_back {
        session.downstream_session = real;
    }
}

/// What is to become of the client's connection, in seconds.
pub(crate) fn set_keepalive(session: &mut Session, context: &Context, keepalive: Option<u64>) {
    match &context.replaying.0 {
        Some(shared) => *shared.keepalive.lock() = Keepalive { seconds: keepalive, is_news: true },
        None => session.set_keepalive(keepalive),
    }
}

/// The same as it was said before.
pub(crate) fn keepalive(session: &Session, context: &Context) -> Option<u64> {
    match &context.replaying.0 {
        Some(shared) => shared.keepalive.lock().seconds,
        None => session.get_keepalive(),
    }
}

fn nobody() -> Box<ServerSession> {
    Box::new(ServerSession::new_custom(Box::new(())))
}

/// A session of a client, of whatever version, with a body that is kept.
struct Wrapper {
    real: Box<ServerSession>,
    body: Body,
    shared: Arc<Shared>,
    paced: Paced,
}

impl Wrapper {
    /// A header goes out; behind a final one there is no other attempt.
    fn before_header(&mut self, header: &ResponseHeader) {
        if !header.status.is_informational() {
            self.body.release();
            kept_date::keep_of(&mut self.real, header);
        }
        self.tell_keepalive();
    }

    fn tell_keepalive(&mut self) {
        let mut keepalive = self.shared.keepalive.lock();
        if std::mem::take(&mut keepalive.is_news) {
            self.real.set_keepalive(keepalive.seconds);
        }
    }
}

#[async_trait]
impl CustomSession for Wrapper {
    fn req_header(&self) -> &RequestHeader {
        self.real.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.real.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let kept = self.body.next().await;
        match kept.map_err(|error| Error::because(BODY_LOST, "reading what was kept", error))? {
            Some(piece) => Ok(Some(piece)),
            None if self.real.is_body_done() => Ok(None),
            None => {
                // What comes is taken in the same step: nothing is lost if nobody polls this to its end.
                let piece = self.real.read_body_or_idle(false).await?;
                if let Some(piece) = &piece {
                    self.body.take(piece);
                }
                Ok(piece)
            }
        }
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected {
            return self.real.read_body_or_idle(true).await;
        }
        self.read_body_bytes().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.real.drain_request_body().await
    }

    fn is_body_done(&mut self) -> bool {
        self.body.is_sent() && self.real.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.body.is_empty() && self.real.is_body_done()
    }

    /// Pingora says so at the beginning of each attempt.
    fn enable_retry_buffering(&mut self) {
        self.body.rewind();
    }

    fn retry_buffer_truncated(&self) -> bool {
        !self.body.is_kept()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn write_response_header(&mut self, header: Box<ResponseHeader>, _end: bool) -> Result<()> {
        self.before_header(&header);
        self.real.write_response_header(header).await
    }

    async fn write_response_header_ref(&mut self, header: &ResponseHeader, _end: bool) -> Result<()> {
        self.before_header(header);
        self.real.write_response_header_ref(header).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.real.write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.real.write_response_trailers(trailers).await
    }

    fn proxy_tasks_enabled(&self) -> bool {
        self.paced.is_on
    }

    fn set_proxy_tasks_enabled(&mut self, enabled: bool) {
        self.paced.is_on = enabled;
    }

    fn send_proxy_task(&mut self, task: HttpTask) {
        self.paced.add(task);
    }

    fn has_pending_proxy_tasks(&self) -> bool {
        self.paced.is_pending()
    }

    async fn write_proxy_tasks(&mut self) -> Result<bool> {
        self.paced.written(&mut self.real).await?;
        while let Some(tasks) = self.paced.next() {
            for task in &tasks {
                if let HttpTask::Header(header, _) = task {
                    self.before_header(header);
                }
            }
            self.paced.begin(&mut self.real, tasks);
            self.paced.written(&mut self.real).await?;
        }
        Ok(self.paced.is_complete())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        for task in &tasks {
            if let HttpTask::Header(header, _) = task {
                self.before_header(header);
            }
        }
        self.real.response_duplex_vec(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.real.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.real.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.real.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.real.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.real.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.real.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.real.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.real.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.real.shutdown().await;
    }

    async fn finish(&mut self) -> Result<()> {
        if self.paced.is_pending() {
            self.write_proxy_tasks().await?;
        }
        self.real.finish_body().await
    }

    /// Gives the client's session back.
    async fn finish_custom(&mut self) -> Result<()> {
        self.tell_keepalive();
        *self.shared.given_back.lock() = Some(std::mem::replace(&mut self.real, nobody()));
        Ok(())
    }

    fn body_bytes_sent(&self) -> usize {
        self.real.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.real.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.real.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.real.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.real.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.real.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.real.to_h1_raw()
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
