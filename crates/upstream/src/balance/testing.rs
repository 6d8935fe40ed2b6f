//! Seats whose state a test decides.

use std::cell::{Cell, RefCell};

use super::Seats;

/// Seats 0 to n with these weights.
pub(super) struct Hall {
    weights: Vec<u64>,
    closed: Vec<bool>,
    pub(super) in_flight: RefCell<Vec<u64>>,
    taken: RefCell<Vec<u64>>,
    pub(super) times: RefCell<Vec<Option<u64>>>,
    /// So many attempts to take a seat fail.
    pub(super) refusals: Cell<u32>,
}

impl Hall {
    pub(super) fn new(weights: &[u64]) -> Self {
        let none = vec![0; weights.len()];
        Self {
            weights: weights.to_vec(),
            closed: vec![false; weights.len()],
            in_flight: RefCell::new(none.clone()),
            taken: RefCell::new(none),
            times: RefCell::new(vec![None; weights.len()]),
            refusals: Cell::new(0),
        }
    }

    pub(super) fn close(&mut self, seat: usize) {
        self.closed[seat] = true;
    }

    /// How often each seat was taken.
    pub(super) fn taken(&self) -> Vec<u64> {
        self.taken.borrow().clone()
    }

    /// A request there is done.
    pub(super) fn leave(&self, seat: usize) {
        self.in_flight.borrow_mut()[seat] -= 1;
    }
}

fn at(seat: u32) -> usize {
    usize::try_from(seat).unwrap()
}

impl Seats for Hall {
    fn is_open(&self, seat: u32) -> bool {
        !self.closed[at(seat)]
    }

    fn take(&self, seat: u32) -> bool {
        if self.refusals.get() > 0 {
            self.refusals.set(self.refusals.get() - 1);
            return false;
        }
        self.in_flight.borrow_mut()[at(seat)] += 1;
        self.taken.borrow_mut()[at(seat)] += 1;
        true
    }

    fn in_flight(&self, seat: u32) -> u64 {
        self.in_flight.borrow()[at(seat)]
    }

    fn in_flight_in_all(&self) -> u64 {
        self.in_flight.borrow().iter().sum()
    }

    fn weight(&self, seat: u32) -> u64 {
        self.weights[at(seat)]
    }

    fn first_byte_micros(&self, seat: u32) -> Option<u64> {
        self.times.borrow()[at(seat)]
    }
}
