//! Whether a request may begin now, has to wait, or is refused.

use std::sync::Arc;
use std::time::Instant;

use super::Upstream;
use crate::breaker::Breaker;
use crate::{Admission, BreakerView};

impl Upstream {
    /// Whether requests need a place before they begin.
    pub fn has_breaker(&self) -> bool {
        self.breaker.is_some()
    }

    /// Asks for a place for a request of this route.
    pub fn admit(self: &Arc<Self>, route: &str, now: Instant) -> Admission {
        match &self.breaker {
            None => Admission::Admitted(None),
            Some(breaker) => Admission::ask(self, breaker, route, now),
        }
    }

    /// Whether who comes now would be refused, or have to wait.
    pub fn is_busy(&self) -> bool {
        self.is_full() || self.breaker.as_ref().is_some_and(|breaker| breaker.is_busy(&|| self.room()))
    }

    /// What the breaker does now; none: there is none.
    pub fn breaker(&self, now: Instant) -> Option<BreakerView> {
        self.breaker.as_ref().map(|breaker| breaker.view(now))
    }

    /// Whether the caller is to [`Upstream::tick`] until that says so: somebody waits for what time allows.
    pub fn claims_clock(&self, now: Instant) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.claims_clock(now))
    }

    /// Notices that time has passed. When to do so again; none: not any more.
    pub fn tick(&self, now: Instant) -> Option<Instant> {
        self.breaker.as_ref()?.tick(&|| self.room(), now)
    }

    /// A backend has given a good answer.
    pub(crate) fn answered(&self, now: Instant) {
        self.tell(|breaker| breaker.answered(&|| self.room(), now));
    }

    /// A backend has less under way.
    pub(crate) fn room_made(&self) {
        self.tell(|breaker| breaker.room_made(&|| self.room()));
    }

    /// The rotation is another one.
    pub(super) fn rotated(&self) {
        let rotation = self.rotation.load();
        if rotation.backends().next().is_some() {
            self.tell(|breaker| breaker.rotated(rotation.taking_turns, &|| self.room()));
        }
    }

    /// Free connections of the backends in rotation; none: any number, or nothing is in rotation.
    pub(crate) fn room(&self) -> Option<u64> {
        self.rotation.load().room()
    }

    fn tell(&self, what: impl FnOnce(&Breaker)) {
        if let Some(breaker) = &self.breaker {
            what(breaker);
        }
    }
}
