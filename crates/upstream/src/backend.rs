//! One address of an upstream: what it is told to be, with what has been seen of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use goodgate_failure::{Blame, Cause};

use crate::health::{Condition, Why};
use crate::{
    Address, BackendId, EjectionPolicy, Health, IdleCloseView, Mode, ProbeResult, State, Transition, Vitals,
    domain_of,
};

/// A backend as one configuration and the orders of operators have it. The running state behind it is shared and
/// outlives it.
#[derive(Debug)]
pub struct Backend {
    /// The address that attempts go to.
    pub address: Address,
    /// The address as written: a name where the configuration has one.
    pub written: Arc<str>,
    /// Its share of the requests relative to the others.
    pub weight: u16,
    /// What that is without the orders of operators.
    pub own_weight: u16,
    /// What an operator has made of it.
    pub mode: Mode,
    /// Since when it has that mode, if it is not to serve.
    pub ordered_since: Option<Instant>,
    /// Used only when no other is in rotation, or all others are full.
    pub backup: bool,
    /// Those of the lowest rank are asked first, the others when none of them can be had.
    pub rank: u32,
    /// Requests that it may have under way; zero: any number.
    pub in_flight_max: u32,
    /// What it is called in a cookie that ties clients to it, where there is one.
    pub id: Option<BackendId>,
    /// When live failures eject it.
    pub ejection: EjectionPolicy,
    /// The name that is sent and proven in the TLS handshake; none: no TLS.
    pub tls_name: Option<Arc<str>>,
    pub(crate) vitals: Arc<Vitals>,
}

/// A backend at one moment, for metrics and the admin side.
#[derive(Clone, Debug)]
pub struct BackendView {
    /// Its address.
    pub address: Address,
    /// The address as written in the configuration.
    pub written: Arc<str>,
    /// Its state.
    pub state: State,
    /// What speaks against it, if something does.
    pub why: Option<Why>,
    /// Its weight.
    pub weight: u16,
    /// Whether it is a backup.
    pub backup: bool,
    /// Requests under way.
    pub in_flight: u64,
    /// Attempts that went well.
    pub ok: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// When the certificate that it has shown last ends; none: not known, or no TLS.
    pub certificate_expires: Option<SystemTime>,
}

impl Backend {
    /// What it is called in a `Host` of its own: the address as written, but a Unix socket has none, and of a
    /// service it is the domain.
    pub fn host(&self) -> &str {
        match self.written.strip_prefix("srv:") {
            Some(service) => domain_of(service),
            None if self.address.is_unix() => "localhost",
            None => &self.written,
        }
    }

    /// It is no member of the upstream any more: what is under way finishes, and no connection to it is kept.
    pub(crate) fn leaves(&self) {
        self.vitals.has_left.store(true, Ordering::Relaxed);
    }

    /// Whether it is no member of the upstream any more.
    pub fn has_left(&self) -> bool {
        self.vitals.has_left.load(Ordering::Relaxed)
    }

