//! One request's attempts: which backend is next, what a failure means, whether another try is allowed.

mod choosing;
mod failing;
mod tried;
mod waiting;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_failure::{Attempt, Attempts, Cause, ConnectionAge, Phase, decisive_cause};
use goodgate_telemetry::backend_changed;
use goodgate_upstream::{Backend, How, Lease, Upstream};
use http::StatusCode;
use pingora_proxy::Session;

use crate::connection_auth::{Backends, Binding};
use crate::kept::{Kept, KeptConnections};
use crate::route::Route;
use tried::Tried;
use waiting::{Lookup, Upload};

/// How many kept connections one request gives up before it takes a new one, whatever the pool
/// still has: after a burst that may be thousands.
const AGED_MAX: u32 = 8;

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
    /// When its time began to count, if that was before the first attempt.
    counts_from: Option<Instant>,
    sent: u32,
    upload: Upload,
    /// Attempts that could not connect, and those on backends out of rotation.
    connect_failures: u32,
    failed_open: u32,
    interim: u32,
    /// Kept connections that were given up because they were too old or had unexpected bytes.
    aged: u32,
    replacement: Replacement,
    binding: Binding,
    begun: bool,
    /// Whether the request waits, or has waited, for lookups that its failure has set off.
    lookup: Lookup,
    /// The connection of the attempt under way.
    kept: Option<Arc<Kept>>,
    /// The backends whose attempts failed.
    tried: Tried,
}

/// A kept connection that was of no use is replaced by another one to the same backend. That is no retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replacement {
    /// No need has been seen.
    None,
    /// It had been idle for too long, or the backend sent bytes on it: another kept one will do.
    Aged,
    /// It died before it brought a byte: the next one must be a new one (rule 2 of the failure rules).
    RaceLost,
    /// That has been made, and there is no second one.
    Replaced,
}

