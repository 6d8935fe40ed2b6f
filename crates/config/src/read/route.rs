//! `routes`: which requests go where, and under which policies.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;

use goodgate_cache::CachePolicy;
use goodgate_failure::{BudgetPolicy, Replay, RetryPolicy, Words};
use http::{HeaderName, Method};

use super::server::BODY_BYTES_MAX;
use super::{TIMEOUT, access, action, cache, errors, free_name, headers, mirror, split};
use crate::address::parse_host_pattern;
use crate::kind::{boolean, duration, failure_word, integer, one_of, percent, size, text_as};
use crate::tree::Node;
use crate::view::{Map, View};
use crate::{
    Access, BasicAuth, ErrorSpec, HeaderRules, HostPattern, Maintenance, RateLimit, Rewrite, RouteSpec,
    defaults, keys, normal_target,
};

/// The engine tries no more often than this.
const TRIES_MAX: u32 = 16;
/// The largest `retry.max_connect_failures`.
const CONNECT_FAILURES_LIMIT: u32 = 100;

const REPLAY: [(&str, Replay); 4] = [
    ("none", Replay::None),
    ("safe", Replay::Safe),
    ("idempotent", Replay::Idempotent),
    ("all", Replay::All),
];

const METHOD_OVERRIDE: [(&str, bool); 2] = [("pass", true), ("refuse", false)];

/// What routes may refer to.
pub(super) struct Names<'a> {
    pub(super) upstreams: Vec<&'a str>,
    pub(super) stores: Vec<&'a str>,
    /// Where relative paths start.
    pub(super) folder: &'a Path,
}

/// At least one; no name twice, and no two that match the same.
pub(super) fn routes<'a>(
    top: &Map<'a>,
    under: Option<&'a Node>,
    names: &Names<'_>,
    body_bytes_max: u64,
) -> Vec<RouteSpec> {
    let Some(view) = top.required("routes") else { return Vec::new() };
    let items = view.list().unwrap_or_default();
    if view.items().is_some_and(|items| items.is_empty()) {
        view.problem("found an empty list; allowed: at least one route");
    }
    let mut seen = Seen::default();
    let read = |item: View<'a>| {
        let route = route(&item.clone().over(under), names, body_bytes_max)?;
        seen.check(&item, &route);
        Some(route)
    };
    items.into_iter().filter_map(read).collect()
}

fn route(view: &View<'_>, names: &Names<'_>, body_bytes_max: u64) -> Option<RouteSpec> {
    let map = view.map(&keys::ROUTE)?;
    let target = map.section("match", &keys::MATCH);
    let hosts = target.get("host").map_or(Some(Vec::new()), |view| some(&view, text_as(parse_host_pattern)));
    let methods = target.get("methods").map_or(Some(Vec::new()), |view| some(&view, text_as(method)));
    let path = match target.get("path") {
        Some(view) => view.read(text_as(path)),
        None => Some(defaults::PATH.to_owned()),
    };
    let name = map.read("name", text_as(|text| free_name(text, "/*").map(|()| text.to_owned())));
    let policies = policies(&map, names, body_bytes_max);
    let action = action::action(&map, &names.upstreams)?;
    let split = action.upstream().zip(map.get("split"));
    let split = split.and_then(|(own, view)| split::split(&view, own, &names.upstreams));
    let mirror = action.upstream().zip(map.get("mirror"));
    let mirror = mirror.and_then(|(own, view)| mirror::mirror(&view, own, &names.upstreams));
    let (hosts, path, methods) = (hosts?, path?, methods?);
    let name = name.unwrap_or_else(|| default_name(&hosts, &path, &methods));
    Some(RouteSpec {
        name,
        hosts,
        path,
        methods,
        action,
        split,
        mirror,
        timeout: policies.timeout,
        retry: policies.retry,
        cache: policies.cache,
        body_bytes_max: policies.body_bytes_max,
        errors: policies.errors,
        pass_headers: policies.pass_headers,
        passes_method_override: policies.passes_method_override,
        merges_slashes: policies.merges_slashes,
        rewrite: policies.rewrite,
        request_headers: policies.request_headers,
        response_headers: policies.response_headers,
        access: policies.access,
        rate_limits: policies.rate_limits,
        basic_auth: policies.basic_auth,
        maintenance: policies.maintenance,
    })
}

