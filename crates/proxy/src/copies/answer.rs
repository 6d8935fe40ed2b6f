//! Writing a copy as the answer.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use goodgate_cache::{Header, Part, Stale, StoredCopy, clock, is_not_modified, part};
use goodgate_telemetry::{By, CacheResult, Origin};
use http::{HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::http::conditional_filter::to_304;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{RangeType, Session, range_header_filter};

use super::Rescue;
use crate::context::Context;
use crate::{kept_date, rules};

/// A copy that answers, and what is said of it.
pub(crate) struct Ready {
    pub(crate) copy: StoredCopy,
    age: Duration,
    status: Option<String>,
}

/// A fresh copy is to answer.
pub(super) fn fresh(context: &mut Context, copy: &StoredCopy) -> Ready {
    let age = copy.standing().age(clock::now());
    note(context, CacheResult::Hit, age);
    let status = says_status(context).then(|| format!("goodgate; hit; ttl={}", seconds_left(copy)));
    Ready { copy: copy.clone(), age, status }
}

/// The copy that was chosen in place of a failure is to answer.
pub(super) fn rescuing(context: &mut Context) -> Option<Ready> {
    let Rescue { copy, stale, cause } = context.copying.chosen.take()?;
    note(context, CacheResult::Stale, stale.age);
    context.outcome.rescue = Some((By::Stale, cause));
    if let Some(route) = &context.route {
        route.metrics.stale_age(stale.past_freshness);
    }
    let status = says_status(context).then(|| stale_status(&copy, stale, cause.name()));
    Some(Ready { copy, age: stale.age, status })
}

/// Writes a fresh copy.
pub(super) async fn serve_fresh(
    session: &mut Session,
    context: &mut Context,
    copy: &StoredCopy,
) -> Result<()> {
    let ready = fresh(context, copy);
    write(session, context, ready).await
}

/// Writes an old copy though nothing has failed.
pub(super) async fn serve_instead(
    session: &mut Session,
    context: &mut Context,
    copy: &StoredCopy,
    stale: Stale,
) -> Result<()> {
    note(context, CacheResult::Stale, stale.age);
    let status = says_status(context).then(|| stale_status(copy, stale, "maintenance"));
    write(session, context, Ready { copy: copy.clone(), age: stale.age, status }).await
}

/// Writes an old copy while a newer response is fetched behind the client's back (RFC 5861 section 3).
pub(super) async fn serve_updating(
    session: &mut Session,
    context: &mut Context,
    copy: &StoredCopy,
) -> Result<()> {
    let age = copy.standing().age(clock::now());
    note(context, CacheResult::Updating, age);
    let status = says_status(context);
    let status = status.then(|| format!("goodgate; hit; ttl={}; detail=updating", seconds_left(copy)));
    write(session, context, Ready { copy: copy.clone(), age, status }).await
}

/// Writes the copy that was chosen in place of a failure.
pub(crate) async fn serve(session: &mut Session, context: &mut Context) -> Result<()> {
    match rescuing(context) {
        Some(ready) => write(session, context, ready).await,
        None => Ok(()),
    }
}

/// Below zero once it is stale, as a request may take it.
fn seconds_left(copy: &StoredCopy) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let left = copy.standing().fresh_until.duration_since(clock::now());
    left.map_or_else(|past| -seconds(past.duration()), seconds)
}

/// RFC 9211, with why the backend did not answer.
fn stale_status(copy: &StoredCopy, stale: Stale, why: &str) -> String {
    if stale.past_freshness.is_zero() && copy.standing().is_fresh(clock::now()) {
        return format!("goodgate; hit; ttl={}; detail=fresh-{why}", seconds_left(copy));
    }
    let left = 0 - i64::try_from(stale.past_freshness.as_secs()).unwrap_or(i64::MAX);
    let overridden = if stale.is_overridden { "-override" } else { "" };
    format!("goodgate; hit; ttl={left}; detail=stale-{why}{overridden}")
}

fn note(context: &mut Context, result: CacheResult, age: Duration) {
    context.outcome.origin = Origin::Cache;
    context.outcome.cause = None;
    context.outcome.cache = Some(result);
    context.outcome.age = Some(age);
}

fn says_status(context: &Context) -> bool {
    let cache = context.route.as_ref().and_then(|route| route.cache.as_ref());
    cache.is_some_and(|(policy, _)| policy.status_header)
}

/// What of the copy's body the request is for.
pub(super) fn wanted_part(request: &RequestHeader, copy: &StoredCopy, now: SystemTime) -> Part {
    if request.method != Method::GET {
        return Part::Whole;
    }
    part(&request.headers, copy, copy.body_len(), now)
}

/// Whether the client has what the copy is, and else what of it is wanted. Most requests ask for no less than all.
fn reduce(request: &RequestHeader, context: &Context, copy: &StoredCopy) -> (bool, Part) {
    let facts = context.copying.request.as_ref().map(|(_, facts)| facts);
    if !facts.is_some_and(|facts| facts.is_conditional || facts.is_range) {
        return (false, Part::Whole);
    }
    let now = SystemTime::now();
    if is_not_modified(&request.headers, copy, now) {
        (true, Part::Whole)
    } else {
        (false, wanted_part(request, copy, now))
    }
}

