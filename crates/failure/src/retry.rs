//! May this request be tried once more? One pure function over plain values.
//!
//! Two different fears are kept apart. Repeating a request that may have been acted on is forbidden by
//! `replay`, whatever the rest says. Amplifying an outage is bounded by `tries` and the budget, and only
//! attempts that sent something count there: a connect that failed cost the backend nothing. Failed connects
//! have a limit of their own, since an upstream may have thousands of backends that all refuse.

use std::num::NonZeroU32;
use std::time::Instant;

use http::Method;

use crate::{BudgetPolicy, Cause, Words};

/// What may be sent again after a byte of it went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Nothing.
    None,
    /// Safe methods: see [`is_safe`].
    Safe,
    /// Idempotent methods: see [`is_idempotent`].
    Idempotent,
    /// Everything (nginx's `non_idempotent`).
    All,
}

impl Replay {
    /// Whether a request with this method may be sent again.
    pub fn allows(self, method: &Method) -> bool {
        match self {
            Self::None => false,
            Self::Safe => is_safe(method),
            Self::Idempotent => is_idempotent(method),
            Self::All => true,
        }
    }
}

/// Whether the IANA registry of HTTP methods calls the method safe: it asks for nothing to be changed.
pub fn is_safe(method: &Method) -> bool {
    method.is_safe() || SAFE.contains(&method.as_str())
}

/// Whether the IANA registry of HTTP methods calls the method idempotent: several such requests have the effect of one.
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent() || SAFE.contains(&method.as_str()) || IDEMPOTENT.contains(&method.as_str())
}

/// Safe methods besides those of RFC 9110.
const SAFE: [&str; 4] = ["PROPFIND", "QUERY", "REPORT", "SEARCH"];

/// Idempotent methods besides those of RFC 9110 and the safe ones.
const IDEMPOTENT: [&str; 25] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPPATCH",
    "REBIND",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// When a failed attempt is followed by another. Built by `config`, applied by `proxy`.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts that sent something, the first included.
    pub tries: NonZeroU32,
    /// Attempts that could not connect, the first included.
    pub connect_failures_max: NonZeroU32,
    /// Which failures are worth another attempt.
    pub on: Words,
    /// What may be sent again.
    pub replay: Replay,
    /// How many retries the upstream may see in all.
    pub budget: BudgetPolicy,
    /// Bytes of a request's body that are kept so that it can be sent again; at least 64 KiB.
    pub body_bytes_max: u64,
}

/// Why no further attempt was made. A closed set: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `retry.tries` is used up.
    Tries,
    /// `retry.max_connect_failures` is used up.
    ConnectFailures,
    /// None is in rotation, and as many of the others as allowed were tried (fail open).
    FailOpen,
    /// The retry budget is used up.
    Budget,
    /// The request may have been acted on and must not be repeated.
    NotReplayable,
    /// The request body is larger than what is kept for a second attempt, or could not be kept.
    BodyTooLarge,
    /// The request's `timeout` has passed.
    Deadline,
    /// Every backend that may be used has been tried.
    NoBackendLeft,
    /// Response bytes have gone out to the client.
    BytesOut,
    /// `retry.on` does not name this failure.
    NotConfigured,
}

