//! The right to make one attempt on one backend, and the duty to say how it went.

use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_failure::{Blame, Cause};

use crate::{Backend, Balance, Transition, Upstream, Why};

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
    report: Report,
    /// The backend has done its part.
    is_done: bool,
    /// It has been counted for the comparison with other backends.
    is_tallied: bool,
}

/// What has been said of the attempt so far; the last word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    Nothing,
    Abandoned,
    Succeeded,
    Failed,
}

impl Lease {
    /// The backend's count has this attempt in it already.
    pub(crate) fn new(upstream: Arc<Upstream>, backend: Arc<Backend>, how: How) -> Self {
        backend.vitals.tell();
        Self { upstream, backend, how, report: Report::Nothing, is_done: false, is_tallied: false }
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Whose backend it is.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Why it was picked.
    pub fn how(&self) -> How {
        self.how
    }

    /// A response header has arrived, good or not, this long after the attempt began.
    pub fn answered(&mut self, after: Duration, status: u16, now: Instant) {
        let (spec, vitals) = (self.upstream.spec(), &self.backend.vitals);
        vitals.seen.answered(after, vitals.since_birth(now));
        if spec.balance == Balance::LeastTime {
            vitals.average_answer(after, now);
        }
        if spec.outliers.is_some() {
            self.is_tallied = true;
            vitals.seen.tally(status < 500, Some(after));
        }
    }

    /// The backend says that it wants no new requests.
    pub fn announced(&mut self, now: Instant) -> Option<Transition> {
        let change = self.backend.announced(now);
        self.upstream.changed(change)
    }

    /// The attempt has failed this long after it began.
    pub fn failed_after(&self, after: Duration, now: Instant) {
        if self.upstream.spec().balance == Balance::LeastTime {
            self.backend.vitals.average_failure(after, now);
        }
    }

    /// The backend has sent all that it had to. Whoever has got the last byte and asks again finds room there.
    pub fn done(&mut self) {
        if !std::mem::replace(&mut self.is_done, true) {
            self.backend.vitals.ended();
            self.upstream.room_made();
        }
    }

    /// A good response header has arrived. A failure of the body may still follow.
    pub fn succeeded(&mut self, now: Instant) -> Option<Transition> {
        if self.report != Report::Nothing {
            return None;
        }
        self.report = Report::Succeeded;
        let change = self.backend.succeeded(self.how != How::Rotation, now);
        let change = self.upstream.changed(change);
        self.upstream.answered(now);
        change
    }

    /// The attempt failed.
    pub fn failed(&mut self, cause: Cause, now: Instant) -> Option<Transition> {
        let is_first = std::mem::replace(&mut self.report, Report::Failed) == Report::Nothing;
        let speaks_against = cause.blame() != Blame::Nobody;
        if speaks_against && self.upstream.spec().outliers.is_some() && !self.is_tallied {
            self.is_tallied = true;
            self.backend.vitals.seen.tally(false, None);
        }
        self.upstream.suspect(self.backend.address, now);
        if Why::Failure(cause).is_soft() {
            return self
                .upstream
                .eject_softly(|has_room| self.backend.failed(cause, is_first, has_room, now));
        }
        let change = self.backend.failed(cause, is_first, || true, now);
        self.upstream.changed(change)
    }

    /// The attempt ended without telling anything about the backend.
    pub fn abandoned(&mut self, now: Instant) -> Option<Transition> {
        if self.report != Report::Nothing {
            return None;
        }
        self.report = Report::Abandoned;
        let change = self.backend.abandoned(now);
        self.upstream.changed(change)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let outcome = match self.report {
            Report::Nothing | Report::Abandoned => None,
            Report::Succeeded => Some(true),
            Report::Failed => Some(false),
        };
        self.done();
        self.backend.vitals.count(outcome);
        if self.report == Report::Nothing && self.how == How::Trial {
            // The one place where time is not an argument: nobody is left to give it.
            let _ = self.abandoned(Instant::now());
        }
    }
}
