//! The backends that a request has tried and that failed. A set, since an upstream may have thousands and each
//! selection asks for many of them; empty, and so free, for a request whose first attempt goes well.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ahash::RandomState;
use goodgate_failure::Address;

/// How long ago a backend must have refused the connection to be tried once more when no other is left. In
/// a plain outage all refuse at once, and a second round would only double the work.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The backends that failed for one request.
#[derive(Debug, Default)]
pub(super) struct Tried(HashMap<Address, Refused, RandomState>);

/// Whether a backend refused the connection.
#[derive(Clone, Copy, Debug)]
enum Refused {
    No,
    /// Once, at this time.
    Once(Instant),
    Twice,
}

impl Tried {
    /// Notes a failed attempt; `is_refusal`: the connection was refused, so that nothing was sent.
    pub(super) fn add(&mut self, backend: Address, is_refusal: bool, now: Instant) {
        let first = if is_refusal { Refused::Once(now) } else { Refused::No };
        let again = |refused: &mut Refused| {
            *refused = match *refused {
                Refused::No => first,
                Refused::Once(at) if !is_refusal => Refused::Once(at),
                Refused::Once(_) | Refused::Twice => Refused::Twice,
            };
        };
        self.0.entry(backend).and_modify(again).or_insert(first);
    }

    /// Whether an attempt on this backend has failed.
    pub(super) fn has(&self, backend: Address) -> bool {
        !self.0.is_empty() && self.0.contains_key(&backend)
    }

    /// Whether a backend that refused the connection once, a while ago, may be tried once more.
    pub(super) fn may_try_again(&self, backend: Address, now: Instant) -> bool {
        match self.0.get(&backend) {
            Some(Refused::Once(at)) => now.saturating_duration_since(*at) >= TRY_AGAIN_AFTER,
            Some(Refused::No | Refused::Twice) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_refused_is_tried_once_more_after_a_while_and_no_third_time() {
        let (mut tried, now) = (Tried::default(), Instant::now());
        let backend = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        let later = now + TRY_AGAIN_AFTER;
        assert!(!tried.has(backend) && !tried.may_try_again(backend, later));
        tried.add(backend, true, now);
        assert!(
            tried.has(backend) && !tried.may_try_again(backend, now) && tried.may_try_again(backend, later)
        );
        tried.add(backend, true, later);
        assert!(!tried.may_try_again(backend, later + TRY_AGAIN_AFTER));
        let silent = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 2)));
        tried.add(silent, false, now);
        assert!(tried.has(silent) && !tried.may_try_again(silent, later));
    }
}
