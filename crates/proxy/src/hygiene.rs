//! Fields of a request that a backend must not get from any client: they override what the request plainly says, or
//! speak for a proxy that is not trusted. A route lets through those that it names (`pass_headers`).
//!
//! A field of this kind that does reach the backend, because the peer is a trusted proxy or because the route passes it,
//! may change the response: it is part of the cache key (see [`keyed`]).

use http::{HeaderMap, HeaderName};
use memchr::memchr;
use pingora_http::RequestHeader;

use crate::context::Context;

/// What a field says that a client has no business to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Another address or method than that of the request line: from nobody but by `pass_headers`.
    Override,
    /// How the client reached a proxy in front: host, scheme, port, path.
    Route,
    /// The address of the client.
    Address,
    /// The identity of the client.
    Identity,
}

/// Removes the fields that the backend does not get, and says which. Most requests have none, and cost one look at the
/// names.
pub(crate) fn drop_claims(
    request: &mut RequestHeader,
    context: &Context,
    passed: &[HeaderName],
) -> Vec<HeaderName> {
    let passes_method = context.override_method.is_some();
    remove(request, |name| {
        is_dropped(name, context.is_trusted, passed) && !(passes_method && METHODS.contains(name))
    })
}

fn remove(request: &mut RequestHeader, is_removed: impl Fn(&HeaderName) -> bool) -> Vec<HeaderName> {
    let names: Vec<HeaderName> = request.headers.keys().filter(|name| is_removed(name)).cloned().collect();
    for name in &names {
        request.remove_header(name);
    }
    names
}

/// Fields that frameworks obey as the method of a POST (see [`crate::override_method`]).
pub(crate) static METHODS: [HeaderName; 5] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("method-override"),
    HeaderName::from_static("http-method-override"),
];

/// The name of a removed field as a metric label: a closed set.
pub(crate) fn label(name: &HeaderName) -> &str {
    let is_of_family = |begin: &&str| name.as_str().starts_with(begin);
    if name.as_str().contains('_') {
        return "with underscore";
    }
    if let Some(family) =
        IDENTITIES_BEGIN.iter().chain(&["x-forward", "oidc-claim-"]).find(|family| is_of_family(family))
        && !is_identity(name.as_str())
        && !is_address(name.as_str())
    {
        return family;
    }
    name.as_str()
}

/// Whether a field is removed.
pub(crate) fn is_dropped(name: &HeaderName, is_trusted: bool, passed: &[HeaderName]) -> bool {
    claim(name.as_str()).is_some_and(|claim| claim == Claim::Override || !is_trusted)
        && !passed.contains(name)
}

/// Removes what says who the client is: a request behind a client's back speaks for nobody.
pub(crate) fn drop_client(request: &mut RequestHeader, passed: &[HeaderName]) {
    let _ = remove(request, |name| is_of_client(name) && !passed.contains(name));
}

/// Whether a field says who or where the client is.
pub(crate) fn is_of_client(name: &HeaderName) -> bool {
    matches!(claim(name.as_str()), Some(Claim::Address | Claim::Identity))
}

/// The fields that reach the backend only because of trust or `pass_headers`, and may change the response. Where the
/// client is, by the word of a trusted proxy, is no part of the key, as `X-Forwarded-For` is none; who the client is
/// makes the request a personal one (see [`has_identity`]).
pub(crate) fn keyed<'a>(
    headers: &'a HeaderMap,
    is_trusted: bool,
    passed: &'a [HeaderName],
) -> impl Iterator<Item = &'a HeaderName> {
    headers.keys().filter(move |name| {
        claim(name.as_str()).is_some_and(|claim| passed.contains(name) || is_trusted && claim == Claim::Route)
    })
}

/// Whether a field says who the client is: as a trusted proxy says it, or by a credential of the client besides
/// `Authorization`.
pub(crate) fn has_identity(headers: &HeaderMap, is_trusted: bool) -> bool {
    headers.keys().any(|name| {
        is_credential(name.as_str()) || is_trusted && claim(name.as_str()) == Some(Claim::Identity)
    })
}

