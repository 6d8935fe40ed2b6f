//! Two seats are drawn, by weight, and the one with less under way is taken.
//!
//! The fullest of all is never taken, and the fullest queue stays within log log n of the mean (Mitzenmacher,
//! "The Power of Two Choices"), at the price of a look at two seats, whatever their number. Several gateways
//! that do not know of each other do not all run to the same seat, as they would with the least of all.

use std::cmp::Ordering;

use super::round_robin::turns;
use super::{Ask, Choice, Seats, Weighted};

/// Random two choices by what is under way.
#[derive(Debug)]
pub(crate) struct RandomTwo(Draw);

/// Draws seats by weight.
#[derive(Debug)]
pub(super) struct Draw {
    /// Each seat as often as its weight says.
    lots: Vec<u32>,
}

impl RandomTwo {
    pub(crate) fn new(members: &[Weighted]) -> Self {
        Self(Draw::new(members))
    }
}

impl Choice for RandomTwo {
    fn choose(&self, ask: Ask, seats: &dyn Seats) -> Option<u32> {
        self.0.better_of_two(ask.random(), seats, by_load)
    }
}

/// Which of two seats would have less under way in relation to its weight, with one more.
pub(super) fn by_load(seats: &dyn Seats, one: u32, other: u32) -> Ordering {
    let with_one_more = |seat, weight_of| (seats.in_flight(seat) + 1).saturating_mul(seats.weight(weight_of));
    with_one_more(one, other).cmp(&with_one_more(other, one))
}

impl Draw {
    pub(super) fn new(members: &[Weighted]) -> Self {
        Self { lots: turns(members) }
    }

    /// Takes the lesser of two different seats, the other one if that cannot be had, else the next that can.
    pub(super) fn better_of_two(
        &self,
        random: u64,
        seats: &dyn Seats,
        compare: fn(&dyn Seats, u32, u32) -> Ordering,
    ) -> Option<u32> {
        let (first, second) = two_of(random, self.lots.len());
        let one = self.next_open(first, None, seats)?;
        let Some(other) = self.next_open(second, Some(one), seats) else {
            return seats.take(one).then_some(one);
        };
        let order = if compare(seats, other, one).is_lt() { [other, one] } else { [one, other] };
        order.into_iter().find(|seat| seats.take(*seat)).or_else(|| {
            let rest = self.from(first).filter(|seat| !order.contains(seat));
            rest.into_iter().find(|seat| seats.is_open(*seat) && seats.take(*seat))
        })
    }

    fn next_open(&self, lot: usize, except: Option<u32>, seats: &dyn Seats) -> Option<u32> {
        self.from(lot).find(|seat| Some(*seat) != except && seats.is_open(*seat))
    }

    fn from(&self, lot: usize) -> impl Iterator<Item = u32> {
        let lots = &self.lots;
        lots.get(lot..).into_iter().chain(lots.get(..lot)).flatten().copied()
    }
}

