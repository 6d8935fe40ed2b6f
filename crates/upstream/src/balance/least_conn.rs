//! The seat with the least under way in relation to its weight; among equals, in turn by weight.
//!
//! A tournament of all seats is kept up to date: each change of what is under way replays the matches of one
//! seat, of which there are 14 with 10,000 seats, and the winner is known at once. Choosing and counting are one
//! step under a lock, so that two requests at the same time do not run to the same seat: with equal weights the
//! fullest and the emptiest seat differ by at most one as long as nobody leaves.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Ask, Choice, Seats, Weighted};

/// Among equals each seat moves by this, divided by its weight, with each request that it gets.
const STRIDE: u64 = 1 << 20;
/// What is under way is told in this part of one request, so that it can be divided by a weight.
const PARTS: u64 = 1 << 20;
/// So many seats that cannot be had for this request are passed over. They were tried, or are starting slowly. More
/// than the attempts that a request may have.
const PASSED_OVER_MAX: usize = 128;

/// Least connections.
#[derive(Debug)]
pub(crate) struct LeastConn {
    ranking: Arc<Ranking>,
}

/// The seats of a tier by what they have under way.
#[derive(Debug)]
pub(crate) struct Ranking(Mutex<Tournament>);

#[derive(Debug)]
struct Tournament {
    players: Vec<Player>,
    /// A heap-shaped tree: the winner of the matches below each node; the leaves are the players.
    winners: Vec<u32>,
}

#[derive(Debug)]
struct Player {
    seat: u32,
    weight: u64,
    /// Requests that it may have under way; zero: any number.
    limit: u64,
    rank: Rank,
}

/// The least is best: by what is under way, then by turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    load: u64,
    turn: u64,
}

/// Behind everybody.
const FULL: u64 = u64::MAX;

impl LeastConn {
    pub(crate) fn new(ranking: Arc<Ranking>) -> Self {
        Self { ranking }
    }
}

impl Choice for LeastConn {
    fn choose(&self, _ask: Ask, seats: &dyn Seats) -> Option<u32> {
        self.ranking.0.lock().choose(seats)
    }
}

impl Ranking {
    /// All seats with their weights and limits, with nothing under way.
    pub(crate) fn new(members: impl Iterator<Item = (Weighted, u32)>) -> Self {
        Self(Mutex::new(Tournament::new(members)))
    }

    /// What is under way at a player's seat has changed. The count is read once no other change can come between.
    pub(crate) fn changed(&self, player: usize, in_flight: impl Fn() -> u64) {
        self.0.lock().count(player, in_flight());
    }
}

impl Tournament {
    fn new(members: impl Iterator<Item = (Weighted, u32)>) -> Self {
        let players: Vec<_> = members
            .map(|((seat, weight), limit)| Player {
                seat,
                weight: u64::from(weight).max(1),
                limit: u64::from(limit),
                rank: Rank { load: 0, turn: STRIDE / u64::from(weight).max(1) },
            })
            .collect();
        let leaves = players.len().next_power_of_two();
        let mut this = Self { players, winners: vec![u32::MAX; leaves] };
        for node in (1..leaves).rev() {
            this.replay(node);
        }
        this
    }

    fn choose(&mut self, seats: &dyn Seats) -> Option<u32> {
        let mut passed_over: Vec<(usize, Rank)> = Vec::new();
        let mut found = None;
        while let Some((best, player)) = self.best() {
            let seat = player.seat;
            if seats.is_open(seat) && (seats.take(seat)) {
                found = Some((best, seat));
                break;
            }
            if passed_over.len() == PASSED_OVER_MAX {
                break;
            }
            passed_over.push((best, player.rank));
            self.rank(best, |rank| rank.load = FULL);
        }
        for (player, rank) in passed_over {
            self.rank(player, |now| *now = rank);
        }
        let (best, seat) = found?;
        self.rank_moves(best);
        self.count(best, seats.in_flight(seat));
        Some(seat)
    }

    /// The winner of all, unless even that one is full.
    fn best(&self) -> Option<(usize, &Player)> {
        let best = if self.players.len() == 1 { 0 } else { usize::try_from(*self.winners.get(1)?).ok()? };
        let player = self.players.get(best)?;
        (player.rank.load != FULL).then_some((best, player))
    }

    fn rank_moves(&mut self, player: usize) {
        let stride = self.players.get(player).map_or(0, |player| STRIDE / player.weight);
        self.rank(player, |rank| rank.turn += stride);
    }

    fn count(&mut self, player: usize, in_flight: u64) {
        let Some(Player { weight, limit, .. }) = self.players.get(player) else {
            return;
        };
        let is_full = *limit > 0 && in_flight >= *limit;
        let load = if is_full { FULL } else { in_flight.saturating_mul(PARTS) / weight };
        self.rank(player, |rank| rank.load = load);
    }

