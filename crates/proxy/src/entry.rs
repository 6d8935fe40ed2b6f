//! What is put in order in an accepted request before anything decides by it, so that routes, copies and
//! backends all see the same: the target in origin form, its host in `Host`, no `Upgrade` that is ignored.

use http::header::{self, HeaderValue};
use pingora_error::{OrErr, Result};
use pingora_http::RequestHeader;
use pingora_http::authority::{RawTargetAuthority, raw_target_authority};

use crate::head;

/// Puts a request in order. Most are already.
pub(crate) fn put_in_order(request: &mut RequestHeader) -> Result<()> {
    if !request.raw_path().starts_with(b"/") {
        to_origin_form(request)?;
    }
    ignore_upgrade(request);
    Ok(())
}

/// RFC 9112 section 3.2.1 and 3.2.2: an origin server is asked in origin form, with the host beside it. That
/// a `Host` names the same one was checked.
fn to_origin_form(request: &mut RequestHeader) -> Result<()> {
    let RawTargetAuthority::Absolute { authority, .. } = raw_target_authority(request.raw_path()) else {
        return Ok(());
    };
    let host = HeaderValue::from_bytes(authority)
        .or_err(pingora_error::ErrorType::InvalidHTTPHeader, "a host that was checked")?;
    let uri = request.uri.clone();
    request.set_uri(uri);
    if !request.headers.contains_key(header::HOST) {
        request.insert_header(header::HOST, host)?;
    }
    Ok(())
}

/// A wish to switch protocols that is not passed on: the request is served as any other.
fn ignore_upgrade(request: &mut RequestHeader) {
    let mut asked = request.headers.get_all(header::UPGRADE).iter();
    if !asked.all(|protocols| head::may_switch(protocols.as_bytes())) {
        request.remove_header(&header::UPGRADE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_target_becomes_its_path() {
        for (target, path) in
            [("http://a/x?y", "/x?y"), ("HTTP://a:80?y", "/?y"), ("http://a", "/"), ("/x", "/x"), ("*", "*")]
        {
            let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            put_in_order(&mut request).unwrap();
            assert_eq!(request.raw_path(), path.as_bytes(), "{target}");
            assert_eq!(request.headers.contains_key(header::HOST), target.contains("://"), "{target}");
        }
    }
}