impl Refusal {
    /// Every member, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Tries,
        Self::ConnectFailures,
        Self::FailOpen,
        Self::Budget,
        Self::NotReplayable,
        Self::BodyTooLarge,
        Self::Deadline,
        Self::NoBackendLeft,
        Self::BytesOut,
        Self::NotConfigured,
    ];

    /// The word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tries => "tries",
            Self::ConnectFailures => "connect_failures",
            Self::FailOpen => "fail_open",
            Self::Budget => "budget",
            Self::NotReplayable => "not_replayable",
            Self::BodyTooLarge => "body_too_large",
            Self::Deadline => "deadline",
            Self::NoBackendLeft => "no_backend_left",
            Self::BytesOut => "bytes_out",
            Self::NotConfigured => "not_configured",
        }
    }

    /// What it means, in one plain sentence for operators.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Tries => "As many attempts as allowed have sent something.",
            Self::ConnectFailures => "As many attempts as allowed could not connect.",
            Self::FailOpen => {
                "No backend is in rotation, and as many of those out of rotation as allowed were tried."
            }
            Self::Budget => {
                "Retries are at their share of the upstream's requests: more of them would add to the outage."
            }
            Self::NotReplayable => "The request may have been acted on, and its method must not be repeated.",
            Self::BodyTooLarge => "The request body is larger than what is kept of it, or could not be kept.",
            Self::Deadline => "The time for all attempts is over.",
            Self::NoBackendLeft => "Every backend has been tried.",
            Self::BytesOut => "The client has received the beginning of the answer.",
            Self::NotConfigured => "Failures of this kind are not tried elsewhere.",
        }
    }

    /// The key of the configuration that decides it; none where nothing can be set.
    pub const fn setting(self) -> Option<&'static str> {
        match self {
            Self::Tries => Some("routes[].retry.tries"),
            Self::ConnectFailures => Some("routes[].retry.max_connect_failures"),
            Self::FailOpen => Some("upstreams.*.fail_open"),
            Self::Budget => Some("routes[].retry.budget"),
            Self::NotReplayable => Some("routes[].retry.replay"),
            Self::Deadline => Some("routes[].timeout"),
            Self::NoBackendLeft => Some("upstreams.*.backends"),
            Self::NotConfigured => Some("routes[].retry.on"),
            Self::BodyTooLarge => Some("routes[].retry.max_body_bytes"),
            Self::BytesOut => None,
        }
    }
}

/// Which rule allowed another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Nothing of the request had been sent: another backend may have it, free of tries and budget.
    NothingSent,
    /// The request may be sent again, and tries and budget had room.
    Replayable,
    /// A kept connection had died before it brought a byte: it is replaced by a fresh one.
    ConnectionRace,
}

impl Allowance {
    /// The word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NothingSent => "nothing_sent",
            Self::Replayable => "replayable",
            Self::ConnectionRace => "connection_race",
        }
    }

    /// What it means, in one plain sentence for operators.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NothingSent => {
                "Nothing of the request had been sent, so another backend may have it, whatever its method."
            }
            Self::Replayable => {
                "The request may be sent again, and neither its tries nor the retry budget were used up."
            }
            Self::ConnectionRace => {
                "A kept connection had died before it brought a byte: it is replaced by a new one, once."
            }
        }
    }
}

/// What is known when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Why it failed.
    pub cause: Cause,
    /// The request's method.
    pub method: &'a Method,
    /// Attempts of this request so far that sent something, this one included if it did.
    pub sent_attempts: u32,
    /// Attempts of this request so far that could not connect, this one included if it could not.
    pub connect_failures: u32,
    /// Whether a byte of the request went out in this attempt.
    pub request_bytes_sent: bool,
    /// Whether the whole request body so far can be sent again.
    pub body_kept: bool,
    /// Whether a byte of a response has gone out to the client.
    pub response_bytes_out: bool,
    /// When the request's time is up.
    pub deadline: Instant,
    /// Now.
    pub now: Instant,
}

/// The verdict of [`RetryPolicy::decide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try another backend; nothing was sent, so the budget is not asked.
    RetryFree,
    /// Try another backend if the budget has one retry left.
    RetryFromBudget,
    /// Stop, for this reason.
    Stop(Refusal),
}

