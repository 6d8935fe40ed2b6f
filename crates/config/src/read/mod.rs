//! The readers, one per section: from the tree to a `Config`. They are the only validator, and they return
//! what they checked.
//!
//! Every reader goes on after a problem; a default then stands in for what could not be read, which nobody
//! sees, since a report with a problem yields no `Config`. Names are looked up here and become indexes.

mod access;
mod action;
mod backend;
mod balance;
mod breaker;
mod cache;
mod dns;
mod ejection;
mod errors;
mod headers;
mod health;
mod listener;
mod logs;
mod mirror;
mod networks;
mod route;
mod server;
mod split;
mod tls;
mod upstream;
mod warnings;

pub(crate) use backend::added;

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::problem::Report;
use crate::tree::Node;
use crate::view::{Map, View};
use crate::{Config, keys};

/// What a time limit may be, where its setting says nothing else.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// Names that are metric labels have at most this many characters.
const NAME_CHARS_MAX: usize = 100;

/// Reads the resolved document. None only if it is no map; whether the `Config` is good is for the report to say.
pub(crate) fn config(root: &Node, folder: &Path, report: &Report) -> Option<Config> {
    let top = View::root(root, report).map(&keys::TOP)?;
    let limits = server::limits(&top);
    let stores = cache::stores(&top, folder);
    let under = Under::read(&top, folder, &stores, limits.body_bytes_max);
    let server = server::server(&top, folder);
    let upstreams = upstream::upstreams(&top, folder, under.upstream, &server.resolvers);
    let names = route::Names { upstreams: upstream::names(&top), stores: stores.names(), folder };
    let routes = route::routes(&top, under.route, &names, limits.body_bytes_max);
    let caches = routes.iter().any(|route| route.cache.is_some());
    let config = Config {
        server,
        listeners: listener::listeners(&top, folder),
        admin: server::admin(&top, folder),
        limits,
        trusted_proxies: server::trusted_proxies(&top),
        upstreams,
        stores: stores.used(caches),
        routes,
        access_log: logs::access_log(&top, folder),
        tracing: logs::tracing(&top),
    };
    warnings::warn(&top, &config);
    Some(config)
}

/// What `defaults` puts under every upstream and route. Checked here once, under its own path.
struct Under<'a> {
    upstream: Option<&'a Node>,
    route: Option<&'a Node>,
}

impl<'a> Under<'a> {
    fn read(top: &Map<'a>, folder: &Path, stores: &cache::Stores, body_bytes_max: u64) -> Self {
        let defaults = top.section("defaults", &keys::DEFAULTS);
        let upstream = defaults.get("upstream");
        if let Some(map) = upstream.as_ref().and_then(|view| view.map(&keys::UPSTREAM)) {
            refuse(&map, &["backends"]);
            upstream::policies("", &map, folder);
        }
        let route = defaults.get("route");
        if let Some(map) = route.as_ref().and_then(|view| view.map(&keys::ROUTE)) {
            refuse(&map, &["name", "match", "redirect", "respond"]);
            let names = route::Names { upstreams: Vec::new(), stores: stores.names(), folder };
            route::policies(&map, &names, body_bytes_max);
        }
        Self { upstream: upstream.map(|view| view.node()), route: route.map(|view| view.node()) }
    }
}

/// Reports keys that make no sense under `defaults`.
fn refuse(map: &Map<'_>, keys: &[&str]) {
    for view in keys.iter().filter_map(|key| map.get(key)) {
        view.key_problem("not allowed in `defaults`: it belongs to each one alone");
    }
}

/// The same for an upstream or a route. Metrics and logs say `none` where there is none.
fn free_name(name: &str, also: &str) -> Result<(), String> {
    if name == "none" {
        return Err("another name: `none` stands for requests without a route or upstream".to_owned());
    }
    check_name(name, also)
}

/// Whether a text may be a name. `also` are characters allowed besides letters, digits, `_`, `-` and `.`.
fn check_name(name: &str, also: &str) -> Result<(), String> {
    let is_good = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c) || also.contains(c));
    if is_good {
        return Ok(());
    }
    let also: Vec<_> = also.chars().map(|c| format!(" `{c}`")).collect();
    Err(format!("a name of 1 to {NAME_CHARS_MAX} letters, digits, `_` `-` `.`{}", also.concat()))
}
