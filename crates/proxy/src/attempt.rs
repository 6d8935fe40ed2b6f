//! One request's attempts: which backend is next, what a failure means, whether another try is allowed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use goodgate_failure::{Allowance, Attempt, Attempts, Cause, Decision, Phase, Refusal, Situation};
use goodgate_telemetry::backend_changed;
use goodgate_upstream::{How, Lease, Wish};
use http::{Method, StatusCode};
use pingora_proxy::Session;

use crate::route::Route;

/// How long ago a backend must have refused the connection to be asked once more when no other is left. In
/// a plain outage all refuse at once, and a second round would only double the work.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The attempts of one request so far.
#[derive(Debug)]
pub(crate) struct Attempting {
    pub(crate) log: Attempts,
    /// The hold on the backend of the attempt under way.
    lease: Option<Lease>,
    /// A hold that was given to this request beforehand.
    handed: Option<Lease>,
    /// It was made to try a backend, not to answer anybody.
    pub(crate) is_trial: bool,
    request_started: Instant,
    started: Instant,
    connected_at: Instant,
    deadline: Instant,
    sent: u32,
    race: Race,
    /// Who refused the connection, and when: the only ones that may be asked twice.
    refusals: Vec<(SocketAddr, Instant)>,
    /// What happened to the attempt under way has been recorded already.
    pub(crate) settled: bool,
}

/// Rule 2 of the failure rules: a dead kept connection is replaced once by a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Race {
    /// No kept connection has died.
    None,
    /// One has: the next attempt goes to the same backend over a fresh connection.
    Lost,
    /// That attempt has been made.
    Replaced,
}

/// What the next attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// It must not take a kept connection.
    pub(crate) fresh: bool,
    /// It is the request's first.
    pub(crate) first: bool,
}

