//! Names of header fields, and which of them no route may touch.

use http::{HeaderName, header};

use crate::kind::{text, wrong};
use crate::tree::Node;
use crate::view::View;

/// A list of names, each of which a route may have a say about.
pub(super) fn names(view: &View<'_>) -> Vec<HeaderName> {
    view.list_of(name).unwrap_or_default()
}

/// A name. What frames a message or belongs to one connection is not a route's business, `Host` has a setting
/// of its own, and by `CDN-Loop` loops are told.
pub(super) fn name(node: &Node) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text(node)?.as_bytes())
        .map_err(|_| wrong(node, "a header's name, like `X-Frame-Options`"))?;
    if name == header::HOST {
        return Err(wrong(node, "another name: the `Host` is what `host` of the upstream says"));
    }
    let is_untouchable = matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "expect"
            | "cdn-loop"
    );
    if is_untouchable { Err(wrong(node, "a name that is not the gateway's own affair")) } else { Ok(name) }
}
