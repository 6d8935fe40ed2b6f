//! What the failure of an attempt means for its request: replaced, tried again elsewhere, or over, and why.

use std::time::Instant;

use goodgate_failure::{Allowance, Cause, ConnectionAge, Decision, Phase, Refusal, Situation};
use goodgate_telemetry::backend_changed;
use pingora_proxy::Session;

use super::{Attempting, Lookup, Replacement, has_answered};
use crate::connection_auth::Binding;
use crate::route::Route;

impl Attempting {
    /// The attempt failed. Whether the request is tried again.
    pub(crate) fn failed(&mut self, route: &Route, session: &Session, cause: Cause, now: Instant) -> bool {
        self.note_bytes_out(session);
        let (phase, reused) = self.note_failure(cause, now);
        if self.loses_race(route, session, cause, phase, reused, now) {
            self.note_next(Ok(Allowance::ConnectionRace));
            return true;
        }
        route.upstream_metrics.attempt_failed(cause);
        let is_blamed_on_client = std::mem::take(&mut self.upload.is_blamed);
        if let Some(lease) = self.lease.as_mut().filter(|_| !is_blamed_on_client) {
            lease.failed_after(now.saturating_duration_since(self.started), now);
            let change = lease.failed(cause, now);
            backend_changed(&route.upstream.spec().name, &route.upstream_metrics, change);
        }
        if phase == Phase::Connect {
            self.connect_failures += 1;
        } else {
            self.sent += 1;
        }
        match self.decide(route, session, cause, phase, now) {
            Ok(allowance) => {
                self.note_next(Ok(allowance));
                true
            }
            Err(refusal) => {
                self.refuse(route, refusal);
                false
            }
        }
    }

    /// Records why there will be no further attempt.
    pub(crate) fn refuse(&mut self, route: &Route, refusal: Refusal) {
        if self.log.last().is_some_and(|attempt| attempt.refusal().is_none()) {
            self.note_next(Err(refusal));
            route.upstream_metrics.retry_refused(refusal);
        }
    }

    fn note_next(&mut self, next: Result<Allowance, Refusal>) {
        if let Some(attempt) = self.log.last_mut() {
            attempt.next = Some(next);
        }
    }

    fn note_failure(&mut self, cause: Cause, now: Instant) -> (Phase, bool) {
        let started = self.started;
        let Some(attempt) = self.log.last_mut() else {
            return (Phase::Connect, false);
        };
        self.tried.add(attempt.backend, cause == Cause::ConnectionRefused, now);
        attempt.cause = Some(cause);
        attempt.total = Some(now.saturating_duration_since(started));
        (attempt.phase, attempt.reused)
    }

    fn loses_race(
        &mut self,
        route: &Route,
        session: &Session,
        cause: Cause,
        phase: Phase,
        reused: bool,
        now: Instant,
    ) -> bool {
        let died = reused && phase == Phase::Request && cause == Cause::ConnectionTerminated;
        if died {
            self.note_idle_close(now);
        }
        let lost = died
            && self.replacement == Replacement::None
            && route.retry.replay.allows(&session.req_header().method)
            && !session.as_ref().retry_buffer_truncated();
        if lost {
            self.replacement = Replacement::RaceLost;
        }
        lost
    }

    /// The backend closed a kept connection just when it was used again.
    fn note_idle_close(&self, now: Instant) {
        let age = self.log.last().and_then(|attempt| attempt.age);
        if let (Some(ConnectionAge { idle: Some(idle), .. }), Some(lease)) = (age, &self.lease) {
            lease.backend().closed_idle(idle, now);
        }
    }

    fn decide(
        &mut self,
        route: &Route,
        session: &Session,
        cause: Cause,
        phase: Phase,
        now: Instant,
    ) -> Result<Allowance, Refusal> {
        if self.binding != Binding::None && phase != Phase::Connect {
            return Err(Refusal::NotReplayable);
        }
        let situation = Situation {
            cause,
            method: &session.req_header().method,
            sent_attempts: self.sent,
            connect_failures: self.connect_failures,
            request_bytes_sent: phase != Phase::Connect,
            body_kept: !session.as_ref().retry_buffer_truncated(),
            response_bytes_out: has_answered(session),
            deadline: self.deadline,
            now,
        };
        let allowance = match route.retry.decide(&situation) {
            Decision::RetryFree => Allowance::NothingSent,
            Decision::RetryFromBudget => Allowance::Replayable,
            Decision::Stop(refusal) => return Err(refusal),
        };
        let is_over = |address| self.tried.has(address) && !self.tried.may_try_again(address, now);
        let has_left = |route: &Route| route.upstream.has_untried(is_over, self.may_fail_open(), now);
        if !has_left(route) && !route.rest.as_deref().is_some_and(has_left) {
            let may_wait = phase == Phase::Connect && self.lookup == Lookup::NotAwaited;
            if !may_wait || !route.upstream.awaits_lookups() {
                return Err(self.why_none_left());
            }
            self.lookup = Lookup::Awaited;
        }
        if allowance == Allowance::Replayable && !route.upstream.budget().take(route.retry.budget, now) {
            return Err(Refusal::Budget);
        }
        Ok(allowance)
    }
}
