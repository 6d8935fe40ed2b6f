//! Requests that are refused for what they are, by what is wrong with them.

use prometheus::{IntCounter, IntCounterVec};

use crate::Metrics;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The request line is none.
    RequestLine,
    /// A version of HTTP that is not spoken.
    Version,
    /// A method that is not served: TRACE, CONNECT.
    Method,
    /// The target has no valid form, or two readings.
    Target,
    /// The target is too long.
    TargetTooLong,
    /// The path has no normal form.
    Path,
    /// The Host is missing, repeated, not valid, or another than the target's.
    Host,
    /// A line ends in something else than CRLF.
    LineEnd,
    /// A field is none: its name, its colon, its value.
    HeaderSyntax,
    /// A name that servers take for one that frames.
    Imitation,
    /// The header is too large or has too many fields.
    HeaderTooLarge,
    /// The header did not come in time.
    HeaderTimeout,
    /// `Content-Length` is no number, or repeated.
    ContentLength,
    /// `Transfer-Encoding` is not exactly `chunked`.
    TransferEncoding,
    /// Both of them.
    BothLengths,
    /// `Connection` names what it may not, or too much.
    Connection,
    /// A change of protocol with a body.
    Upgrade,
    /// The HTTP library refused it; over HTTP/2 its stream was reset.
    Protocol,
    /// A body that is not chunked as it should be.
    Chunks,
    /// A body over the limit.
    BodyTooLarge,
    /// A body that did not come in time, or too slowly.
    BodyTimeout,
}

impl Refused {
    const ALL: [Self; 21] = [
        Self::RequestLine,
        Self::Version,
        Self::Method,
        Self::Target,
        Self::TargetTooLong,
        Self::Path,
        Self::Host,
        Self::LineEnd,
        Self::HeaderSyntax,
        Self::Imitation,
        Self::HeaderTooLarge,
        Self::HeaderTimeout,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::BothLengths,
        Self::Connection,
        Self::Upgrade,
        Self::Protocol,
        Self::Chunks,
        Self::BodyTooLarge,
        Self::BodyTimeout,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Version => "version",
            Self::Method => "method",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::Path => "path",
            Self::Host => "host",
            Self::LineEnd => "line_end",
            Self::HeaderSyntax => "header_syntax",
            Self::Imitation => "imitation",
            Self::HeaderTooLarge => "header_too_large",
            Self::HeaderTimeout => "header_timeout",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::BothLengths => "both_lengths",
            Self::Connection => "connection",
            Self::Upgrade => "upgrade",
            Self::Protocol => "protocol",
            Self::Chunks => "chunks",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
        }
    }
}

/// A counter for each.
#[derive(Debug)]
pub(crate) struct RefusedCounters([IntCounter; Refused::ALL.len()]);

impl RefusedCounters {
    pub(crate) fn new(family: &IntCounterVec) -> Self {
        Self(Refused::ALL.map(|reason| family.with_label_values(&[reason.name()])))
    }
}

impl Metrics {
    /// Counts a request field that the backend does not get; `field` is one of a closed set.
    pub fn removed_field(&self, field: &str) {
        self.removed_fields.with_label_values(&[field]).inc();
    }

    /// Counts a request that is refused.
    pub fn refused(&self, reason: Refused) {
        let all = Refused::ALL.iter().zip(&self.refused.0);
        all.filter(|(one, _)| **one == reason).for_each(|(_, counter)| counter.inc());
    }
}