impl Ready {
    /// Appends the head of the answer as it goes out, but for its last line, and says its status; none where the route
    /// changes fields, or where it is not for the whole body that the request is.
    pub(crate) fn plain_head(&self, context: &Context, to: &mut BytesMut) -> Option<StatusCode> {
        let route = context.route.as_deref()?;
        let (_, facts) = context.copying.request.as_ref()?;
        let copy = &self.copy;
        let is_plain = route.response_headers.is_empty() && !facts.is_conditional && !facts.is_range;
        if !is_plain || copy.status() == StatusCode::NO_CONTENT {
            return None;
        }
        to.reserve(copy.head().len() + OWN_FIELDS_BYTES);
        to.extend_from_slice(copy.head());
        let mut number = itoa::Buffer::new();
        if !copy.has_length() {
            put(to, "Content-Length", number.format(copy.body_len()).as_bytes());
        }
        if !copy.has_date() {
            put(to, "Date", get_cached_date().as_bytes());
        }
        put(to, "Age", number.format(self.age.as_secs()).as_bytes());
        put(to, "X-Request-Id", context.request_id.as_str().as_bytes());
        if let Some(status) = &self.status {
            put(to, "Cache-Status", status.as_bytes());
        }
        Some(copy.status())
    }

    /// The header of the answer, and which bytes of the copy's body follow it.
    pub(crate) fn header(
        &self,
        request: &RequestHeader,
        context: &Context,
    ) -> Result<(Box<ResponseHeader>, Range<usize>)> {
        let mut response = Box::new(self.copy.header()?);
        let (not_modified, part) = reduce(request, context, &self.copy);
        let bytes = frame(&mut response, self.copy.body_len(), not_modified, &part)?;
        dress(&mut response, context, self.age, self.status.as_deref())?;
        rules::to_client(&mut response, request, context)?;
        Ok((response, bytes))
    }
}

/// Room for the fields that every answer from here gets.
const OWN_FIELDS_BYTES: usize = 256;

fn put(to: &mut BytesMut, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        to.extend_from_slice(part);
    }
}

async fn write(session: &mut Session, context: &Context, ready: Ready) -> Result<()> {
    let (response, bytes) = ready.header(session.req_header(), context)?;
    kept_date::keep(session, &response);
    let no_body = session.req_header().method == Method::HEAD || bytes.is_empty();
    session.write_response_header(response, no_body).await?;
    if no_body {
        return session.as_downstream_mut().finish_body().await;
    }
    let mut body = ready.copy.read_part(bytes)?;
    while let Some(chunk) = body.next().await? {
        session.write_response_body(Some(chunk), body.is_at_end()).await?;
    }
    Ok(())
}

/// Makes what the phases are about to send the part that the request is for. Several parts are left to Pingora, and so
/// is an answer whose length is not known yet: the whole of it is sent.
pub(crate) fn cut_to_range(session: &Session, response: &mut ResponseHeader) -> RangeType {
    const RANGES_MAX: usize = 200;
    let request = session.req_header();
    let length = response.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let Some(whole) = length.and_then(|length| length.parse().ok()).filter(|_| request.method == Method::GET)
    else {
        return RangeType::None;
    };
    let part = part(&request.headers, response, whole, SystemTime::now());
    match &part {
        Part::Several => range_header_filter(request, response, Some(RANGES_MAX)),
        Part::One(bytes) if frame(response, whole, false, &part).is_ok() => RangeType::Single(bytes.clone()),
        Part::Beyond if frame(response, whole, false, &part).is_ok() => RangeType::Invalid,
        Part::Whole | Part::One(_) | Part::Beyond => RangeType::None,
    }
}

/// Gives the header the status and length of what is sent of the copy, and says which bytes those are.
fn frame(
    response: &mut ResponseHeader,
    whole: usize,
    not_modified: bool,
    part: &Part,
) -> Result<Range<usize>> {
    let bytes = match part {
        _ if not_modified => {
            to_304(response);
            return Ok(0..0);
        }
        Part::Beyond => {
            response.set_status(StatusCode::RANGE_NOT_SATISFIABLE)?;
            response.insert_header(header::CONTENT_RANGE, format!("bytes */{whole}"))?;
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ETAG, header::LAST_MODIFIED]
            {
                response.remove_header(&name);
            }
            0..0
        }
        Part::One(bytes) => {
            response.set_status(StatusCode::PARTIAL_CONTENT)?;
            let last = bytes.end.saturating_sub(1);
            response.insert_header(header::CONTENT_RANGE, format!("bytes {}-{last}/{whole}", bytes.start))?;
            bytes.clone()
        }
        Part::Whole | Part::Several => 0..whole,
    };
    if response.status != StatusCode::NO_CONTENT {
        response.insert_header(header::CONTENT_LENGTH, bytes.len())?;
    }
    Ok(bytes)
}

fn dress(
    response: &mut ResponseHeader,
    context: &Context,
    age: Duration,
    status: Option<&str>,
) -> Result<()> {
    response.set_version(http::Version::HTTP_11);
    response.remove_header(&header::TRANSFER_ENCODING);
    response.insert_header(header::AGE, age.as_secs())?;
    response.insert_header("X-Request-Id", context.request_id.value())?;
    match status.map(HeaderValue::try_from) {
        // Behind what caches before this one have said (RFC 9211 section 2).
        Some(Ok(status)) => response.append_header("Cache-Status", status).map(drop),
        Some(Err(_)) | None => Ok(()),
    }
}
