//! Which gateways a request has passed, and whether this one is among them.
//!
//! `Via` is what a gateway has to send (RFC 9110 section 7.6.3), but it is no safe trail: others may shorten it,
//! and operators remove it, since some servers do not compress for who sends it. Loops are therefore told
//! by `CDN-Loop` (RFC 8586), which exists for nothing else, which nobody may change but by adding to it, and
//! which no rule of a route touches.

use ahash::RandomState;
use http::{HeaderName, HeaderValue, Version};
use memchr::memmem;
use pingora_error::Result;
use pingora_http::RequestHeader;

use crate::forward;

const LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const VIA: HeaderValue = HeaderValue::from_static("1.1 goodgate");
const VIA_OLD: HeaderValue = HeaderValue::from_static("1.0 goodgate");
const VIA_HTTP2: HeaderValue = HeaderValue::from_static("2 goodgate");

/// What this process leaves in a request: its name, an identifier that no other process has, and a hash of the host and
/// path that were asked for.
#[derive(Debug)]
pub(crate) struct Trail {
    /// Up to the hash.
    own: String,
    hasher: RandomState,
}

impl Trail {
    /// That of the process which this number stands for.
    pub(crate) fn new(id: u64) -> Self {
        let hasher = RandomState::with_seeds(id, !id, id.rotate_left(16), id.rotate_left(32));
        Self { own: format!("goodgate; id={id:016x}; at="), hasher }
    }

    /// Whether a request goes around in a circle: it has been here for the same host and path, or more often than is
    /// allowed. A site may ask the gateway for other pages with fields that it has copied from its own request.
    pub(crate) fn has_looped(&self, request: &RequestHeader, passages_max: u32) -> bool {
        let mut lines = request.headers.get_all(LOOP).iter().peekable();
        if lines.peek().is_none() {
            return false;
        }
        let at = self.place(request);
        let places = lines.flat_map(|line| {
            let line = line.as_bytes();
            let found = memmem::find_iter(line, self.own.as_bytes());
            found.map(move |begin| line.get(begin + self.own.len()..).unwrap_or_default())
        });
        let mut passages = 0;
        places.map(|place| place.starts_with(&at)).any(|is_same| {
            passages += 1;
            is_same || passages >= passages_max
        })
    }

    /// Adds this gateway to those that a request has passed. `original` is what the client has sent, with this version.
    pub(crate) fn leave(
        &self,
        request: &mut RequestHeader,
        original: &RequestHeader,
        from: Version,
    ) -> Result<()> {
        let value = [self.own.as_bytes(), &self.place(original)].concat();
        request.append_header("CDN-Loop", pingora_http::header_value_from_slice(&value))?;
        request.append_header("Via", via(from))?;
        Ok(())
    }

    /// Host and path in 16 hexadecimal digits.
    fn place(&self, request: &RequestHeader) -> [u8; 16] {
        let host = forward::asked_host(request).unwrap_or_default().to_ascii_lowercase();
        let hash = self.hasher.hash_one((host, request.uri.path()));
        std::array::from_fn(|at| {
            let digit = usize::try_from(hash >> (4 * at) & 15).unwrap_or_default();
            DIGITS.get(digit).copied().unwrap_or_default()
        })
    }
}

const DIGITS: [u8; 16] = *b"0123456789abcdef";

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

    fn request(path: &str) -> RequestHeader {
        let mut request = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        request.insert_header("Host", "www.example.com").unwrap();
        request
    }

    /// The request as it is after it has passed for these paths, asking for the last one.
    fn passed(trail: &Trail, paths: &[&str]) -> RequestHeader {
        let mut next = request("/");
        for path in paths {
            let mut original = next.clone();
            original.set_raw_path(path.as_bytes()).unwrap();
            next = original.clone();
            trail.leave(&mut next, &original, Version::HTTP_11).unwrap();
        }
        next
    }

    #[test]
    fn the_same_place_again_is_a_loop_and_so_are_many_passages() {
        let (own, other) = (Trail::new(1), Trail::new(2));
        let asking = |request: &RequestHeader, path: &str| {
            let mut request = request.clone();
            request.set_raw_path(path.as_bytes()).unwrap();
            request
        };
        let once = passed(&own, &["/page"]);
        assert!(own.has_looped(&asking(&once, "/page?x=1"), 5));
        assert!(!own.has_looped(&asking(&once, "/api"), 5));
        assert!(!other.has_looped(&asking(&once, "/page"), 5), "that is another gateway");
        let often = passed(&own, &["/1", "/2", "/3", "/4"]);
        assert!(!own.has_looped(&asking(&often, "/5"), 5) && own.has_looped(&asking(&often, "/5"), 4));
        assert!(own.has_looped(&asking(&often, "/2"), 5));
        assert!(!own.has_looped(&request("/page"), 5));
    }

    #[test]
    fn the_gateways_before_are_left_in() {
        let trail = Trail::new(1);
        let mut original = request("/");
        original.append_header("CDN-Loop", "cdn.example; id=0000000000000001").unwrap();
        let mut sent = original.clone();
        trail.leave(&mut sent, &original, Version::HTTP_10).unwrap();
        assert!(!trail.has_looped(&original, 5) && trail.has_looped(&sent, 5));
        let via: Vec<_> = sent.headers.get_all("via").iter().collect();
        assert_eq!(via, ["1.0 goodgate"]);
    }
}
