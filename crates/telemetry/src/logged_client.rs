//! The client in access records: its address, or that it is unknown.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

/// The client of a request, as a record shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedClient {
    /// Its address.
    Address(IpAddr),
    /// A trusted proxy sent an address that cannot be read.
    Unknown,
}

impl fmt::Display for LoggedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => ip.fmt(f),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Serialize for LoggedClient {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Address(ip) => ip.serialize(to),
            Self::Unknown => to.serialize_str("unknown"),
        }
    }
}
