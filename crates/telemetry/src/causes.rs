//! What a record says went wrong: the causes of its attempts, and the one that counts.

use goodgate_failure::{Attempt, Cause, ReceivedStatus};

use crate::{AccessRecord, Origin};

impl AccessRecord<'_> {
    /// Every cause in it once: those of the attempts in order, then that of the request. An error of a
    /// backend that was passed on and is no failure by the configuration counts as received.
    pub fn causes(&self) -> Vec<Cause> {
        let attempts = self.attempts.iter().filter_map(|attempt: &Attempt| attempt.cause);
        let whole = self.cause.into_iter().chain(self.rescue.map(|(_, cause)| cause));
        let mut causes = Vec::new();
        for cause in attempts.chain(whole) {
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
        if causes.is_empty() && self.status >= 500 && self.origin == Origin::Backend {
            causes.extend(ReceivedStatus::from_code(self.status).map(Cause::Received));
        }
        causes
    }

    /// The cause that the request failed for, or that it was saved from.
    pub fn decisive_cause(&self) -> Option<Cause> {
        self.cause.or(self.rescue.map(|(_, cause)| cause)).or_else(|| self.causes().last().copied())
    }
}