impl Attempting {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            log: Vec::new(),
            lease: None,
            handed: None,
            is_trial: false,
            request_started: now,
            started: now,
            connected_at: now,
            deadline: now,
            sent: 0,
            race: Race::None,
            refusals: Vec::new(),
            settled: false,
        }
    }

    /// Takes over the hold of a trial that is to be made behind a client's back.
    pub(crate) fn hand(&mut self, lease: Option<Lease>) {
        self.is_trial = lease.is_some();
        self.handed = lease;
    }

    /// The cause of the last failure.
    pub(crate) fn last_cause(&self) -> Option<Cause> {
        self.log.iter().rev().find_map(|attempt| attempt.cause)
    }

    /// Whether the only thing that went wrong was a kept connection that died.
    pub(crate) fn was_only_race(&self) -> bool {
        let failures = self.log.iter().filter(|attempt| attempt.cause.is_some()).count();
        self.race == Race::Replaced && failures == 1
    }

    /// The backend of the attempt under way.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// When the connection of the attempt under way stood.
    pub(crate) fn connected_at(&self) -> Instant {
        self.connected_at
    }

    /// When all attempts must be over.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes the next backend; `fail_open` allows one that is out of rotation. False if there is none.
    pub(crate) fn take(&mut self, route: &Route, method: &Method, fail_open: bool, now: Instant) -> bool {
        if self.race == Race::Lost {
            return self.lease.is_some();
        }
        let log = &self.log;
        let tried = |address| log.iter().any(|attempt: &Attempt| attempt.backend == address);
        let wish = Wish { is_retry: !log.is_empty(), may_be_trial: route.retry.replay.allows(method) };
        let lease = self.handed.take().or_else(|| route.upstream.select(tried, wish, now));
        let lease = lease.or_else(|| fail_open.then(|| route.upstream.select_fail_open(tried)).flatten());
        self.lease = lease;
        self.lease.is_some()
    }

    /// When every backend has been tried: takes one again that refused the connection a while ago. It may have
    /// come back while the others were asked, and nothing was sent to it. False if there is none.
    pub(crate) fn take_again(&mut self, route: &Route, now: Instant) -> bool {
        let is_ruled_out = |address| !self.may_ask_again(address, now);
        let wish = Wish { is_retry: true, may_be_trial: true };
        let lease = route.upstream.select(is_ruled_out, wish, now);
        let lease = lease.or_else(|| route.upstream.select_fail_open(is_ruled_out));
        self.lease = lease;
        self.lease.is_some()
    }

    fn may_ask_again(&self, address: SocketAddr, now: Instant) -> bool {
        let mut refusals = self.refusals.iter().filter(|(refused, _)| *refused == address);
        let first = refusals.next().map(|(_, at)| now.saturating_duration_since(*at));
        refusals.next().is_none() && first.is_some_and(|ago| ago >= ASK_AGAIN_AFTER)
    }

    /// Begins the attempt on the backend taken.
    pub(crate) fn begin(&mut self, route: &Route, now: Instant) -> Next {
        let first = self.log.is_empty();
        let fresh = self.race == Race::Lost;
        if first {
            self.deadline = now + route.timeout;
            route.upstream.budget().request(now);
        } else if !fresh {
            route.upstream_metrics.retry();
        }
        if fresh {
            self.race = Race::Replaced;
        }
        if let Some(lease) = &self.lease {
            let attempt = Attempt::new(lease.backend().address, lease.how() == How::FailOpen);
            let started = now.saturating_duration_since(self.request_started);
            self.log.push(Attempt { started, ..attempt });
        }
        self.started = now;
        self.settled = false;
        Next { fresh, first }
    }

    /// The connection stands.
    pub(crate) fn connected(&mut self, route: &Route, reused: bool) {
        // A kept connection is there at once: no need to look at the clock.
        self.connected_at = if reused { self.started } else { Instant::now() };
        let after = self.connected_at.saturating_duration_since(self.started);
        if !reused {
            route.upstream_metrics.connected(after);
        }
        if let Some(attempt) = self.log.last_mut() {
            attempt.phase = Phase::Request;
            attempt.reused = reused;
            attempt.connect = Some(after);
        }
    }

    /// A final response header has come.
    pub(crate) fn answered(&mut self, route: &Route, status: u16, now: Instant) {
        let after = now.saturating_duration_since(self.started);
        route.upstream_metrics.first_byte(after);
        if let Some(attempt) = self.log.last_mut() {
            attempt.phase = Phase::Response;
            attempt.first_byte = Some(after);
            attempt.status = Some(status);
        }
    }

    /// The answer is good: the backend works.
    pub(crate) fn succeeded(&mut self, route: &Route, now: Instant) {
        if let Some(lease) = &mut self.lease {
            let change = lease.succeeded(now);
            backend_changed(&route.upstream.spec().name, &route.upstream_metrics, change);
        }
    }

    /// The attempt ended without telling anything about the backend.
    pub(crate) fn abandoned(&mut self, route: &Route, now: Instant) {
        if let Some(lease) = &mut self.lease {
            let change = lease.abandoned(now);
            backend_changed(&route.upstream.spec().name, &route.upstream_metrics, change);
        }
    }

    /// The attempt failed. Whether the request is tried again.
    pub(crate) fn failed(&mut self, route: &Route, session: &Session, cause: Cause, now: Instant) -> bool {
        self.settled = true;
        let (phase, reused) = self.note_failure(cause, now);
        if self.loses_race(route, session, cause, phase, reused) {
            self.note_next(Ok(Allowance::ConnectionRace));
            return true;
        }
        route.upstream_metrics.attempt_failed(cause);
        if let Some(lease) = &mut self.lease {
            let change = lease.failed(cause, now);
            backend_changed(&route.upstream.spec().name, &route.upstream_metrics, change);
        }
        if phase != Phase::Connect {
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

    /// The last attempt is over.
    pub(crate) fn end(&mut self, now: Instant) {
        if let Some(attempt) = self.log.last_mut()
            && attempt.total.is_none()
        {
            attempt.total = Some(now.saturating_duration_since(self.started));
        }
        self.lease = None;
    }

    fn note_failure(&mut self, cause: Cause, now: Instant) -> (Phase, bool) {
        let started = self.started;
        let Some(attempt) = self.log.last_mut() else {
            return (Phase::Connect, false);
        };
        if cause == Cause::ConnectionRefused {
            self.refusals.push((attempt.backend, now));
        }
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
    ) -> bool {
        let lost = self.race == Race::None
            && reused
            && phase == Phase::Request
            && cause == Cause::ConnectionTerminated
            && route.retry.replay.allows(&session.req_header().method)
            && !session.as_ref().retry_buffer_truncated();
        if lost {
            self.race = Race::Lost;
        }
        lost
    }

    fn decide(
        &self,
        route: &Route,
        session: &Session,
        cause: Cause,
        phase: Phase,
        now: Instant,
    ) -> Result<Allowance, Refusal> {
        let situation = Situation {
            cause,
            method: &session.req_header().method,
            sent_attempts: self.sent,
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
        let is_tried = |address| self.log.iter().any(|attempt| attempt.backend == address);
        let is_left = |address| !is_tried(address) || self.may_ask_again(address, now);
        if !route.upstream.has_untried(|address| !is_left(address)) {
            return Err(Refusal::NoBackendLeft);
        }
        if allowance == Allowance::Replayable && !route.upstream.budget().take(route.retry.budget, now) {
            return Err(Refusal::Budget);
        }
        Ok(allowance)
    }
}

/// Whether a byte of a final response has gone out to the client. A 101 is one (RFC 9110 section 15.2.2).
pub(crate) fn has_answered(session: &Session) -> bool {
    let is_final =
        |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().is_some_and(|response| is_final(response.status))
}
