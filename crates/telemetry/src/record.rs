//! One access record per request, as JSON with stable field names.
//!
//! The record borrows from the request while it is written; what is kept of a failure longer is the same
//! record made to own its text.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use goodgate_failure::{Attempt, Cause};
use http::HeaderName;
use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::{By, CacheResult, LoggedClient, Origin, TraceId};

/// All that is known of a request at its end.
#[derive(Clone, Debug, Serialize)]
pub struct AccessRecord<'a> {
    /// When the request's first byte arrived.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The request's identifier.
    pub request_id: Cow<'a, str>,
    /// The trace that it is part of, if there are traces.
    pub trace_id: Option<TraceId>,
    /// The client's address, from trusted proxies if there are any.
    pub client: Option<LoggedClient>,
    /// The method.
    pub method: Cow<'a, str>,
    /// The host asked for.
    pub host: Cow<'a, str>,
    /// The path, without the query.
    pub path: Cow<'a, str>,
    /// The query, with its secrets masked; none if there was no `?`.
    pub query: Option<Cow<'a, str>>,
    /// The HTTP version of the client.
    pub version: &'static str,
    /// The route's name.
    pub route: Cow<'a, str>,
    /// The upstream's name.
    pub upstream: Cow<'a, str>,
    /// The status sent; 499 if the client left before one was.
    pub status: u16,
    /// Who made the answer.
    #[serde(serialize_with = "origin")]
    pub origin: Origin,
    /// Why it failed, if it did.
    #[serde(serialize_with = "optional_cause")]
    pub cause: Option<Cause>,
    /// What is wrong in this very case, in a constant phrase, where the cause alone does not say it.
    pub detail: Option<&'static str>,
    /// How a failure was kept from the client, if one was, and which.
    #[serde(serialize_with = "rescue")]
    pub rescue: Option<(By, Cause)>,
    /// What the cache did, if the route has one.
    #[serde(serialize_with = "cache")]
    pub cache: Option<CacheResult>,
    /// Why the response was not stored, or why nothing stored could answer in place of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_detail: Option<&'static str>,
    /// The age of the copy served.
    #[serde(rename = "age_s", serialize_with = "seconds")]
    pub age: Option<Duration>,
    /// Body bytes sent to the client.
    pub bytes_sent: u64,
    /// Body bytes received from the client.
    pub bytes_received: u64,
    /// From the first request byte to the end.
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub duration: Duration,
    /// How long it waited for a place at its upstream; none: it did not.
    #[serde(rename = "queued_ms", serialize_with = "optional_millis")]
    pub queued: Option<Duration>,
    /// The client's software, as it says.
    pub user_agent: Option<Cow<'a, str>>,
    /// Fields of the client that the backend did not get.
    #[serde(serialize_with = "names", skip_serializing_if = "is_empty")]
    pub removed_fields: Cow<'a, [HeaderName]>,
    /// Every attempt, in order.
    #[serde(serialize_with = "attempts")]
    pub attempts: Cow<'a, [Attempt]>,
}

impl<'a> AccessRecord<'a> {
    /// The record of something that came in and was no request.
    pub fn of_no_request(
        time: SystemTime,
        request_id: &'a str,
        client: IpAddr,
        status: u16,
        cause: Cause,
    ) -> Self {
        Self {
            time,
            request_id: request_id.into(),
            trace_id: None,
            client: Some(LoggedClient::Address(client.to_canonical())),
            method: "".into(),
            host: "".into(),
            path: "".into(),
            query: None,
            version: "",
            route: "none".into(),
            upstream: "none".into(),
            status,
            origin: Origin::Goodgate,
            cause: Some(cause),
            detail: None,
            rescue: None,
            cache: None,
            cache_detail: None,
            age: None,
            bytes_sent: 0,
            bytes_received: 0,
            duration: Duration::ZERO,
            queued: None,
            user_agent: None,
            removed_fields: Cow::Borrowed(&[]),
            attempts: Cow::Borrowed(&[]),
        }
    }

    /// Whether something failed, seen by the client or averted.
    pub fn is_of_interest(&self) -> bool {
        is_of_interest(self.status, self.cause, self.rescue)
    }

