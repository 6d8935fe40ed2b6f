//! What operators have ordered at run time, beside the configuration.
//!
//! An order holds over reloads until it is taken back. It gives way where the configuration says something new about the same
//! thing: an entry that is gone takes its orders along, a weight that was changed in the file is the weight.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::time::Instant;

use crate::{Address, BackendAddress, BackendSpec, State};

/// More backends than these are not added at run time to one upstream.
const ADDED_MAX: usize = 1024;

/// What an operator has made of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: it takes part as its health allows.
    #[default]
    Serve,
    /// It gets no new requests but of clients that are tied to it.
    Drain,
    /// It gets no requests and no probes.
    Disable,
}

impl Mode {
    /// The word for the admin side and for what is written down.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serve => "enable",
            Self::Drain => "drain",
            Self::Disable => "disable",
        }
    }

    /// The mode of a word.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Serve, Self::Drain, Self::Disable].into_iter().find(|mode| mode.name() == name)
    }

    /// The state of a backend that is told this and is else in that one.
    pub const fn over(self, state: State) -> State {
        match self {
            Self::Serve => state,
            Self::Drain => State::Draining,
            Self::Disable => State::Disabled,
        }
    }
}

/// What is ordered.
#[derive(Clone, Debug)]
pub enum Order {
    /// Take part or not.
    Mode(Mode),
    /// Another weight than the file's.
    Weight(NonZeroU16),
    /// One more backend.
    Add(Box<BackendSpec>),
    /// One backend less.
    Remove,
    /// As the file says.
    Reset,
}

/// Why an order cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOrdered {
    /// There is no such backend.
    Unknown,
    /// There is one already.
    Exists,
    /// Too many have been added.
    TooMany,
    /// Only one of several addresses of a name was named.
    NotAnEntry,
}

/// All orders for one upstream that differ from its configuration.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    changed: HashMap<BackendAddress, Vec<Changed>>,
    added: Vec<BackendSpec>,
    removed: Vec<BackendAddress>,
}

/// What is ordered for one entry, or for one of the addresses of its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// One address of the entry only.
    pub address: Option<Address>,
    /// What has become of it.
    pub mode: Mode,
    /// Its weight, and the file's at the time of the order.
    pub weight: Option<(NonZeroU16, NonZeroU16)>,
    /// When it was last changed.
    pub since: Instant,
}

impl Orders {
    /// The entries of a configuration, as they are by these orders.
    pub(crate) fn entries<'a>(&'a self, file: &'a [BackendSpec]) -> impl Iterator<Item = &'a BackendSpec> {
        file.iter().filter(|entry| !self.removed.contains(&entry.address)).chain(&self.added)
    }

    /// Drops what a new configuration has done away with.
    pub(crate) fn fit(&mut self, file: &[BackendSpec]) {
        let file: HashMap<&BackendAddress, NonZeroU16> =
            file.iter().map(|entry| (&entry.address, entry.weight)).collect();
        self.added.retain(|entry| !file.contains_key(&entry.address));
        self.removed.retain(|address| file.contains_key(address));
        let is_added = |entry: &BackendAddress| self.added.iter().any(|added| added.address == *entry);
        self.changed.retain(|entry, _| file.contains_key(entry) || is_added(entry));
        for (entry, changes) in &mut self.changed {
            let weight = file.get(entry);
            for changed in changes {
                changed.weight = changed.weight.filter(|(_, old)| weight.is_none_or(|weight| weight == old));
            }
        }
        self.tidy();
    }

    /// What is ordered for one address of an entry: for itself, else for the whole entry.
    pub(crate) fn of(&self, entry: &BackendAddress, address: Address) -> Option<&Changed> {
        let changes = self.changed.get(entry)?;
        let own = changes.iter().find(|changed| changed.address == Some(address));
        own.or_else(|| changes.iter().find(|changed| changed.address.is_none()))
    }

