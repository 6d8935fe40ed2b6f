//! A client's session that is written to beside everything else, for HTTP/2: what is stored comes in at the backend's
//! pace while the client takes what it can. For HTTP/1.1 Pingora's own session does so.
//!
//! A write that is under way owns the session, so that it can be left and resumed; a stand-in has its place meanwhile.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session as CustomSession;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

type Write = Pin<Box<dyn Future<Output = (Box<ServerSession>, Result<bool>)> + Send>>;

/// What waits to be written, and the write under way.
#[derive(Default)]
pub(super) struct Paced {
    pub(super) is_on: bool,
    queue: VecDeque<HttpTask>,
    /// Nobody but its owner touches it: the lock only makes it shareable.
    writing: Option<Mutex<Write>>,
    is_complete: bool,
}

impl Paced {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, ..Self::default() }
    }

    pub(super) fn add(&mut self, task: HttpTask) {
        self.queue.push_back(task);
    }

    pub(super) fn is_pending(&self) -> bool {
        self.writing.is_some() || !self.queue.is_empty()
    }

    /// Takes what is to be written next; none while a write is under way.
    pub(super) fn next(&mut self) -> Option<Vec<HttpTask>> {
        (self.writing.is_none() && !self.queue.is_empty()).then(|| self.queue.drain(..).collect())
    }

    /// Begins to write. The session is given back by [`Paced::written`].
    pub(super) fn begin(&mut self, real: &mut Box<ServerSession>, tasks: Vec<HttpTask>) {
        let header = tasks.iter().find_map(|task| {
            if let HttpTask::Header(header, _) = task { Some((**header).clone()) } else { None }
        });
        let stand_in = StandIn {
            request: real.req_header().clone(),
            response: header.or_else(|| real.response_written().cloned()),
            sent: real.body_bytes_sent(),
            read: real.body_bytes_read(),
        };
        let stand_in = Box::new(ServerSession::new_custom(Box::new(stand_in)));
        let mut session = std::mem::replace(real, stand_in);
        self.writing = Some(Mutex::new(Box::pin(async move {
            let result = session.response_duplex_vec(tasks).await;
            (session, result)
        })));
    }

    /// Waits for the write under way, if there is one. It can be left and waited for again.
    pub(super) async fn written(&mut self, real: &mut Box<ServerSession>) -> Result<()> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let (session, result) = poll_fn(|context| writing.get_mut().as_mut().poll(context)).await;
        self.writing = None;
        *real = session;
        if result.is_err() {
            // The client has left.
            self.queue.clear();
        }
        self.is_complete |= result?;
        Ok(())
    }

    /// Whether the end of the response has been written.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }
}

/// In the place of a session that is being written to.
struct StandIn {
    request: RequestHeader,
    response: Option<ResponseHeader>,
    sent: usize,
    read: usize,
}

fn busy<T>() -> Result<T> {
    Err(Error::explain(ErrorType::InternalError, "the session is being written to"))
}

#[async_trait]
impl CustomSession for StandIn {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// That the client leaves is seen by the write.
    async fn read_body_or_idle(&mut self, _no_body_expected: bool) -> Result<Option<Bytes>> {
        pending().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    fn is_body_done(&mut self) -> bool {
        true
    }

    fn is_body_empty(&mut self) -> bool {
        true
    }

    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn write_response_header(&mut self, _header: Box<ResponseHeader>, _end: bool) -> Result<()> {
        busy()
    }

    async fn write_response_header_ref(&mut self, _header: &ResponseHeader, _end: bool) -> Result<()> {
        busy()
    }

    async fn write_body(&mut self, _data: Bytes, _end: bool) -> Result<()> {
        busy()
    }

    async fn write_trailers(&mut self, _trailers: HeaderMap) -> Result<()> {
        busy()
    }

    async fn response_duplex_vec(&mut self, _tasks: Vec<HttpTask>) -> Result<bool> {
        busy()
    }

    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    fn request_summary(&self) -> String {
        String::new()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.response.as_ref()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {}

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.read
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
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
