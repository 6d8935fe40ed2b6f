//! `server`, `admin`, `limits` and `trusted_proxies`.

use goodgate_failure::Networks;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::TIMEOUT;
use super::networks::networks;
use crate::address::{parse_host, parse_listen, parse_resolver};
use crate::kind::{duration, integer, size, text, text_as, wrong};
use crate::tree::Node;
use crate::view::{Map, View};
use crate::{Admin, Limits, Server, Spool, TARGET_BYTES_MAX, Token, defaults, keys};

const THREADS_MAX: usize = 1024;
/// A byte in a microsecond: a faster client is not meant to be given up.
const BODY_RATE_MAX: u64 = 1 << 20;
const UPSTREAM_KEEPALIVE_MAX: usize = 65_536;
/// More open files than a process can have.
const CONNECTIONS_MAX: usize = 10_000_000;
/// The engine reads a header into a buffer of this size at most, with this many fields at most.
const HEADER_BYTES_MAX: u64 = 1 << 20;
const HEADERS_MAX: usize = 256;
/// The largest body that can be allowed: finite, and more than anybody sends.
pub(super) const BODY_BYTES_MAX: u64 = 1 << 40;

pub(super) fn server(top: &Map<'_>, folder: &Path) -> Server {
    let map = top.section("server", &keys::SERVER);
    let shutdown = map.section("shutdown", &keys::SHUTDOWN);
    let pause = || duration(Duration::ZERO..=*TIMEOUT.end());
    Server {
        threads: map.read("threads", threads).flatten(),
        shutdown_delay: shutdown.read("delay", pause()).unwrap_or(defaults::SHUTDOWN_DELAY),
        shutdown_drain: shutdown.read("drain", pause()).unwrap_or(defaults::SHUTDOWN_DRAIN),
        upstream_keepalive: map.read("upstream_keepalive", upstream_keepalive).flatten(),
        state_dir: map.read("state_dir", text_as(state_dir)).map(|path| folder.join(path)),
        resolvers: map.get("resolver").map(|view| resolvers(&view, "/etc/resolv.conf")).unwrap_or_default(),
        spool: spool(&map.section("spool", &keys::SPOOL), folder),
    }
}

/// A folder that is named must be there; the one that is not may lack, as long as nobody needs it.
fn spool(map: &Map<'_>, folder: &Path) -> Spool {
    let path = map.get("path").and_then(|view| {
        let path = folder.join(view.read(text)?);
        if !path.is_dir() {
            view.problem(wrong(view.node(), "a folder that is there"));
        }
        Some(path)
    });
    Spool {
        path: path.unwrap_or_else(|| defaults::SPOOL_PATH.into()),
        bytes_max: map.read("size", size(0..=BODY_BYTES_MAX)).unwrap_or(defaults::SPOOL_BYTES_MAX),
    }
}