/// One or many, but some: none at all would match nothing. None if one of them is wrong.
fn some<T>(view: &View<'_>, kind: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<T>> {
    let items = view.items().unwrap_or_else(|| vec![view.clone()]);
    if items.is_empty() {
        view.problem("found an empty list; leave it out to match all");
    }
    let read: Vec<_> = items.iter().filter_map(|item| item.read(&kind)).collect();
    (!items.is_empty() && read.len() == items.len()).then_some(read)
}

/// What may also stand in `defaults.route`.
pub(super) struct Policies {
    timeout: std::time::Duration,
    retry: RetryPolicy,
    cache: Option<CachePolicy>,
    body_bytes_max: u64,
    errors: ErrorSpec,
    pass_headers: Vec<HeaderName>,
    passes_method_override: bool,
    merges_slashes: bool,
    rewrite: Option<Rewrite>,
    request_headers: HeaderRules,
    response_headers: HeaderRules,
    access: Access,
    rate_limits: Vec<RateLimit>,
    basic_auth: Option<BasicAuth>,
    maintenance: Option<Maintenance>,
}

pub(super) fn policies(map: &Map<'_>, names: &Names<'_>, body_bytes_max: u64) -> Policies {
    Policies {
        timeout: map.read("timeout", duration(TIMEOUT)).unwrap_or(defaults::ROUTE_TIMEOUT),
        retry: retry(&map.section("retry", &keys::RETRY)),
        cache: map.get("cache").and_then(|view| cache::policy(&view, &names.stores)),
        body_bytes_max: map.read("max_body_bytes", size(1..=BODY_BYTES_MAX)).unwrap_or(body_bytes_max),
        errors: errors::errors(map, names.folder),
        pass_headers: map.get("pass_headers").map(|view| headers::names(&view)).unwrap_or_default(),
        passes_method_override: map.read("method_override", one_of(&METHOD_OVERRIDE)).unwrap_or(true),
        merges_slashes: map.read("merge_slashes", boolean).unwrap_or_default(),
        rewrite: map.has("rewrite").then(|| rewrite(&map.section("rewrite", &keys::REWRITE))),
        request_headers: headers::rules(map, "request_headers", &keys::HEADERS),
        response_headers: headers::rules(map, "response_headers", &keys::HEADERS),
        access: access::access(map),
        rate_limits: access::rate_limits(map),
        basic_auth: access::basic_auth(map, names.folder),
        maintenance: access::maintenance(map, names.folder),
    }
}

fn rewrite(map: &Map<'_>) -> Rewrite {
    let prefix = |text: &str| match path(text) {
        Ok(path) if path == "/" => Err("a path other than `/`".to_owned()),
        Err(_) if text.len() > 1 && text.ends_with('/') => {
            Err("a path without a slash at its end".to_owned())
        }
        path => path,
    };
    let read = |key| map.read(key, text_as(prefix)).unwrap_or_default();
    Rewrite { strip_prefix: read("strip_prefix"), add_prefix: read("add_prefix") }
}

fn retry(map: &Map<'_>) -> RetryPolicy {
    let tries = map.read("tries", integer(1..=TRIES_MAX)).unwrap_or(defaults::TRIES);
    let connect_failures = map.read("max_connect_failures", integer(1..=CONNECT_FAILURES_LIMIT));
    let connect_failures = connect_failures.unwrap_or(defaults::CONNECT_FAILURES_MAX);
    let on = map.get("on").and_then(|view| view.list_of(failure_word));
    RetryPolicy {
        tries: NonZeroU32::new(tries).unwrap_or(NonZeroU32::MIN),
        connect_failures_max: NonZeroU32::new(connect_failures).unwrap_or(NonZeroU32::MIN),
        on: on.map_or(Words::of(defaults::RETRY_ON), Words::from_iter),
        replay: map.read("replay", one_of(&REPLAY)).unwrap_or(defaults::REPLAY),
        budget: BudgetPolicy::percent(map.read("budget", percent).unwrap_or(defaults::BUDGET_PERCENT)),
        body_bytes_max: map
            .read("max_body_bytes", size(defaults::RETRY_BODY_BYTES_MAX..=BODY_BYTES_MAX))
            .unwrap_or(defaults::RETRY_BODY_BYTES_MAX),
    }
}

