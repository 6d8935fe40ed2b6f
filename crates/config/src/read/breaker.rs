//! `breaker`: when an upstream has enough.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use goodgate_upstream::BreakerPolicy;

use super::TIMEOUT;
use crate::kind::{duration, integer};
use crate::view::Map;
use crate::{defaults, keys};

/// More than a machine has ports for.
const REQUESTS_MAX: u32 = 1_000_000;
/// Each that waits holds a connection of its client.
const PENDING_MAX: u32 = 100_000;
const RAMP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

pub(super) fn breaker(map: &Map<'_>) -> Option<BreakerPolicy> {
    if !map.has("breaker") {
        return None;
    }
    let map = map.section("breaker", &keys::BREAKER);
    let requests_max = map.read("max_requests", integer(1..=REQUESTS_MAX));
    let pending_max = map.read("max_pending", integer(0..=PENDING_MAX));
    let pending_timeout = map.read("pending_timeout", duration(TIMEOUT));
    let ramp = map.read("ramp", duration(RAMP));
    Some(BreakerPolicy {
        requests_max: NonZeroU32::new(requests_max.unwrap_or(defaults::BREAKER_REQUESTS_MAX))
            .unwrap_or(NonZeroU32::MIN),
        pending_max: pending_max.unwrap_or(defaults::BREAKER_PENDING_MAX),
        pending_timeout: pending_timeout.unwrap_or(defaults::BREAKER_PENDING_TIMEOUT),
        ramp: ramp.unwrap_or(defaults::BREAKER_RAMP),
    })
}
