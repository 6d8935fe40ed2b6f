//! What happened to one request, attempt by attempt: the raw material of the access log.

use std::time::Duration;

use crate::{Address, Allowance, Cause, Refusal};

/// How far an attempt got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A connection was being made or taken from the pool.
    Connect,
    /// The request was being written, or had been, and no response byte was seen.
    Request,
    /// The response header had arrived.
    Response,
}

impl Phase {
    /// The word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// One try of one request on one backend.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The backend's address.
    pub backend: Address,
    /// When it began, since the request's begin.
    pub started: Duration,
    /// How far it got.
    pub phase: Phase,
    /// Whether it went over a kept connection.
    pub reused: bool,
    /// How long that connection had stood, and how long it had lain idle.
    pub age: Option<ConnectionAge>,
    /// Whether it tried a backend that is out of rotation because none was in it.
    pub fail_open: bool,
    /// Time until the connection stood, TLS included; zero for a reused one, none if it never stood.
    pub connect: Option<Duration>,
    /// What of `connect` the TLS handshake took, if there was one.
    pub tls: Option<Duration>,
    /// Time from the attempt's start to the response header.
    pub first_byte: Option<Duration>,
    /// Time from the attempt's start to its end.
    pub total: Option<Duration>,
    /// Bytes of the request's body sent to the backend.
    pub bytes_out: u64,
    /// Bytes of the response's body received from the backend.
    pub bytes_in: u64,
    /// The backend's status, once the header was read.
    pub status: Option<u16>,
    /// Why it failed; none while it runs and when it went well.
    pub cause: Option<Cause>,
    /// What the failure was in the words of the library or the kernel, where the cause alone says too little.
    pub detail: Option<Box<str>>,
    /// After a failure: what allowed another attempt, or why none followed.
    pub next: Option<Result<Allowance, Refusal>>,
}

/// What is known of a kept connection at the moment of its reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionAge {
    /// Since it was established.
    pub since_connect: Duration,
    /// Since the last use of it ended, as far as that is known.
    pub idle: Option<Duration>,
}

impl Attempt {
    /// An attempt on `backend` that is about to connect.
    pub fn new(backend: Address, fail_open: bool) -> Self {
        Self {
            backend,
            started: Duration::ZERO,
            phase: Phase::Connect,
            reused: false,
            age: None,
            fail_open,
            connect: None,
            tls: None,
            first_byte: None,
            total: None,
            bytes_out: 0,
            bytes_in: 0,
            status: None,
            cause: None,
            detail: None,
            next: None,
        }
    }

    /// Why no further attempt followed, if that was refused.
    pub fn refusal(&self) -> Option<Refusal> {
        self.next.and_then(Result::err)
    }
}

/// What a request's failure is in the end, whatever the order of its attempts: the last status that a backend has sent;
/// else a failure of the gateway itself; else one after the request was sent, since the request may have been acted on;
/// else one to connect. Of several of a kind it is the one that comes first in [`Cause::ALL`].
pub fn decisive_cause(attempts: &[Attempt]) -> Option<Cause> {
    // A kept connection that died just when it was used again says nothing of the backend.
    let counts = |attempt: &&Attempt| attempt.next != Some(Ok(Allowance::ConnectionRace));
    let failed =
        || attempts.iter().filter(counts).filter_map(|attempt| Some((attempt.phase, attempt.cause?)));
    let received = failed().map(|(_, cause)| cause).rfind(|cause| matches!(cause, Cause::Received(_)));
    let first_of = |is_sent: bool| {
        let of_kind = failed().filter(move |(phase, _)| (*phase != Phase::Connect) == is_sent);
        of_kind.map(|(_, cause)| cause).min_by_key(|cause| cause.index())
    };
    let own = failed().map(|(_, cause)| cause).find(|cause| *cause == Cause::ProxyInternalError);
    received.or(own).or_else(|| first_of(true)).or_else(|| first_of(false))
}

/// All attempts of one request, in order.
pub type Attempts = Vec<Attempt>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReceivedStatus;

    #[test]
    fn the_order_of_the_attempts_does_not_decide() {
        let address = Address::Ip(([10, 0, 0, 1], 80).into());
        let failed = |(phase, cause)| Attempt { phase, cause: Some(cause), ..Attempt::new(address, false) };
        let refused = (Phase::Connect, Cause::ConnectionRefused);
        let timed_out = (Phase::Request, Cause::HttpResponseTimeout);
        let broken = (Phase::Request, Cause::ConnectionTerminated);
        let received = |status| (Phase::Response, Cause::Received(status));
        let decided = |these: &[(Phase, Cause)]| {
            let attempts: Vec<_> = these.iter().copied().map(failed).collect();
            decisive_cause(&attempts)
        };
        let unavailable = received(ReceivedStatus::S503);
        for (one, other, winner) in [
            (refused, unavailable, unavailable),
            (timed_out, unavailable, unavailable),
            (refused, timed_out, timed_out),
            (refused, broken, broken),
            (
                broken,
                (Phase::Request, Cause::ProxyInternalError),
                (Phase::Request, Cause::ProxyInternalError),
            ),
            (timed_out, broken, if timed_out.1.index() < broken.1.index() { timed_out } else { broken }),
        ] {
            assert_eq!(decided(&[one, other]), Some(winner.1));
            assert_eq!(decided(&[other, one]), Some(winner.1));
        }
        assert_eq!(
            decided(&[unavailable, received(ReceivedStatus::S500)]),
            Some(Cause::Received(ReceivedStatus::S500))
        );
        assert_eq!(decisive_cause(&[Attempt::new(address, false)]), None);
        let race = Attempt { next: Some(Ok(Allowance::ConnectionRace)), ..failed(broken) };
        assert_eq!(decisive_cause(&[race, failed(refused)]), Some(Cause::ConnectionRefused));
    }
}
