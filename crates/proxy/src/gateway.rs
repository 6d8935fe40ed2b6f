//! The only implementation of Pingora's proxy trait. Each hook calls a room and maps its answer.

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use pingora_cache::key::HashBinary;
use pingora_cache::{CacheKey, CacheMeta, ForcedFreshness, HitHandler, NoCacheReason, RespCacheable};
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, RangeType, Session};

use crate::answer;
use crate::attempt::Connection;
use crate::context::{Client, Context};
use crate::route::Route;
use crate::snapshot::Live;
use crate::{
    begin, classify, copies, exchange, finish, forward, gate, http2, mirror, own, peer, replay, verdict,
};

/// The gateway as Pingora calls it.
#[derive(Debug)]
pub(crate) struct Gateway {
    live: Arc<Live>,
}

impl Gateway {
    /// A gateway over the running state.
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Self { live }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed, since Pingora moves it from step to step.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        Box::new(Context::new())
    }

    fn init_downstream_modules(&self, _modules: &mut pingora_core::modules::http::HttpModules) {}

    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        context: &mut Box<Context>,
        client: Box<dyn Any + Send + Sync>,
    ) {
        context.client = client.downcast::<Arc<Client>>().ok().map(|client| *client);
    }

    async fn early_request_filter(&self, session: &mut Session, context: &mut Box<Context>) -> Result<()> {
        let sender = copies::take_background(session, context);
        if session.is_http2() {
            context.is_http2 = true;
            context.client = http2::client();
        }
        mirror::hand(session, context);
        begin::begin(&self.live, session, context, sender)
    }

    fn allow_spawning_subrequest(&self, _session: &Session, context: &Box<Context>) -> bool {
        let may_spawn = |route: &Arc<Route>| context.copying.request.is_some() || route.mirror.is_some();
        !context.is_background() && context.route.as_ref().is_some_and(may_spawn)
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Box<Context>) -> Result<bool> {
        if let Some(error) = begin::refusal(session, context) {
            if !begin::keeps_connection(session, context, error) {
                session.set_keepalive(None);
            }
            // Boxed, here and where this calls: what is rare must not make the future of every request larger.
            Box::pin(answer::write(session, context, error)).await?;
            return Ok(true);
        }
        Ok(own::redirect_to_https(session, context).await?
            || gate::answer(session, context).await?
            || copies::answer_purge(session, context).await?
            || own::answer(session, context).await?
            || copies::answer_early(session, context).await?)
    }

    fn request_cache_filter(&self, session: &mut Session, context: &mut Box<Context>) -> Result<()> {
        copies::enable_standard(session, context);
        Ok(())
    }

    fn cache_key_callback(&self, _session: &Session, context: &mut Box<Context>) -> Result<CacheKey> {
        let request = context.copying.request.as_ref();
        let key =
            request.ok_or_else(|| Error::explain(pingora_error::ErrorType::InternalError, "no cache key"))?;
        Ok(key.0.to_pingora())
    }

    fn cache_vary_filter(
        &self,
        meta: &CacheMeta,
        context: &mut Box<Context>,
        request: &RequestHeader,
    ) -> Option<HashBinary> {
        copies::variance(request, context, meta)
    }

    async fn cache_hit_filter(
        &self,
        session: &mut Session,
        meta: &CacheMeta,
        hit: &mut HitHandler,
        is_fresh: bool,
        context: &mut Box<Context>,
    ) -> Result<Option<ForcedFreshness>> {
        copies::hold_nothing_back(session, hit);
        if copies::must_not_wait(meta) {
            session.cache.set_cache_lock(None, None);
        }
        Ok(copies::judge_hit(context, meta, is_fresh))
    }

    fn cache_not_modified_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        _context: &mut Box<Context>,
    ) -> Result<bool> {
        Ok(copies::is_not_modified(session, response))
    }

    fn range_header_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _context: &mut Box<Context>,
    ) -> RangeType {
        copies::cut_to_range(session, response)
    }

    fn cache_miss(&self, session: &mut Session, context: &mut Box<Context>) {
        if copies::fills_on_miss(context) {
            session.cache.cache_miss();
        } else {
            session.cache.disable(NoCacheReason::Deferred);
        }
    }

    async fn proxy_upstream_filter(&self, session: &mut Session, context: &mut Box<Context>) -> Result<bool> {
        let may_proceed = exchange::may_proceed(session, context).await?;
        if may_proceed {
            mirror::begin(session, context);
            replay::begin(session, context, &self.live.spool);
        }
        Ok(may_proceed)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut Box<Context>,
    ) -> Result<Box<HttpPeer>> {
        exchange::await_lookups(context).await;
        exchange::next_peer(&self.live.kept, session, context).await
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Box<Context>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let to = context.attempting.lease().map(|lease| lease.backend().address);
        let cause = classify::connecting(&error, to);
        context.attempting.note_detail(classify::detail(&error));
        error.set_retry(exchange::failed(session, context, cause));
        error
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        socket: RawFd,
        digest: Option<&Digest>,
        context: &mut Box<Context>,
    ) -> Result<()> {
        let tls = digest.and_then(peer::tls_time);
        let shown =
            digest.and_then(|digest| digest.ssl_digest.as_ref()).map(|tls| tls.cert_digest.as_slice());
        let connection = Connection { reused, socket, tls, shown };
        exchange::connected(&self.live.kept, session, context, &connection)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Box<Context>,
    ) -> Result<()> {
        if copies::hides_validators(session, context) {
            for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
                request.remove_header(&name);
                session.req_header_mut().remove_header(&name);
            }
        }
        let (Some(route), Some(lease)) = (&context.route, context.attempting.lease()) else {
            return Ok(());
        };
        forward::request(request, session.req_header(), context, route, lease.backend(), &self.live.trail)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        context: &mut Box<Context>,
    ) -> Result<()> {
        if session.was_upgraded() {
            context.moved();
            return Ok(());
        }
        if is_end && body.as_ref().is_some_and(Bytes::is_empty) {
            // Pingora would write an empty piece as a chunk, which is a last chunk before the last chunk.
            *body = None;
        }
        exchange::request_body(context, body.as_ref(), is_end)?;
        mirror::sent(session, context, body.as_ref(), is_end);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Box<Context>,
    ) -> Result<()> {
        if response.status.as_u16() >= 400 {
            copies::load(session, context).await;
        }
        copies::note_snapshot(context, &self.live);
        exchange::response_header(session, response, context).await
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        context: &mut Box<Context>,
    ) -> Result<Option<Duration>> {
        exchange::response_body(context, body.as_ref(), is_end)?;
        Ok(copies::keep_with_client(session, context).or_else(|| context.copying.pause()))
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        context: &mut Box<Context>,
    ) -> Result<RespCacheable> {
        Ok(copies::admit_standard(context, session, response))
    }

    fn should_serve_stale(
        &self,
        _session: &mut Session,
        _context: &mut Box<Context>,
        _error: Option<&Error>,
    ) -> bool {
        // Stale responses are served by `copies`, for failures and during a refresh, before and after the attempts.
        false
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Box<Context>,
    ) -> Result<()> {
        if self.live.is_draining() {
            replay::set_keepalive(session, context, None);
        } else if context.kept_for.is_some() && !response.status.is_informational() {
            let is_complete = session.as_downstream_mut().is_body_done();
            replay::set_keepalive(session, context, context.kept_for.filter(|_| is_complete));
        }
        finish::dress(session, response, context)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Box<Context>,
        _reused: bool,
    ) -> Box<Error> {
        let retry = exchange::broke(session, context, &mut error);
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Box<Context>,
    ) -> FailToProxy {
        replay::end(session, context).await;
        let status = verdict::give_up(session, context, error).await;
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Box<Context>) {
        replay::end(session, context).await;
        finish::finish(&self.live, session, context, error);
    }

    fn suppress_error_log(&self, _session: &Session, _context: &Box<Context>, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _context: &Box<Context>,
        _error: &Error,
        _at: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