/// Two different lots of so many, each pair as likely as any other; the same twice if there is one lot only.
fn two_of(random: u64, lots: usize) -> (usize, usize) {
    let lots = lots as u64;
    let part = |bits: u64, of: u64| (bits * of) >> 32;
    let first = part(random >> 32, lots);
    let second = part(random & u64::from(u32::MAX), lots.saturating_sub(1));
    let second = if second >= first && lots > 1 { second + 1 } else { second };
    (usize::try_from(first).unwrap_or(0), usize::try_from(second).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;
    use crate::balance::testing::Hall;

    /// A random number for which [`two_of`] draws these: the middle of the stretch that stands for them.
    fn drawing(first: u64, second: u64, lots: u64) -> u64 {
        let middle = |at: u64, of: u64| ((at << 32) + (1 << 31)) / of;
        let second = if second > first { second - 1 } else { second };
        (middle(first, lots) << 32) | middle(second, lots - 1)
    }

    /// Every ordered pair of different lots once.
    fn every_draw(lots: u64) -> impl Iterator<Item = u64> {
        (0..lots).flat_map(move |first| {
            (0..lots).filter(move |second| *second != first).map(move |second| drawing(first, second, lots))
        })
    }

    #[test]
    fn each_pair_is_drawn_exactly_once() {
        for lots in 2..=20_usize {
            let mut pairs: Vec<_> = every_draw(lots as u64).map(|random| two_of(random, lots)).collect();
            assert!(pairs.iter().all(|(one, other)| one != other && *one < lots && *other < lots));
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), lots * (lots - 1));
        }
        assert_eq!(two_of(u64::MAX, 1), (0, 0));
    }

    #[test]
    fn of_n_seats_the_kth_fullest_wins_exactly_its_share_of_all_draws_and_the_fullest_none() {
        for n in 2..=12_u32 {
            let members: Vec<_> = (0..n).map(|seat| (seat, 1)).collect();
            let way = RandomTwo::new(&members);
            let mut wins = vec![0; n as usize];
            for random in every_draw(u64::from(n)) {
                let hall = Hall::new(&vec![1; n as usize]);
                *hall.in_flight.borrow_mut() = (0..u64::from(n)).collect();
                let seat = way.0.better_of_two(random, &hall, by_load).unwrap();
                wins[seat as usize] += 1;
            }
            // Seat k has k under way: it wins against the n-1-k that are fuller, whoever is drawn first.
            let expected: Vec<u32> = (0..n).map(|seat| 2 * (n - 1 - seat)).collect();
            assert_eq!(wins, expected);
        }
    }

    #[test]
    fn equal_seats_win_equally_often_and_lots_go_by_weight() {
        let (way, mut wins) = (RandomTwo::new(&[(0, 1), (1, 1), (2, 1), (3, 1)]), [0; 4]);
        for random in every_draw(4) {
            wins[way.0.better_of_two(random, &Hall::new(&[1; 4]), by_load).unwrap() as usize] += 1;
        }
        assert_eq!(wins, [3; 4]);
        let draw = Draw::new(&[(0, 3), (1, 1)]);
        assert_eq!(draw.lots.iter().filter(|seat| **seat == 0).count(), 3);
        assert_eq!(draw.lots.len(), 4);
    }

    #[test]
    fn twice_the_weight_may_have_twice_as_much_under_way() {
        let way = RandomTwo::new(&[(0, 2), (1, 1)]);
        let hall = Hall::new(&[2, 1]);
        for turn in 0..300 {
            way.choose(Ask { turn, hash: None }, &hall).unwrap();
            let (heavy, light) = (hall.in_flight(0), hall.in_flight(1));
            assert!(heavy.abs_diff(2 * light) <= 2, "{heavy} and {light}: both are drawn every time");
        }
        assert_eq!(hall.taken(), [200, 100]);
    }

    #[test]
    fn the_fullest_seat_stays_within_the_bound_of_two_choices() {
        // n requests for n seats: one choice leaves about ln n / ln ln n of them on the fullest (6 here), two leave
        // ln ln n / ln 2, rounded up (Azar, Broder, Karlin and Upfal, "Balanced Allocations").
        let n = 10_000_u32;
        let members: Vec<_> = (0..n).map(|seat| (seat, 1)).collect();
        let way = RandomTwo::new(&members);
        for seed in 0..4_u64 {
            let hall = Hall::new(&vec![1; n as usize]);
            for turn in 0..u64::from(n) {
                way.choose(Ask { turn: (seed << 32) + turn, hash: None }, &hall).unwrap();
            }
            let fullest = hall.taken().into_iter().max().unwrap();
            assert!(fullest <= 4, "{fullest}");
        }
    }

    #[test]
    fn who_is_refused_gets_the_other_one_and_then_the_next_that_is_open() {
        let way = RandomTwo::new(&[(0, 1), (1, 1), (2, 1), (3, 1)]);
        let mut hall = Hall::new(&[1; 4]);
        hall.close(2);
        for refusals in 0..3 {
            hall.refusals.set(refusals);
            let seat = way.0.better_of_two(drawing(0, 1, 4), &hall, by_load);
            assert!(seat.is_some_and(|seat| seat != 2), "{refusals}: {seat:?}");
        }
        hall.close(0);
        hall.close(1);
        let random = drawing(0, 1, 4);
        assert_eq!(way.0.better_of_two(random, &hall, by_load), Some(3), "the only one");
        hall.close(3);
        assert_eq!(way.0.better_of_two(random, &hall, by_load), None);
    }
}
