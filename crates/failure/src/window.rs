//! Counting over the last stretch of time in a fixed number of slots: no list of events, no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SLOTS: u64 = 8;
const SLOT_COUNT: usize = 8;
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Events counted over a sliding window, exact to an eighth of its length.
///
/// Each slot holds the number of the stretch it stands for above its count, so a slot that is out of date
/// is told from a fresh one without a sweep. The length of the window is an argument of each call: it is
/// policy, and policy changes at a reload while the counts stay.
#[derive(Debug, Default)]
pub struct Window([AtomicU64; SLOT_COUNT]);

impl Window {
    /// Counts one event at `at` (time since some fixed start).
    pub fn add(&self, at: Duration, length: Duration) {
        let stretch = stretch(at, length);
        let Some(slot) = usize::try_from(stretch % SLOTS).ok().and_then(|index| self.0.get(index)) else {
            return;
        };
        let stamp = (stretch + 1) << COUNT_BITS;
        let bump = |old: u64| {
            let current = old & !COUNT_MASK == stamp;
            Some(if !current {
                stamp | 1
            } else if old & COUNT_MASK == COUNT_MASK {
                old
            } else {
                old + 1
            })
        };
        // The closure never declines, so the result carries no news.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, bump);
    }

    /// How many events the window that ends at `at` holds.
    pub fn sum(&self, at: Duration, length: Duration) -> u64 {
        let oldest = (stretch(at, length) + 1).saturating_sub(SLOTS);
        self.0
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .filter(|slot| (slot >> COUNT_BITS) > oldest)
            .map(|slot| slot & COUNT_MASK)
            .sum()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for slot in &self.0 {
            slot.store(0, Ordering::Relaxed);
        }
    }
}

fn stretch(at: Duration, length: Duration) -> u64 {
    let slot_micros = (length.as_micros() / u128::from(SLOTS)).max(1);
    u64::try_from(at.as_micros() / slot_micros).unwrap_or(u64::MAX >> COUNT_BITS)
        & (u64::MAX >> (COUNT_BITS + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn counts_what_is_inside_and_forgets_what_is_older() {
        let window = Window::default();
        for _ in 0..5 {
            window.add(Duration::from_secs(100), TEN);
        }
        window.add(Duration::from_secs(104), TEN);
        assert_eq!(window.sum(Duration::from_secs(104), TEN), 6);
        assert_eq!(window.sum(Duration::from_secs(112), TEN), 1);
        assert_eq!(window.sum(Duration::from_secs(115), TEN), 0);
    }

    #[test]
    fn a_slot_that_comes_round_again_starts_at_one() {
        let window = Window::default();
        window.add(Duration::ZERO, TEN);
        window.add(TEN, TEN);
        assert_eq!(window.sum(TEN, TEN), 1);
    }
}
