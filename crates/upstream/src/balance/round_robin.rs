//! In turn, by weight: the order is computed when it changes and not per request.
//!
//! Each backend takes its turns at even distances, the first at an offset of its own (multiples of the
//! golden ratio, which never bunch up): a weighting of 5:1:1 gives `a b a a a c a`, and every stretch of
//! the sequence holds each backend's share to within two turns. Picking is one atomic addition and a look
//! at an array, and it stays smooth when a backend leaves, since the sequence is made anew without it.

use super::{Ask, Choice, Seats, Weighted};

/// The longest sequence; heavier weightings are scaled down to it.
const TURNS_MAX: u64 = 65_536;

/// Weighted round robin.
#[derive(Debug)]
pub(crate) struct RoundRobin {
    turns: Vec<u32>,
}

impl RoundRobin {
    pub(crate) fn new(members: &[Weighted]) -> Self {
        Self { turns: turns(members) }
    }
}

impl Choice for RoundRobin {
    fn choose(&self, ask: Ask, seats: &dyn Seats) -> Option<u32> {
        let start = usize::try_from(ask.turn % u64::try_from(self.turns.len()).ok()?.max(1)).ok()?;
        let order = self.turns.get(start..).into_iter().chain(self.turns.get(..start)).flatten();
        order.copied().find(|seat| seats.is_open(*seat) && seats.take(*seat))
    }
}

/// Turns of the given members, as indexes. `members` are (index, weight), weights at least 1.
pub(super) fn turns(members: &[Weighted]) -> Vec<u32> {
    let weights = reduced(members);
    let mut turns = Vec::new();
    for (position, (&(index, _), &weight)) in members.iter().zip(&weights).enumerate() {
        let offset = golden_offset(position);
        for turn in 0..weight {
            turns.push((when(turn, offset, weight), index));
        }
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, index)| index).collect()
}

/// Weights divided by what they have in common, and scaled down if they are still too many.
fn reduced(members: &[Weighted]) -> Vec<u64> {
    let divisor = members.iter().fold(0, |common, &(_, weight)| gcd(common, u64::from(weight))).max(1);
    let weights: Vec<u64> = members.iter().map(|&(_, weight)| u64::from(weight) / divisor).collect();
    let total: u64 = weights.iter().sum();
    if total <= TURNS_MAX {
        return weights;
    }
    weights.into_iter().map(|weight| (weight * TURNS_MAX / total).max(1)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The fractional part of (position + 1) times the golden ratio, in 1/2^32.
fn golden_offset(position: usize) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9;
    (position as u64 + 1).wrapping_mul(GOLDEN) & u64::from(u32::MAX)
}

/// When the turn falls within one round of the sequence, in 1/2^32 of the round.
fn when(turn: u64, offset: u64, weight: u64) -> u64 {
    ((turn << 32) + offset) / weight.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::Hall;

    fn longest_run(turns: &[u32]) -> usize {
        let twice: Vec<u32> = turns.iter().chain(turns).copied().collect();
        let mut longest = 0;
        let mut run = 0;
        let mut last = None;
        for turn in twice {
            run = if Some(turn) == last { run + 1 } else { 1 };
            last = Some(turn);
            longest = longest.max(run);
        }
        longest
    }

    #[test]
    fn five_to_one_to_one_is_smooth_and_exact() {
        let turns = turns(&[(0, 5), (1, 1), (2, 1)]);
        assert_eq!(turns.len(), 7);
        assert_eq!(turns.iter().filter(|turn| **turn == 0).count(), 5);
        assert!(longest_run(&turns) <= 3, "{turns:?}");
    }

    #[test]
    fn equal_weights_are_plain_round_robin() {
        let turns = turns(&[(0, 10), (1, 10), (2, 10)]);
        let mut sorted = turns.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2], "the common divisor is taken out");
        assert_eq!(longest_run(&turns), 1);
    }

    #[test]
    fn every_stretch_holds_each_share_to_within_two_turns() {
        let members = [(0, 7), (1, 3), (2, 2), (3, 1)];
        let total: usize = members.iter().map(|(_, weight)| usize::from(*weight)).sum();
        let round = turns(&members);
        let rounds: Vec<u32> = round.iter().cycle().take(total * 3).copied().collect();
        for (index, weight) in members {
            for (start, length) in (0..total).flat_map(|start| (1..=total).map(move |length| (start, length)))
            {
                let got = rounds[start..start + length].iter().filter(|turn| **turn == index).count();
                let off = (got * total).abs_diff(length * usize::from(weight));
                assert!(off <= 2 * total, "{index} in {start}+{length}: {got} turns");
            }
        }
    }

    #[test]
    fn huge_weightings_stay_bounded_and_leave_nobody_out() {
        let members: Vec<(u32, u16)> = (0..1000).map(|index| (index, 1 + (index % 1000) as u16)).collect();
        let turns = turns(&members);
        assert!(turns.len() as u64 <= TURNS_MAX + 1000);
        for (index, _) in members {
            assert!(turns.contains(&index));
        }
    }

    #[test]
    fn a_round_gives_each_seat_exactly_its_weight_whatever_turn_it_begins_with() {
        let members = [(0, 5), (1, 3), (2, 1)];
        let way = RoundRobin::new(&members);
        for start in 0..9 {
            let hall = Hall::new(&[5, 3, 1]);
            for turn in start..start + 9 * 7 {
                way.choose(Ask { turn, hash: None }, &hall).unwrap();
            }
            assert_eq!(hall.taken(), [35, 21, 7]);
        }
    }

    #[test]
    fn a_seat_that_is_closed_is_passed_over_and_none_is_found_where_all_are() {
        let way = RoundRobin::new(&[(0, 1), (1, 1), (2, 1)]);
        let mut hall = Hall::new(&[1, 1, 1]);
        hall.close(1);
        let seen: Vec<_> = (0..6).map(|turn| way.choose(Ask { turn, hash: None }, &hall).unwrap()).collect();
        assert!(!seen.contains(&1) && seen.contains(&0) && seen.contains(&2), "{seen:?}");
        hall.close(0);
        hall.close(2);
        assert_eq!(way.choose(Ask { turn: 0, hash: None }, &hall), None);
    }
}
