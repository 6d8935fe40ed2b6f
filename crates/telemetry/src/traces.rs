//! Spans on their way to a collector (OTLP over HTTP).
//!
//! What is handed over at the end of a request is its record; spans are made of it on a thread of their own,
//! which also sends them. The queue to it is bounded: while the collector is down, slow or refuses, spans are
//! dropped and counted, and no request notices.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use log::{info, warn};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

use crate::collector::Collector;
use crate::{AccessRecord, TraceContext, spans};

/// Requests that may wait to be sent.
const QUEUE_MAX: usize = 1024;
/// Requests sent at once.
const BATCH_MAX: usize = 256;
/// How long requests gather before they are sent.
const GATHER: Duration = Duration::from_millis(200);
/// How long the end of the process waits for what is queued.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

type Finished = (AccessRecord<'static>, TraceContext);

/// The way of spans to the collector.
#[derive(Debug)]
pub struct Traces {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Finished>,
    /// A batch is on its way.
    is_sending: bool,
    closed: bool,
}

impl Traces {
    /// Starts the thread that sends to the collector at `address` (`host:port`). Fails if it cannot be started.
    pub fn open(address: &str, version: &'static str, dropped: IntCounter) -> io::Result<Self> {
        let exporter = exporter(address, version).map_err(io::Error::other)?;
        let state = State { queue: VecDeque::with_capacity(QUEUE_MAX), ..State::default() };
        let shared =
            Shared { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new(), dropped };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("traces".into()).spawn(move || send_all(&theirs, &exporter))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes a request that has ended and is sampled. Never waits.
    pub fn send(&self, record: AccessRecord<'static>, context: TraceContext) {
        let mut state = self.shared.state.lock();
        if state.queue.len() >= QUEUE_MAX || state.closed {
            drop(state);
            self.shared.dropped.inc_by(spans::count(&record));
            return;
        }
        state.queue.push_back((record, context));
        if state.queue.len() == 1 {
            self.shared.filled.notify_one();
        }
    }

    /// Sends what is queued, as far as that is possible in two seconds.
    pub fn close(&self) {
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        let deadline = Instant::now() + CLOSE_LIMIT;
        let mut state = self.shared.state.lock();
        state.closed = true;
        self.shared.filled.notify_one();
        while state.is_sending || !state.queue.is_empty() {
            if self.shared.emptied.wait_until(&mut state, deadline).timed_out() {
                let left: u64 = state.queue.iter().map(|(record, _)| spans::count(record)).sum();
                self.shared.dropped.inc_by(left);
                warn!(spans = left; "the collector did not take the last spans in time");
                return;
            }
        }
        drop(state);
        // It has nothing left to do.
        drop(thread.join());
    }
}

fn exporter(address: &str, version: &'static str) -> Result<SpanExporter, String> {
    let built = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("http://{address}/v1/traces"))
        .build();
    let mut exporter = built.map_err(|error| error.to_string())?;
    let service = [KeyValue::new("service.name", "goodgate"), KeyValue::new("service.version", version)];
    exporter.set_resource(&Resource::builder_empty().with_attributes(service).build());
    Ok(exporter)
}

fn send_all(shared: &Shared, exporter: &SpanExporter) {
    let mut failing = false;
    loop {
        let mut state = shared.state.lock();
        while state.queue.is_empty() && !state.closed {
            shared.filled.wait(&mut state);
        }
        if !state.closed {
            // A request that ends meanwhile wakes nobody: only the first one of an empty queue does.
            shared.filled.wait_for(&mut state, GATHER);
        }
        let count = state.queue.len().min(BATCH_MAX);
        let batch: Vec<Finished> = state.queue.drain(..count).collect();
        state.is_sending = true;
        drop(state);
        let spans: Vec<SpanData> =
            batch.iter().flat_map(|(record, context)| spans::of(record, context)).collect();
        let count = spans.len() as u64;
        let result = if spans.is_empty() { Ok(()) } else { block_on(exporter.export(spans)) };
        match &result {
            Err(error) if !failing => warn!(error:% = error; "spans cannot be sent to the collector"),
            Ok(()) if failing => info!("the collector takes spans again"),
            Ok(()) | Err(_) => {}
        }
        failing = result.is_err();
        if failing {
            shared.dropped.inc_by(count);
        }
        let mut state = shared.state.lock();
        state.is_sending = false;
        if state.queue.is_empty() {
            shared.emptied.notify_all();
            if state.closed {
                return;
            }
        }
    }
}
