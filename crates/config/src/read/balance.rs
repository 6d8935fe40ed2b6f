//! How an upstream's requests are shared out, and which clients are tied to a backend.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use goodgate_upstream::{Balance, BalanceFactor, HashOn, StickyKey, StickyPolicy};

use super::cache::whole_cookie;
use crate::file::read_bounded;
use crate::kind::{duration, not_among, text, text_as, wrong};
use crate::tree::Node;
use crate::view::Map;
use crate::{defaults, keys};

const WAYS: [&str; 5] = ["round_robin", "least_conn", "random_two", "least_time", "consistent_hash"];
/// Keys that only a consistent hash has.
const OF_HASH: [&str; 2] = ["hash_on", "hash_balance_factor"];

const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);
const STICKY_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(365 * 24);

/// A key's file: random bytes in any form, a line of text or not.
const KEY_BYTES_MAX: usize = 4096;
const KEY_BYTES_MIN: usize = 16;

/// What the keys about balancing say.
pub(super) struct Balancing {
    pub(super) balance: Balance,
    pub(super) hash_on: HashOn,
    pub(super) sticky: Option<StickyPolicy>,
    pub(super) slow_start: Duration,
}

pub(super) fn balancing(map: &Map<'_>, folder: &Path) -> Balancing {
    let factor = map.read("hash_balance_factor", factor).flatten();
    let way = map.read("balance", |node| way(node, factor)).unwrap_or_default();
    if !matches!(way, Balance::ConsistentHash { .. }) {
        for view in OF_HASH.iter().filter(|key| map.has_own(key)).filter_map(|key| map.get(key)) {
            view.key_problem("has no meaning without `balance: consistent_hash`");
        }
    }
    Balancing {
        balance: way,
        hash_on: map.read("hash_on", text_as(hash_on)).unwrap_or_default(),
        sticky: map.has("sticky").then(|| sticky(&map.section("sticky", &keys::STICKY), folder)).flatten(),
        slow_start: map.read("slow_start", duration(SLOW_START)).unwrap_or(defaults::SLOW_START),
    }
}

fn way(node: &Node, factor: Option<BalanceFactor>) -> Result<Balance, String> {
    match text(node).unwrap_or_default().as_str() {
        "round_robin" => Ok(Balance::RoundRobin),
        "least_conn" => Ok(Balance::LeastConn),
        "random_two" => Ok(Balance::RandomTwo),
        "least_time" => Ok(Balance::LeastTime),
        "consistent_hash" => Ok(Balance::ConsistentHash { factor }),
        word => Err(match crate::foreign::key(word) {
            Some(hint) => wrong(node, &format!("{}; {hint}", WAYS.join(", "))),
            None => not_among(node, word, &WAYS),
        }),
    }
}

/// `off`, or a percentage above 100.
fn factor(node: &Node) -> Result<Option<BalanceFactor>, String> {
    // YAML reads `off` as a word, but a template may have made it a boolean.
    let text = text(node).unwrap_or_default();
    if text == "off" {
        return Ok(None);
    }
    let percent = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let factor = percent.and_then(|digits| BalanceFactor::from_percent(digits.parse().ok()?));
    let (least, most) = (BalanceFactor::RANGE.start(), BalanceFactor::RANGE.end());
    factor.map(Some).ok_or_else(|| wrong(node, &format!("off, or {least}% to {most}%")))
}

/// What a hash is made of. The error says what is allowed.
pub(super) fn hash_on(text: &str) -> Result<HashOn, String> {
    let named = || {
        let (kind, name) = text.split_once(':')?;
        match kind {
            "header" => super::headers::any_name(name, "").ok().map(HashOn::Header),
            "cookie" => whole_cookie(name).ok().map(HashOn::Cookie),
            _ => None,
        }
    };
    match text {
        "uri" => Ok(HashOn::Uri),
        "path" => Ok(HashOn::Path),
        "client_ip" => Ok(HashOn::ClientIp),
        _ => named().ok_or_else(|| "uri, path, header:NAME, cookie:NAME, client_ip".to_owned()),
    }
}

fn sticky(map: &Map<'_>, folder: &Path) -> Option<StickyPolicy> {
    let ttl = map.read("ttl", duration(STICKY_TTL));
    let key = map.get("key_file").and_then(|view| {
        let path = folder.join(view.read(text)?);
        key(&path).map_err(|message| view.problem(message)).ok()
    });
    let cookie = map.required("cookie")?.read(text_as(whole_cookie))?;
    Some(StickyPolicy { cookie, ttl, key })
}

fn key(path: &Path) -> Result<StickyKey, String> {
    let bytes = read_bounded(path, KEY_BYTES_MAX, "a key is a few random bytes")?;
    let secret = bytes.trim_ascii();
    if secret.len() < KEY_BYTES_MIN {
        let found = secret.len();
        return Err(format!(
            "{} holds {found} bytes; allowed: {KEY_BYTES_MIN} or more, as `openssl rand -hex 32` writes them",
            path.display()
        ));
    }
    Ok(StickyKey::from_secret(secret))
}
