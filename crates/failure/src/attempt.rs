//! What happened to one request, attempt by attempt: the raw material of the access log.

use std::net::SocketAddr;
use std::time::Duration;

use crate::{Cause, Refusal};

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
    pub backend: SocketAddr,
    /// How far it got.
    pub phase: Phase,
    /// Whether it went over a kept connection.
    pub reused: bool,
    /// Whether it tried a backend that is out of rotation because none was in it.
    pub fail_open: bool,
    /// Time until the connection stood; zero for a reused one, none if it never stood.
    pub connect: Option<Duration>,
    /// Time from the attempt's start to the response header.
    pub first_byte: Option<Duration>,
    /// Time from the attempt's start to its end.
    pub total: Option<Duration>,
    /// The backend's status, once the header was read.
    pub status: Option<u16>,
    /// Why it failed; none while it runs and when it went well.
    pub cause: Option<Cause>,
    /// Why no further attempt followed, if that was refused.
    pub refusal: Option<Refusal>,
}

impl Attempt {
    /// An attempt on `backend` that is about to connect.
    pub fn new(backend: SocketAddr, fail_open: bool) -> Self {
        Self {
            backend,
            phase: Phase::Connect,
            reused: false,
            fail_open,
            connect: None,
            first_byte: None,
            total: None,
            status: None,
            cause: None,
            refusal: None,
        }
    }
}

/// All attempts of one request, in order.
pub type Attempts = Vec<Attempt>;
