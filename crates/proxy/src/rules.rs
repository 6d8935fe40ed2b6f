//! What a route changes on the way: the path and the fields that a backend gets, and the fields of every answer.
//! A route that changes nothing costs nothing.

use goodgate_config::{HeaderRules, Rewrite};
use http::{HeaderMap, HeaderName};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::context::Context;
use crate::route::Route;
use crate::variables;

/// Changes what the backend gets. `original` is the client's request: variables speak of that one.
pub(crate) fn to_backend(
    request: &mut RequestHeader,
    original: &RequestHeader,
    context: &Context,
    route: &Route,
) -> Result<()> {
    if let (Some(rewrite), Some(target)) = (&route.rewrite, original.uri.path_and_query())
        && target.as_str().starts_with('/')
    {
        request.set_raw_path(rewritten(target.as_str(), rewrite).as_bytes())?;
    }
    let HeaderRules { set, remove, .. } = &route.request_headers;
    for name in remove {
        request.remove_header(name);
    }
    for name in by_prefix(&route.request_headers, &request.headers) {
        request.remove_header(&name);
    }
    for (name, value) in set {
        request.insert_header(name, variables::value(value, original, context)?)?;
    }
    Ok(())
}

/// Changes what the client gets, whoever has made it.
pub(crate) fn to_client(
    response: &mut ResponseHeader,
    request: &RequestHeader,
    context: &Context,
) -> Result<()> {
    let Some(route) = &context.route else {
        return Ok(());
    };
    let HeaderRules { set, remove, .. } = &route.response_headers;
    for name in remove {
        response.remove_header(name);
    }
    for name in by_prefix(&route.response_headers, &response.headers) {
        response.remove_header(&name);
    }
    for (name, value) in set {
        response.insert_header(name, variables::value(value, request, context)?)?;
    }
    Ok(())
}

/// The fields that are removed for how their names begin.
fn by_prefix(rules: &HeaderRules, headers: &HeaderMap) -> Vec<HeaderName> {
    if rules.remove_prefixes.is_empty() {
        return Vec::new();
    }
    headers.keys().filter(|name| rules.has_prefix_of(name)).cloned().collect()
}

/// The target with its prefix exchanged, whole segments only. A target that does not begin with the prefix keeps
/// what it begins with.
fn rewritten(target: &str, rewrite: &Rewrite) -> String {
    let rest = without_prefix(target, &rewrite.strip_prefix).unwrap_or(target);
    let slash = if rest.starts_with('/') { "" } else { "/" };
    [rewrite.add_prefix.as_str(), slash, rest].concat()
}

/// What follows the prefix, if the target begins with its segments. As for routes, a run of slashes counts as one.
fn without_prefix<'a>(target: &'a str, prefix: &str) -> Option<&'a str> {
    let mut rest = target;
    for segment in prefix.split('/').skip(1) {
        rest = rest.trim_start_matches('/').strip_prefix(segment)?;
        if !(rest.is_empty() || rest.starts_with(['/', '?'])) {
            return None;
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_exchanged_in_whole_segments() {
        for (strip, add, target, expected) in [
            ("/api", "/v1", "/api/x?y", "/v1/x?y"),
            ("/api", "/v1", "/api", "/v1/"),
            ("/api", "/v1", "/api/", "/v1/"),
            ("/api", "/v1", "/api?x=/api", "/v1/?x=/api"),
            ("/api", "/v1", "/apis/x", "/v1/apis/x"),
            ("/api", "", "/api/x", "/x"),
            ("/api", "", "/api", "/"),
            ("/api", "", "/api?x", "/?x"),
            ("/api", "", "/other", "/other"),
            ("", "/v1", "/x", "/v1/x"),
            ("", "/v1", "/", "/v1/"),
            ("/a/b", "/c/d", "/a/b/e", "/c/d/e"),
            ("/a/b", "/c", "//a///b//e//f", "/c//e//f"),
            ("/a/b", "/c", "/a/b", "/c/"),
            ("/a/b", "/c", "/a/bc", "/c/a/bc"),
        ] {
            let rewrite = Rewrite { strip_prefix: strip.to_owned(), add_prefix: add.to_owned() };
            assert_eq!(rewritten(target, &rewrite), expected, "{target} without {strip:?} under {add:?}");
        }
    }
}
