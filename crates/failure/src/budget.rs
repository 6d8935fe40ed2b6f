//! The retry budget: retries may be at most a share of the traffic, so that an outage is not doubled.
//!
//! Requests and retries are counted over the last ten seconds; a retry is allowed while the retries in that
//! window stay below `share` of the requests in it, or below a floor that lets a quiet upstream retry at
//! all. Only retries after something was sent are asked about here.

use std::time::{Duration, Instant};

use crate::Window;

/// Over how long requests and retries are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// A window forgets in steps of an eighth. Retries are counted over so much longer that the ten seconds are always
/// whole, and requests over the ten seconds at most: in no ten seconds are there more retries than allowed.
const RETRY_WINDOW: Duration = Duration::from_micros(10_000_000 * 8 / 7 + 1);

/// How many retries an upstream may see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetPolicy {
    /// Retries allowed per request, 0.0 to 1.0.
    share: f64,
    /// Retries per second that are always allowed.
    floor_per_second: u32,
}

impl BudgetPolicy {
    /// The floor: retries per second that are allowed whatever the traffic.
    pub const FLOOR_PER_SECOND: u32 = 10;

    /// A budget of `percent` of the requests of the last ten seconds. More than 100 is taken as 100.
    pub fn percent(percent: u8) -> Self {
        Self { share: f64::from(percent.min(100)) / 100.0, floor_per_second: Self::FLOOR_PER_SECOND }
    }

    fn allowance(self, requests: u64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share between 0 and 1 of a request count is a small, positive number"
        )]
        let shared = (requests as f64 * self.share) as u64;
        shared.max(u64::from(self.floor_per_second) * WINDOW.as_secs())
    }
}

/// The counters behind a [`BudgetPolicy`]: lock-free, one per upstream, kept across reloads.
#[derive(Debug)]
pub struct Budget {
    born: Instant,
    requests: Window,
    retries: Window,
}

impl Budget {
    /// An empty budget, counting from `now`.
    pub fn new(now: Instant) -> Self {
        Self { born: now, requests: Window::default(), retries: Window::default() }
    }

    /// Counts one request (not an attempt).
    pub fn request(&self, now: Instant) {
        self.requests.add(self.since_birth(now), WINDOW);
    }

    /// Takes one retry out of the budget; `false` if there is none left.
    pub fn take(&self, policy: BudgetPolicy, now: Instant) -> bool {
        let at = self.since_birth(now);
        let allowed = self.retries.sum(at, RETRY_WINDOW) < policy.allowance(self.requests.sum(at, WINDOW));
        if allowed {
            self.retries.add(at, RETRY_WINDOW);
        }
        allowed
    }

    fn since_birth(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_upstream_may_retry_up_to_the_floor() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let policy = BudgetPolicy::percent(20);
        let floor = u64::from(BudgetPolicy::FLOOR_PER_SECOND) * WINDOW.as_secs();
        let allowed = (0..floor + 5).filter(|_| budget.take(policy, start)).count() as u64;
        assert_eq!(allowed, floor);
    }

    #[test]
    fn a_busy_upstream_may_retry_its_share() {
        let start = Instant::now();
        let budget = Budget::new(start);
        for _ in 0..10_000 {
            budget.request(start);
        }
        let allowed = (0..10_000).filter(|_| budget.take(BudgetPolicy::percent(20), start)).count();
        assert_eq!(allowed, 2_000);
    }

    #[test]
    fn the_window_forgets_after_ten_seconds() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let policy = BudgetPolicy::percent(0);
        while budget.take(policy, start) {}
        assert!(!budget.take(policy, start + Duration::from_secs(8)));
        assert!(budget.take(policy, start + RETRY_WINDOW));
    }
}
