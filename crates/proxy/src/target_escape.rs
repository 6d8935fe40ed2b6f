//! Escapes the bytes of a request target that our check accepts and `http::Uri`, which Pingora parses it with,
//! refuses: `<` and `>`, `"` in the query, a backtick in the path.
//!
//! It happens before anything reads the target, so that routes, rules, the cache, the log and the backend see one
//! form. In the path that is the normal form of `goodgate_config::normal_target`. In the query it is the form that
//! browsers send (the query percent-encode set of the URL standard): `http::Uri` cannot hold the raw bytes.

use std::ops::Range;

use memchr::{memchr, memchr3};

/// A part of a head, and the bytes to put in its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TargetEdit {
    pub(crate) at: Range<usize>,
    pub(crate) with: Vec<u8>,
}

/// The escaped target of a head that was checked. None, for all but a few, if it needs no escape.
pub(crate) fn escape_target(head: &[u8]) -> Option<TargetEdit> {
    let start = memchr(b' ', head)? + 1;
    let rest = head.get(start..)?;
    let target = rest.get(..memchr(b' ', rest)?)?;
    if memchr3(b'<', b'>', b'"', target).is_none() && memchr(b'`', target).is_none() {
        return None;
    }
    Some(TargetEdit { at: start..start + target.len(), with: escape(target) })
}

pub(crate) fn escape(target: &[u8]) -> Vec<u8> {
    let mut is_query = false;
    let mut bytes = Vec::with_capacity(target.len() + 16);
    for byte in target {
        is_query |= *byte == b'?';
        let escape: &[u8] = match byte {
            b'<' => b"%3C",
            b'>' => b"%3E",
            b'"' => b"%22",
            b'`' if !is_query => b"%60",
            other => std::slice::from_ref(other),
        };
        bytes.extend_from_slice(escape);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_target_is_escaped_and_only_where_it_must_be() {
        for (target, expected) in [
            ("/a<b>c`d\"e", "/a%3Cb%3Ec%60d%22e"),
            ("/a?q=\"<x>\"`{|}^\\'", "/a?q=%22%3Cx%3E%22`{|}^\\'"),
            ("/?a?b\"", "/?a?b%22"),
            ("http://a/<?\"", "http://a/%3C?%22"),
            ("http://a?\"", "http://a?%22"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: \"<>`\r\n\r\n");
            let replacement = escape_target(head.as_bytes()).unwrap();
            assert_eq!(&head[replacement.at], target);
            assert_eq!(String::from_utf8(replacement.with).unwrap(), expected);
        }
        for target in ["/", "/a?b=c", "/%3C?`", "*"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: \"<>`\r\n\r\n");
            let expected = target.contains('`').then(|| target.to_owned());
            let replaced = escape_target(head.as_bytes());
            assert_eq!(replaced.map(|it| String::from_utf8(it.with).unwrap()), expected, "{target}");
        }
    }

    /// Our check and `http::Uri` accept the same targets, in each place of a path and a query.
    #[test]
    fn every_target_that_passes_the_check_is_a_uri_once_it_is_escape() {
        let limits = goodgate_config::Limits::default();
        for byte in 0..=u8::MAX {
            for place in ["/@", "/a@b/c", "/?@", "/a?b=@c", "http://a/@", "http://a?@"] {
                let at = place.find('@').unwrap();
                let target = [&place.as_bytes()[..at], &[byte], &place.as_bytes()[at + 1..]].concat();
                let head = [b"GET ", &*target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
                if crate::head::check(&head, &limits).is_err() {
                    continue;
                }
                let escaped = escape_target(&head).map_or(target, |it| it.with);
                let built = pingora_http::RequestHeader::build("GET", &escaped, None);
                assert!(built.is_ok(), "{}", escaped.escape_ascii());
            }
        }
    }
}
