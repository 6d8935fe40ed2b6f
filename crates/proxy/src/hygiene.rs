//! Fields of a request that a backend must not get from a client: they override what the request plainly says,
//! or speak for a proxy that nobody knows. A route lets through those that it names (`pass_headers`).

use http::{HeaderMap, HeaderName};
use memchr::memchr;
use pingora_http::RequestHeader;

/// Removes them. Most requests have none, and cost one look at the names.
pub(crate) fn drop_overrides(request: &mut RequestHeader, is_trusted: bool, passed: &[HeaderName]) {
    for name in unwanted(&request.headers, is_trusted, passed) {
        request.remove_header(&name);
    }
}

fn unwanted(headers: &HeaderMap, is_trusted: bool, passed: &[HeaderName]) -> Vec<HeaderName> {
    let is_unwanted = |name: &&HeaderName| {
        (is_override(name.as_str()) || !is_trusted && is_word_of_a_proxy(name.as_str()))
            && !passed.contains(name)
    };
    headers.keys().filter(is_unwanted).cloned().collect()
}

/// Another address or method than that of the request line; `Proxy`, which CGI programs take for a setting;
/// and every name with an underscore: CGI and its heirs cannot tell it from a dash, so that it passes for a
/// field that was replaced or dropped.
fn is_override(name: &str) -> bool {
    matches!(
        name,
        "x-original-url"
            | "x-rewrite-url"
            | "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "proxy"
    ) || memchr(b'_', name.as_bytes()).is_some()
}

/// What only a proxy in front of us can know. The three `X-Forwarded-*` fields that are always ours are
/// replaced, not dropped.
fn is_word_of_a_proxy(name: &str) -> bool {
    match name.strip_prefix("x-forwarded-") {
        Some(rest) => !matches!(rest, "for" | "proto" | "host"),
        None => matches!(name, "forwarded" | "x-real-ip" | "client-cert" | "client-cert-chain"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(is_trusted: bool, passed: &[&'static str]) -> Vec<String> {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        let names = [
            "X-Original-URL",
            "X-HTTP-Method-Override",
            "Proxy",
            "X_Forwarded_For",
            "Content_Length",
            "X-Forwarded-Prefix",
            "X-Forwarded-Proto",
            "X-Real-IP",
            "Client-Cert",
            "Client-Cert-Chain",
            "Forwarded",
            "Accept",
        ];
        for name in names {
            request.append_header(name, "x").unwrap();
        }
        let passed: Vec<_> = passed.iter().map(|name| HeaderName::from_static(name)).collect();
        drop_overrides(&mut request, is_trusted, &passed);
        let mut left: Vec<_> = request.headers.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn overrides_go_and_only_a_trusted_proxy_speaks_of_itself() {
        assert_eq!(left(false, &[]), ["accept", "x-forwarded-proto"]);
        let words = [
            "accept",
            "client-cert",
            "client-cert-chain",
            "forwarded",
            "x-forwarded-prefix",
            "x-forwarded-proto",
            "x-real-ip",
        ];
        assert_eq!(left(true, &[]), words);
        let passed = ["x-original-url", "content_length"];
        assert_eq!(left(false, &passed), ["accept", "content_length", "x-forwarded-proto", "x-original-url"]);
    }
}
