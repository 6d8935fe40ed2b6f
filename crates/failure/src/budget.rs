//! The retry budget: retries may be at most a share of the traffic, so that an outage is not doubled.
//!
//! Requests and retries are counted over the last ten seconds in ten one-second slots; a retry is allowed
//! while the retries in that window stay below `share` of the requests in it, or below a floor that lets
//! a quiet upstream retry at all. Only retries after something was sent are asked about here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seconds in the window, and slots of one second each.
const WINDOW_SECONDS: u64 = 10;
const SLOTS: usize = 10;

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
        shared.max(u64::from(self.floor_per_second) * WINDOW_SECONDS)
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
        self.requests.add(self.second(now));
    }

    /// Takes one retry out of the budget; `false` if there is none left.
    pub fn take(&self, policy: BudgetPolicy, now: Instant) -> bool {
        let second = self.second(now);
        let allowed = self.retries.sum(second) < policy.allowance(self.requests.sum(second));
        if allowed {
            self.retries.add(second);
        }
        allowed
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).max(Duration::ZERO).as_secs()
    }
}

/// Ten slots, each the second it stands for in the upper half and a count in the lower.
#[derive(Debug, Default)]
struct Window([AtomicU64; SLOTS]);

const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

impl Window {
    fn add(&self, second: u64) {
        let Some(slot) = usize::try_from(second % WINDOW_SECONDS).ok().and_then(|at| self.0.get(at)) else {
            return;
        };
        let stamp = (second + 1) << COUNT_BITS;
        let bump =
            |old: u64| Some(if old & !COUNT_MASK == stamp { old.saturating_add(1) } else { stamp | 1 });
        // The closure never declines, so the result carries no news.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, bump);
    }

    fn sum(&self, second: u64) -> u64 {
        let oldest = (second + 1).saturating_sub(WINDOW_SECONDS);
        self.0
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .filter(|slot| (slot >> COUNT_BITS) > oldest)
            .map(|slot| slot & COUNT_MASK)
            .sum()
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
        let floor = u64::from(BudgetPolicy::FLOOR_PER_SECOND) * WINDOW_SECONDS;
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
        assert!(!budget.take(policy, start + Duration::from_secs(9)));
        assert!(budget.take(policy, start + Duration::from_secs(10)));
    }
}
