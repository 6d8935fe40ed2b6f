//! Keeping what a backend has answered: for Pingora's phases, or as a last-good copy beside them.

use std::time::{Duration, SystemTime};

use goodgate_cache::{
    Admission, CopyWriter, Header, Key, Mode, Moment, RequestFacts, Store, StoredCopy, admit, is_deceptive,
    is_of_another, may_displace, may_share, objection_to_304, refresh_header,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_cache::{CacheMeta, CachePhase, NoCacheReason, RespCacheable};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{Copying, caching};
use crate::context::Context;
use crate::effective_request::EffectiveRequest;

const DECEPTIVE: &str = "the type of the answer is not that of its address";

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
    if is_deceptive(session.req_header().uri.path(), response) {
        context.copying.refused = Some(DECEPTIVE);
        return;
    }
    match admit(policy, facts, response, Moment::now()) {
        Admission::Store(mut meta) | Admission::KeepLastGood(mut meta) => {
            context.copying.generation.stamp(&mut meta);
            let sent = EffectiveRequest::new(session.req_header(), context);
            let writer = room.store.write(key, &sent, meta);
            context.copying.writer = Some(writer);
            context.copying.stored = true;
        }
        Admission::Refuse(reason) => context.copying.refused = Some(reason),
    }
}

/// A 304 has come for the copy that Pingora is revalidating. Pingora takes over a few of its fields; all of
/// them are wanted (RFC 9111 section 3.2), or none where the 304 speaks of another response (section 4.3.4).
pub(crate) fn note_confirmation(context: &mut Context, session: &Session, response: &mut ResponseHeader) {
    if response.status != StatusCode::NOT_MODIFIED || session.cache.phase() != CachePhase::Stale {
        return;
    }
    let asked_about = session.cache.maybe_cache_meta().map(CacheMeta::headers);
    if asked_about.is_some_and(|stored| is_of_another(stored, &response.headers)) {
        let names: Vec<HeaderName> = response.headers.keys().cloned().collect();
        for name in names {
            response.remove_header(&name);
        }
        context.copying.is_unconfirmed = true;
        return;
    }
    context.copying.confirmation = Some(response.headers.clone());
}

/// Decides about the answer for Pingora's cache phases (standard mode).
pub(crate) fn admit_standard(
    context: &mut Context,
    session: &Session,
    response: &ResponseHeader,
) -> RespCacheable {
    let now = Moment::now();
    match confirmed(context, session, response, now.wall) {
        Ok(confirmed) => admit_response(context, session, confirmed.as_ref().unwrap_or(response), now),
        Err(reason) => {
            context.copying.refused = Some(reason);
            RespCacheable::Uncacheable(NoCacheReason::OriginNotCache)
        }
    }
}

/// The header of the stored response that a 304 has confirmed, if one has come; an error says why it confirms nothing.
fn confirmed(
    context: &mut Context,
    session: &Session,
    response: &ResponseHeader,
    now: SystemTime,
) -> std::result::Result<Option<ResponseHeader>, &'static str> {
    if context.copying.is_unconfirmed {
        return Err("the 304 is of another answer");
    }
    let Some(header) = context.copying.confirmation.take() else {
        return Ok(None);
    };
    let held = session.cache.maybe_cache_meta().zip(context.copying.request.as_ref());
    match held.and_then(|(held, (_, facts))| objection_to_304(held.headers(), &header, facts)) {
        Some(reason) => Err(reason),
        None => Ok(Some(renewed(response, &header, now))),
    }
}

fn admit_response(
    context: &mut Context,
    session: &Session,
    response: &ResponseHeader,
    now: Moment,
) -> RespCacheable {
    let refuse = RespCacheable::Uncacheable(NoCacheReason::OriginNotCache);
    let Some(route) = caching(context) else {
        return refuse;
    };
    let (Some((policy, room)), Some((key, facts))) = (&route.cache, &context.copying.request) else {
        return refuse;
    };
    let request = session.req_header();
    let stored = room.store.find(key, &EffectiveRequest::new(request, context));
    let mut admission = match objection(request, response, stored.as_ref()) {
        Some(reason) => Admission::Refuse(reason),
        None => admit(policy, facts, response, now),
    };
    if let Admission::Store(meta) | Admission::KeepLastGood(meta) = &mut admission {
        context.copying.generation.stamp(meta);
    }
    match admission {
        Admission::Store(meta) if room.store.takes(key, response) => {
            context.copying.stored = true;
            context.copying.withheld = withheld(response, &meta);
            RespCacheable::Cacheable(meta)
        }
        Admission::KeepLastGood(meta) => {
            if request.method == Method::GET {
                let sent = EffectiveRequest::new(request, context);
                context.copying.writer = Some(room.store.write(key, &sent, meta));
            }
            context.copying.refused = Some("it is kept only for the case of failure");
            note_unstorable(&room.store, key, facts);
            refuse
        }
        Admission::Store(meta)
            if request.method == Method::GET && room.store.takes_on_disk(&response.headers) =>
        {
            // Too large for memory: it goes to disk as it streams by.
            let sent = EffectiveRequest::new(request, context);
            context.copying.writer = Some(room.store.write(key, &sent, meta));
            context.copying.stored = true;
            refuse
        }
        unkept @ (Admission::Store(_) | Admission::Refuse(_)) => {
            let reason = if let Admission::Refuse(reason) = unkept { reason } else { "it is too large" };
            context.copying.refused = Some(reason);
            if !response.status.is_server_error() {
                note_unstorable(&room.store, key, facts);
                // The response to a personal request says nothing of the one that others get.
                stored.filter(|copy| may_share(&copy.info(), facts, policy)).inspect(StoredCopy::outlive);
            }
            refuse
        }
    }
}

/// Requests for the key need not wait for one another. A response to one person says nothing of those to others.
fn note_unstorable(store: &Store, key: &Key, facts: &RequestFacts) {
    if !facts.is_personal && !facts.is_authorized {
        store.note_unstorable(key);
    }
}

/// The header of a copy that a 304 has confirmed.
fn renewed(response: &ResponseHeader, header: &HeaderMap, now: SystemTime) -> ResponseHeader {
    let mut response = response.clone();
    refresh_header(&mut response, header, now);
    response
}

/// What speaks against a copy besides the answer's own words.
fn objection(
    request: &RequestHeader,
    response: &ResponseHeader,
    stored: Option<&StoredCopy>,
) -> Option<&'static str> {
    if is_deceptive(request.uri.path(), response) {
        return Some(DECEPTIVE);
    }
    let displaces = |copy: &StoredCopy| may_displace(copy.status(), response.status);
    (!stored.is_none_or(displaces)).then_some("it would displace a good answer")
}

/// What `no-cache` has named, and `Age`: the client who asked gets it, though Pingora sends the header of the copy.
fn withheld(response: &ResponseHeader, meta: &CacheMeta) -> Vec<(HeaderName, HeaderValue)> {
    let is_withheld = |name: &HeaderName| {
        *name == header::AGE || !meta.headers().contains_key(name) && *name != header::TRANSFER_ENCODING
    };
    let fields = response.headers.iter().filter(|(name, _)| is_withheld(name));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Adds to the answer what its copy was denied.
pub(crate) fn give_back_withheld(response: &mut ResponseHeader, context: &mut Context) -> Result<()> {
    let mut withheld = std::mem::take(&mut context.copying.withheld);
    withheld.retain(|(name, _)| !response.headers.contains_key(name));
    withheld.into_iter().try_for_each(|(name, value)| response.append_header(name, value).map(drop))
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
