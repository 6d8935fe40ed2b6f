//! Who answers worse than the others of its upstream: judged against their median, over one stretch of time.
//!
//! A median is not moved by the one that is judged, as a mean and a deviation are; and with fewer than three to compare
//! there is no telling who is the odd one.

use crate::health::Why;
use crate::seen::Tallied;

/// Fewer backends than these are not compared.
const COMPARED_MIN: usize = 3;
/// However fast the others are: less than this, in microseconds, is not slow.
const SLOW_MICROS_MIN: u64 = 5_000;

/// What makes an outlier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierPolicy {
    /// How long answers are collected before they are compared.
    pub interval: std::time::Duration,
    /// Backends with fewer answers than these in the interval are not compared.
    pub requests_min: u32,
    /// The share of good answers, relative to the median of the others, below which a backend is ejected (0.0 to 1.0).
    pub success_rate: Option<f64>,
    /// How many times the median of the others' time to the first byte is too long.
    pub first_byte: Option<f64>,
}

/// The outliers among what was seen in one interval: their places, and why.
pub(crate) fn outliers(policy: &OutlierPolicy, seen: &[Tallied]) -> Vec<(usize, Why)> {
    let is_heard = |seen: &Tallied| seen.good + seen.bad >= u64::from(policy.requests_min.max(1));
    let heard: Vec<_> = seen.iter().enumerate().filter(|(_, seen)| is_heard(seen)).collect();
    if heard.len() < COMPARED_MIN {
        return Vec::new();
    }
    let mut found = Vec::new();
    if let Some(share) = policy.success_rate {
        let rates: Vec<_> = heard.iter().map(|(at, seen)| (*at, rate(seen))).collect();
        let worse = |own: f64, others: f64| own < others * share;
        found.extend(apart(&rates, worse).map(|at| (at, Why::SuccessRate)));
    }
    if let Some(times) = policy.first_byte {
        let waits: Vec<_> = heard.iter().filter_map(|(at, seen)| Some((*at, wait(seen)?))).collect();
        #[expect(clippy::cast_precision_loss, reason = "a few milliseconds")]
        let worse = |own: f64, others: f64| own > others * times && own >= SLOW_MICROS_MIN as f64;
        let is_new = |at: &usize| !found.iter().any(|(known, _)| known == at);
        let slow: Vec<_> = apart(&waits, worse).filter(is_new).map(|at| (at, Why::FirstByte)).collect();
        found.extend(slow);
    }
    found
}

/// Those that are worse than the median of the others.
fn apart(values: &[(usize, f64)], worse: impl Fn(f64, f64) -> bool) -> impl Iterator<Item = usize> {
    let mut sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    sorted.sort_by(f64::total_cmp);
    values.iter().filter_map(move |(at, value)| {
        let own = sorted.partition_point(|other| other < value);
        worse(*value, median_without(&sorted, own)?).then_some(*at)
    })
}

/// The median of a sorted list without the element at `own`.
fn median_without(sorted: &[f64], own: usize) -> Option<f64> {
    let at = |place: usize| sorted.get(if place < own { place } else { place + 1 }).copied();
    let others = sorted.len().checked_sub(1)?;
    let (low, high) = (at(others.checked_sub(1)? / 2)?, at(others / 2)?);
    Some(f64::midpoint(low, high))
}

#[expect(clippy::cast_precision_loss, reason = "counts of an interval are far below 2^52")]
fn rate(seen: &Tallied) -> f64 {
    seen.good as f64 / (seen.good + seen.bad) as f64
}

/// The mean time to the first byte, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "counts of an interval are far below 2^52")]
fn wait(seen: &Tallied) -> Option<f64> {
    (seen.answered > 0).then(|| seen.micros as f64 / seen.answered as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: OutlierPolicy = OutlierPolicy {
        interval: std::time::Duration::from_secs(10),
        requests_min: 10,
        success_rate: Some(0.8),
        first_byte: Some(3.0),
    };

    fn seen(good: u64, bad: u64, millis: u64) -> Tallied {
        Tallied { good, bad, answered: good + bad, micros: (good + bad) * millis * 1000 }
    }

    #[test]
    fn who_fails_more_than_the_others_is_found_and_who_fails_with_them_is_not() {
        let all = [seen(100, 0, 1), seen(99, 1, 1), seen(70, 30, 1), seen(98, 2, 1)];
        assert_eq!(outliers(&POLICY, &all), [(2, Why::SuccessRate)]);
        let together = [seen(50, 50, 1), seen(48, 52, 1), seen(45, 55, 1)];
        assert_eq!(outliers(&POLICY, &together), []);
        let all_bad = [seen(0, 50, 1), seen(0, 50, 1), seen(0, 50, 1)];
        assert_eq!(outliers(&POLICY, &all_bad), []);
    }

    #[test]
    fn the_bound_is_exact() {
        let with = |good| outliers(&POLICY, &[seen(100, 0, 1), seen(100, 0, 1), seen(good, 100 - good, 1)]);
        assert_eq!(with(80), []);
        assert_eq!(with(79), [(2, Why::SuccessRate)]);
        let with = |millis| outliers(&POLICY, &[seen(10, 0, 10), seen(10, 0, 10), seen(10, 0, millis)]);
        assert_eq!(with(30), []);
        assert_eq!(with(31), [(2, Why::FirstByte)]);
    }

    #[test]
    fn who_is_slow_is_found_but_not_among_the_very_fast() {
        let all = [seen(50, 0, 10), seen(50, 0, 12), seen(50, 0, 60), seen(50, 0, 9)];
        assert_eq!(outliers(&POLICY, &all), [(2, Why::FirstByte)]);
        let fast = [seen(50, 0, 1), seen(50, 0, 1), seen(50, 0, 4)];
        assert_eq!(outliers(&POLICY, &fast), []);
    }

    #[test]
    fn too_few_say_nothing() {
        assert_eq!(outliers(&POLICY, &[seen(100, 0, 1), seen(0, 100, 1)]), [], "two backends");
        let rare = [seen(100, 0, 1), seen(100, 0, 1), seen(0, 9, 1)];
        assert_eq!(outliers(&POLICY, &rare), [], "nine requests");
        assert_eq!(outliers(&POLICY, &[]), []);
    }

    #[test]
    fn the_median_leaves_out_who_is_judged() {
        assert_eq!(median_without(&[1.0, 2.0, 3.0], 0), Some(2.5));
        assert_eq!(median_without(&[1.0, 2.0, 3.0, 4.0], 3), Some(2.0));
        assert_eq!(median_without(&[1.0, 2.0, 3.0, 4.0], 0), Some(3.0));
        assert_eq!(median_without(&[1.0], 0), None);
    }
}