    /// Changes the rank of a player and replays its matches.
    fn rank(&mut self, player: usize, change: impl FnOnce(&mut Rank)) {
        if let Some(player) = self.players.get_mut(player) {
            change(&mut player.rank);
        }
        let mut node = usize::midpoint(player, self.winners.len());
        while node > 0 {
            self.replay(node);
            node /= 2;
        }
    }

    fn replay(&mut self, node: usize) {
        let (left, right) = (self.winner(2 * node), self.winner(2 * node + 1));
        let rank = |player: u32| {
            let player = usize::try_from(player).ok().and_then(|player| self.players.get(player));
            player.map_or(Rank { load: FULL, turn: u64::MAX }, |player| player.rank)
        };
        let winner = if rank(right) < rank(left) { right } else { left };
        if let Some(slot) = self.winners.get_mut(node) {
            *slot = winner;
        }
    }

    /// Who comes up from below: the winner of a match, or a player.
    fn winner(&self, node: usize) -> u32 {
        match node.checked_sub(self.winners.len()) {
            Some(player) => u32::try_from(player).unwrap_or(u32::MAX),
            None => self.winners.get(node).copied().unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;
    use crate::balance::testing::Hall;

    const ASK: Ask = Ask { turn: 0, hash: None };

    fn way(weights: &[u16], limit: u32) -> LeastConn {
        let members = weights.iter().enumerate().map(|(seat, weight)| ((seat as u32, *weight), limit));
        LeastConn::new(Arc::new(Ranking::new(members)))
    }

    fn leave(way: &LeastConn, hall: &Hall, seat: usize) {
        hall.leave(seat);
        way.ranking.changed(seat, || hall.in_flight(seat as u32));
    }

    #[test]
    fn with_equal_weights_no_two_seats_ever_differ_by_more_than_one() {
        for n in [1, 2, 3, 5, 7, 16, 100] {
            let (way, hall) = (way(&vec![1; n], 0), Hall::new(&vec![1; n]));
            for _ in 0..=(n * 5) {
                way.choose(ASK, &hall).unwrap();
                let under_way = hall.in_flight.borrow();
                let (most, least) = (under_way.iter().max().unwrap(), under_way.iter().min().unwrap());
                assert!(most - least <= 1, "{n}: {under_way:?}");
            }
        }
    }

    #[test]
    fn the_chosen_seat_is_always_among_the_least_whoever_leaves() {
        let (n, way, hall) = (13, way(&[1; 13], 0), Hall::new(&[1; 13]));
        let mut random = 7_u64;
        for _ in 0..5000 {
            random = crate::balance::scramble(random);
            let busy: Vec<_> = (0..n).filter(|seat| hall.in_flight(*seat as u32) > 0).collect();
            if random % 5 < 2 && !busy.is_empty() {
                leave(&way, &hall, busy[(random >> 8) as usize % busy.len()]);
                continue;
            }
            let least = *hall.in_flight.borrow().iter().min().unwrap();
            let seat = way.choose(ASK, &hall).unwrap();
            assert_eq!(hall.in_flight(seat) - 1, least);
        }
    }

    #[test]
    fn seats_fill_by_weight_to_the_exact_count() {
        let (way, hall) = (way(&[5, 3, 2], 0), Hall::new(&[5, 3, 2]));
        for _ in 0..100 {
            way.choose(ASK, &hall).unwrap();
        }
        assert_eq!(hall.taken(), [50, 30, 20]);
    }

    #[test]
    fn equals_take_turns_by_weight_when_nothing_is_under_way() {
        let (way, hall) = (way(&[5, 3, 2], 0), Hall::new(&[5, 3, 2]));
        for _ in 0..100 {
            let seat = way.choose(ASK, &hall).unwrap() as usize;
            leave(&way, &hall, seat);
        }
        assert_eq!(hall.taken(), [50, 30, 20]);
    }

    #[test]
    fn a_full_seat_is_left_out_and_nobody_is_found_when_all_are() {
        let (way, hall) = (way(&[1; 3], 2), Hall::new(&[1; 3]));
        for _ in 0..6 {
            assert!(way.choose(ASK, &hall).is_some());
        }
        assert_eq!((hall.taken(), way.choose(ASK, &hall)), (vec![2; 3], None));
        leave(&way, &hall, 1);
        assert_eq!((way.choose(ASK, &hall), way.choose(ASK, &hall)), (Some(1), None));
    }

    #[test]
    fn who_was_tried_is_passed_over_and_keeps_its_place() {
        let (way, mut hall) = (way(&[1; 3], 0), Hall::new(&[1; 3]));
        hall.close(0);
        assert!((0..4).all(|_| way.choose(ASK, &hall) != Some(0)));
        let open = Hall::new(&[1; 3]);
        *open.in_flight.borrow_mut() = vec![0, 2, 2];
        assert_eq!((way.choose(ASK, &open), way.choose(ASK, &open)), (Some(0), Some(0)));
    }
}
