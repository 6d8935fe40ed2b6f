//! A request's place in a trace: W3C Trace Context, level 1.
//!
//! The identifiers of attempts are counted on from the request's own, which is random: nothing has to be kept
//! for them while the request is under way.

use std::fmt;

use serde::{Serialize, Serializer};

/// The length of a `traceparent` of version 00, the only one written.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// The identifier of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub(crate) u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Where a request stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub(crate) trace: TraceId,
    /// The span of whoever asked, if that was told.
    pub(crate) parent: Option<u64>,
    /// The request's own span.
    pub(crate) span: u64,
    is_sampled: bool,
}

impl TraceContext {
    /// A new trace. The numbers are random and not zero.
    pub fn new(trace: u128, span: u64, is_sampled: bool) -> Self {
        Self { trace: TraceId(trace), parent: None, span, is_sampled }
    }

    /// The trace that a `traceparent` names, with a new span in it; none if it is not valid.
    pub fn continued(traceparent: &[u8], span: u64) -> Option<Self> {
        let (head, more) = traceparent.split_at_checked(LENGTH)?;
        let [version, trace, parent, flags] = parts(head)?;
        let version = u8::try_from(number(version)?).ok()?;
        // A later version may say more behind another dash; 255 is forbidden.
        let is_known = if version == 0 { more.is_empty() } else { more.is_empty() || more.starts_with(b"-") };
        let (trace, parent) = (number(trace)?, u64::try_from(number(parent)?).ok()?);
        let flags = u8::try_from(number(flags)?).ok()?;
        (is_known && version != u8::MAX && trace != 0 && parent != 0).then_some(Self {
            trace: TraceId(trace),
            parent: Some(parent),
            span,
            is_sampled: flags & SAMPLED != 0,
        })
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace
    }

    /// Whether its spans are sent.
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The `traceparent` that the backend of an attempt (0 is the first) is sent.
    pub fn traceparent(&self, attempt: usize) -> String {
        let mut text = String::with_capacity(LENGTH);
        text.push_str("00-");
        push_hex(&mut text, &self.trace.0.to_be_bytes());
        text.push('-');
        push_hex(&mut text, &self.attempt_span(attempt).to_be_bytes());
        text.push_str(if self.is_sampled { "-01" } else { "-00" });
        text
    }

    /// The span of an attempt. Never zero, which would mean none.
    pub(crate) fn attempt_span(&self, attempt: usize) -> u64 {
        self.span.wrapping_add(attempt as u64 + 1).max(1)
    }
}

/// Version, trace, parent and flags.
fn parts(head: &[u8]) -> Option<[&[u8]; 4]> {
    let mut parts = head.split(|byte| *byte == b'-');
    let all = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    (parts.next().is_none() && all.map(<[u8]>::len) == [2, 32, 16, 2]).then_some(all)
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
}

/// Digits in lower case, as the specification demands.
fn number(digits: &[u8]) -> Option<u128> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(is_digit))?;
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(traceparent: &str) -> Option<TraceContext> {
        TraceContext::continued(traceparent.as_bytes(), 0x10)
    }

    #[test]
    fn a_valid_parent_is_continued() {
        let context = read(VALID).unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((context.parent, context.span), (Some(0xb7ad_6b71_6920_3331), 0x10));
        assert!(context.is_sampled());
        assert!(!read(&VALID.replace("-01", "-00")).unwrap().is_sampled());
        assert!(read(&VALID.replace("-01", "-ff")).unwrap().is_sampled(), "other flags do not matter");
        assert_eq!(
            context.traceparent(0),
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000011-01",
            "the backend's parent is the attempt"
        );
        assert_ne!(context.traceparent(0), context.traceparent(1));
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let later = VALID.replacen("00", "cc", 1);
        assert_eq!(read(&later), read(VALID));
        assert_eq!(read(&format!("{later}-what-the-future-is-like")), read(VALID));
        assert_eq!(read(&format!("{later}.what")), None);
        assert_eq!(read(&VALID.replacen("00", "ff", 1)), None);
    }

    #[test]
    fn an_invalid_parent_is_none() {
        for wrong in [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}-"),
            &format!("{VALID}0"),
            &VALID.to_uppercase(),
            &VALID.replace('-', "_"),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            &VALID.replace("b7ad", "b7-d"),
            &VALID.replace("0af7", "+af7"),
            &VALID.replace("-01", "-0g"),
            &VALID.replacen("00", "é", 1),
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn any_bytes_are_taken() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let mut bytes = VALID.as_bytes().to_vec();
            for _ in 0..random.usize(0..3) {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(50..60));
            if let Some(context) = TraceContext::continued(&bytes, 1) {
                assert!(read(&context.traceparent(0)).is_some(), "seed {seed}: {bytes:?}");
            }
        }
    }

    #[test]
    fn no_span_is_zero() {
        assert_eq!(TraceContext::new(1, u64::MAX, true).attempt_span(0), 1);
    }
}
