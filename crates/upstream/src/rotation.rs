//! Who takes turns now: made anew at each change of health or membership, read without a lock. What only a change
//! of membership concerns is kept from one to the next.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::balance::{Ask, Choice, Ranking, Ring, Seats, Tier, Weighted};
use crate::vitals::Place;
use crate::{Address, Backend, BackendId, Balance, Health, Mode, State, Vitals, Why, hash_of};

/// The ways of choosing among the backends in rotation.
#[derive(Default)]
pub(crate) struct Rotation {
    pub(crate) roster: Arc<Roster>,
    /// How the backend of each seat stood when this was made.
    stands: Vec<Stand>,
    /// One for each rank that has somebody in rotation, the lowest first.
    tiers: Vec<Box<dyn Choice>>,
    /// How many backends take turns.
    pub(crate) taking_turns: usize,
    /// How many backends are ejected although they answer.
    pub(crate) softly_out: usize,
    /// How many changes of health it knows of.
    pub(crate) changes: u64,
    /// When the first trial is due, if a backend waits for one.
    pub(crate) trial_due: Option<Instant>,
}

/// How a backend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// In rotation.
    Up,
    /// Out of rotation.
    Out,
    /// Out of rotation but for clients that are tied to it.
    Leaving,
    /// The same by an operator's order: it is never tried for want of others.
    SentAway,
    /// Not to be used at all.
    Barred,
}

impl Stand {
    fn of(backend: &Backend, health: Health) -> Self {
        match (backend.mode, health.state()) {
            (Mode::Disable, _) => Self::Barred,
            (Mode::Drain, _) => Self::SentAway,
            (Mode::Serve, State::Up) => Self::Up,
            (Mode::Serve, State::Draining) => Self::Leaving,
            (Mode::Serve, _) => Self::Out,
        }
    }
}

/// What depends on who the members are, and not on their health.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    seats: Vec<Seat>,
    /// Whether a backend may be full.
    has_limits: bool,
    /// Whether there are addresses of IPv4 and of IPv6.
    pub(crate) has_both_families: bool,
    by_address: HashMap<Address, u32>,
    by_id: HashMap<BackendId, u32>,
    /// Of the backends of each rank, where there are rings.
    rings: HashMap<u32, Arc<Ring>>,
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
        let has = |is_v6: bool| seats.iter().any(|seat| seat.address.is_ipv6() == Some(is_v6));
        Self {
            by_address: numbered().map(|(seat, backend)| (backend.address, seat)).collect(),
            by_id: numbered().filter_map(|(seat, backend)| Some((backend.id?, seat))).collect(),
            rings: match balance {
                Balance::ConsistentHash { .. } => rings(numbered()),
                Balance::RoundRobin | Balance::LeastConn | Balance::RandomTwo | Balance::LeastTime => {
                    HashMap::new()
                }
            },
            has_both_families: has(true) && has(false),
            has_limits: seats.iter().any(|seat| seat.in_flight_max > 0),
            seats,
        }
    }
}

fn rings<'a>(backends: impl Iterator<Item = (u32, &'a Arc<Backend>)>) -> HashMap<u32, Arc<Ring>> {
    let mut ranks: HashMap<u32, Vec<(Weighted, u64)>> = HashMap::new();
    for (seat, backend) in backends {
        let point = hash_of(backend.address.to_string().as_bytes());
        ranks.entry(backend.rank).or_default().push(((seat, backend.weight), point));
    }
    ranks.into_iter().map(|(rank, members)| (rank, Arc::new(Ring::new(&members)))).collect()
}

