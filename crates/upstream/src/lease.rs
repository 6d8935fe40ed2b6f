//! The right to make one attempt on one backend, and the duty to say how it went.

use std::sync::Arc;
use std::time::Instant;

use goodgate_failure::Cause;

use crate::{Backend, Transition, Upstream};

/// Why this backend was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is in rotation and it was its turn.
    Rotation,
    /// Its ejection has run out and this request is the trial.
    Trial,
    /// Nothing is in rotation, and it failed the longest ago.
    FailOpen,
}

/// One attempt's hold on a backend. Dropped without a word, it counts as telling nothing.
#[derive(Debug)]
pub struct Lease {
    upstream: Arc<Upstream>,
    backend: Arc<Backend>,
    how: How,
    reported: bool,
}

impl Lease {
    pub(crate) fn new(upstream: Arc<Upstream>, backend: Arc<Backend>, how: How) -> Self {
        backend.vitals.attempt_started();
        Self { upstream, backend, how, reported: false }
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Why it was picked.
    pub fn how(&self) -> How {
        self.how
    }

    /// A good response header has arrived. A failure of the body may still follow.
    pub fn succeeded(&mut self, now: Instant) -> Option<Transition> {
        if std::mem::replace(&mut self.reported, true) {
            return None;
        }
        let change = self.backend.succeeded(self.how != How::Rotation, now);
        self.upstream.changed(change)
    }

    /// The attempt failed.
    pub fn failed(&mut self, cause: Cause, now: Instant) -> Option<Transition> {
        self.reported = true;
        let change = self.backend.failed(cause, now);
        self.upstream.changed(change)
    }

    /// The attempt ended without telling anything about the backend.
    pub fn abandoned(&mut self, now: Instant) -> Option<Transition> {
        if std::mem::replace(&mut self.reported, true) {
            return None;
        }
        let change = self.backend.abandoned(now);
        self.upstream.changed(change)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.vitals.attempt_ended();
        if !self.reported && self.how == How::Trial {
            // The one place where time is not an argument: nobody is left to give it.
            let _ = self.abandoned(Instant::now());
        }
    }
}
