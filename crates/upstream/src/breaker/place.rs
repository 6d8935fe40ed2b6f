//! A place at an upstream, and a turn that is waited for. Dropped, each lets go of what it holds.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::queue::Ticket;
use super::{Asked, Breaker, Shed};
use crate::Upstream;

/// One of the requests that an upstream may have under way.
#[derive(Debug)]
pub struct Place {
    upstream: Arc<Upstream>,
    breaker: Arc<Breaker>,
    is_choosing: bool,
}

/// A place in the queue.
#[derive(Debug)]
pub struct Turn {
    upstream: Arc<Upstream>,
    breaker: Arc<Breaker>,
    route: Box<str>,
    ticket: Ticket,
    /// What had been given back when it began to wait.
    given_back: u64,
}

/// What a request is told that asks an upstream for a place.
#[derive(Debug)]
pub enum Admission {
    /// It goes on; without a place where nobody counts.
    Admitted(Option<Place>),
    /// It has to wait for its turn.
    Waits(Turn),
    /// It is refused.
    Shed(Shed),
}

impl Admission {
    /// Asks for a place for a request of this route.
    pub(crate) fn ask(upstream: &Arc<Upstream>, breaker: &Arc<Breaker>, route: &str, now: Instant) -> Self {
        match breaker.ask(route, &|| upstream.room(), now) {
            Asked::Admitted => Self::Admitted(Some(Place::new(upstream, breaker))),
            Asked::Waits(ticket, given_back) => Self::Waits(Turn {
                upstream: Arc::clone(upstream),
                breaker: Arc::clone(breaker),
                route: route.into(),
                ticket,
                given_back,
            }),
            Asked::Shed => Self::Shed(Shed::QueueFull),
        }
    }
}

impl Place {
    /// It has been counted.
    fn new(upstream: &Arc<Upstream>, breaker: &Arc<Breaker>) -> Self {
        Self { upstream: Arc::clone(upstream), breaker: Arc::clone(breaker), is_choosing: true }
    }

    /// The request has got its backend.
    pub fn chosen(&mut self) {
        if std::mem::take(&mut self.is_choosing) {
            self.breaker.chosen(&|| self.upstream.room());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.breaker.give_back(self.is_choosing, &|| self.upstream.room());
    }
}

impl Turn {
    /// The place, when its turn has come. Not to be asked again after that.
    pub fn poll_place(&mut self, context: &Context<'_>) -> Poll<Place> {
        let turn = self.breaker.poll_turn(&self.route, self.ticket, context.waker());
        turn.map(|()| Place::new(&self.upstream, &self.breaker))
    }

    /// It has waited for as long as any request may.
    pub fn waited_in_vain(&self) {
        self.breaker.waited_in_vain(self.given_back);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A turn that has come and was taken is not known any more.
        self.breaker.leave(&self.route, self.ticket, &|| self.upstream.room());
    }
}