    /// The same record, owning its text.
    pub fn into_owned(self) -> AccessRecord<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        AccessRecord {
            request_id: own(self.request_id),
            method: own(self.method),
            host: own(self.host),
            path: own(self.path),
            query: self.query.map(own),
            route: own(self.route),
            upstream: own(self.upstream),
            user_agent: self.user_agent.map(own),
            removed_fields: Cow::Owned(self.removed_fields.into_owned()),
            attempts: Cow::Owned(self.attempts.into_owned()),
            ..self
        }
    }
}

/// Whether something failed, seen by the client or averted: known before there is a record.
pub fn is_of_interest(status: u16, cause: Option<Cause>, rescue: Option<(By, Cause)>) -> bool {
    cause.is_some() || rescue.is_some() || status >= 500
}

/// An attempt as it is written.
struct Written<'a>(&'a Attempt);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(attempt) = self;
        let mut fields = to.serialize_struct("attempt", 17)?;
        fields.serialize_field("backend", &format_args!("{}", attempt.backend))?;
        fields.serialize_field("phase", attempt.phase.name())?;
        fields.serialize_field("reused", &attempt.reused)?;
        if let Some(age) = attempt.age {
            fields.serialize_field("connection_age_ms", &rounded_millis(age.since_connect))?;
            fields.serialize_field("connection_idle_ms", &age.idle.map(rounded_millis))?;
        }
        if attempt.fail_open {
            fields.serialize_field("fail_open", &true)?;
        }
        fields.serialize_field("status", &attempt.status)?;
        fields.serialize_field("cause", &attempt.cause.map(Cause::name))?;
        if let Some(detail) = &attempt.detail {
            fields.serialize_field("detail", &**detail)?;
        }
        fields.serialize_field("bytes_out", &attempt.bytes_out)?;
        fields.serialize_field("bytes_in", &attempt.bytes_in)?;
        fields.serialize_field("connect_ms", &attempt.connect.map(rounded_millis))?;
        if let Some(tls) = attempt.tls {
            fields.serialize_field("tls_ms", &rounded_millis(tls))?;
        }
        fields.serialize_field("first_byte_ms", &attempt.first_byte.map(rounded_millis))?;
        fields.serialize_field("total_ms", &attempt.total.map(rounded_millis))?;
        match attempt.next {
            Some(Ok(allowance)) => fields.serialize_field("retry", allowance.name())?,
            Some(Err(refusal)) => fields.serialize_field("no_retry", refusal.name())?,
            None => {}
        }
        fields.end()
    }
}

/// A rescue as it is written.
#[derive(Serialize)]
struct Rescue {
    by: &'static str,
    cause: &'static str,
}

fn is_empty(names: &[HeaderName]) -> bool {
    names.is_empty()
}

fn names<S: Serializer>(names: &[HeaderName], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(names.iter().map(HeaderName::as_str))
}

fn attempts<S: Serializer>(attempts: &[Attempt], to: S) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(Some(attempts.len()))?;
    for attempt in attempts {
        list.serialize_element(&Written(attempt))?;
    }
    list.end()
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn rescue<S: Serializer>(rescue: &Option<(By, Cause)>, to: S) -> Result<S::Ok, S::Error> {
    rescue.map(|(by, cause)| Rescue { by: by.name(), cause: cause.name() }).serialize(to)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn origin<S: Serializer>(origin: &Origin, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(origin.name())
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn optional_cause<S: Serializer>(cause: &Option<Cause>, to: S) -> Result<S::Ok, S::Error> {
    cause.map(Cause::name).serialize(to)
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn cache<S: Serializer>(cache: &Option<CacheResult>, to: S) -> Result<S::Ok, S::Error> {
    cache.map(CacheResult::name).serialize(to)
}

fn rfc3339<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn millis<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(rounded_millis(*duration))
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn optional_millis<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration.map(rounded_millis).serialize(to)
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn seconds<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs()).serialize(to)
}

/// Milliseconds to three places: what can be measured.
fn rounded_millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
