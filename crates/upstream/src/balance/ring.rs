//! The hash ring: each seat stands at many points of a circle, as many as its weight says, and a key belongs to
//! the first point behind it.
//!
//! Points are made of the address alone. So whoever leaves gives up its own keys and no others move, and several
//! gateways agree without talking. The ring holds all seats, in rotation or not: it is made anew when members
//! come or go, not when their health changes.

use super::{Weighted, scramble};

/// Points of a seat of weight one, as long as there are few seats: shares then differ by about 9 %.
const POINTS_PER_WEIGHT: u64 = 128;
/// The longest ring, 8 MiB, but for one point that each seat has in any case. Where there would be more points,
/// each seat keeps the first half of its own, or a quarter, and so on.
const POINTS_MAX: u64 = 1 << 20;
/// The lower bits of a point are the seat, the others its place.
const SEAT_BITS: u32 = 20;
const SEAT_MASK: u64 = (1 << SEAT_BITS) - 1;

/// All points in the order of the circle.
#[derive(Debug)]
pub(crate) struct Ring(Vec<u64>);

impl Ring {
    /// The ring of these seats; each comes with a number made of its address.
    pub(crate) fn new(members: &[(Weighted, u64)]) -> Self {
        let weights: u64 = members.iter().map(|((_, weight), _)| u64::from(*weight)).sum();
        let halvings =
            (weights * POINTS_PER_WEIGHT).div_ceil(POINTS_MAX).next_power_of_two().trailing_zeros();
        let mut points = Vec::new();
        for &((seat, weight), identity) in members {
            let count = (u64::from(weight) * POINTS_PER_WEIGHT) >> halvings;
            let place = |point| scramble(identity ^ scramble(point)) & !SEAT_MASK;
            points.extend((0..count.max(1)).map(|point| place(point) | u64::from(seat) & SEAT_MASK));
        }
        points.sort_unstable();
        points.shrink_to_fit();
        Self(points)
    }

    /// The seats behind a key, around the whole circle. One may come up several times.
    pub(super) fn behind(&self, key: u64) -> impl Iterator<Item = u32> {
        let Self(points) = self;
        let start = points.partition_point(|point| *point < key & !SEAT_MASK);
        let circle = points.get(start..).into_iter().chain(points.get(..start)).flatten();
        circle.map(|point| u32::try_from(point & SEAT_MASK).unwrap_or(u32::MAX))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;

    fn members(weights: &[u16]) -> Vec<(Weighted, u64)> {
        let member = |(seat, weight): (usize, &u16)| ((seat as u32, *weight), scramble(1000 + seat as u64));
        weights.iter().enumerate().map(member).collect()
    }

    fn owner(ring: &Ring, key: u64) -> u32 {
        ring.behind(scramble(key)).next().unwrap()
    }

    #[test]
    fn whoever_leaves_or_joins_moves_its_own_keys_and_no_others() {
        let all = members(&[1, 2, 1, 3, 1, 1, 1]);
        let ring = Ring::new(&all);
        for gone in 0..7_u32 {
            let rest: Vec<_> = all.iter().filter(|((seat, _), _)| *seat != gone).copied().collect();
            let smaller = Ring::new(&rest);
            for key in 0..20_000 {
                let (before, after) = (owner(&ring, key), owner(&smaller, key));
                assert!(if before == gone { after != gone } else { after == before }, "key {key}");
            }
        }
    }

    #[test]
    fn a_key_of_who_left_goes_where_it_would_go_if_that_seat_were_only_passed_over() {
        let all = members(&[1; 5]);
        let (ring, smaller) = (Ring::new(&all), Ring::new(&all[..4]));
        for key in 0..5000 {
            let passed_over = ring.behind(scramble(key)).find(|seat| *seat != 4);
            assert_eq!(passed_over, Some(owner(&smaller, key)));
        }
    }

    #[test]
    fn a_seat_has_as_many_points_as_its_weight_says_and_the_ring_is_bounded() {
        let ring = Ring::new(&members(&[1, 2, 5]));
        let count = |seat| ring.behind(0).filter(|other| *other == seat).count();
        assert_eq!([count(0), count(1), count(2)], [128, 256, 640]);
        assert_eq!(Ring::new(&members(&[1; 8192])).len(), 1 << 20, "the most at full resolution");
        assert_eq!(Ring::new(&members(&vec![1; 10_000])).len(), 640_000);
        assert!(Ring::new(&members(&vec![1000; 10_000])).len() <= 1 << 20);
        let uneven: Vec<u16> = (0..10_000).map(|seat| if seat == 0 { 1 } else { 1000 }).collect();
        let ring = Ring::new(&members(&uneven));
        assert_eq!(ring.behind(0).filter(|seat| *seat == 0).count(), 1, "nobody is left out");
    }

    #[test]
    fn the_order_of_the_members_does_not_matter() {
        let all = members(&[1, 3, 2]);
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        assert_eq!(Ring::new(&all).0, Ring::new(&reversed).0);
    }
}
