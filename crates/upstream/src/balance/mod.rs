//! Which backend of a tier is next: one small file for each way, behind one trait.
//!
//! A way chooses among seats, which are indices into the rotation. It knows which seats there are and how
//! heavy each one is; what is true of a seat at this moment (may it be had, how much is under way) it asks of
//! [`Seats`]. No way reads a clock or draws a random number: a request brings its [`Ask`].

mod consistent_hash;
mod least_conn;
mod least_time;
mod random_two;
mod ring;
mod round_robin;
#[cfg(test)]
mod testing;

use std::fmt::Debug;
use std::num::NonZeroU32;
use std::sync::Arc;

pub(crate) use consistent_hash::ConsistentHash;
pub(crate) use least_conn::{LeastConn, Ranking};
pub(crate) use least_time::LeastTime;
pub(crate) use random_two::RandomTwo;
pub(crate) use ring::Ring;
pub(crate) use round_robin::RoundRobin;

/// How the requests of an upstream are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// To whom has the least under way in relation to its weight.
    LeastConn,
    /// Of two that are drawn, to the one with less under way.
    RandomTwo,
    /// Of two that are drawn, to the one whose first bytes come sooner, in view of what it has under way.
    LeastTime,
    /// By a hash of the request: the same to the same, as long as it does not have more than its share.
    ConsistentHash {
        /// How much more than the mean one may have under way; none: any amount.
        factor: Option<BalanceFactor>,
    },
}

/// In percent of the mean; more than 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceFactor(NonZeroU32);

impl BalanceFactor {
    /// The least and the greatest factor in percent.
    pub const RANGE: std::ops::RangeInclusive<u32> = 101..=1000;

    /// None if it is out of range.
    pub fn from_percent(percent: u32) -> Option<Self> {
        NonZeroU32::new(percent).filter(|percent| Self::RANGE.contains(&percent.get())).map(Self)
    }

    pub(crate) fn percent(self) -> u64 {
        u64::from(self.0.get())
    }
}

/// A seat with its weight, 1 to 1000.
pub(crate) type Weighted = (u32, u16);

/// What a request brings to a choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// No other request has this number, and the next one has the next.
    pub(crate) turn: u64,
    /// What it is tied to, if it is tied to anything.
    pub(crate) hash: Option<u64>,
}

impl Ask {
    /// As good as random, and the same for the same turn.
    fn random(self) -> u64 {
        scramble(self.turn)
    }
}

/// What is true of the seats at this moment, for this request.
pub(crate) trait Seats {
    /// Whether the request may have this seat: it is in rotation, was not tried, and has room.
    fn is_open(&self, seat: u32) -> bool;
    /// Takes it. Not, if somebody else took the last room, or while it starts slowly and lets this turn pass.
    fn take(&self, seat: u32) -> bool;
    /// Requests under way there.
    fn in_flight(&self, seat: u32) -> u64;
    /// Requests under way on all seats together.
    fn in_flight_in_all(&self) -> u64;
    /// Its weight.
    fn weight(&self, seat: u32) -> u64;
    /// How soon its first bytes come, in microseconds; none: nothing is known.
    fn first_byte_micros(&self, seat: u32) -> Option<u64>;
}

/// One way of choosing.
pub(crate) trait Choice: Debug + Send + Sync {
    /// Takes the seat that the request should have, among those that it may.
    fn choose(&self, ask: Ask, seats: &dyn Seats) -> Option<u32>;
}

/// What a choice is made of.
pub(crate) struct Tier<'a> {
    /// The seats in rotation. Not empty.
    pub(crate) members: &'a [Weighted],
    /// The ring of all seats, in rotation or not, where there is one.
    pub(crate) ring: Option<&'a Arc<Ring>>,
    /// Who hears of each change of what is under way, where somebody does.
    pub(crate) ranking: Option<&'a Arc<Ranking>>,
}

impl Balance {
    /// Prepares the choice among the seats of a tier.
    pub(crate) fn choice(self, tier: &Tier<'_>) -> Box<dyn Choice> {
        let members = tier.members;
        match (self, tier.ring, tier.ranking) {
            (Self::LeastConn, _, Some(ranking)) => Box::new(LeastConn::new(Arc::clone(ranking))),
            (Self::ConsistentHash { factor }, Some(ring), _) => {
                Box::new(ConsistentHash::new(Arc::clone(ring), members, factor))
            }
            (Self::RandomTwo, ..) => Box::new(RandomTwo::new(members)),
            (Self::LeastTime, ..) => Box::new(LeastTime::new(members)),
            (Self::RoundRobin | Self::LeastConn | Self::ConsistentHash { .. }, ..) => {
                Box::new(RoundRobin::new(members))
            }
        }
    }
}

/// Spreads numbers that are close together over all 64 bits: the last step of `SplitMix64`.
pub(crate) const fn scramble(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
