//! Who may use a route, how often, and when: `allow`, `deny`, `rate_limit`, `basic_auth` and `maintenance`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::errors;
use super::networks::networks;
use crate::kind::{boolean, duration, integer, text, text_as, wrong};
use crate::tree::Kind;
use crate::users::Users;
use crate::view::{Map, View};
use crate::{Access, BasicAuth, Maintenance, Per, Rate, RateLimit, defaults, keys};

const REALM_BYTES_MAX: usize = 100;
/// What `Retry-After` may say in maintenance.
const RETRY_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(7 * 24);

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

/// `off`, or a map.
pub(super) fn basic_auth(map: &Map<'_>, folder: &Path) -> Option<BasicAuth> {
    let view = map.get("basic_auth")?;
    if text(view.node()).is_ok_and(|text| text == "off") {
        return None;
    }
    let map = view.map(&keys::BASIC_AUTH)?;
    let realm = map.read("realm", text_as(realm)).unwrap_or_else(|| defaults::REALM.to_owned());
    let file = map.required("users_file")?;
    let path = folder.join(file.read(text)?);
    let users = Users::read(&path).map_err(|message| file.problem(message)).ok()?;
    Some(BasicAuth { users: Arc::new(users), realm })
}

/// Text that can stand in quotes.
fn realm(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.len() <= REALM_BYTES_MAX && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("up to 100 visible ASCII characters and spaces, neither quotes nor backslashes".to_owned())
}

/// `true`, `false`, or a map, which means that it is on.
pub(super) fn maintenance(map: &Map<'_>, folder: &Path) -> Option<Maintenance> {
    let view = map.get("maintenance")?;
    let is_map = matches!(view.node().kind, Kind::Map(_));
    let is_on =
        is_map || view.read(|node| boolean(node).map_err(|_| wrong(node, "true, false, or a map")))?;
    if !is_on {
        return None;
    }
    let map = if is_map { view.map(&keys::MAINTENANCE)? } else { view.only_under() };
    Some(Maintenance {
        page: errors::page(&map, "page", folder),
        retry_after: map
            .read("retry_after", duration(RETRY_AFTER))
            .unwrap_or(defaults::MAINTENANCE_RETRY_AFTER),
        allow: networks(&map, "allow"),
        use_stale: map.read("use_stale", boolean).unwrap_or(defaults::MAINTENANCE_USE_STALE),
    })
}
