//! Who may use a route, and how often: `allow`, `deny` and `rate_limit`.

use std::num::NonZeroU32;

use super::server::networks;
use crate::kind::{integer, text_as};
use crate::view::{Map, View};
use crate::{Access, Per, Rate, RateLimit, defaults, keys};

/// Who is let in by address.
pub(super) fn access(map: &Map<'_>) -> Access {
    Access { allow: networks(map, "allow"), deny: networks(map, "deny") }
}

/// One limit or several. Those of the whole route come last: a client that is refused by its own limit takes
/// nothing from the others.
pub(super) fn rate_limits(map: &Map<'_>) -> Vec<RateLimit> {
    let Some(view) = map.get("rate_limit") else {
        return Vec::new();
    };
    let items = view.items().unwrap_or_else(|| vec![view]);
    let mut limits: Vec<RateLimit> = items.iter().filter_map(rate_limit).collect();
    limits.sort_by_key(|limit| limit.per == Per::Route);
    limits
}

fn rate_limit(view: &View<'_>) -> Option<RateLimit> {
    let map = view.map(&keys::RATE_LIMIT)?;
    let per = map.read("per", text_as(Per::parse)).unwrap_or(defaults::RATE_LIMIT_PER);
    let burst = map.read("burst", integer(Rate::burst_range())).and_then(NonZeroU32::new);
    let exempt = networks(&map, "exempt");
    let rate = map.required("rate")?.read(text_as(Rate::parse))?;
    Some(RateLimit { per, rate, burst: burst.unwrap_or(rate.of_a_second()), exempt })
}
