//! One access-log record per request, as JSON with stable field names.

use std::time::{Duration, SystemTime};

use goodgate_failure::Attempt;
use serde::{Serialize, Serializer};

/// All that is logged of a request. Borrowed: it is written at once into the log's buffer.
#[derive(Debug, Serialize)]
pub struct AccessRecord<'a> {
    /// When the request's first byte arrived.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The request's identifier.
    pub request_id: &'a str,
    /// The client's address, from trusted proxies if there are any.
    pub client: &'a str,
    /// The method.
    pub method: &'a str,
    /// The host asked for.
    pub host: &'a str,
    /// The path, without the query: that may hold secrets.
    pub path: &'a str,
    /// The HTTP version of the client.
    pub version: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The status sent; 499 if the client left before one was.
    pub status: u16,
    /// Who made the answer: backend, cache, goodgate.
    pub origin: &'static str,
    /// Why it failed, if it did.
    pub cause: Option<&'static str>,
    /// How a failure was kept from the client, if one was.
    pub rescue: Option<RescueRecord>,
    /// What the cache did, if the route has one.
    pub cache: Option<&'static str>,
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
    /// The client's software, as it says.
    pub user_agent: Option<&'a str>,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
}

/// A failure that the client did not see.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RescueRecord {
    /// By what.
    pub by: &'static str,
    /// From what.
    pub cause: &'static str,
}

/// One attempt.
#[derive(Debug, Serialize)]
pub struct AttemptRecord {
    backend: String,
    phase: &'static str,
    reused: bool,
    #[serde(skip_serializing_if = "is_false")]
    fail_open: bool,
    status: Option<u16>,
    cause: Option<&'static str>,
    #[serde(rename = "connect_ms", serialize_with = "optional_millis")]
    connect: Option<Duration>,
    #[serde(rename = "first_byte_ms", serialize_with = "optional_millis")]
    first_byte: Option<Duration>,
    #[serde(rename = "total_ms", serialize_with = "optional_millis")]
    total: Option<Duration>,
    /// Why no further attempt followed.
    no_retry: Option<&'static str>,
}

impl From<&Attempt> for AttemptRecord {
    fn from(attempt: &Attempt) -> Self {
        Self {
            backend: attempt.backend.to_string(),
            phase: attempt.phase.name(),
            reused: attempt.reused,
            fail_open: attempt.fail_open,
            status: attempt.status,
            cause: attempt.cause.map(goodgate_failure::Cause::name),
            connect: attempt.connect,
            first_byte: attempt.first_byte,
            total: attempt.total,
            no_retry: attempt.refusal.map(goodgate_failure::Refusal::name),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(value: &bool) -> bool {
    !*value
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
