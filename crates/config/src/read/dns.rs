//! `dns` of one upstream: who is asked for its names, and how long an answer is believed.

use std::ops::RangeInclusive;
use std::time::Duration;

use goodgate_upstream::DnsPolicy;

use super::server::resolvers;
use crate::address::parse_domain;
use crate::kind::{duration, one_of, text_as};
use crate::quantity::show_duration;
use crate::view::Map;
use crate::{defaults, keys};

const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
const KEEP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(365 * 24);
/// More domains than this would be as many questions for each name.
const SEARCH_MAX: usize = 16;

pub(super) fn dns(map: &Map<'_>) -> DnsPolicy {
    let map = map.section("dns", &keys::DNS);
    let policy = DnsPolicy {
        servers: map.get("resolver").map(|view| resolvers(&view, "`server.resolver`")).unwrap_or_default(),
        search: map.get("search").and_then(|view| view.list_of(text_as(parse_domain))),
        family: map.read("family", one_of(&defaults::DNS_FAMILIES)).unwrap_or(defaults::DNS.family),
        ttl_min: map.read("ttl_min", duration(TTL)).unwrap_or(defaults::DNS.ttl_min),
        ttl_max: map.read("ttl_max", duration(TTL)).unwrap_or(defaults::DNS.ttl_max),
        keep: map.read("keep", duration(KEEP)).unwrap_or(defaults::DNS.keep),
    };
    if let Some(view) =
        map.get("search").filter(|_| policy.search.as_ref().is_some_and(|all| all.len() > SEARCH_MAX))
    {
        view.problem(format!("found more than {SEARCH_MAX} domains; allowed: at most {SEARCH_MAX}"));
    }
    let bound = map.get("ttl_max").or_else(|| map.get("ttl_min"));
    if let Some(view) = bound.filter(|_| policy.ttl_min > policy.ttl_max) {
        let [least, most] = [policy.ttl_min, policy.ttl_max].map(show_duration);
        view.problem(format!(
            "`ttl_min` is {least} and `ttl_max` is {most}; allowed: `ttl_min` up to `ttl_max`"
        ));
    }
    policy
}
