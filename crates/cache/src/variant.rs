//! Which stored variant a request accepts although it is not the one that was made for such a request.
//!
//! Browsers differ in how they write `Accept-Encoding`, so that a variant that one of them brought would be of no use to
//! another. While backends answer that costs a request; in an outage it would cost the page. The variant must be one
//! that the request accepts by its own words (RFC 9110 section 12), and must not differ in any other field of `Vary`.

use crate::directives::Elements;
use crate::fields::Fields;
use crate::sent::{self, SentRequest};

/// Whether the request accepts the response as it is encoded, in its language and of its type. `varies_by` is asked for
/// each of the fields by which a request says so: a response that does not vary by it is for all.
pub(crate) fn is_accepted(
    response: &impl Fields,
    request: &dyn SentRequest,
    varies_by: impl Fn(&str) -> bool,
) -> bool {
    accepts_encoding(response, request)
        && (!varies_by("accept-language") || accepts_language(response, request))
        && (!varies_by("accept") || accepts_type(response, request))
}

/// Without `Accept-Encoding` only what is not encoded: such clients often cannot decode anything.
fn accepts_encoding(response: &impl Fields, request: &dyn SentRequest) -> bool {
    let accepted = Ranges::of(request, "accept-encoding");
    let mut codings = response.all("content-encoding").flat_map(Elements::of_bytes).map(lower).peekable();
    if codings.peek().is_none() {
        return accepted.quality(|range| range == b"identity").or(accepted.quality(|range| range == b"*"))
            != Some(0);
    }
    codings.all(|coding| {
        let other = coding.strip_prefix(b"x-").unwrap_or(&coding);
        let is_it = |range: &[u8]| range == coding || range.strip_prefix(b"x-").unwrap_or(range) == other;
        let quality = accepted.quality(is_it).or(accepted.quality(|range| range == b"*"));
        coding == b"identity" || quality.is_some_and(|quality| quality > 0)
    })
}

/// A response that varies by the language and does not say which it has is accepted by nobody else. A range matches what
/// it begins, and what it is a region of.
fn accepts_language(response: &impl Fields, request: &dyn SentRequest) -> bool {
    let accepted = Ranges::of(request, "accept-language");
    let mut tags = response.all("content-language").flat_map(Elements::of_bytes).map(lower).peekable();
    if accepted.is_empty() {
        return tags.peek().is_some();
    }
    tags.any(|tag| {
        let is_it = |range: &[u8]| begins_tag(range, &tag) || begins_tag(&tag, range);
        accepted.quality(is_it).or(accepted.quality(|range| range == b"*")).is_some_and(|quality| quality > 0)
    })
}

fn begins_tag(short: &[u8], long: &[u8]) -> bool {
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
}

fn accepts_type(response: &impl Fields, request: &dyn SentRequest) -> bool {
    let accepted = Ranges::of(request, "accept");
    let Some(held) = response.first("content-type") else {
        return false;
    };
    if accepted.is_empty() {
        return true;
    }
    let essence = lower(held.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii());
    let group = essence.split(|byte| *byte == b'/').next().unwrap_or_default();
    let is_group = |range: &[u8]| range.strip_suffix(b"/*").is_some_and(|range| range == group);
    let quality = accepted
        .quality(|range| range == essence)
        .or_else(|| accepted.quality(is_group))
        .or_else(|| accepted.quality(|range| range == b"*/*"));
    quality.is_some_and(|quality| quality > 0)
}

/// The elements of a field like `Accept`, in lower case and without parameters, each with its weight in thousandths.
struct Ranges(Vec<(Vec<u8>, u16)>);

