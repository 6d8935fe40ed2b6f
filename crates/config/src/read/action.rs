//! What a route does with its requests: hand them to an upstream, send them elsewhere, or answer itself.

use http::{HeaderValue, StatusCode};

use crate::kind::{integer, not_among, text, text_as, wrong};
use crate::quantity::show_size;
use crate::tree::{Kind, Node};
use crate::view::{Map, View};
use crate::{Action, FieldValue, Redirect, Respond, defaults, keys};

/// The longest body of `respond`.
const BODY_BYTES_MAX: usize = 64 << 10;
const ACTIONS: [&str; 3] = ["upstream", "redirect", "respond"];
/// Keys that are about backends.
const OF_BACKENDS: [&str; 10] = [
    "split",
    "mirror",
    "timeout",
    "retry",
    "cache",
    "pass_headers",
    "method_override",
    "merge_slashes",
    "rewrite",
    "request_headers",
];

/// Exactly one of them; an action of the route's own wins over an `upstream` in `defaults`.
pub(super) fn action(map: &Map<'_>, upstreams: &[&str]) -> Option<Action> {
    let own: Vec<_> = ACTIONS.into_iter().filter(|key| map.has_own(key)).collect();
    if matches!(own.as_slice(), ["redirect" | "respond"]) {
        for view in OF_BACKENDS.iter().filter(|key| map.has_own(key)).filter_map(|key| map.get(key)) {
            view.key_problem("has no meaning without `upstream`");
        }
    }
    match own.as_slice() {
        ["redirect"] => redirect(&map.section("redirect", &keys::REDIRECT)).map(Action::Redirect),
        ["respond"] => Some(Action::Respond(respond(&map.section("respond", &keys::RESPOND)))),
        ["upstream"] | [] => {
            if !map.has("upstream") {
                map.view().key_problem("`upstream`, `redirect` or `respond` is missing");
            }
            map.get("upstream")?.read(|node| upstream(node, upstreams)).map(Action::Forward)
        }
        _ => {
            map.view().key_problem(format!("has `{}`; allowed: exactly one of them", own.join("` and `")));
            None
        }
    }
}

pub(super) fn upstream(node: &Node, upstreams: &[&str]) -> Result<usize, String> {
    let name = text(node)?;
    let index = upstreams.iter().position(|upstream| *upstream == name);
    index.ok_or_else(|| not_among(node, &name, upstreams))
}

fn redirect(map: &Map<'_>) -> Option<Redirect> {
    let status = map.read("status", |node| {
        let status: u16 = integer(300..=399)(node).unwrap_or_default();
        let known = matches!(status, 301 | 302 | 303 | 307 | 308).then(|| StatusCode::from_u16(status).ok());
        known.flatten().ok_or_else(|| wrong(node, "301, 302, 303, 307, 308"))
    });
    let to = map.required("to")?.read(text_as(location))?;
    Some(Redirect { to, status: status.unwrap_or(defaults::REDIRECT_STATUS) })
}

/// Where to: an address or a path, with variables.
fn location(text: &str) -> Result<FieldValue, String> {
    let is_address = ["/", "http://", "https://", "{scheme}://", "{path}", "{path_and_query}"]
        .iter()
        .any(|start| text.starts_with(start));
    if let Some(theirs) = crate::foreign::variable(text) {
        return Err(format!("an address or a path with our variables; {theirs}"));
    }
    let is_splat = text.ends_with("/*") || text.contains("/:splat");
    if is_splat {
        return Err("the path of the request as `{path}` or `{path_and_query}`, like `/new{path}`".to_owned());
    }
    if !is_address || text.contains(' ') {
        return Err("an address or a path, like `https://{host}{path_and_query}` or `/new{path}`".to_owned());
    }
    FieldValue::parse(text)
}

fn respond(map: &Map<'_>) -> Respond {
    let status = map.read("status", |node| {
        let status = integer::<u16>(200..=599)(node)?;
        StatusCode::from_u16(status).map_err(|_| wrong(node, "a status from 200 to 599"))
    });
    let status = status.unwrap_or(defaults::RESPOND_STATUS);
    let body = map.get("body");
    if let Some(view) = body.as_ref().filter(|_| has_no_body(status)) {
        view.key_problem(format!("an answer with the status {} has no body", status.as_u16()));
    }
    let body = body.and_then(|view: View<'_>| view.read(page)).unwrap_or_default();
    let media_type = map.read("type", |node| {
        let is_type =
            |text: &str| text.split_once('/').is_some_and(|(one, two)| !one.is_empty() && !two.is_empty());
        let value =
            text(node).ok().filter(|text| is_type(text)).and_then(|text| HeaderValue::try_from(text).ok());
        value.ok_or_else(|| wrong(node, "a media type, like `text/plain; charset=utf-8`"))
    });
    let media_type = media_type.unwrap_or(HeaderValue::from_static(defaults::RESPOND_TYPE));
    Respond { status, body, media_type }
}

/// RFC 9110 section 6.4.1.
fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A text, which may be empty.
fn page(node: &Node) -> Result<String, String> {
    let text =
        if matches!(&node.kind, Kind::Text(text) if text.is_empty()) { String::new() } else { text(node)? };
    let limit = show_size(BODY_BYTES_MAX as u64);
    if text.len() <= BODY_BYTES_MAX { Ok(text) } else { Err(wrong(node, &format!("at most {limit}"))) }
}
