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

/// Any header's name, for a setting that only reads it. `like` is an example. The error says what is allowed.
pub(super) fn any_name(text: &str, like: &str) -> Result<HeaderName, String> {
    if crate::foreign::has_pattern(text) {
        return Err(format!("the whole name of a header, like `{like}`: patterns are not supported here"));
    }
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("a header's name, like `{like}`"))
}

/// The rules under a key.
pub(super) fn rules(map: &Map<'_>, key: &str, keys: &Keys) -> HeaderRules {
    let map = map.section(key, keys);
    let set = map.get("set").and_then(|view| view.entries());
    let removed = map.get("remove").and_then(|view| view.list_of(text_as(removed))).unwrap_or_default();
    let mut rules = HeaderRules {
        set: set.map(|entries| fields(&entries)).unwrap_or_default(),
        ..HeaderRules::default()
    };
    for removed in removed {
        match removed {
            Removed::Name(name) => rules.remove.push(name),
            Removed::Prefix(prefix) => rules.remove_prefixes.push(prefix),
        }
    }
    rules
}

enum Removed {
    Name(HeaderName),
    Prefix(String),
}

/// A name, or how names begin.
fn removed(text: &str) -> Result<Removed, String> {
    let Some(prefix) = text.strip_suffix('*') else { return name(text).map(Removed::Name) };
    match HeaderName::from_bytes(prefix.as_bytes()) {
        Ok(prefix) if !crate::foreign::has_pattern(prefix.as_str()) => {
            Ok(Removed::Prefix(prefix.as_str().to_owned()))
        }
        _ => Err("a header's name, or how names begin, like `x-internal-*`".to_owned()),
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
    if let Some(theirs) = crate::foreign::variable(text) {
        return Err(format!("a constant value; {theirs}, and has no meaning in a health check"));
    }
    let value = is_plain.then(|| HeaderValue::from_str(text).ok()).flatten();
    value.ok_or_else(|| "printable ASCII without spaces around it".to_owned())
}

/// A name. What frames a message or belongs to one connection is not a route's business, `Host` has a setting
/// of its own, and by `CDN-Loop` loops are told. The error says what is allowed.
fn name(text: &str) -> Result<HeaderName, String> {
    let name = any_name(text, "X-Frame-Options")?;
    if name == header::HOST {
        return Err("another name: the `Host` is what `host` of the upstream says".to_owned());
    }
    if HeaderRules::is_untouchable(&name) {
        Err("a name that is not the gateway's own affair".to_owned())
    } else {
        Ok(name)
    }
}
