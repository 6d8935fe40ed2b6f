//! A 304 brings the header of the stored response up to date (RFC 9111 section 3.2), and so does the answer to a HEAD
//! that fits (section 4.3.5).

use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pingora_http::ResponseHeader;

use crate::RequestFacts;
use crate::directives::{Directives, Flag};
use crate::hop_by_hop::is_hop_by_hop;
use crate::vary::VaryBy;

/// Takes over every field of the newer response except those that describe the stored bytes or belong to one
/// connection. `Age` and `Date` are the newer one's own: the copy is as young as the answer that confirmed it. `Vary`
/// stays, because the copy is filed under it, and `Content-Encoding`, because the stored bytes have it.
pub fn refresh_header(stored: &mut ResponseHeader, newer: &HeaderMap, now: SystemTime) {
    stored.remove_header(&header::AGE);
    if !newer.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now))
    {
        // Only a header map that is full refuses a field that it has just given up.
        let _ = stored.insert_header(header::DATE, date);
    }
    for name in newer.keys().filter(|name| !is_kept(name, newer)) {
        stored.remove_header(name);
        for value in newer.get_all(name) {
            // As above.
            let _ = stored.append_header(name, value);
        }
    }
}

/// Whether a 304 speaks of another response than the stored one (RFC 9111 section 4.3.4): it has another entity tag, by
/// strong comparison if it is a strong one.
pub fn is_of_another(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    let (Some(stored), Some(tag)) = (stored.get(header::ETAG), not_modified.get(header::ETAG)) else {
        return false;
    };
    match tag.as_bytes().strip_prefix(b"W/") {
        Some(weak) => stored.as_bytes().strip_prefix(b"W/").unwrap_or(stored.as_bytes()) != weak,
        None => stored != tag,
    }
}

/// Why a 304 must not renew the stored response for others; none if it may. Its fields are for the client that asked, unless
/// that client is nobody in particular or the 304 itself says that it may be shared, and by another `Vary` the stored
/// response would answer requests that nobody has asked the backend about.
pub fn objection_to_304(
    stored: &HeaderMap,
    not_modified: &HeaderMap,
    request: &RequestFacts,
) -> Option<&'static str> {
    let directives = Directives::of_response(not_modified);
    let is_shared = directives.has(Flag::Public) || directives.s_maxage.is_some();
    let has_lifetime = directives.max_age.is_some_and(|lifetime| !lifetime.is_zero());
    let is_personal = request.is_personal && !has_lifetime || request.is_authorized;
    if is_personal && !is_shared {
        return Some(
            "the 304 is for a request with a cookie or credentials, and does not say that it may be shared",
        );
    }
    let varies = not_modified.contains_key(header::VARY) && VaryBy::of(stored) != VaryBy::of(not_modified);
    varies.then_some("the 304 varies by other fields")
}

fn is_kept(name: &HeaderName, newer: &HeaderMap) -> bool {
    const KEPT: [HeaderName; 4] =
        [header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::CONTENT_RANGE, header::VARY];
    KEPT.contains(name) || is_hop_by_hop(name, newer)
}

/// What the answer to a HEAD says of the stored answer to a GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// A validator says that it is the same one: it takes over the newer fields.
    Same,
    /// Nothing says that it is another one, and no validator that it is the same.
    Alike,
    /// There is another one now: the stored one is stale.
    Changed,
}

/// Compares what the answer to a HEAD says with the stored response: validators, and the length.
pub fn judge_head(stored: &HeaderMap, body_len: usize, head: &HeaderMap) -> HeadVerdict {
    let fits = |name| head.get(&name).is_none_or(|value| stored.get(&name) == Some(value));
    let length = head.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let is_as_long = length.is_none_or(|length| length == body_len.to_string().as_bytes());
    if !fits(header::ETAG) || !fits(header::LAST_MODIFIED) || !is_as_long {
        HeadVerdict::Changed
    } else if head.contains_key(header::ETAG) || head.contains_key(header::LAST_MODIFIED) {
        HeadVerdict::Same
    } else {
        HeadVerdict::Alike
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{headers, now, response};

    /// RFC 9111 section 3.2.
    #[test]
    fn section_3_2_the_304_updates_all_but_what_describes_the_body() {
        let mut stored = response(
            200,
            &[
                ("age", "50"),
                ("date", "old"),
                ("x-list", "1"),
                ("x-list", "2"),
                ("x-kept", "1"),
                ("content-length", "5"),
                ("content-type", "text/html"),
                ("vary", "accept"),
            ],
        );
        let not_modified = headers(&[
            ("date", "new"),
            ("x-list", "3"),
            ("x-new", "4"),
            ("x-new", "5"),
            ("content-length", "0"),
            ("content-type", "text/plain"),
            ("vary", "origin"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ]);
        refresh_header(&mut stored, &not_modified, now());
        let expected = headers(&[
            ("date", "new"),
            ("x-list", "3"),
            ("x-kept", "1"),
            ("x-new", "4"),
            ("x-new", "5"),
            ("content-length", "5"),
            ("content-type", "text/plain"),
            ("vary", "accept"),
        ]);
        assert_eq!(stored.headers, expected);
    }

    /// RFC 9110 section 6.6.1: an answer without a date is of the moment when it came.
    #[test]
    fn section_6_6_1_a_304_without_a_date_gets_one() {
        let mut stored = response(200, &[("date", "Thu, 01 Jan 1970 00:00:00 GMT")]);
        refresh_header(&mut stored, &headers(&[]), now());
        assert_eq!(stored.headers["date"], httpdate::fmt_http_date(now()).as_str());
    }

    /// RFC 9111 section 4.3.4.
    #[test]
    fn section_4_3_4_another_strong_tag_is_of_another_response() {
        let other = |stored: &str, now: &str| {
            is_of_another(&headers(&[("etag", stored)]), &headers(&[("etag", now)]))
        };
        assert!(other("\"a\"", "\"b\"") && other("W/\"a\"", "\"a\""));
        assert!(!other("\"a\"", "\"a\"") && !other("\"a\"", "W/\"a\"") && !other("W/\"a\"", "W/\"a\""));
        assert!(other("\"a\"", "W/\"b\""));
        assert!(!is_of_another(&headers(&[]), &headers(&[("etag", "\"b\"")])));
        assert!(!is_of_another(&headers(&[("etag", "\"b\"")]), &headers(&[])));
    }

    /// RFC 9111 section 4.3.5.
    #[test]
    fn section_4_3_5_a_head_fits_by_validators_and_length() {
        let stored = headers(&[("etag", "\"a\""), ("last-modified", "then")]);
        let judge = |fields: &[(&str, &str)]| judge_head(&stored, 5, &headers(fields));
        for same in [&[("etag", "\"a\"")][..], &[("content-length", "5"), ("last-modified", "then")]] {
            assert_eq!(judge(same), HeadVerdict::Same, "{same:?}");
        }
        for alike in [&[][..], &[("content-length", "5")]] {
            assert_eq!(judge(alike), HeadVerdict::Alike, "{alike:?}");
        }
        for other in [("etag", "\"b\""), ("last-modified", "now"), ("content-length", "6")] {
            assert_eq!(judge(&[other]), HeadVerdict::Changed, "{other:?}");
        }
    }
}
