//! Fields that belong to one connection: never stored, never taken over (RFC 9111 section 3.1, RFC 9110 section 7.6.1).

use http::{HeaderMap, HeaderName, header};
use pingora_http::ResponseHeader;

use crate::directives::Elements;

/// RFC 9111 section 3.1: what belongs to one connection is not stored.
pub(crate) fn without_hop_by_hop(response: &ResponseHeader) -> ResponseHeader {
    let mut header = response.clone();
    for name in response.headers.keys().filter(|name| is_hop_by_hop(name, &response.headers)) {
        header.remove_header(name);
    }
    header
}

/// Whether the field belongs to one connection: by its nature, or because `Connection` names it.
pub(crate) fn is_hop_by_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
        || headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(Elements::of)
            .any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
