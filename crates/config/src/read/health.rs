//! `health_check`: what is asked of each backend, and how often.

use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use goodgate_upstream::{
    BackendAddress, BackendSpec, BadPattern, BodyPattern, HttpProbe, ProbeKind, ProbePolicy, ProbeTls,
};
use http::Method;

use super::tls::{self, Tls};
use super::{TIMEOUT, headers};
use crate::address::parse_host_header;
use crate::kind::{boolean, duration, integer, one_of, text, text_as, wrong};
use crate::quantity::parse_statuses;
use crate::tree::{Kind, Node};
use crate::view::{Map, View};
use crate::{defaults, keys};

/// What may be asked without a body.
const METHODS: [(&str, Method); 4] =
    [("GET", Method::GET), ("HEAD", Method::HEAD), ("OPTIONS", Method::OPTIONS), ("POST", Method::POST)];
/// Probes are for finding out, not for load.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(1);
const IN_A_ROW_MAX: u32 = 1000;

/// `tls` is what the upstream says of it.
pub(super) fn probe(view: &View<'_>, folder: &Path, tls: &Tls) -> Option<ProbePolicy> {
    let map = view.map(&keys::HEALTH_CHECK)?;
    let port = map.read("port", integer(1..=u16::MAX));
    let interval = |key, default| map.read(key, duration(INTERVAL)).unwrap_or(default);
    let in_a_row = |key, default| {
        let read = map.read(key, integer(1..=IN_A_ROW_MAX)).unwrap_or(default);
        NonZeroU32::new(read).unwrap_or(NonZeroU32::MIN)
    };
    let policy = ProbePolicy {
        kind: ProbeKind::Tcp,
        port: port.and_then(NonZeroU16::new),
        tls: map.get("tls").and_then(|view| tls::of_check(&view, folder, tls)).unwrap_or(ProbeTls::AsBackend),
        interval: interval("interval", defaults::PROBE_INTERVAL),
        interval_down: interval("interval_down", defaults::PROBE_INTERVAL_DOWN),
        timeout: map.read("timeout", duration(TIMEOUT)).unwrap_or(defaults::PROBE_TIMEOUT),
        rise: in_a_row("rise", defaults::RISE),
        fall: in_a_row("fall", defaults::FALL),
        starts_checking: map
            .read("initial", one_of(&[("up", false), ("checking", true)]))
            .unwrap_or_default(),
    };
    Some(ProbePolicy { kind: kind(&map)?, ..policy })
}

/// Reports a port that a backend cannot have.
pub(super) fn fit(upstream: &Map<'_>, backends: &[BackendSpec]) {
    let is_unix = |backend: &&BackendSpec| matches!(backend.address, BackendAddress::Unix(_));
    let port = upstream.get("health_check").filter(|view| matches!(view.node().kind, Kind::Map(_)));
    let port = port.and_then(|view| view.over(None).entries()?.get("port"));
    if let (Some(port), Some(backend)) = (port, backends.iter().find(is_unix)) {
        port.key_problem(format!("not allowed with {}: a Unix socket has no ports", backend.address));
    }
}

fn kind(map: &Map<'_>) -> Option<ProbeKind> {
    match (map.has("http"), map.has("tcp")) {
        (true, false) => http(&map.get("http")?),
        (false, true) => {
            map.section("tcp", &keys::PROBE_TCP);
            Some(ProbeKind::Tcp)
        }
        (true, true) => {
            map.view().key_problem("found `http` and `tcp`; allowed: one of them");
            None
        }
        (false, false) => {
            map.view().key_problem("one of `http` and `tcp` is missing, like `http: { path: /health }`");
            None
        }
    }
}

fn http(view: &View<'_>) -> Option<ProbeKind> {
    let map = view.map(&keys::PROBE_HTTP)?;
    let method = map.read("method", one_of(&METHODS.each_ref().map(|(word, method)| (*word, method))));
    let method = method.cloned().unwrap_or(defaults::PROBE_METHOD);
    let headers = headers::plain(&map, "headers");
    let expect_headers = headers::plain(&map, "expect_headers");
    for key in ["expect_body", "expect_body_regex"] {
        if let Some(view) = map.get(key).filter(|_| method == Method::HEAD) {
            view.key_problem("not allowed with `method: HEAD`: its answers have no body");
        }
    }
    let expect_pattern = map.read("expect_body_regex", text_as(pattern));
    let host = map.read("host", text_as(parse_host_header));
    let expect_status = map.get("expect_status").map(|view| statuses(&view));
    let expect_body = map.read("expect_body", text);
    let drains_on_404 = map.read("drain_on_404", boolean).unwrap_or_default();
    let path = map.required("path")?.read(text_as(path))?;
    let (first, last) = defaults::EXPECT_STATUS;
    let expect_status = expect_status.unwrap_or_else(|| vec![first..=last]);
    let probe = HttpProbe {
        method,
        path,
        host,
        headers,
        expect_status,
        expect_headers,
        expect_body,
        expect_pattern,
        drains_on_404,
    };
    Some(ProbeKind::Http(Box::new(probe)))
}

fn pattern(text: &str) -> Result<BodyPattern, String> {
    BodyPattern::new(text).map_err(|why| match why {
        BadPattern::Syntax => "a regular expression, like `status: (ok|warn)`".to_owned(),
        BadPattern::TooLarge => "a regular expression that takes less than 1 MiB".to_owned(),
    })
}

fn path(text: &str) -> Result<String, String> {
    let is_good = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if is_good { Ok(text.to_owned()) } else { Err("a path that begins with `/`, like `/health`".to_owned()) }
}

fn statuses(view: &View<'_>) -> Vec<RangeInclusive<u16>> {
    if view.items().is_some_and(|items| items.is_empty()) {
        view.problem("found an empty list; allowed: at least one status");
    }
    view.list_of(status).unwrap_or_default()
}

/// A status as a number, or a range as text.
fn status(node: &Node) -> Result<RangeInclusive<u16>, String> {
    let read = match &node.kind {
        Kind::Int(number) => parse_statuses(&number.to_string()),
        Kind::Text(text) => parse_statuses(text),
        Kind::Null | Kind::Bool(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
    };
    read.ok_or_else(|| wrong(node, "a status from 100 to 599 or a range, like `200` or `200-299`"))
}
