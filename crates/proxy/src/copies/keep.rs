//! Keeping what a backend has answered: for Pingora's phases, or as a last-good copy beside them.

use std::time::{Duration, SystemTime};

use goodgate_cache::{Admission, CopyWriter, Mode, admit, refresh_header};
use http::{Method, StatusCode};
use pingora_cache::{CachePhase, NoCacheReason, RespCacheable};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::{Copying, caching, key};
use crate::context::Context;

/// Fallback mode: decides about a final answer of a backend. In standard mode [`admit_standard`] does.
pub(crate) fn keep_last_good(context: &mut Context, session: &Session, response: &ResponseHeader) {
    let Some(route) = caching(context) else {
        return;
    };
    let Some((policy, room)) = &route.cache else {
        return;
    };
    if policy.mode == Mode::Standard || session.req_header().method != Method::GET {
        return;
    }
    let Some((key, facts)) = &context.copying.request else {
        return;
    };
    match admit(policy, facts, response, SystemTime::now()) {
        Admission::Store(meta) | Admission::KeepLastGood(meta) => {
            let writer = room.store.write(key, &session.req_header().headers, meta);
            context.copying.writer = Some(writer);
            context.copying.stored = true;
        }
        Admission::Refuse(_) => context.copying.refused = true,
    }
}

/// A 304 has come for the copy that Pingora is revalidating. Pingora takes over a few of its fields; all of
/// them are wanted (RFC 9111 section 3.2).
pub(crate) fn note_confirmation(context: &mut Context, session: &Session, response: &ResponseHeader) {
    if response.status == StatusCode::NOT_MODIFIED && session.cache.phase() == CachePhase::Stale {
        context.copying.confirmation = Some(response.headers.clone());
    }
}

/// After an unsafe request that went well, what was kept under its address is out of date (RFC 9111 section
/// 4.4). It is left for the case of failure and for nothing else.
pub(crate) fn invalidate(context: &Context, session: &Session) {
    let request = session.req_header();
    let went_well = session.response_written().is_some_and(|response| response.status.as_u16() < 400);
    if request.method.is_safe() || !went_well {
        return;
    }
    let Some((_, room)) = context.route.as_ref().and_then(|route| route.cache.as_ref()) else {
        return;
    };
    let key = key(request, context.scheme());
    if room.store.soft_purge(&key)
        && let Some(copy) = room.store.find(&key, &request.headers)
    {
        copy.outlive();
    }
}

/// Decides about the answer for Pingora's cache phases (standard mode).
pub(crate) fn admit_standard(
    context: &mut Context,
    session: &Session,
    response: &ResponseHeader,
) -> RespCacheable {
    let refuse = RespCacheable::Uncacheable(NoCacheReason::OriginNotCache);
    let Some(route) = caching(context) else {
        return refuse;
    };
    let Some((policy, room)) = &route.cache else {
        return refuse;
    };
    let Some((key, facts)) = &context.copying.request else {
        return refuse;
    };
    let confirmed = context.copying.confirmation.take().map(|header| {
        let mut response = response.clone();
        refresh_header(&mut response, &header);
        response
    });
    let response = confirmed.as_ref().unwrap_or(response);
    match admit(policy, facts, response, SystemTime::now()) {
        Admission::Store(meta) if room.store.takes(key, response) => {
            context.copying.stored = true;
            RespCacheable::Cacheable(meta)
        }
        Admission::KeepLastGood(meta) => {
            if session.req_header().method == Method::GET {
                context.copying.writer = Some(room.store.write(key, &session.req_header().headers, meta));
            }
            context.copying.refused = true;
            refuse
        }
        Admission::Store(meta)
            if session.req_header().method == Method::GET && room.store.takes_on_disk(&response.headers) =>
        {
            // Too large for memory: it goes to disk as it streams by.
            context.copying.writer = Some(room.store.write(key, &session.req_header().headers, meta));
            context.copying.stored = true;
            refuse
        }
        Admission::Store(_) | Admission::Refuse(_) => {
            context.copying.refused = true;
            if !response.status.is_server_error()
                && let Some(copy) = room.store.find(key, &session.req_header().headers)
            {
                copy.outlive();
            }
            refuse
        }
    }
}

/// See [`Copying::pause`].
const PAUSE: Duration = Duration::from_millis(1);

impl Copying {
    /// A piece of the answer's body. With the last one the copy is there, before the client has it all: who
    /// has seen an answer can rely on its copy.
    pub(crate) fn push(&mut self, data: Option<&bytes::Bytes>, is_end: bool) {
        if let (Some(writer), Some(data)) = (&mut self.writer, data)
            && !writer.push(data)
        {
            self.writer = None;
            self.stored = false;
        }
        if is_end {
            self.end(true);
        }
    }

    /// How long the backend should pause, so that the disk can follow. It is a millisecond at a time: a disk that
    /// is too slow for good loses the copy.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let is_behind = self.writer.as_ref().is_some_and(CopyWriter::is_behind);
        is_behind.then_some(PAUSE)
    }

    /// The answer is complete (or was not: then nothing is kept).
    pub(crate) fn end(&mut self, complete: bool) {
        if let Some(writer) = self.writer.take()
            && complete
        {
            writer.finish();
        }
    }
}