    /// Whether it may have no more under way.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight_max > 0 && self.vitals.in_flight() >= u64::from(self.in_flight_max)
    }

    /// Whether it was ejected because it could not be reached, and nobody has ordered it out.
    pub(crate) fn is_unreachable(&self) -> bool {
        let condition = self.vitals.health().condition();
        self.mode == Mode::Serve
            && matches!(condition, Condition::Ejected { why, .. } if why.is_unreachable())
    }

    /// Whether a health check may ask it: not while an operator has taken it out.
    pub fn is_probed(&self) -> bool {
        self.mode != Mode::Disable
    }

    /// It said in `Keep-Alive: timeout=` how long it keeps an idle connection.
    pub fn hinted_idle_close(&self, limit: Duration, now: Instant) {
        self.vitals.idle_close.hinted(limit, now);
    }

    /// It closed a connection that had lain idle for this long.
    pub fn closed_idle(&self, idle: Duration, now: Instant) {
        self.vitals.idle_close.closed_after(idle, now);
    }

    /// How long a connection to it may have lain idle to be used again: at most `configured`, and less than
    /// what is known of its own limit.
    pub fn idle_limit(&self, configured: Duration, now: Instant) -> Duration {
        self.vitals.idle_close.limit(configured, now)
    }

    /// The same for a request that may not be repeated if the connection turns out to be dead.
    pub fn wary_idle_limit(&self, configured: Duration, now: Instant) -> Duration {
        self.vitals.idle_close.wary_limit(configured, now)
    }

    /// What is known of how long it keeps idle connections.
    pub fn idle_close(&self, now: Instant) -> IdleCloseView {
        self.vitals.idle_close.view(now)
    }

    /// An attempt went well. `out_of_rotation` says that it was made although the backend was ejected,
    /// on trial or failing open: then it proves the backend, while a straggler from before the ejection
    /// does not.
    pub(crate) fn succeeded(&self, out_of_rotation: bool, now: Instant) -> Option<Transition> {
        self.vitals.count_attempt(&self.ejection, now);
        if !out_of_rotation {
            return None;
        }
        self.transition(self.vitals.step(|health| health.proven(now), now))
    }

    /// An attempt failed; `is_first` says that nothing has been reported of it before. `may_eject` is asked before
    /// a backend in rotation is ejected.
    pub(crate) fn failed(
        &self,
        cause: Cause,
        is_first: bool,
        may_eject: impl Fn() -> bool,
        now: Instant,
    ) -> Option<Transition> {
        let vitals = &self.vitals;
        if is_first {
            vitals.count_attempt(&self.ejection, now);
        }
        if cause.blame() == Blame::Nobody {
            return self.abandoned(now);
        }
        vitals.note_failure(cause, now);
        if !self.ejection.fail_on.covers(cause) {
            return self.abandoned(now);
        }
        let is_unreachable = cause.blame() == Blame::BackendUnreachable;
        let enough = vitals.count_failure(is_unreachable, &self.ejection, now);
        let why = Why::Failure(cause);
        let eject = |health: Health| match health.condition() {
            Condition::Trial { .. } => health.ejected(why, &self.ejection, now),
            Condition::Up | Condition::Draining { .. } if enough && may_eject() => {
                health.ejected(why, &self.ejection, now)
            }
            Condition::Up
            | Condition::Checking
            | Condition::Ejected { .. }
            | Condition::Down { .. }
            | Condition::Draining { .. } => health,
        };
        self.transition(vitals.step(eject, now))
    }

    /// An attempt ended without saying anything about the backend.
    pub(crate) fn abandoned(&self, now: Instant) -> Option<Transition> {
        let change = self.transition(self.vitals.step(|health| health.trial_abandoned(now), now));
        change.map(|change| Transition { why: None, ..change })
    }

    /// An answer says that it wants no new requests.
    pub(crate) fn announced(&self, now: Instant) -> Option<Transition> {
        self.transition(self.vitals.step(|health| health.announced(&self.ejection, now), now))
    }

    /// The transition, but for what only the upstream knows.
    pub(crate) fn transition(&self, change: Option<(State, State)>) -> Option<Transition> {
        let why = self.vitals.health().why();
        change.map(|(from, to)| Transition {
            backend: self.address,
            from,
            to,
            why,
            in_rotation: 0,
            failed_open_for: None,
        })
    }

    /// Notes when the certificate that it shows ends.
    pub fn note_certificate(&self, expires: SystemTime) {
        *self.vitals.certificate_expires.lock() = Some(expires);
    }

    /// Since when it has been in the state that health, or the order of an operator, gives it.
    pub fn since(&self) -> Instant {
        let health = self.vitals.health().since();
        self.ordered_since.map_or(health, |ordered| ordered.max(health))
    }

    /// How often attempts have failed for which cause, most often first.
    pub fn failures(&self) -> Vec<(Cause, u64)> {
        self.vitals.seen.failures()
    }

    /// The times to the first byte that half of the answers and that 99 of 100 of the last one to two minutes took at
    /// most, to the next of two steps in a doubling.
    pub fn first_byte(&self, now: Instant) -> Option<[Duration; 2]> {
        self.vitals.seen.quantiles(self.vitals.since_birth(now))
    }

    /// The next health check of it is made then; none: no more are.
    pub fn expect_probe(&self, at: Option<Instant>) {
        *self.vitals.next_probe.lock() = at;
    }

    /// When its next health check is made, if any is.
    pub fn next_probe(&self) -> Option<Instant> {
        *self.vitals.next_probe.lock()
    }

    /// A health check of it is over.
    pub fn note_probe(&self, result: &ProbeResult) {
        self.vitals.probes.add(result, self.vitals.born);
    }

    /// Its last health checks, the newest first.
    pub fn probes(&self) -> Vec<ProbeResult> {
        self.vitals.probes.newest_first(self.vitals.born)
    }

    /// The last one.
    pub fn last_probe(&self) -> Option<ProbeResult> {
        self.vitals.probes.last(self.vitals.born)
    }

    /// When the trial is due that it waits for, if it waits for one.
    pub fn trial_due(&self) -> Option<Instant> {
        self.vitals.health().trial_due()
    }

    /// The backend at this moment.
    pub fn view(&self) -> BackendView {
        let health = self.vitals.health();
        let (ok, failed) = self.vitals.outcomes();
        BackendView {
            address: self.address,
            written: Arc::clone(&self.written),
            state: self.mode.over(health.state()),
            why: health.why(),
            weight: self.weight,
            backup: self.backup,
            in_flight: self.vitals.in_flight(),
            ok,
            failed,
            certificate_expires: self.tls_name.as_ref().and_then(|_| *self.vitals.certificate_expires.lock()),
        }
    }
}
