//! What a health check asks, and how often: plain values, built by `config`, applied by `watch`.

use std::hash::{Hash, Hasher};
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use regex::bytes::{Regex, RegexBuilder};

use crate::TlsPolicy;

/// Active health checks of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePolicy {
    /// What is asked.
    pub kind: ProbeKind,
    /// Another port than the backend's own; a Unix socket has none.
    pub port: Option<NonZeroU16>,
    /// Whether it is asked over TLS.
    pub tls: ProbeTls,
    /// Time between two probes of one backend, jittered by a tenth either way.
    pub interval: Duration,
    /// The same while the backend is down.
    pub interval_down: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Passes in a row that put a backend back.
    pub rise: NonZeroU32,
    /// Failures in a row that take it out.
    pub fall: NonZeroU32,
    /// Whether a new backend stays out of rotation until its first probe has passed.
    pub starts_checking: bool,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// A connection is enough.
    Tcp,
    /// A request must be answered as expected.
    Http(Box<HttpProbe>),
}

/// A request of a probe, and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// How it asks; never with a body.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The `Host`; the backend's address if absent.
    pub host: Option<String>,
    /// More fields, each name once.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Statuses that pass.
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Fields that the answer must have with these values.
    pub expect_headers: Vec<(HeaderName, HeaderValue)>,
    /// What the beginning of the body must contain.
    pub expect_body: Option<String>,
    /// What must be found in the beginning of the body.
    pub expect_pattern: Option<BodyPattern>,
    /// Whether a 404 says that the backend wants no new requests.
    pub drains_on_404: bool,
}

/// Whether a probe is made over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeTls {
    /// As requests to the backend are.
    AsBackend,
    /// It is not.
    Off,
    /// It is, with terms of its own.
    On {
        /// How the backend proves who it is.
        policy: TlsPolicy,
        /// The name that it must prove; none: the one that requests ask for, or else its own.
        name: Option<String>,
    },
}

/// A regular expression for the beginning of a body. Matching takes time linear in the text.
#[derive(Clone, Debug)]
pub struct BodyPattern(Regex);

/// Why a pattern cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPattern {
    /// It is no regular expression that this syntax knows.
    Syntax,
    /// Compiled it takes more memory than it may.
    TooLarge,
}

/// So many bytes a compiled pattern may take, and as many what is kept while it is matched.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl BodyPattern {
    /// Compiles a pattern.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let is_too_large = |error: &regex::Error| matches!(error, regex::Error::CompiledTooBig(_));
        let why = |error| if is_too_large(&error) { BadPattern::TooLarge } else { BadPattern::Syntax };
        builder.build().map(Self).map_err(why)
    }

    /// Whether it is found somewhere in these bytes.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }
}

impl PartialEq for BodyPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for BodyPattern {}

impl Hash for BodyPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_bounded_and_matches_bytes() {
        let pattern = BodyPattern::new(r#""status":\s*"(ok|warn)""#).unwrap();
        assert!(pattern.is_in(b"\xff{\"status\":  \"warn\"}"));
        assert!(!pattern.is_in(b"{\"status\": \"down\"}"));
        assert_eq!(BodyPattern::new("(").unwrap_err(), BadPattern::Syntax);
        assert_eq!(BodyPattern::new(&"(".repeat(100_000)).unwrap_err(), BadPattern::Syntax);
        assert_eq!(BodyPattern::new(r"(\w{500}){500}").unwrap_err(), BadPattern::TooLarge);
        // A pattern that takes other engines exponential time.
        let evil = BodyPattern::new("(a*)*(a*)*$b").unwrap();
        assert!(!evil.is_in(&vec![b'a'; 64 << 10]));
    }
}
