//! The same to the same: the first seat behind the request's hash on the ring, as long as it has no more than its
//! share under way (consistent hashing with bounded loads, Mirrokni, Thorup and Zadimoghaddam).
//!
//! The bound: with the new request no seat has more than factor × mean under way, rounded up, its weight taken
//! into account. What is over goes to the next seat on the ring, and so do the keys of a seat that is out, so that
//! both return when there is room. A request that has nothing to hash goes anywhere.

use std::sync::Arc;

use super::{Ask, BalanceFactor, Choice, Ring, Seats, Weighted, scramble};

/// So many points of the ring are looked at. If all of them are closed, nearly everybody is out, and the request
/// goes to one of those that are in rotation.
const LOOKS_MAX: usize = 1024;

/// Consistent hash.
#[derive(Debug)]
pub(crate) struct ConsistentHash {
    ring: Arc<Ring>,
    in_rotation: Vec<u32>,
    /// Of all in rotation together.
    weight: u64,
    factor: Option<BalanceFactor>,
}

impl ConsistentHash {
    pub(crate) fn new(ring: Arc<Ring>, members: &[Weighted], factor: Option<BalanceFactor>) -> Self {
        Self {
            ring,
            in_rotation: members.iter().map(|(seat, _)| *seat).collect(),
            weight: members.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>().max(1),
            factor,
        }
    }

    /// Whether a seat is within its share with one more.
    fn has_share(&self, seat: u32, seats: &dyn Seats) -> bool {
        let Some(factor) = self.factor else {
            return true;
        };
        let allowed = factor.percent() * (seats.in_flight_in_all() + 1) * seats.weight(seat);
        seats.in_flight(seat) < allowed.div_ceil(100 * self.weight)
    }

    fn anywhere(&self, key: u64, seats: &dyn Seats) -> Option<u32> {
        let count = u64::try_from(self.in_rotation.len()).ok()?.max(1);
        let start = usize::try_from(key % count).ok()?;
        let all = &self.in_rotation;
        let order = all.get(start..).into_iter().chain(all.get(..start)).flatten().copied();
        order.into_iter().find(|seat| seats.is_open(*seat) && seats.take(*seat))
    }
}

impl Choice for ConsistentHash {
    fn choose(&self, ask: Ask, seats: &dyn Seats) -> Option<u32> {
        let key = ask.hash.map_or_else(|| ask.random(), scramble);
        let mut last = None;
        for seat in self.ring.behind(key).take(LOOKS_MAX) {
            let is_new = last.replace(seat) != Some(seat);
            if is_new && seats.is_open(seat) && self.has_share(seat, seats) && seats.take(seat) {
                return Some(seat);
            }
        }
        self.anywhere(key, seats)
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;
    use crate::balance::testing::Hall;

    fn way(weights: &[u16], factor: Option<u32>) -> (ConsistentHash, Hall) {
        let members: Vec<_> =
            weights.iter().enumerate().map(|(seat, weight)| (seat as u32, *weight)).collect();
        let named: Vec<_> = members.iter().map(|member| (*member, scramble(u64::from(member.0)))).collect();
        let factor = factor.and_then(BalanceFactor::from_percent);
        let hall = Hall::new(&weights.iter().map(|weight| u64::from(*weight)).collect::<Vec<_>>());
        (ConsistentHash::new(Arc::new(Ring::new(&named)), &members, factor), hall)
    }

    fn ask(hash: u64) -> Ask {
        Ask { turn: 0, hash: Some(hash) }
    }

    #[test]
    fn no_seat_ever_has_more_than_the_factor_allows_however_hot_a_key_is() {
        for (weights, percent) in [(vec![1; 10], 125), (vec![1; 3], 101), (vec![5, 3, 1, 1], 150)] {
            let (way, hall) = way(&weights, Some(percent));
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut is_reached = false;
            for request in 1..=2000_u64 {
                // Nine of ten requests are for one key.
                let key = if request % 10 == 0 { request } else { 7 };
                way.choose(ask(key), &hall).unwrap();
                for (seat, weight) in weights.iter().enumerate() {
                    let bound = (u64::from(percent) * request * u64::from(*weight)).div_ceil(100 * total);
                    let under_way = hall.in_flight(seat as u32);
                    assert!(under_way <= bound, "{under_way} on seat {seat}, {bound} allowed");
                    is_reached |= request > 1000 && under_way == bound;
                }
            }
            assert!(is_reached, "the hot key fills its seat to the bound");
        }
    }

    #[test]
    fn without_a_bound_a_key_stays_where_it_is_and_with_room_as_well() {
        let (way, hall) = way(&[1; 5], None);
        let seat = way.choose(ask(7), &hall);
        assert!((0..1000).all(|_| way.choose(ask(7), &hall) == seat));
        let (way, hall) = self::way(&[1; 5], Some(125));
        for key in 0..500 {
            let seat = way.choose(ask(key), &hall).unwrap();
            hall.leave(seat as usize);
            assert_eq!(way.choose(ask(key), &hall), Some(seat));
            hall.leave(seat as usize);
        }
    }

    #[test]
    fn the_keys_of_a_closed_seat_move_and_no_others_and_come_back() {
        let owners = |hall: &Hall| -> Vec<u32> {
            let (way, _) = way(&[1; 7], None);
            (0..5000).map(|key| way.choose(ask(key), hall).unwrap()).collect()
        };
        let before = owners(&Hall::new(&[1; 7]));
        let mut hall = Hall::new(&[1; 7]);
        hall.close(3);
        let after = owners(&hall);
        for (before, after) in before.iter().zip(&after) {
            assert!(if *before == 3 { *after != 3 } else { after == before });
        }
        assert!(before.contains(&3) && owners(&Hall::new(&[1; 7])) == before);
    }

    #[test]
    fn where_nearly_everybody_is_out_one_that_is_not_is_found() {
        let (way, mut hall) = way(&vec![1; 3000], Some(125));
        let way = ConsistentHash { in_rotation: vec![2999], weight: 1, ..way };
        (0..2999).for_each(|seat| hall.close(seat));
        assert!((0..100).all(|key| way.choose(ask(key), &hall) == Some(2999)));
        hall.close(2999);
        assert_eq!(way.choose(ask(1), &hall), None);
    }

    #[test]
    fn requests_with_nothing_to_hash_go_everywhere() {
        let (way, hall) = way(&[1; 4], None);
        for turn in 0..100 {
            way.choose(Ask { turn, hash: None }, &hall).unwrap();
        }
        assert!(hall.taken().iter().all(|taken| *taken > 0), "{:?}", hall.taken());
    }
}
