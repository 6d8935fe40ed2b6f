//! What live traffic ejects a backend for, and for how long.

use std::ops::RangeInclusive;
use std::time::Duration;

use goodgate_failure::Words;
use goodgate_upstream::{EjectionPolicy, OutlierPolicy};

use super::TIMEOUT;
use crate::kind::{duration, failure_word, integer, percent, text, wrong};
use crate::tree::Node;
use crate::view::Map;
use crate::{defaults, keys};

/// More failures than this in a window cannot be counted one by one.
pub(super) const MAX_FAILS_MAX: u32 = 10_000;

const OUTLIER_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);
const OUTLIER_REQUESTS: RangeInclusive<u32> = 1..=1_000_000;
/// How many times the others' time: less than this is no outlier, more is a mistake.
const TIMES: RangeInclusive<f64> = 1.5..=1000.0;

pub(super) fn ejection(map: &Map<'_>) -> EjectionPolicy {
    let share = map.read("min_fail_share", percent).unwrap_or(defaults::MIN_FAIL_SHARE_PERCENT);
    let fail_on = map.get("fail_on").and_then(|view| view.list_of(failure_word));
    let fail_timeout = map.read("fail_timeout", duration(TIMEOUT)).unwrap_or(defaults::FAIL_TIMEOUT);
    let longest = map.read("fail_timeout_max", duration(TIMEOUT));
    if let (Some(longest), Some(view)) = (longest, map.get("fail_timeout_max"))
        && longest < fail_timeout
    {
        view.problem("is less than `fail_timeout`, with which ejections begin");
    }
    EjectionPolicy {
        max_fails: map.read("max_fails", integer(0..=MAX_FAILS_MAX)).unwrap_or(defaults::MAX_FAILS),
        fail_timeout,
        fail_timeout_max: longest.unwrap_or(fail_timeout),
        fail_on: fail_on.map_or(Words::of(defaults::FAIL_ON), Words::from_iter),
        min_fail_share: f64::from(share) / 100.0,
    }
}

pub(super) fn soft_ejections_max(map: &Map<'_>) -> f64 {
    f64::from(map.read("max_ejected", percent).unwrap_or(defaults::MAX_EJECTED_PERCENT)) / 100.0
}

pub(super) fn outliers(map: &Map<'_>) -> Option<OutlierPolicy> {
    if !map.has("outliers") {
        return None;
    }
    let map = map.section("outliers", &keys::OUTLIERS);
    let rate = Some(f64::from(defaults::OUTLIER_SUCCESS_PERCENT) / 100.0);
    let times = Some(f64::from(defaults::OUTLIER_FIRST_BYTE));
    Some(OutlierPolicy {
        interval: map.read("interval", duration(OUTLIER_INTERVAL)).unwrap_or(defaults::OUTLIER_INTERVAL),
        requests_min: map
            .read("min_requests", integer(OUTLIER_REQUESTS))
            .unwrap_or(defaults::OUTLIER_REQUESTS_MIN),
        success_rate: map.read("success_rate", success_rate).unwrap_or(rate),
        first_byte: map.read("first_byte", first_byte).unwrap_or(times),
    })
}

fn is_off(node: &Node) -> bool {
    text(node).is_ok_and(|text| text == "off")
}

fn success_rate(node: &Node) -> Result<Option<f64>, String> {
    if is_off(node) {
        return Ok(None);
    }
    percent(node).map(|share| Some(f64::from(share) / 100.0)).map_err(|_| wrong(node, "off, or 0% to 100%"))
}

fn first_byte(node: &Node) -> Result<Option<f64>, String> {
    if is_off(node) {
        return Ok(None);
    }
    let times = crate::kind::number(node).filter(|times| TIMES.contains(times));
    let (least, most) = (TIMES.start(), TIMES.end());
    times.map(Some).ok_or_else(|| wrong(node, &format!("off, or a number from {least} to {most}, like `3`")))
}
