//! A record as spans: one of the request (server) and one of each attempt (client), with the names of
//! OpenTelemetry's semantic conventions for HTTP, and ours behind `goodgate.`.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use goodgate_failure::{Address, Attempt, Cause};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::SpanData;

use crate::{AccessRecord, TraceContext};

/// The methods that the conventions know (RFC 9110 and PATCH): others could be anything.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// How many spans a record makes.
pub(crate) fn count(record: &AccessRecord<'_>) -> u64 {
    record.attempts.len() as u64 + 1
}

/// The spans of a record, the request's first.
pub(crate) fn of(record: &AccessRecord<'_>, context: &TraceContext) -> Vec<SpanData> {
    let attempts = record.attempts.iter().enumerate();
    let attempts = attempts.map(|(at, attempt)| of_attempt(record, context, at, attempt));
    std::iter::once(of_request(record, context)).chain(attempts).collect()
}

fn of_request(record: &AccessRecord<'_>, context: &TraceContext) -> SpanData {
    let mut fields = Fields(Vec::with_capacity(24));
    method(&mut fields, record);
    fields.add("url.scheme", "http");
    fields.add("url.path", record.path.to_string());
    fields.add_some("url.query", record.query.as_deref().map(str::to_owned));
    host(&mut fields, &record.host);
    fields.add_some("client.address", record.client.map(|client| client.to_string()));
    fields.add_some("user_agent.original", record.user_agent.as_deref().map(str::to_owned));
    fields.add("network.protocol.version", record.version);
    fields.add("http.response.status_code", i64::from(record.status));
    fields.add("http.request.body.size", whole(record.bytes_received));
    fields.add("http.response.body.size", whole(record.bytes_sent));
    fields.add("goodgate.request_id", record.request_id.to_string());
    fields.add("goodgate.route", record.route.to_string());
    fields.add("goodgate.upstream", record.upstream.to_string());
    fields.add("goodgate.origin", record.origin.name());
    fields.add_some("goodgate.cache", record.cache.map(crate::CacheResult::name));
    fields.add_some("goodgate.rescue", record.rescue.map(|(by, _)| by.name()));
    // What the client was kept from is told as well as what it saw.
    let cause = record.cause.or(record.rescue.map(|(_, cause)| cause));
    fields.add_some("goodgate.cause", cause.map(Cause::name));
    // A client's own mistake is no error of the server's span, by the conventions.
    let is_error = record.status >= 500 || (record.cause.is_some() && record.status < 400);
    let error = is_error.then(|| record.cause.map_or("", Cause::name));
    if is_error {
        let status = || Cow::Owned(record.status.to_string());
        fields.add("error.type", record.cause.map_or_else(status, |cause| cause.name().into()));
    }
    let name = format!("{} {}", known_method(record).unwrap_or("HTTP"), record.route);
    let parent = (context.parent.unwrap_or_default(), context.parent.is_some());
    let time = (record.time, record.duration);
    span(context, context.span, parent, (SpanKind::Server, name), time, fields, error)
}

fn of_attempt(record: &AccessRecord<'_>, context: &TraceContext, at: usize, attempt: &Attempt) -> SpanData {
    let mut fields = Fields(Vec::with_capacity(16));
    method(&mut fields, record);
    let query = record.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
    match attempt.backend {
        Address::Ip(address) => {
            fields.add("url.full", format!("http://{address}{}{query}", record.path));
            fields.add("server.address", address.ip().to_string());
            fields.add("server.port", i64::from(address.port()));
        }
        Address::Unix(path) => {
            fields.add("url.full", format!("http://localhost{}{query}", record.path));
            fields.add("server.address", path);
        }
    }
    fields.add_some("http.response.status_code", attempt.status.map(i64::from));
    fields.add("http.request.body.size", whole(attempt.bytes_out));
    fields.add("http.response.body.size", whole(attempt.bytes_in));
    if at > 0 {
        fields.add("http.request.resend_count", whole(at as u64));
    }
    fields.add("goodgate.route", record.route.to_string());
    fields.add("goodgate.upstream", record.upstream.to_string());
    fields.add("goodgate.phase", attempt.phase.name());
    fields.add("goodgate.connection_reused", attempt.reused);
    fields.add_some("goodgate.cause", attempt.cause.map(Cause::name));
    fields.add_some("error.type", attempt.cause.map(Cause::name));
    match attempt.next {
        Some(Ok(allowance)) => fields.add("goodgate.retry", allowance.name()),
        Some(Err(refusal)) => fields.add("goodgate.no_retry", refusal.name()),
        None => {}
    }
    let name = known_method(record).unwrap_or("HTTP").to_owned();
    let time = (record.time + attempt.started, attempt.total.unwrap_or_default());
    let parent = (context.span, false);
    let error = attempt.cause.map(Cause::name);
    span(context, context.attempt_span(at), parent, (SpanKind::Client, name), time, fields, error)
}

/// `parent`: its id, zero for none, and whether it is somebody else's. `error`: what to say of it, if it is one.
fn span(
    context: &TraceContext,
    id: u64,
    parent: (u64, bool),
    (span_kind, name): (SpanKind, String),
    (start_time, took): (SystemTime, Duration),
    fields: Fields,
    error: Option<&'static str>,
) -> SpanData {
    let trace = TraceId::from(context.trace.0);
    SpanData {
        span_context: SpanContext::new(
            trace,
            SpanId::from(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: SpanId::from(parent.0),
        parent_span_is_remote: parent.1,
        span_kind,
        name: name.into(),
        start_time,
        end_time: start_time + took,
        attributes: fields.0,
        dropped_attributes_count: 0,
        events: opentelemetry_sdk::trace::SpanEvents::default(),
        links: opentelemetry_sdk::trace::SpanLinks::default(),
        status: error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("goodgate").build(),
    }
}

/// Attributes as they gather.
struct Fields(Vec<KeyValue>);

impl Fields {
    fn add(&mut self, name: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.push(KeyValue::new(name, value));
    }

    fn add_some(&mut self, name: &'static str, value: Option<impl Into<opentelemetry::Value>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

fn method(fields: &mut Fields, record: &AccessRecord<'_>) {
    let known = known_method(record);
    fields.add("http.request.method", known.unwrap_or("_OTHER"));
    fields.add_some("http.request.method_original", known.is_none().then(|| record.method.to_string()));
}

fn known_method(record: &AccessRecord<'_>) -> Option<&'static str> {
    METHODS.into_iter().find(|method| *method == record.method)
}

/// Name and port are told apart.
fn host(fields: &mut Fields, host: &str) {
    let port = host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
    fields.add("server.address", port.map_or(host, |(name, _)| name).to_owned());
    fields.add_some("server.port", port.map(|(_, port)| i64::from(port)));
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
