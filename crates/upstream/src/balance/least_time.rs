//! Two seats are drawn, by weight, and the one is taken where the request is likely to be answered first: by the
//! average time to the first byte, times what is under way.
//!
//! Of a seat that nothing is known of only what is under way counts, so that who is new is neither flooded nor
//! passed over. What is known fades with time (see `Average`), so that who was slow is tried again.

use std::cmp::Ordering;

use super::random_two::{Draw, by_load};
use super::{Ask, Choice, Seats, Weighted};

/// Random two choices by average time to the first byte.
#[derive(Debug)]
pub(crate) struct LeastTime(Draw);

impl LeastTime {
    pub(crate) fn new(members: &[Weighted]) -> Self {
        Self(Draw::new(members))
    }
}

impl Choice for LeastTime {
    fn choose(&self, ask: Ask, seats: &dyn Seats) -> Option<u32> {
        self.0.better_of_two(ask.random(), seats, by_time)
    }
}

fn by_time(seats: &dyn Seats, one: u32, other: u32) -> Ordering {
    let (Some(time_of_one), Some(time_of_other)) =
        (seats.first_byte_micros(one), seats.first_byte_micros(other))
    else {
        return by_load(seats, one, other);
    };
    let wait = |time: u64, seat, weight_of| {
        u128::from(time.max(1)) * u128::from((seats.in_flight(seat) + 1) * seats.weight(weight_of))
    };
    wait(time_of_one, one, other).cmp(&wait(time_of_other, other, one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::Hall;

    fn hall(times: [Option<u64>; 2]) -> Hall {
        let hall = Hall::new(&[1, 1]);
        *hall.times.borrow_mut() = times.to_vec();
        hall
    }

    fn shares(hall: &Hall, requests: u64) -> Vec<u64> {
        let way = LeastTime::new(&[(0, 1), (1, 1)]);
        for turn in 0..requests {
            way.choose(Ask { turn, hash: None }, hall).unwrap();
        }
        hall.taken()
    }

    #[test]
    fn who_answers_three_times_as_fast_has_three_times_as_much_under_way() {
        let hall = hall([Some(1000), Some(3000)]);
        assert_eq!(shares(&hall, 400), [300, 100]);
    }

    #[test]
    fn one_after_the_other_all_go_to_the_faster_one() {
        let hall = hall([Some(1001), Some(1000)]);
        let way = LeastTime::new(&[(0, 1), (1, 1)]);
        for turn in 0..100 {
            assert_eq!(way.choose(Ask { turn, hash: None }, &hall), Some(1));
            hall.leave(1);
        }
    }

    #[test]
    fn of_whom_nothing_is_known_only_what_is_under_way_counts() {
        assert_eq!(shares(&hall([None, Some(1)]), 400), [200, 200]);
        assert_eq!(shares(&hall([None, None]), 400), [200, 200]);
    }

    #[test]
    fn a_stalled_seat_is_left_alone_though_its_average_is_good() {
        let hall = hall([Some(1000), Some(2000)]);
        hall.in_flight.borrow_mut()[0] = 50;
        let way = LeastTime::new(&[(0, 1), (1, 1)]);
        for turn in 0..20 {
            assert_eq!(way.choose(Ask { turn, hash: None }, &hall), Some(1));
        }
    }
}
