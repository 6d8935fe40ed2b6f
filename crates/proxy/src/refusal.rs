//! Requests that are refused before they have a context: by our own check of the head, or by the HTTP library behind it.
//! Each has its counters and its access record.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use goodgate_config::Limits;
use goodgate_failure::Cause;
use goodgate_telemetry::{AccessRecord, Origin, Refused};
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::AsyncWriteExt;

use crate::answer::{self, ErrorAnswer};
use crate::connection::Door;
use crate::context::Client;
use crate::grant::Grant;
use crate::request_id::RequestId;
use crate::stream::ClientStream;

const REFUSED_BY_LIBRARY: ErrorAnswer = ErrorAnswer {
    status: 400,
    cause: Cause::HttpRequestError,
    details: "The request violates the protocol and was refused by the HTTP library.",
};

impl Door {
    /// Answers what is no request, with its counter and its record.
    pub(crate) async fn refuse(
        &self,
        mut stream: Box<ClientStream>,
        client: &Client,
        limits: &Limits,
        error: ErrorAnswer,
    ) {
        let request_id = RequestId::random();
        stream.grant(Grant::Everything, true);
        let bytes = answer::raw(error, &request_id);
        let write = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        // A client that sends garbage and does not read is owed nothing more.
        let _ = fast_timeout(limits.write_timeout, write).await;
        self.record_refusal(client, error, &request_id, bytes.len() as u64);
    }

    /// Counts and records a request that is refused before it has a context.
    fn record_refusal(&self, client: &Client, error: ErrorAnswer, request_id: &RequestId, bytes_sent: u64) {
        self.live.no_route.response(error.status, Origin::Goodgate, Duration::ZERO);
        self.live.no_route.gateway_error(error.status, error.cause);
        let log = &self.live.snapshot().log;
        let ip = log.mask.client(client.address.ip().to_canonical());
        let now = SystemTime::now();
        let record = AccessRecord::of_no_request(now, request_id.as_str(), ip, error.status, error.cause);
        let record = AccessRecord { detail: error.detail(), bytes_sent, ..record };
        self.live.access_log.write(&record, log.format);
        self.live.ring.note(record, Instant::now());
    }

    /// Counts and records a request that the HTTP library refused by itself, with an answer or a reset of its own.
    pub(crate) fn record_refused_by_library(&self, client: &Client) {
        self.live.metrics().refused(Refused::Protocol);
        self.record_refusal(client, REFUSED_BY_LIBRARY, &RequestId::random(), 0);
    }

    /// Records the request that was handed to Pingora, unless it has its record. Pingora calls `logging` once for
    /// each request, but not for one that its parser refuses.
    pub(crate) fn record_if_missing(&self, client: &Client) {
        if !client.is_recorded.swap(false, Ordering::Relaxed) {
            self.record_refused_by_library(client);
        }
    }
}