/// A connection as Pingora hands it over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection<'a> {
    pub(crate) reused: bool,
    pub(crate) socket: RawFd,
    /// What of making it the TLS handshake took.
    pub(crate) tls: Option<Duration>,
    /// The SHA-256 digest of the certificate that the backend has shown.
    pub(crate) shown: Option<&'a [u8]>,
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
            counts_from: None,
            sent: 0,
            upload: Upload::default(),
            connect_failures: 0,
            failed_open: 0,
            interim: 0,
            aged: 0,
            replacement: Replacement::None,
            binding: Binding::None,
            begun: false,
            lookup: Lookup::NotAwaited,
            kept: None,
            tried: Tried::default(),
        }
    }

    /// Takes over the hold of a trial that is to be made behind a client's back.
    pub(crate) fn hand(&mut self, lease: Option<Lease>) {
        self.is_trial = lease.is_some();
        self.handed = lease;
    }

    /// Where the backend belongs that was given to this request beforehand.
    pub(crate) fn handed_of(&self) -> Option<&Upstream> {
        self.handed.as_ref().map(Lease::upstream)
    }

    /// The cause of the last failure.
    pub(crate) fn last_cause(&self) -> Option<Cause> {
        self.log.iter().rev().find_map(|attempt| attempt.cause)
    }

    /// The cause that decides what the client is answered, whatever the order of the attempts.
    pub(crate) fn decisive_cause(&self) -> Option<Cause> {
        decisive_cause(&self.log)
    }

    /// Whether the only thing that went wrong was a kept connection that died.
    pub(crate) fn was_only_race(&self) -> bool {
        let failures = self.log.iter().filter(|attempt| attempt.cause.is_some()).count();
        self.replacement == Replacement::Replaced && failures == 1
    }

    /// The backend of the attempt under way.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// The connection belongs to the client's, and leads to one of these backends if one may be used: nothing that has been
    /// sent on it is sent again elsewhere.
    pub(crate) fn bind(&mut self, backends: Backends) {
        self.binding = Binding::ToClient(backends);
    }

    /// The connection of the attempt is not reused, whatever the pool does with it.
    pub(crate) fn leave_pool(&self) {
        if let Some(kept) = &self.kept {
            kept.leave_pool();
        }
    }

    /// When the connection of the attempt under way stood.
    pub(crate) fn connected_at(&self) -> Instant {
        self.connected_at
    }

    /// When all attempts must be over.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// When all attempts must be over, or, before the first one, this.
    pub(crate) fn end_of_time(&self, planned: Instant) -> Instant {
        if self.begun { self.deadline } else { planned }
    }

    /// From here on the time for all attempts counts.
    pub(crate) fn counts_from(&mut self, now: Instant) {
        self.counts_from = Some(now);
    }

    /// Begins the attempt on the backend taken. Whether it must not take a kept connection.
    pub(crate) fn begin(&mut self, route: &Route, now: Instant) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            self.deadline = self.counts_from.unwrap_or(now) + route.timeout;
            route.upstream.budget().request(now);
        } else if !matches!(self.replacement, Replacement::Aged | Replacement::RaceLost) {
            route.upstream_metrics.retry();
        }
        let fresh = self.replacement == Replacement::RaceLost || self.aged > AGED_MAX;
        match self.replacement {
            Replacement::RaceLost => self.replacement = Replacement::Replaced,
            Replacement::Aged => self.replacement = Replacement::None,
            Replacement::None | Replacement::Replaced => {}
        }
        if let Some(lease) = &self.lease {
            let attempt = Attempt::new(lease.backend().address, lease.how() == How::FailOpen);
            let started = now.saturating_duration_since(self.request_started);
            self.log.push(Attempt { started, ..attempt });
        }
        self.started = now;
        self.interim = 0;
        fresh
    }

    /// The connection that the attempt makes, if it makes one.
    pub(crate) fn expect(
        &mut self,
        all: &Arc<KeptConnections>,
        backend: &Arc<Backend>,
        idle_max: Duration,
    ) -> &Arc<Kept> {
        self.kept.insert(all.expect(backend, idle_max))
    }

    /// The connection stands. Whether it is fit for the request: one that may not be repeated goes out on a
    /// connection that is new or was used a moment ago.
    pub(crate) fn connected(
        &mut self,
        route: &Route,
        all: &KeptConnections,
        connection: &Connection<'_>,
        is_repeatable: impl FnOnce() -> bool,
    ) -> bool {
        let age = if connection.reused { self.take_kept(all, connection.socket) } else { None };
        if let (Some(ConnectionAge { idle: Some(idle), .. }), Some(lease)) = (age, &self.lease) {
            let (backend, configured) = (lease.backend(), route.upstream.spec().timeouts.idle);
            let is_over = idle >= backend.idle_limit(configured, self.started)
                || idle >= backend.wary_idle_limit(configured, self.started) && !is_repeatable();
            if is_over {
                self.pass_over();
                return false;
            }
        }
        // A kept connection is there at once: no need to look at the clock.
        self.connected_at = if connection.reused { self.started } else { Instant::now() };
        let after = self.connected_at.saturating_duration_since(self.started);
        if !connection.reused {
            route.upstream_metrics.connected(after);
            if let Some(kept) = &self.kept {
                kept.made(connection.socket, self.connected_at);
            }
        }
        if let Some(attempt) = self.log.last_mut() {
            attempt.phase = Phase::Request;
            attempt.reused = connection.reused;
            attempt.age = age;
            attempt.connect = Some(after);
            attempt.tls = connection.tls.filter(|_| !connection.reused);
        }
        true
    }

    /// Gives up the idle connection that the attempt has taken, for another one to the same backend.
    pub(crate) fn pass_over(&mut self) {
        self.log.pop();
        self.replacement = Replacement::Aged;
        self.aged += 1;
    }

    fn take_kept(&mut self, all: &KeptConnections, socket: RawFd) -> Option<ConnectionAge> {
        let (kept, age) = all.take(socket, self.started)?;
        self.kept = Some(kept);
        Some(age)
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
        if let Some(lease) = &mut self.lease {
            lease.answered(after, status, now);
        }
    }

    /// The answer is good: the backend works.
    pub(crate) fn succeeded(&mut self, route: &Route, now: Instant) {
        if let Some(lease) = &mut self.lease {
            let change = lease.succeeded(now);
            backend_changed(&route.upstream.spec().name, &route.upstream_metrics, change);
        }
    }

    /// The backend says that it wants no new requests.
    pub(crate) fn announced(&mut self, route: &Route, now: Instant) {
        if let Some(lease) = &mut self.lease {
            let change = lease.announced(now);
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

    /// What the failure is in the words of the kernel or a library; before it is reported.
    pub(crate) fn note_detail(&mut self, detail: Option<Box<str>>) {
        if let Some(attempt) = self.log.last_mut() {
            attempt.detail = detail;
        }
    }

    /// An interim response has come. How many there were in this attempt.
    pub(crate) fn interim(&mut self) -> u32 {
        self.interim += 1;
        self.interim
    }

    /// The backend has sent its whole answer: what the client still sends or takes is not its time.
    pub(crate) fn done(&mut self, now: Instant) {
        let started = self.started;
        if let Some(attempt) = self.log.last_mut().filter(|attempt| attempt.total.is_none()) {
            attempt.total = Some(now.saturating_duration_since(started));
        }
        if let Some(lease) = &mut self.lease {
            lease.done();
        }
    }

    /// A piece of the response's body has come.
    pub(crate) fn received(&mut self, bytes: usize) {
        if let Some(attempt) = self.log.last_mut() {
            attempt.bytes_in += bytes as u64;
        }
    }

    /// The last attempt is over.
    pub(crate) fn end(&mut self, session: &Session, now: Instant) {
        self.note_bytes_out(session);
        if let Some(attempt) = self.log.last_mut()
            && attempt.total.is_none()
        {
            attempt.total = Some(now.saturating_duration_since(self.started));
        }
        if let Some(kept) = self.kept.take() {
            kept.rests(now);
        }
        self.lease = None;
    }

    /// Pingora counts what it sent in each attempt, once that is over.
    fn note_bytes_out(&mut self, session: &Session) {
        if let Some(attempt) = self.log.last_mut().filter(|attempt| attempt.phase != Phase::Connect) {
            attempt.bytes_out = session.upstream_body_bytes_sent().unwrap_or_default() as u64;
        }
    }
}

/// Whether a byte of a final response has gone out to the client. A 101 is one (RFC 9110 section 15.2.2).
pub(crate) fn has_answered(session: &Session) -> bool {
    let is_final =
        |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().is_some_and(|response| is_final(response.status))
}
