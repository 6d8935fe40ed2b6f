//! Who takes turns now: made anew at each change of health or membership, read without a lock. What only a change
//! of membership concerns is kept from one to the next.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::backend::Place;
use crate::balance::{Ask, Choice, Ranking, Ring, Seats, Tier, Weighted};
use crate::{Address, Backend, BackendId, Balance, Health, State, Vitals, hash_of};

/// The ways of choosing among the backends in rotation.
#[derive(Default)]
pub(crate) struct Rotation {
    pub(crate) roster: Arc<Roster>,
    /// Whether the backend of each seat was in rotation when this was made.
    up: Vec<bool>,
    primary: Option<Box<dyn Choice>>,
    backup: Option<Box<dyn Choice>>,
    /// How many backends take turns.
    pub(crate) taking_turns: usize,
    /// When the first trial is due, if a backend is ejected.
    pub(crate) trial_due: Option<Instant>,
}

/// What depends on who the members are, and not on their health.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    seats: Vec<Seat>,
    /// Whether a backend may be full.
    has_limits: bool,
    by_address: HashMap<Address, u32>,
    by_id: HashMap<BackendId, u32>,
    /// Of primary backends, and of backups.
    rings: Option<[Arc<Ring>; 2]>,
}

/// A backend, with what each choice wants to know of it side by side.
#[derive(Debug)]
struct Seat {
    address: Address,
    in_flight_max: u32,
    weight: u16,
    vitals: Arc<Vitals>,
    backend: Arc<Backend>,
}

impl Seat {
    fn new(backend: Arc<Backend>) -> Self {
        Self {
            address: backend.address,
            in_flight_max: backend.in_flight_max,
            weight: backend.weight,
            vitals: Arc::clone(&backend.vitals),
            backend,
        }
    }

    /// None: any number.
    fn room(&self) -> Option<u64> {
        let limit = (self.in_flight_max > 0).then(|| u64::from(self.in_flight_max))?;
        Some(limit.saturating_sub(self.vitals.in_flight()))
    }

    fn is_full(&self) -> bool {
        self.in_flight_max > 0 && self.vitals.in_flight() >= u64::from(self.in_flight_max)
    }
}

impl Roster {
    pub(crate) fn new(balance: Balance, backends: impl Iterator<Item = Arc<Backend>>) -> Self {
        let seats: Vec<_> = backends.map(Seat::new).collect();
        let numbered = || (0_u32..).zip(seats.iter().map(|seat| &seat.backend));
        let ring = |is_backup: bool| {
            let members = numbered().filter(|(_, backend)| backend.backup == is_backup);
            let named = |(seat, backend): (u32, &Arc<Backend>)| {
                ((seat, backend.weight), hash_of(backend.address.to_string().as_bytes()))
            };
            Arc::new(Ring::new(&members.map(named).collect::<Vec<_>>()))
        };
        Self {
            by_address: numbered().map(|(seat, backend)| (backend.address, seat)).collect(),
            by_id: numbered().filter_map(|(seat, backend)| Some((backend.id?, seat))).collect(),
            rings: matches!(balance, Balance::ConsistentHash { .. }).then(|| [ring(false), ring(true)]),
            has_limits: seats.iter().any(|seat| seat.in_flight_max > 0),
            seats,
        }
    }
}

impl Rotation {
    /// The rotation of all members as they are now.
    pub(crate) fn new(balance: Balance, roster: &Arc<Roster>) -> Self {
        let mut rotation = Self { roster: Arc::clone(roster), ..Self::default() };
        let mut tiers: [Vec<Weighted>; 2] = Default::default();
        let [primary, backup] = &mut tiers;
        for (number, seat) in (0_u32..).zip(&roster.seats) {
            let health = seat.vitals.health();
            if let Health::Ejected { until, .. } = health {
                rotation.trial_due = Some(rotation.trial_due.map_or(until, |due| due.min(until)));
            }
            let is_up = health.state() == State::Up;
            if is_up {
                if seat.backend.backup { &mut *backup } else { &mut *primary }.push((number, seat.weight));
            }
            rotation.up.push(is_up);
        }
        rotation.taking_turns = primary.len() + backup.len();
        if balance != Balance::LeastConn {
            roster.seats.iter().for_each(|seat| seat.vitals.set_place(None));
        }
        let [first, second] = &tiers;
        rotation.primary = rotation.choice(balance, first, 0);
        rotation.backup = rotation.choice(balance, second, 1);
        rotation
    }

    fn choice(&self, balance: Balance, members: &[Weighted], tier: usize) -> Option<Box<dyn Choice>> {
        if members.is_empty() {
            return None;
        }
        let ring = self.roster.rings.as_ref().and_then(|rings| rings.get(tier));
        let ranking = (balance == Balance::LeastConn).then(|| self.ranking(members));
        Some(balance.choice(&Tier { members, ring, ranking: ranking.as_ref() }))
    }