impl Rotation {
    /// The rotation of all members as they are now.
    pub(crate) fn new(balance: Balance, roster: &Arc<Roster>, changes: u64) -> Self {
        let mut rotation = Self { roster: Arc::clone(roster), changes, ..Self::default() };
        let mut ranks: BTreeMap<u32, Vec<Weighted>> = BTreeMap::new();
        for (number, seat) in (0_u32..).zip(&roster.seats) {
            let health = seat.vitals.health();
            let stand = Stand::of(&seat.backend, health);
            if let (Mode::Serve, Some(due)) = (seat.backend.mode, health.trial_due()) {
                rotation.trial_due = Some(rotation.trial_due.map_or(due, |other| other.min(due)));
            }
            let is_ejected = matches!(health.state(), State::Ejected | State::Trial);
            rotation.softly_out += usize::from(is_ejected && health.why().is_some_and(Why::is_soft));
            if stand == Stand::Up {
                ranks.entry(seat.backend.rank).or_default().push((number, seat.weight));
            }
            rotation.stands.push(stand);
        }
        rotation.taking_turns = ranks.values().map(Vec::len).sum();
        if balance != Balance::LeastConn {
            roster.seats.iter().for_each(|seat| seat.vitals.set_place(None));
        }
        rotation.tiers =
            ranks.iter().map(|(rank, members)| rotation.choice(balance, members, *rank)).collect();
        rotation
    }

    fn choice(&self, balance: Balance, members: &[Weighted], rank: u32) -> Box<dyn Choice> {
        let ring = self.roster.rings.get(&rank);
        let ranking = (balance == Balance::LeastConn).then(|| self.ranking(members));
        balance.choice(&Tier { members, ring, ranking: ranking.as_ref() })
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

    /// Takes a seat of the lowest rank that has one.
    pub(crate) fn choose(&self, turn: impl Fn() -> u64, hash: Option<u64>, hall: &Hall<'_>) -> Option<u32> {
        self.tiers.iter().find_map(|tier| tier.choose(Ask { turn: turn(), hash }, hall))
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

    fn stand(&self, seat: u32) -> Stand {
        let stand = usize::try_from(seat).ok().and_then(|seat| self.stands.get(seat));
        stand.copied().unwrap_or(Stand::Barred)
    }

    fn with_stands(&self) -> impl Iterator<Item = (&Seat, Stand)> {
        self.roster.seats.iter().zip(self.stands.iter().copied())
    }

    /// Those out of rotation that no operator has sent away.
    pub(crate) fn out(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let is_out = |stand| matches!(stand, Stand::Out | Stand::Leaving);
        self.with_stands().filter(move |(_, stand)| is_out(*stand)).map(|(seat, _)| &seat.backend)
    }

    fn in_rotation(&self) -> impl Iterator<Item = &Seat> {
        self.with_stands().filter(|(_, stand)| *stand == Stand::Up).map(|(seat, _)| seat)
    }

    /// Those that a request may go to, if need be out of rotation.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let is_usable = |stand| !matches!(stand, Stand::SentAway | Stand::Barred);
        self.with_stands().filter(move |(_, stand)| is_usable(*stand)).map(|(seat, _)| &seat.backend)
    }

    /// Whether a backend that `tried` does not rule out may be used: in rotation, for a trial that is due, or any other
    /// one if all may be used.
    pub(crate) fn has_untried(&self, tried: impl Fn(Address) -> bool, all: bool, now: Instant) -> bool {
        let is_trial_due = self.trial_due.is_some_and(|due| due <= now);
        let may_use = |(seat, stand): (&Seat, Stand)| match stand {
            Stand::Up => true,
            Stand::Out | Stand::Leaving => {
                all || is_trial_due && seat.backend.trial_due().is_some_and(|due| due <= now)
            }
            Stand::SentAway | Stand::Barred => false,
        };
        self.with_stands().any(|at| may_use(at) && !tried(at.0.address))
    }

    fn is_up(&self, seat: u32) -> bool {
        self.stand(seat) == Stand::Up
    }

    /// Whether a client that is tied to it may go on.
    fn is_open_to_tied(&self, seat: u32) -> bool {
        matches!(self.stand(seat), Stand::Up | Stand::Leaving | Stand::SentAway)
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
        f.debug_struct("Rotation").field("tiers", &self.tiers).finish_non_exhaustive()
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

    /// Takes a seat for a client that is tied to it, though it may be starting slowly or want no new requests.
    pub(crate) fn sit(&self, seat: u32) -> bool {
        let place = self.rotation.seat(seat);
        self.rotation.is_open_to_tied(seat)
            && place
                .is_some_and(|seat| !(self.tried)(seat.address) && seat.vitals.try_start(seat.in_flight_max))
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