/// A path that a request can have after the gateway has normalised it.
fn path(text: &str) -> Result<String, String> {
    let allowed = |allowed: &str| Err(allowed.to_owned());
    if let Some(ours) = crate::foreign::path(text) {
        return Err(ours);
    }
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.starts_with('/') || !is_visible || text.contains(['?', '#']) {
        return allowed("a path that begins with `/`, without `?`, `#` and spaces");
    }
    let bare = text.trim_end_matches('/');
    if text != "/" && bare.len() < text.len() {
        let bare = if bare.is_empty() { "/" } else { bare };
        return Err(format!("`{bare}`, which also matches everything below it"));
    }
    if text != "/" && text.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return allowed("a path without empty, `.` and `..` segments");
    }
    match normal_target(text.as_bytes()) {
        Ok(None) => Ok(text.to_owned()),
        Ok(Some(normal)) => Err(format!("`{normal}`, which is how requests are compared")),
        Err(_) => allowed("a path whose escapes are valid"),
    }
}

/// A method's token, RFC 9110 section 9.1. They are case-sensitive, and all that anyone uses are upper case.
fn method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(format!("methods in upper case, like `{upper}`"));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| "a method, like `GET`".to_owned())
}

/// First host (`*` for none) and path, then the methods if there are any: `www.example.com/api GET,HEAD`.
fn default_name(hosts: &[HostPattern], path: &str, methods: &[Method]) -> String {
    let host = match hosts.first() {
        None => "*".to_owned(),
        Some(HostPattern::Exact(host)) => host.clone(),
        Some(HostPattern::Wildcard(parent)) => format!("*{parent}"),
    };
    let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
    if methods.is_empty() { format!("{host}{path}") } else { format!("{host}{path} {}", methods.join(",")) }
}

/// What the routes so far are called and match.
#[derive(Default)]
struct Seen {
    names: HashMap<String, String>,
    matches: HashMap<Match, (String, String)>,
}

/// Host, path and methods.
type Match = (Option<HostPattern>, String, Vec<String>);

impl Seen {
    fn check(&mut self, view: &View<'_>, route: &RouteSpec) {
        let same = self.first_with_same_match(view, route);
        if let Some((name, path)) = &same {
            let message = format!(
                "route `{}` matches the same host, path and methods as route `{name}` (`{path}`), so it would never be used",
                route.name
            );
            view.problem(message);
        }
        let other = self.names.entry(route.name.clone()).or_insert_with(|| view.path().to_owned());
        if same.is_none() && other != view.path() {
            view.problem(format!("the name `{}` is taken by `{other}` already", route.name));
        }
    }

    fn first_with_same_match(&mut self, view: &View<'_>, route: &RouteSpec) -> Option<(String, String)> {
        let mut methods: Vec<_> = route.methods.iter().map(ToString::to_string).collect();
        methods.sort_unstable();
        methods.dedup();
        let hosts =
            if route.hosts.is_empty() { vec![None] } else { route.hosts.iter().cloned().map(Some).collect() };
        let this = (route.name.clone(), view.path().to_owned());
        let mut same = None;
        for host in hosts {
            let key = (host, route.path.clone(), methods.clone());
            let first = self.matches.entry(key).or_insert_with(|| this.clone());
            if *first != this {
                same.get_or_insert_with(|| first.clone());
            }
        }
        same
    }
}
