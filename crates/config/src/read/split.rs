//! `split` of a route: which share of its requests other upstreams get.

use goodgate_upstream::HashOn;

use super::balance::hash_on;
use crate::kind::{percent, text_as, wrong};
use crate::nearest::nearest;
use crate::tree::Node;
use crate::view::View;
use crate::{Split, keys};

/// None if it cannot be read. `own` is the upstream that has the rest.
pub(super) fn split(view: &View<'_>, own: usize, upstreams: &[&str]) -> Option<Split> {
    let map = view.map(&keys::SPLIT)?;
    let by = map.read("by", text_as(by)).unwrap_or_default();
    let entries = map.required("shares")?;
    let mut shares = Vec::new();
    for (name, share) in entries.entries()?.each() {
        let percent = share.read(whole_percent);
        match upstreams.iter().position(|upstream| *upstream == name) {
            Some(index) if index == own => share.key_problem("is the upstream that has the rest anyway"),
            Some(index) => shares.extend(percent.map(|percent| (index, percent))),
            None => share.key_problem(unknown(name, upstreams)),
        }
    }
    let sum: u32 = shares.iter().map(|(_, percent)| u32::from(*percent)).sum();
    if sum > 100 {
        entries.problem(format!("found {sum}% in all; allowed: at most 100%"));
    }
    if entries.entries()?.each().next().is_none() {
        entries.problem("found an empty map; allowed: at least one upstream with its share");
    }
    Some(Split { by, shares })
}

fn unknown(name: &str, upstreams: &[&str]) -> String {
    match nearest(name, upstreams.iter().copied()) {
        Some(near) => format!("unknown upstream, did you mean `{near}`?"),
        None => format!("unknown upstream; allowed: {}", upstreams.join(", ")),
    }
}

pub(super) fn whole_percent(node: &Node) -> Result<u8, String> {
    percent(node)
        .ok()
        .filter(|percent| *percent > 0)
        .ok_or_else(|| wrong(node, "a percentage from `1%` to `100%`"))
}

fn by(text: &str) -> Result<Option<HashOn>, String> {
    let allowed = || "request, client_ip, header:NAME, cookie:NAME".to_owned();
    match text {
        "request" => Ok(None),
        "uri" | "path" => Err(allowed()),
        _ => hash_on(text).map(Some).map_err(|_| allowed()),
    }
}
