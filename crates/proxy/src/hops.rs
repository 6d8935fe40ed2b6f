//! Which gateways a request has passed, and whether this one is among them.
//!
//! `Via` is what a gateway has to send (RFC 9110 section 7.6.3), but it is no safe trail: others may shorten it,
//! and operators remove it, since some servers do not compress for who sends it. Loops are therefore told
//! by `CDN-Loop` (RFC 8586), which exists for nothing else, which nobody may change but by adding to it, and
//! which no rule of a route touches.

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use memchr::memmem;
use pingora_error::Result;
use pingora_http::RequestHeader;

const LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const VIA: HeaderValue = HeaderValue::from_static("1.1 goodgate");
const VIA_OLD: HeaderValue = HeaderValue::from_static("1.0 goodgate");
const VIA_HTTP2: HeaderValue = HeaderValue::from_static("2 goodgate");

/// What this process leaves in a request: its name, and an identifier that no other process has.
#[derive(Debug)]
pub(crate) struct Trail(HeaderValue);

impl Trail {
    /// That of the process which this number stands for.
    pub(crate) fn new(id: u64) -> Self {
        let value = HeaderValue::try_from(format!("goodgate; id={id:016x}"));
        // Digits have nothing that a field value may not have.
        Self(value.unwrap_or_else(|_| HeaderValue::from_static("goodgate")))
    }

    /// Whether a request has been here before. Once is a loop: no request comes back in good order.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.get_all(LOOP).iter().any(|value| memmem::find(value.as_bytes(), self.0.as_bytes()).is_some())
    }

    /// Adds this gateway to those that a request has passed; `from` is the version that it came with.
    pub(crate) fn leave(&self, request: &mut RequestHeader, from: Version) -> Result<()> {
        request.append_header("CDN-Loop", self.0.clone())?;
        request.append_header("Via", via(from))?;
        Ok(())
    }
}

/// What is added to `Via` for a request that came with this version.
pub(crate) fn via(from: Version) -> HeaderValue {
    match from {
        Version::HTTP_10 => VIA_OLD,
        Version::HTTP_2 => VIA_HTTP2,
        _ => VIA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_trail_is_a_loop() {
        let (own, other) = (Trail::new(1), Trail::new(2));
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header("CDN-Loop", "cdn.example; id=0000000000000001").unwrap();
        assert!(!own.is_in(&request.headers));
        other.leave(&mut request, Version::HTTP_11).unwrap();
        assert!(!own.is_in(&request.headers) && other.is_in(&request.headers));
        own.leave(&mut request, Version::HTTP_10).unwrap();
        assert!(own.is_in(&request.headers) && other.is_in(&request.headers));
        let via: Vec<_> = request.headers.get_all("via").iter().collect();
        assert_eq!(via, ["1.1 goodgate", "1.0 goodgate"]);
    }
}
