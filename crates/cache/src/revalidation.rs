//! A 304 brings the header of the stored response up to date (RFC 9111 section 3.2).

use http::header::{self, HeaderMap, HeaderName};
use pingora_http::ResponseHeader;

use crate::hop_by_hop::is_hop_by_hop;

/// Takes over every field of the 304 except those that describe the stored body or belong to one connection. `Age`
/// is the 304's own, or gone: the copy is as young as the answer that confirmed it. `Vary` stays, because the copy
/// is filed under it.
pub fn refresh_header(stored: &mut ResponseHeader, not_modified: &HeaderMap) {
    stored.remove_header(&header::AGE);
    for name in not_modified.keys().filter(|name| !is_kept(name, not_modified)) {
        stored.remove_header(name);
        for value in not_modified.get_all(name) {
            // Only a header map that is full refuses a field that it has just given up.
            let _ = stored.append_header(name, value);
        }
    }
}

fn is_kept(name: &HeaderName, not_modified: &HeaderMap) -> bool {
    const KEPT: [HeaderName; 5] = [
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::VARY,
    ];
    KEPT.contains(name) || is_hop_by_hop(name, not_modified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{headers, response};

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
        refresh_header(&mut stored, &not_modified);
        let expected = headers(&[
            ("date", "new"),
            ("x-list", "3"),
            ("x-kept", "1"),
            ("x-new", "4"),
            ("x-new", "5"),
            ("content-length", "5"),
            ("content-type", "text/html"),
            ("vary", "accept"),
        ]);
        assert_eq!(stored.headers, expected);
    }
}