/// Usual names of credentials. Only a client can know them, so that they are passed on.
fn is_credential(name: &str) -> bool {
    match name.as_bytes() {
        [b'x', b'-', ..] => matches!(
            name,
            "x-api-key"
                | "x-api-token"
                | "x-auth-token"
                | "x-auth-key"
                | "x-access-token"
                | "x-session-token"
                | "x-session-id"
                | "x-user-token"
                | "x-vault-token"
                | "x-gitlab-token"
                | "x-shopify-access-token"
                | "x-amz-security-token"
                | "x-goog-api-key"
                | "x-token"
        ),
        [b'a' | b'd' | b'p' | b't', ..] => {
            matches!(
                name,
                "api-key"
                    | "apikey"
                    | "api-token"
                    | "auth-token"
                    | "access-token"
                    | "private-token"
                    | "dpop"
                    | "token"
            )
        }
        _ => false,
    }
}

fn claim(name: &str) -> Option<Claim> {
    if memchr(b'_', name.as_bytes()).is_some() {
        // CGI and its heirs cannot tell it from a dash, so that it passes for a field that was replaced or dropped.
        return Some(Claim::Override);
    }
    match name.as_bytes() {
        [b'x', b'-', ..] => claim_of_x(name),
        [b'a'..=b'd' | b'f' | b'h' | b'i' | b'm' | b'o'..=b't' | b'w' | b'z', ..] => claim_of_other(name),
        _ => None,
    }
}

fn claim_of_x(name: &str) -> Option<Claim> {
    match name {
        // Always set by this gateway: replaced, not dropped.
        "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" => None,
        "x-original-url"
        | "x-rewrite-url"
        | "x-http-method-override"
        | "x-http-method"
        | "x-method-override"
        | "x-http-path-override"
        | "x-http-destinationurl"
        | "x-middleware-subrequest"
        | "x-middleware-rewrite"
        | "x-middleware-prefetch"
        | "x-now-route-matches"
        | "x-matched-path"
        | "x-invoke-path"
        | "x-invoke-status"
        | "x-invoke-query"
        | "x-appengine-cron"
        | "x-appengine-queuename"
        | "x-envoy-internal"
        | "x-sendfile-type"
        | "x-accel-mapping" => Some(Claim::Override),
        _ if is_address(name) => Some(Claim::Address),
        _ if is_identity(name) || IDENTITIES_BEGIN.iter().any(|begin| name.starts_with(begin)) => {
            Some(Claim::Identity)
        }
        _ => (name.starts_with("x-forward") || is_route(name)).then_some(Claim::Route),
    }
}

/// Families of fields of proxies that log clients in (`oauth2-proxy`, Authentik, Pomerium, Kong, cloud load balancers).
const IDENTITIES_BEGIN: [&str; 7] = [
    "x-auth-request-",
    "x-authentik-",
    "x-pomerium-",
    "x-consumer-",
    "x-ms-token-",
    "x-ms-client-principal",
    "x-amzn-oidc-",
];

fn is_address(name: &str) -> bool {
    matches!(
        name,
        "x-forwarded"
            | "x-forwarded-client-ip"
            | "x-real-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-originating-ip"
            | "x-remote-ip"
            | "x-remote-addr"
            | "x-proxyuser-ip"
            | "x-azure-clientip"
            | "x-azure-socketip"
            | "x-envoy-external-address"
            | "x-appengine-user-ip"
            | "x-appengine-remote-addr"
            | "x-nf-client-connection-ip"
            | "x-true-client-ip"
            | "x-forward-for"
            | "x-forwarder-for"
            | "x-vercel-forwarded-for"
            | "x-sucuri-clientip"
    )
}