    /// A ranking that hears of every change from now on, and knows what is under way.
    fn ranking(&self, members: &[Weighted]) -> Arc<Ranking> {
        let limit = |seat| self.seat(seat).map_or(0, |seat| seat.in_flight_max);
        let ranking = Arc::new(Ranking::new(members.iter().map(|member| (*member, limit(member.0)))));
        for (player, (seat, _)) in members.iter().enumerate() {
            if let Some(seat) = self.seat(*seat) {
                seat.vitals.set_place(Some(Place { ranking: Arc::clone(&ranking), player }));
            }
        }
        ranking
    }

    /// Takes a seat: a primary one, else that of a backup.
    pub(crate) fn choose(&self, turn: impl Fn() -> u64, hash: Option<u64>, hall: &Hall<'_>) -> Option<u32> {
        let choose = |tier: &Option<Box<dyn Choice>>| tier.as_ref()?.choose(Ask { turn: turn(), hash }, hall);
        choose(&self.primary).or_else(|| choose(&self.backup))
    }

    fn seat(&self, seat: u32) -> Option<&Seat> {
        self.roster.seats.get(usize::try_from(seat).ok()?)
    }

    pub(crate) fn backend(&self, seat: u32) -> Option<&Arc<Backend>> {
        self.seat(seat).map(|seat| &seat.backend)
    }

    /// All backends, in rotation or not.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.roster.seats.iter().map(|seat| &seat.backend)
    }

    /// Those out of rotation.
    pub(crate) fn out(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.roster.seats.iter().zip(&self.up).filter(|(_, is_up)| !**is_up).map(|(seat, _)| &seat.backend)
    }

    fn in_rotation(&self) -> impl Iterator<Item = &Seat> {
        self.roster.seats.iter().zip(&self.up).filter(|(_, is_up)| **is_up).map(|(seat, _)| seat)
    }

    fn is_up(&self, seat: u32) -> bool {
        usize::try_from(seat).ok().and_then(|seat| self.up.get(seat)).is_some_and(|is_up| *is_up)
    }

    pub(crate) fn at(&self, address: Address) -> Option<&Arc<Backend>> {
        self.backend(*self.roster.by_address.get(&address)?)
    }

    pub(crate) fn seat_of(&self, id: BackendId) -> Option<u32> {
        self.roster.by_id.get(&id).copied()
    }

    /// Whether a backend that `tried` does not rule out would be asked if it were not full.
    pub(crate) fn is_full(&self, tried: impl Fn(Address) -> bool) -> bool {
        self.roster.has_limits && self.in_rotation().any(|seat| seat.is_full() && !tried(seat.address))
    }

    /// What those in rotation may have under way besides; none: any number, or there are none.
    pub(crate) fn room(&self) -> Option<u64> {
        if !self.roster.has_limits || self.taking_turns == 0 {
            return None;
        }
        self.in_rotation().map(Seat::room).sum()
    }

    /// Whether all that are in rotation are full, and there are some.
    pub(crate) fn is_all_full(&self) -> bool {
        self.roster.has_limits && self.taking_turns > 0 && self.in_rotation().all(Seat::is_full)
    }
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotation").field("primary", &self.primary).finish_non_exhaustive()
    }
}

/// The seats as they are for one request.
pub(crate) struct Hall<'a> {
    pub(crate) rotation: &'a Rotation,
    pub(crate) tried: &'a dyn Fn(Address) -> bool,
    pub(crate) in_flight: &'a AtomicU64,
    /// Zero: nobody lets a turn pass.
    pub(crate) slow_start: Duration,
    pub(crate) now: Instant,
}

impl Hall<'_> {
    /// Whether somebody may have let this turn pass.
    pub(crate) fn is_anybody_starting(&self) -> bool {
        let is_starting = |seat: &Seat| seat.vitals.is_starting(self.slow_start, self.now);
        !self.slow_start.is_zero() && self.rotation.in_rotation().any(is_starting)
    }

    /// Takes a seat though it may be starting slowly, if it is open.
    pub(crate) fn sit(&self, seat: u32) -> bool {
        let place = self.rotation.seat(seat);
        self.is_open(seat) && place.is_some_and(|seat| seat.vitals.try_start(seat.in_flight_max))
    }
}

impl Seats for Hall<'_> {
    fn is_open(&self, seat: u32) -> bool {
        let place = self.rotation.seat(seat);
        self.rotation.is_up(seat) && place.is_some_and(|seat| !(self.tried)(seat.address) && !seat.is_full())
    }

    fn take(&self, seat: u32) -> bool {
        let Some(Seat { vitals, in_flight_max, .. }) = self.rotation.seat(seat) else {
            return false;
        };
        (self.slow_start.is_zero() || vitals.takes_turn(self.slow_start, self.now))
            && vitals.try_start(*in_flight_max)
    }

    fn in_flight(&self, seat: u32) -> u64 {
        self.rotation.seat(seat).map_or(u64::MAX >> 32, |seat| seat.vitals.in_flight())
    }

    fn in_flight_in_all(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn weight(&self, seat: u32) -> u64 {
        self.rotation.seat(seat).map_or(1, |seat| u64::from(seat.weight))
    }

    fn first_byte_micros(&self, seat: u32) -> Option<u64> {
        self.rotation.seat(seat)?.vitals.first_byte_micros(self.now)
    }
}