impl RetryPolicy {
    /// Whether the request may be tried again. That another backend is left, and the budget, are for the
    /// caller to ask: both have state.
    pub fn decide(&self, at: &Situation<'_>) -> Decision {
        if at.response_bytes_out {
            return Decision::Stop(Refusal::BytesOut);
        }
        if !self.on.covers(at.cause) {
            return Decision::Stop(Refusal::NotConfigured);
        }
        if at.now >= at.deadline {
            return Decision::Stop(Refusal::Deadline);
        }
        if at.request_bytes_sent && !self.replay.allows(at.method) {
            return Decision::Stop(Refusal::NotReplayable);
        }
        if !at.body_kept {
            return Decision::Stop(Refusal::BodyTooLarge);
        }
        if at.connect_failures >= self.connect_failures_max.get() {
            return Decision::Stop(Refusal::ConnectFailures);
        }
        if !at.request_bytes_sent {
            return Decision::RetryFree;
        }
        if at.sent_attempts >= self.tries.get() {
            return Decision::Stop(Refusal::Tries);
        }
        Decision::RetryFromBudget
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReceivedStatus, Word};
    use std::time::Duration;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            tries: NonZeroU32::new(3).unwrap(),
            connect_failures_max: NonZeroU32::new(16).unwrap(),
            on: Words::of(&[Word::Error, Word::Timeout, Word::InvalidHeader, Word::Http503]),
            replay: Replay::Idempotent,
            budget: BudgetPolicy::percent(20),
            body_bytes_max: 64 << 10,
        }
    }

    fn situation(cause: Cause, method: &Method, sent: bool) -> Situation<'_> {
        let now = Instant::now();
        Situation {
            cause,
            method,
            sent_attempts: u32::from(sent),
            connect_failures: u32::from(!sent),
            request_bytes_sent: sent,
            body_kept: true,
            response_bytes_out: false,
            deadline: now + Duration::from_secs(1),
            now,
        }
    }

    #[test]
    fn what_was_never_sent_goes_on_whatever_the_method() {
        let at = situation(Cause::ConnectionRefused, &Method::POST, false);
        assert_eq!(policy().decide(&at), Decision::RetryFree);
        let many = Situation { sent_attempts: 99, ..at };
        assert_eq!(policy().decide(&many), Decision::RetryFree);
    }

    #[test]
    fn failed_connects_are_bounded() {
        let at = situation(Cause::ConnectionRefused, &Method::GET, false);
        let after = |connect_failures| policy().decide(&Situation { connect_failures, ..at });
        assert_eq!(after(15), Decision::RetryFree);
        assert_eq!(after(16), Decision::Stop(Refusal::ConnectFailures));
    }

    #[test]
    fn a_post_that_was_sent_is_never_repeated() {
        let at = situation(Cause::ConnectionTerminated, &Method::POST, true);
        assert_eq!(policy().decide(&at), Decision::Stop(Refusal::NotReplayable));
        let all = RetryPolicy { replay: Replay::All, ..policy() };
        assert_eq!(all.decide(&at), Decision::RetryFromBudget);
    }

    #[test]
    fn tries_deadline_body_and_bytes_out_each_stop_it() {
        let at = situation(Cause::HttpResponseTimeout, &Method::GET, true);
        assert_eq!(policy().decide(&at), Decision::RetryFromBudget);
        let stopped = |at: Situation<'_>| policy().decide(&at);
        assert_eq!(stopped(Situation { sent_attempts: 3, ..at }), Decision::Stop(Refusal::Tries));
        assert_eq!(stopped(Situation { deadline: at.now, ..at }), Decision::Stop(Refusal::Deadline));
        assert_eq!(stopped(Situation { body_kept: false, ..at }), Decision::Stop(Refusal::BodyTooLarge));
        let post = Situation { method: &Method::POST, body_kept: false, ..at };
        assert_eq!(stopped(post), Decision::Stop(Refusal::NotReplayable), "a longer body would not help");
        assert_eq!(stopped(Situation { response_bytes_out: true, ..at }), Decision::Stop(Refusal::BytesOut));
    }

    #[test]
    fn only_the_named_statuses_are_retried() {
        let get = Method::GET;
        let at = |status| situation(Cause::Received(status), &get, true);
        assert_eq!(policy().decide(&at(ReceivedStatus::S503)), Decision::RetryFromBudget);
        assert_eq!(policy().decide(&at(ReceivedStatus::S500)), Decision::Stop(Refusal::NotConfigured));
    }
}