fn is_identity(name: &str) -> bool {
    matches!(
        name,
        "x-forwarded-client-cert"
            | "x-forwarded-user"
            | "x-forwarded-email"
            | "x-forwarded-groups"
            | "x-forwarded-preferred-username"
            | "x-forwarded-access-token"
            | "x-forwarded-tls-client-cert"
            | "x-forwarded-tls-client-cert-info"
            | "x-remote-user"
            | "x-authenticated-user"
            | "x-authenticated-userid"
            | "x-webauth-user"
            | "x-vouch-user"
            | "x-vouch-idp-accesstoken"
            | "x-endpoint-api-userinfo"
            | "x-apigateway-api-userinfo"
            | "x-ssl-cert"
            | "x-client-dn"
            | "x-client-verify"
            | "x-client-cert"
            | "x-ssl-client-cert"
            | "x-ssl-client-verify"
            | "x-ssl-client-dn"
            | "x-ssl-client-s-dn"
            | "x-ssl-client-cn"
            | "x-arr-clientcert"
            | "x-amzn-mtls-clientcert"
            | "x-amzn-mtls-clientcert-leaf"
            | "x-amzn-mtls-clientcert-subject"
            | "x-goog-authenticated-user-email"
            | "x-goog-authenticated-user-id"
            | "x-goog-iap-jwt-assertion"
    )
}

fn is_route(name: &str) -> bool {
    matches!(
        name,
        "x-host"
            | "x-original-host"
            | "x-http-host-override"
            | "x-host-override"
            | "x-backend-host"
            | "x-original-uri"
            | "x-original-path"
            | "x-original-proto"
            | "x-original-scheme"
            | "x-original-port"
            | "x-original-prefix"
            | "x-original-method"
            | "x-original-forwarded-for"
            | "x-envoy-original-path"
            | "x-envoy-original-host"
            | "x-ms-original-url"
            | "x-waws-unencoded-url"
            | "x-request-uri"
            | "x-proxy-url"
            | "x-script-name"
            | "x-url-scheme"
            | "x-scheme"
            | "x-protocol"
            | "x-ssl"
            | "x-https"
            | "x-arr-ssl"
            | "x-port"
            | "x-proxy-host"
            | "x-server-name"
            | "x-real-host"
            | "x-hostname"
            | "x-client-scheme"
            | "x-client-proto"
            | "x-edge-https"
    )
}

fn claim_of_other(name: &str) -> Option<Claim> {
    match name {
        "proxy" | "method-override" | "http-method-override" => Some(Claim::Override),
        _ if is_other_address(name) => Some(Claim::Address),
        _ if is_other_identity(name) => Some(Claim::Identity),
        _ => is_other_route(name).then_some(Claim::Route),
    }
}

fn is_other_address(name: &str) -> bool {
    matches!(
        name,
        "true-client-ip"
            | "client-ip"
            | "cf-connecting-ip"
            | "cf-connecting-ipv6"
            | "cf-pseudo-ipv4"
            | "fastly-client-ip"
            | "fastly-client"
            | "fly-client-ip"
            | "do-connecting-ip"
            | "proxy-client-ip"
            | "wl-proxy-client-ip"
            | "ali-cdn-real-ip"
            | "cdn-src-ip"
            | "remote-addr"
            | "incap-client-ip"
            | "forwarded-for"
            | "forwarded-for-ip"
            | "z-forwarded-for"
            | "cloudfront-viewer-address"
    )
}

fn is_other_identity(name: &str) -> bool {
    name.starts_with("oidc-claim-")
        || matches!(
            name,
            "client-cert"
                | "client-cert-chain"
                | "remote-user"
                | "remote-email"
                | "remote-groups"
                | "remote-name"
                | "sm-user"
                | "auth-user"
                | "ssl-client-cert"
                | "ssl-client-verify"
                | "ssl-client-dn"
                | "ssl-client-subject-dn"
                | "ssl-client-s-dn"
                | "ssl-client-issuer-dn"
                | "tailscale-user-login"
                | "cf-access-authenticated-user-email"
                | "cf-access-jwt-assertion"
        )
}

