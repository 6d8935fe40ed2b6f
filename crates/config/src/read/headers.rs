//! What a route does with header fields, and which of them no route may touch.

use http::{HeaderName, HeaderValue, header};

use crate::keys::Keys;
use crate::kind::text_as;
use crate::view::{Map, View};
use crate::{FieldValue, HeaderRules};

/// A list of names, each of which a route may have a say about.
pub(super) fn names(view: &View<'_>) -> Vec<HeaderName> {
    view.list_of(text_as(name)).unwrap_or_default()
}

/// The rules under a key.
pub(super) fn rules(map: &Map<'_>, key: &str, keys: &Keys) -> HeaderRules {
    let map = map.section(key, keys);
    let set = map.get("set").and_then(|view| view.entries());
    HeaderRules {
        set: set.map(|entries| fields(&entries)).unwrap_or_default(),
        remove: map.get("remove").map(|view| names(&view)).unwrap_or_default(),
    }
}

/// Fields with their values; of those that differ in case only, the one that stands over the others.
fn fields(map: &Map<'_>) -> Vec<(HeaderName, FieldValue)> {
    let mut fields: Vec<(HeaderName, FieldValue)> = Vec::new();
    for (key, view) in map.each() {
        match name(key) {
            Err(allowed) => view.key_problem(format!("the key is not allowed here; allowed: {allowed}")),
            Ok(name) if fields.iter().any(|(other, _)| *other == name) => {
                if map.has_own(key) {
                    view.key_problem(format!("`{name}` is there already: case does not matter"));
                }
            }
            Ok(name) => fields.extend(view.read(text_as(FieldValue::parse)).map(|value| (name, value))),
        }
    }
    fields
}

/// Plain fields under a key, each name once.
pub(super) fn plain(map: &Map<'_>, key: &str) -> Vec<(HeaderName, HeaderValue)> {
    let entries = map.get(key).and_then(|view| view.entries());
    let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (key, view) in entries.iter().flat_map(Map::each) {
        match name(key) {
            Err(_) if key.eq_ignore_ascii_case("host") => {
                view.key_problem(
                    "the key is not allowed here; allowed: another name: `host` is what it sets",
                );
            }
            Err(allowed) => view.key_problem(format!("the key is not allowed here; allowed: {allowed}")),
            Ok(name) if fields.iter().any(|(other, _)| *other == name) => {
                view.key_problem(format!("`{name}` is there already: case does not matter"));
            }
            Ok(name) => fields.extend(view.read(text_as(value)).map(|value| (name, value))),
        }
    }
    fields
}

fn value(text: &str) -> Result<HeaderValue, String> {
    let is_plain = text.trim() == text && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let value = is_plain.then(|| HeaderValue::from_str(text).ok()).flatten();
    value.ok_or_else(|| "printable ASCII without spaces around it".to_owned())
}

/// A name. What frames a message or belongs to one connection is not a route's business, `Host` has a setting
/// of its own, and by `CDN-Loop` loops are told. The error says what is allowed.
fn name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| "a header's name, like `X-Frame-Options`".to_owned())?;
    if name == header::HOST {
        return Err("another name: the `Host` is what `host` of the upstream says".to_owned());
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
    if is_untouchable { Err("a name that is not the gateway's own affair".to_owned()) } else { Ok(name) }
}