fn state_dir(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("a folder, like `/var/lib/goodgate`".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn threads(node: &Node) -> Result<Option<NonZeroUsize>, String> {
    if text(node).is_ok_and(|text| text == "auto") {
        return Ok(None);
    }
    integer(1..=THREADS_MAX)(node)
        .map(NonZeroUsize::new)
        .map_err(|_| wrong(node, &format!("auto, or a whole number from 1 to {THREADS_MAX}")))
}

/// Name servers; `otherwise` says who is asked without them.
pub(super) fn resolvers(view: &View<'_>, otherwise: &str) -> Vec<SocketAddr> {
    let resolvers = view.list_of(text_as(parse_resolver)).unwrap_or_default();
    if view.items().is_some_and(|items| items.is_empty()) {
        view.problem(format!("found an empty list; leave it out to use {otherwise}"));
    }
    resolvers
}

pub(super) fn admin_address(top: &Map<'_>) -> Option<SocketAddr> {
    let map = top.section("admin", &keys::ADMIN);
    if map.has("address") { map.read("address", text_as(parse_listen)) } else { Some(defaults::ADMIN) }
}

pub(super) fn admin(top: &Map<'_>, folder: &Path) -> Admin {
    let map = top.section("admin", &keys::ADMIN);
    let hosts = map.get("hosts").and_then(|view| {
        view.list_of(text_as(|text| parse_host(text).ok_or_else(|| "a host name without a port".to_owned())))
    });
    let token = map.get("token_file").and_then(|view| {
        let path = folder.join(view.read(text)?);
        Token::read(&path).map_err(|message| view.problem(message)).ok()
    });
    Admin { address: admin_address(top).unwrap_or(defaults::ADMIN), token, hosts: hosts.unwrap_or_default() }
}

pub(super) fn limits(top: &Map<'_>) -> Limits {
    let map = top.section("limits", &keys::LIMITS);
    let time = |key, default| map.read(key, duration(TIMEOUT)).unwrap_or(default);
    let header = |key, default| bytes(&map, key, defaults::HEADER_BYTES_MIN, default);
    let header_bytes_max = header("max_header_bytes", defaults::HEADER_BYTES_MAX);
    let limits = Limits {
        header_timeout: time("header_timeout", defaults::HEADER_TIMEOUT),
        body_timeout: time("body_timeout", defaults::BODY_TIMEOUT),
        body_rate_min: NonZeroU32::new(
            map.read("min_body_rate", size(0..=BODY_RATE_MAX))
                .and_then(|rate| u32::try_from(rate).ok())
                .unwrap_or(defaults::BODY_RATE_MIN),
        ),
        write_timeout: time("write_timeout", defaults::CLIENT_WRITE_TIMEOUT),
        keepalive_timeout: time("keepalive_timeout", defaults::KEEPALIVE_TIMEOUT),
        handshake_timeout: time("handshake_timeout", defaults::HANDSHAKE_TIMEOUT),
        connections_max: map
            .read("max_connections", integer(1..=CONNECTIONS_MAX))
            .unwrap_or(defaults::CONNECTIONS_MAX),
        connections_per_ip_max: map
            .read("max_connections_per_ip", integer(0..=u32::MAX))
            .and_then(NonZeroU32::new),
        requests_per_connection_max: map
            .read("max_requests_per_connection", integer(1..=u32::MAX))
            .unwrap_or(defaults::REQUESTS_PER_CONNECTION_MAX),
        header_bytes_max,
        headers_max: map.read("max_headers", integer(1..=HEADERS_MAX)).unwrap_or(defaults::HEADERS_MAX),
        uri_bytes_max: bytes(&map, "max_uri_bytes", 1, defaults::URI_BYTES_MAX.min(header_bytes_max)),
        body_bytes_max: map
            .read("max_body_bytes", size(1..=BODY_BYTES_MAX))
            .unwrap_or(defaults::BODY_BYTES_MAX),
        response_header_bytes_max: header("max_response_header_bytes", defaults::RESPONSE_HEADER_BYTES_MAX),
        passages_max: map.read("max_passages", integer(1..=100)).unwrap_or(defaults::PASSAGES_MAX),
    };
    if let Some(view) = map.get("max_uri_bytes").filter(|_| limits.uri_bytes_max > header_bytes_max) {
        view.problem(wrong(view.node(), "at most `limits.max_header_bytes`, which holds the target too"));
    }
    if let Some(view) = map.get("max_uri_bytes").filter(|_| limits.uri_bytes_max > TARGET_BYTES_MAX) {
        view.problem(wrong(view.node(), &format!("at most {TARGET_BYTES_MAX}")));
    }
    limits
}

/// A size that fits in memory, up to the engine's largest header.
fn bytes(map: &Map<'_>, key: &str, least: u64, default: usize) -> usize {
    let read = map.read(key, size(least..=HEADER_BYTES_MAX));
    read.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
}

pub(super) fn trusted_proxies(top: &Map<'_>) -> Networks {
    networks(top, "trusted_proxies")
}

/// None: `auto`.
fn upstream_keepalive(node: &Node) -> Result<Option<usize>, String> {
    if text(node).is_ok_and(|text| text == "auto") {
        return Ok(None);
    }
    integer(1..=UPSTREAM_KEEPALIVE_MAX)(node)
        .map(Some)
        .map_err(|_| wrong(node, &format!("auto, or a whole number from 1 to {UPSTREAM_KEEPALIVE_MAX}")))
}