fn is_other_route(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "forwarded-proto"
            | "forwarded-host"
            | "front-end-https"
            | "https"
            | "ssl-offloaded"
            | "base-url"
            | "http-url"
            | "proxy-host"
            | "cf-visitor"
            | "cf-ipcountry"
            | "cloudfront-forwarded-proto"
            | "cloudfront-viewer-country"
            | "wl-proxy-ssl"
            | "proxy-ssl"
            | "fastly-ssl"
            | "fastly-orig-host"
            | "script-name"
            | "request-uri"
            | "path-info"
            | "destination-host"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 20] = [
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
        "X-Host",
        "X-Original-Host",
        "X-HTTP-Host-Override",
        "X-URL-Scheme",
        "Front-End-Https",
        "True-Client-IP",
        "X-Client-IP",
        "CF-Connecting-IP",
        "Accept",
    ];

    fn request() -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for name in NAMES {
            request.append_header(name, "x").unwrap();
        }
        request
    }

    fn names(passed: &[&'static str]) -> Vec<HeaderName> {
        passed.iter().map(|name| HeaderName::from_static(name)).collect()
    }

    fn left(is_trusted: bool, passed: &[&'static str]) -> Vec<String> {
        let mut request = request();
        let mut context = Context::new();
        context.is_trusted = is_trusted;
        drop_claims(&mut request, &context, &names(passed));
        let mut left: Vec<_> = request.headers.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn overrides_go_and_only_a_trusted_proxy_speaks_of_itself() {
        assert_eq!(left(false, &[]), ["accept", "x-forwarded-proto"]);
        let always =
            ["x-original-url", "x-http-method-override", "proxy", "x_forwarded_for", "content_length"];
        let mut trusted: Vec<String> = NAMES.iter().map(|name| name.to_ascii_lowercase()).collect();
        trusted.retain(|name| !always.contains(&name.as_str()));
        trusted.sort_unstable();
        assert_eq!(left(true, &[]), trusted);
        let passed = ["x-original-url", "content_length"];
        assert_eq!(left(false, &passed), ["accept", "content_length", "x-forwarded-proto", "x-original-url"]);
    }

    #[test]
    fn the_names_of_removed_fields_are_a_closed_set() {
        for (name, expected) in [
            ("x-original-url", "x-original-url"),
            ("x_forwarded_for", "with underscore"),
            ("x-auth-request-email", "x-auth-request-"),
            ("x-forwarded-user", "x-forwarded-user"),
            ("x-forwarded-whatever", "x-forward"),
            ("oidc-claim-sub", "oidc-claim-"),
        ] {
            assert_eq!(label(&HeaderName::from_static(name)), expected);
        }
    }

    #[test]
    fn a_field_that_overrides_the_method_stays_where_it_is_passed_on() {
        let mut request = request();
        let mut context = Context::new();
        context.override_method = Some(http::Method::PUT);
        let removed = drop_claims(&mut request, &context, &[]);
        assert!(request.headers.contains_key("x-http-method-override"));
        assert!(removed.contains(&HeaderName::from_static("x-original-url")));
    }

    #[test]
    fn what_passes_and_may_change_the_response_is_in_the_key() {
        let request = request();
        let keyed = |is_trusted, passed: &[&'static str]| -> Vec<String> {
            let passed = names(passed);
            let mut keyed: Vec<_> =
                keyed(&request.headers, is_trusted, &passed).map(ToString::to_string).collect();
            keyed.sort_unstable();
            keyed
        };
        assert!(keyed(false, &[]).is_empty());
        assert_eq!(keyed(false, &["x-host", "true-client-ip"]), ["true-client-ip", "x-host"]);
        let by_trust = [
            "forwarded",
            "front-end-https",
            "x-forwarded-prefix",
            "x-host",
            "x-http-host-override",
            "x-original-host",
            "x-url-scheme",
        ];
        assert_eq!(keyed(true, &[]), by_trust);
        assert!(has_identity(&request.headers, true) && !has_identity(&request.headers, false));
    }
}