impl Ranges {
    fn of(request: &dyn SentRequest, name: &str) -> Self {
        let lines = sent::lines(request, name);
        Self(lines.iter().flat_map(|line| Elements::of_bytes(line)).map(range).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The greatest weight of those that match; none if none does.
    fn quality(&self, is_it: impl Fn(&[u8]) -> bool) -> Option<u16> {
        self.0.iter().filter(|(range, _)| is_it(range)).map(|(_, quality)| *quality).max()
    }
}

fn range(element: &[u8]) -> (Vec<u8>, u16) {
    let mut parts = element.split(|byte| *byte == b';').map(|part| lower(part.trim_ascii()));
    let range = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix(b"q=").map(thousandths));
    (range, quality.unwrap_or(1000))
}

/// RFC 9110 section 12.4.2. A weight that cannot be read refuses.
fn thousandths(text: &[u8]) -> u16 {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok());
    let is_positive = number.is_some_and(|number| number > 0.0 && number <= 1.0);
    match text {
        [b'0', b'.', digits @ ..] if is_positive && digits.len() <= 3 => {
            let digit = |at: usize| digits.get(at).map_or(0, |digit| u16::from(digit.saturating_sub(b'0')));
            digit(0) * 100 + digit(1) * 10 + digit(2)
        }
        _ if is_positive => 1000,
        _ => 0,
    }
}

fn lower(text: &[u8]) -> Vec<u8> {
    text.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::headers;

    /// RFC 9110 section 12.5.3.
    #[test]
    fn section_12_5_3_an_encoding_is_accepted_if_it_is_named() {
        let accepts = |response: &[(&str, &str)], request: &[(&str, &str)]| {
            is_accepted(&headers(response), &headers(request), |name| name == "accept-encoding")
        };
        let gzip = [("content-encoding", "gzip")];
        for accepting in ["gzip", "br, GZIP;q=0.1", "*", "x-gzip", "deflate;q=0, *;q=0.5", "gzip ; q=1.0"] {
            assert!(accepts(&gzip, &[("accept-encoding", accepting)]), "{accepting}");
        }
        for refusing in ["", "br", "gzip;q=0", "gzip;q=0.000, *", "*;q=0", "gzip;q=x", "identity"] {
            assert!(!accepts(&gzip, &[("accept-encoding", refusing)]), "{refusing}");
        }
        assert!(!accepts(&gzip, &[]), "without a word only what is not encoded");
        let both = [("content-encoding", "gzip, br")];
        assert!(accepts(&both, &[("accept-encoding", "br, gzip")]));
        assert!(!accepts(&both, &[("accept-encoding", "br")]));
        for accepting in ["", "gzip", "br;q=0"] {
            assert!(accepts(&[], &[("accept-encoding", accepting)]), "{accepting}");
        }
        for refusing in ["identity;q=0", "gzip, *;q=0"] {
            assert!(!accepts(&[], &[("accept-encoding", refusing)]), "{refusing}");
        }
    }

    /// RFC 9110 sections 8.5 and 12.5.4.
    #[test]
    fn section_12_5_4_a_language_is_accepted_if_a_range_matches() {
        let accepts = |response: &[(&str, &str)], request: &[(&str, &str)]| {
            is_accepted(&headers(response), &headers(request), |name| name == "accept-language")
        };
        let english = [("content-language", "en")];
        for accepting in ["en", "en-GB,en;q=0.8", "de, *;q=0.1", "EN-us"] {
            assert!(accepts(&english, &[("accept-language", accepting)]), "{accepting}");
        }
        for refusing in ["de", "en;q=0", "english", "de, en;q=0, *"] {
            assert!(!accepts(&english, &[("accept-language", refusing)]), "{refusing}");
        }
        assert!(accepts(&english, &[]));
        assert!(!accepts(&[], &[("accept-language", "de")]), "it may be any");
        assert!(accepts(&[("content-language", "de, en-GB")], &[("accept-language", "en")]));
    }

    /// RFC 9110 section 12.5.1.
    #[test]
    fn section_12_5_1_a_type_is_accepted_by_its_most_specific_range() {
        let accepts = |response: &[(&str, &str)], request: &[(&str, &str)]| {
            is_accepted(&headers(response), &headers(request), |name| name == "accept")
        };
        let json = [("content-type", "application/json; charset=utf-8")];
        for accepting in ["application/json", "text/html, application/*;q=0.5", "*/*", "text/html, */*;q=0.1"]
        {
            assert!(accepts(&json, &[("accept", accepting)]), "{accepting}");
        }
        for refusing in ["text/html", "application/json;q=0, */*", "application/*;q=0, */*", "text/*"] {
            assert!(!accepts(&json, &[("accept", refusing)]), "{refusing}");
        }
        assert!(accepts(&json, &[]));
        assert!(!accepts(&[], &[("accept", "text/html")]));
    }
}
