//! A collector of spans: OTLP over HTTP, as far as scenarios need it.

use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;

use super::{Act, Backend, eventually};

/// A running collector: a backend that understands what it is sent.
pub struct Collector {
    backend: Backend,
    read: Mutex<usize>,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub async fn start() -> Self {
        let taken = Act::Page {
            status: 200,
            headers: "Content-Type: application/x-protobuf\r\n".to_owned(),
            body: String::new(),
        };
        Self { backend: Backend::start(taken).await, read: Mutex::new(0), spans: Arc::default() }
    }

    pub fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// From now on it answers so.
    pub fn set(&self, act: Act) {
        self.backend.set(act);
    }

    /// It goes away.
    pub async fn die(&self) {
        self.backend.die().await;
    }

    /// Requests seen so far.
    pub fn requests(&self) -> u64 {
        self.backend.requests()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let mut read = self.read.lock();
        let bodies = self.backend.bodies();
        for (head, body) in self.backend.heads().iter().zip(&bodies).skip(*read) {
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            assert!(head.to_lowercase().contains("content-type: application/x-protobuf\r\n"), "{head}");
            let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP");
            let resources = request.resource_spans.into_iter();
            let spans = resources.flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
            self.spans.lock().extend(spans);
        }
        *read = bodies.len();
        self.spans.lock().clone()
    }

    /// The spans of a trace, once there are so many: by their start, the request's first.
    pub async fn trace(&self, id: &str, count: usize) -> Vec<Span> {
        let of = || {
            let spans = self.spans().into_iter();
            spans.filter(|span| hex(&span.trace_id) == id).collect::<Vec<_>>()
        };
        eventually("the spans of the trace", || async { of().len() >= count }).await;
        let mut spans = of();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans.sort_by_key(|span| (span.start_time_unix_nano, span.kind));
        spans
    }
}

/// An attribute as text; empty if there is none.
pub fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        _ => String::new(),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
