//! End to end: the real binary over real sockets. One module per behaviour; names are claims.

#![allow(
    clippy::pedantic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]
#![allow(unreachable_pub, reason = "the harness is a module of this program")]
#![allow(missing_docs, reason = "the names of scenarios are claims")]

#[path = "../harness/mod.rs"]
mod harness;

mod alerting;
mod answers;
mod attacks;
mod backend_tls;
mod balancing;
mod broken_configs;
mod browser;
mod cache_model;
mod chaos;
mod checks;
mod client_addresses;
mod client_identity;
mod client_tls;
mod clocks;
mod coalescing;
mod commands;
mod confirming;
mod conformance;
mod connection_auth;
mod connections;
mod crawl;
mod disk;
mod dnsmasq;
mod effective_request;
mod explain;
mod fallback;
mod faults;
mod fillers;
mod front;
mod hanging_disk;
mod health;
mod http2;
mod http2_frames;
mod hygiene;
mod kept;
mod limiting;
mod logs;
mod maintenance;
mod names;
mod operators;
mod ordering;
mod orders;
mod outages;
mod override_method;
mod own_files;
mod passive;
mod passwords;
mod paths;
mod preflights;
mod privacy;
mod purging;
mod purging_many;
mod queueing;
mod real_parts;
mod reload_state;
mod reloading;
mod remembering;
mod replaying;
mod retries;
mod rules;
mod services;
mod sparing;
mod stale;
mod streams;
mod survival;
mod traces;
mod tunnels;
mod unix_sockets;
mod uploads;
mod verdicts;

/// An upstream `web` of these backends with more settings (YAML lines, indented by four).
fn upstream(backends: &[&harness::Backend], settings: &str) -> String {
    let list: Vec<String> = backends.iter().map(|backend| backend.address.to_string()).collect();
    format!("upstreams:\n  web:\n{settings}    backends: [{}]\n", list.join(", "))
}

/// The same with one route to it and more settings of that route (YAML lines, indented by four).
fn site(backends: &[&harness::Backend], settings: &str, route: &str) -> String {
    format!("{}routes:\n  - upstream: web\n{route}", upstream(backends, settings))
}
