//! Conditional requests that a stored response answers (RFC 9111 section 4.3.2, RFC 9110 section 13).
//!
//! `If-None-Match` and `If-Modified-Since` alone: the other preconditions are for the server that owns the resource.

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::date::http_date;
use crate::fields::{Fields, Header};

/// Whether what the client has is what the response brings, so that a 304 will do.
pub fn is_not_modified(request: &HeaderMap, response: &impl Header, now: SystemTime) -> bool {
    if response.status() != StatusCode::OK {
        return false;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        return is_among_tags(request, response.first("etag"));
    }
    let Some(condition) = request.get(header::IF_MODIFIED_SINCE) else {
        return false;
    };
    let changed = response.first("last-modified").or_else(|| response.first("date"));
    match (http_date(condition.as_bytes(), now), changed.and_then(|at| http_date(at, now))) {
        (Some(since), Some(changed)) => changed <= since,
        _ => false,
    }
}

/// Whether `If-None-Match` has the tag, by weak comparison (RFC 9110 section 13.1.2).
fn is_among_tags(request: &HeaderMap, tag: Option<&[u8]>) -> bool {
    let opaque = tag.map(|tag| opaque(tag.trim_ascii()));
    let mut lines = request.get_all(header::IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
    lines.any(|line| {
        line.trim_ascii() == b"*"
            || opaque.is_some_and(|wanted| Tags(line).any(|tag| self::opaque(tag) == wanted))
    })
}

/// Whether `If-Range` means this response (RFC 9110 section 13.1.5): by strong comparison, or by its very date if that
/// is a strong validator, which it is when the response was made later.
pub(crate) fn is_in_range(condition: &HeaderValue, response: &impl Fields, now: SystemTime) -> bool {
    let condition = condition.as_bytes().trim_ascii();
    let is = |name| response.first(name) == Some(condition);
    if condition.starts_with(b"\"") {
        return is("etag");
    }
    let time = |name| response.first(name).and_then(|at| http_date(at, now));
    is("last-modified")
        && time("last-modified").zip(time("date")).is_some_and(|(changed, made)| changed < made)
}

/// A tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The tags of a list. What is in quotes is one, whatever it contains but quotes; else it ends at a comma.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let (_, list) = self.0.split_at(start);
        let opened = if list.starts_with(b"W/\"") { 3 } else { usize::from(list.starts_with(b"\"")) };
        let closed = list.iter().skip(opened).position(|byte| *byte == b'"').filter(|_| opened > 0);
        let past = closed.map_or(0, |at| opened + at + 1);
        let comma = list.iter().skip(past).position(|byte| *byte == b',');
        let (tag, rest) = list.split_at(comma.map_or(list.len(), |at| past + at));
        self.0 = rest;
        Some(tag.trim_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{headers, now, response};

    fn by_tag(stored: &[(&str, &str)], condition: &str) -> bool {
        is_not_modified(&headers(&[("if-none-match", condition)]), &response(200, stored), now())
    }

    /// RFC 9110 sections 8.8.3.2 and 13.1.2.
    #[test]
    fn section_13_1_2_tags_are_compared_weakly() {
        for (tag, condition, fits) in [
            ("\"a\"", "\"a\"", true),
            ("\"a\"", "W/\"a\"", true),
            ("W/\"a\"", "\"a\"", true),
            ("\"a\"", "w/\"a\"", false),
            ("\"a\"", "\"A\"", false),
            ("\"a\"", "\"x\",\"a\"", true),
            ("\"a\"", " ,, \"a\" ,", true),
            ("\"a,b\"", "\"x\", W/\"a,b\"", true),
            ("\"b\"", "\"a, \"b\"\"", false),
            ("\"a\\\"", "\"a\\\", \"c\"", true),
            ("a", "b, a", true),
            ("\"a\"", "*", true),
            ("\"a\"", "\"*\"", false),
            ("\"a\"", "", false),
            ("\"a\"", "\"a", false),
        ] {
            assert_eq!(by_tag(&[("etag", tag)], condition), fits, "{tag} {condition}");
        }
        assert!(by_tag(&[], "*") && !by_tag(&[], "\"a\""));
    }

    /// RFC 9110 section 13.1.3 and RFC 9111 section 4.3.2.
    #[test]
    fn section_13_1_3_dates_are_compared_where_there_are_no_tags() {
        const OLD: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
        const NEW: &str = "Thursday, 02-Jan-26 00:00:00 GMT";
        let since = |stored: &[(&str, &str)], condition: &str| {
            is_not_modified(&headers(&[("if-modified-since", condition)]), &response(200, stored), now())
        };
        assert!(since(&[("last-modified", OLD)], OLD) && since(&[("last-modified", OLD)], NEW));
        assert!(!since(&[("last-modified", NEW)], OLD) && !since(&[("last-modified", OLD)], "today"));
        assert!(since(&[("date", OLD)], OLD) && !since(&[("date", NEW)], OLD) && !since(&[], OLD));
        let both = headers(&[("if-modified-since", NEW), ("if-none-match", "\"b\"")]);
        assert!(!is_not_modified(&both, &response(200, &[("last-modified", OLD), ("etag", "\"a\"")]), now()));
        let condition = headers(&[("if-modified-since", NEW)]);
        assert!(!is_not_modified(&condition, &response(404, &[("last-modified", OLD)]), now()));
    }

    /// RFC 9110 section 13.1.5.
    #[test]
    fn section_13_1_5_if_range_wants_a_strong_validator() {
        const OLD: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
        let fits = |stored: &[(&str, &str)], condition: &'static str| {
            is_in_range(&HeaderValue::from_static(condition), &headers(stored), now())
        };
        assert!(fits(&[("etag", "\"a\"")], "\"a\"") && !fits(&[("etag", "\"a\"")], "\"b\""));
        assert!(!fits(&[("etag", "W/\"a\"")], "W/\"a\"") && !fits(&[("etag", "W/\"a\"")], "\"a\""));
        let later = ("date", "Thu, 01 Jan 2026 00:00:01 GMT");
        assert!(fits(&[("last-modified", OLD), later], OLD));
        assert!(!fits(&[("last-modified", OLD), ("date", OLD)], OLD));
        assert!(!fits(&[("last-modified", OLD)], OLD) && !fits(&[later], OLD));
    }
}