    /// Carries out an order for an entry of `file` or one of its addresses.
    pub(crate) fn give(
        &mut self,
        file: &[BackendSpec],
        (entry, address): (&BackendAddress, Option<Address>),
        order: &Order,
        now: Instant,
    ) -> Result<(), NotOrdered> {
        let Some(weight) = self.entries(file).find(|known| known.address == *entry).map(|known| known.weight)
        else {
            return Err(NotOrdered::Unknown);
        };
        match order {
            Order::Mode(mode) => self.change(entry, address, now, |changed| changed.mode = *mode),
            Order::Weight(wanted) => self.change(entry, address, now, |changed| {
                changed.weight = (*wanted != weight).then_some((*wanted, weight));
            }),
            Order::Reset => {
                if let Some(changes) = self.changed.get_mut(entry) {
                    changes.retain(|changed| address.is_some() && changed.address != address);
                }
            }
            Order::Remove if address.is_some() => return Err(NotOrdered::NotAnEntry),
            Order::Remove => {
                self.changed.remove(entry);
                let added = self.added.len();
                self.added.retain(|added| added.address != *entry);
                if self.added.len() == added {
                    self.removed.push(entry.clone());
                }
            }
            Order::Add(_) => return Err(NotOrdered::Exists),
        }
        self.tidy();
        Ok(())
    }

    /// Adds a backend, or puts back one of the file that was removed.
    pub(crate) fn add(&mut self, file: &[BackendSpec], spec: BackendSpec) -> Result<(), NotOrdered> {
        if self.entries(file).any(|entry| entry.address == spec.address) {
            return Err(NotOrdered::Exists);
        }
        if self.removed.contains(&spec.address) {
            self.removed.retain(|removed| *removed != spec.address);
            return Ok(());
        }
        if self.added.len() >= ADDED_MAX {
            return Err(NotOrdered::TooMany);
        }
        self.added.push(spec);
        Ok(())
    }

    /// Takes up what was ordered before a restart.
    pub(crate) fn recall(&mut self, other: Self) {
        *self = other;
        self.added.truncate(ADDED_MAX);
    }

    /// Orders as they were written down.
    pub fn written_down(
        changed: impl IntoIterator<Item = (BackendAddress, Changed)>,
        added: Vec<BackendSpec>,
        removed: Vec<BackendAddress>,
    ) -> Self {
        let mut all: HashMap<BackendAddress, Vec<Changed>> = HashMap::new();
        for (entry, change) in changed {
            all.entry(entry).or_default().push(change);
        }
        Self { changed: all, added, removed }
    }

    /// Entries of the file that were removed.
    pub fn removed(&self) -> &[BackendAddress] {
        &self.removed
    }

    /// Entries that are not of the file.
    pub fn added(&self) -> &[BackendSpec] {
        &self.added
    }

    /// What was changed of entries that are there.
    pub fn changes(&self) -> impl Iterator<Item = (&BackendAddress, &Changed)> {
        self.changed.iter().flat_map(|(entry, changes)| changes.iter().map(move |changed| (entry, changed)))
    }

    /// An entry of the file that was removed comes back.
    pub(crate) fn put_back(&mut self, entry: &str) -> bool {
        let before = self.removed.len();
        self.removed.retain(|removed| removed.to_string() != entry);
        self.removed.len() < before
    }

    fn change(
        &mut self,
        entry: &BackendAddress,
        address: Option<Address>,
        now: Instant,
        edit: impl FnOnce(&mut Changed),
    ) {
        let changes = self.changed.entry(entry.clone()).or_default();
        if address.is_none() {
            // What is said of the whole entry holds for each of its addresses.
            changes.retain(|changed| changed.address.is_none());
        }
        let whole = changes.iter().find(|changed| changed.address.is_none()).cloned();
        let known = changes.iter().position(|changed| changed.address == address);
        let nothing = || Changed { address, mode: Mode::Serve, weight: None, since: now };
        let old = match known {
            Some(at) => changes.swap_remove(at),
            None => whole.unwrap_or_else(nothing),
        };
        let mut new = Changed { address, ..old };
        let mode = new.mode;
        edit(&mut new);
        // An order for the weight, or the same order once more, leaves a drained backend drained since then.
        if new.mode != mode || new.mode == Mode::Serve {
            new.since = now;
        }
        changes.push(new);
    }

    /// Drops what changes nothing. An order for one address stays where the whole entry has another.
    fn tidy(&mut self) {
        for changes in self.changed.values_mut() {
            let is_changed = changes.iter().any(|changed| changed.address.is_none() && !changed.is_idle());
            changes.retain(|changed| !changed.is_idle() || (is_changed && changed.address.is_some()));
        }
        self.changed.retain(|_, changes| !changes.is_empty());
    }
}

impl Changed {
    fn is_idle(&self) -> bool {
        self.mode == Mode::Serve && self.weight.is_none()
    }
}
