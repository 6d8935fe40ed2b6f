//! Requests that the gateway refused itself: which limit or rule it was, and which route comes nearest.

use std::fmt::Display;

use goodgate_config::{HostPattern, Limits, RouteSpec};
use goodgate_telemetry::AccessRecord;

use super::text::{shown, span};

/// What a refused request ran into, in sentences; none if only its `detail` can tell.
pub(super) fn refusal(record: &AccessRecord<'_>, routes: &[RouteSpec], limits: &Limits) -> Option<String> {
    let route = routes.iter().find(|route| route.name == record.route);
    match record.status {
        404 if route.is_none() => Some(nearest(record, routes)),
        401 => Some(format!("The route `{}` has `basic_auth`.", shown(&record.route))),
        403 => route.map(|route| access(record, route)),
        408 => Some(format!(
            "`limits.header_timeout` is {}, `limits.body_timeout` {}, and `limits.min_body_rate` {} bytes a second.",
            span(limits.header_timeout),
            span(limits.body_timeout),
            limits.body_rate_min.map_or(0, std::num::NonZero::get)
        )),
        413 => Some(format!(
            "`max_body_bytes` is {} bytes here.",
            route.map_or(limits.body_bytes_max, |route| route.body_bytes_max)
        )),
        414 => Some(format!("`limits.max_uri_bytes` is {} bytes.", limits.uri_bytes_max)),
        431 => Some(format!(
            "`limits.max_header_bytes` is {} bytes and `limits.max_headers` {} fields.",
            limits.header_bytes_max, limits.headers_max
        )),
        429 => route.map(|route| rate(record, route)),
        400 => record
            .detail
            .map(|detail| format!("The request was refused for this: {}.", detail.trim_end_matches('.'))),
        _ => None,
    }
}

fn rate(record: &AccessRecord<'_>, route: &RouteSpec) -> String {
    let limits: Vec<String> = route
        .rate_limits
        .iter()
        .map(|limit| format!("`{} {}` with a burst of {}", limit.per, limit.rate, limit.burst))
        .collect();
    let who = record.client.map_or("unknown".to_owned(), |client| client.to_string());
    if limits.is_empty() {
        return format!("The route `{}` has no `rate_limit` any more.", shown(&route.name));
    }
    let limits = limits.join(", ");
    format!("The route `{}` has the limit {limits}; the client is counted as {who}.", shown(&route.name))
}

fn access(record: &AccessRecord<'_>, route: &RouteSpec) -> String {
    let who = record.client.map_or("unknown".to_owned(), |client| client.to_string());
    format!("The client is {who}; see `allow` and `deny` of the route `{}`.", shown(&route.name))
}

/// The route that would need the fewest changes to take the request.
fn nearest(record: &AccessRecord<'_>, routes: &[RouteSpec]) -> String {
    let host = record.host.rsplit_once(':').map_or(&*record.host, |(host, _)| host).to_ascii_lowercase();
    let score = |route: &&RouteSpec| {
        let takes_host = route.hosts.is_empty() || route.hosts.iter().any(|pattern| takes(pattern, &host));
        (takes_host, common_segments(&route.path, &record.path), takes_method(route, record))
    };
    let Some(route) = routes.iter().max_by_key(score) else { return "There are no routes.".to_owned() };
    let (takes_host, ..) = score(&route);
    let mut wanted = Vec::new();
    if !takes_host {
        wanted.push(format!("the host {}", list(route.hosts.iter().map(pattern))));
    }
    if !is_below(&route.path, &record.path) {
        wanted.push(format!("a path below `{}`", shown(&route.path)));
    }
    if !takes_method(route, record) {
        wanted.push(format!("the method {}", list(route.methods.iter())));
    }
    if wanted.is_empty() {
        return format!(
            "The configuration has changed since: the route `{}` takes it now.",
            shown(&route.name)
        );
    }
    format!("The nearest route is `{}`, which wants {}.", shown(&route.name), wanted.join(" and "))
}

fn takes_method(route: &RouteSpec, record: &AccessRecord<'_>) -> bool {
    route.methods.is_empty() || route.methods.iter().any(|method| method.as_str() == record.method)
}

fn takes(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => name == host,
        HostPattern::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
    }
}

fn pattern(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(suffix) => format!("*{suffix}"),
    }
}

fn is_below(prefix: &str, path: &str) -> bool {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How many leading segments two paths share.
fn common_segments(one: &str, other: &str) -> usize {
    let segments = |path: &'_ str| path.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
    segments(one).iter().zip(&segments(other)).take_while(|(one, other)| one == other).count()
}

fn list(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| format!("`{}`", shown(&item.to_string()))).collect();
    items.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use goodgate_failure::Cause;
    use std::net::IpAddr;
    use std::time::SystemTime;

    const TEXT: &str = "
upstreams: { a: [\"127.0.0.1:1\"] }
limits: { max_body_bytes: 1000, max_uri_bytes: 500 }
routes:
  - { name: api, upstream: a, match: { host: www.example.com, path: /api/v1, methods: [GET] }, max_body_bytes: 10,
      rate_limit: { rate: 2/m, burst: 3 } }
  - { name: files, upstream: a, match: { host: files.example.com } }
";

    fn said(status: u16, host: &str, method: &str, path: &str, route: &str) -> String {
        let config = goodgate_config::parse("c.yaml", TEXT, &|_| None).unwrap();
        let client = IpAddr::from([192, 0, 2, 7]);
        let nothing =
            AccessRecord::of_no_request(SystemTime::UNIX_EPOCH, "x", client, status, Cause::HttpRequestError);
        let record = AccessRecord {
            method: method.into(),
            host: host.into(),
            path: path.into(),
            route: route.into(),
            detail: Some("both Content-Length and Transfer-Encoding"),
            ..nothing
        };
        refusal(&record, &config.routes, &config.limits).unwrap()
    }

    #[test]
    fn the_limit_is_named_with_its_value() {
        assert_eq!(said(413, "", "PUT", "/", "api"), "`max_body_bytes` is 10 bytes here.");
        assert_eq!(said(413, "", "PUT", "/", "none"), "`max_body_bytes` is 1000 bytes here.");
        assert_eq!(said(414, "", "GET", "/", "none"), "`limits.max_uri_bytes` is 500 bytes.");
        assert!(said(431, "", "GET", "/", "none").starts_with("`limits.max_header_bytes` is "));
        assert!(said(408, "", "GET", "/", "none").contains("`limits.header_timeout` is 10"));
        assert!(said(400, "", "GET", "/", "none").ends_with("both Content-Length and Transfer-Encoding."));
        let rate = said(429, "", "GET", "/", "api");
        assert_eq!(
            rate,
            "The route `api` has the limit `client_ip 2/m` with a burst of 3; the client is counted as 192.0.2.7."
        );
    }

    #[test]
    fn the_nearest_route_says_what_it_wants() {
        for (host, method, path, wants) in [
            ("www.example.com:8080", "POST", "/api/v1/x", "`api`, which wants the method `GET`"),
            ("www.example.com", "GET", "/api/v2", "`api`, which wants a path below `/api/v1`"),
            ("FILES.example.com", "GET", "/x", "`files`"),
            ("other.test", "GET", "/api/v1", "`api`, which wants the host `www.example.com`"),
        ] {
            let text = said(404, host, method, path, "none");
            assert!(text.contains(wants), "{host} {path}: {text}");
        }
    }
}
