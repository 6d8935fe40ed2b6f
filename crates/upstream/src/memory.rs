//! What is worth knowing after a restart: who is out and why, when backends close idle connections, where names led, and
//! what operators ordered. Writing it down is `watch`'s.

use std::time::{Duration, Instant};

use crate::{Address, BackendAddress, Condition, FoundAddress, Orders};

/// What is remembered of one upstream.
#[derive(Clone, Debug, Default)]
pub struct UpstreamMemory {
    /// Backends of which there is something to remember.
    pub backends: Vec<BackendMemory>,
    /// Names with the addresses that the last good lookup gave.
    pub names: Vec<(BackendAddress, Vec<FoundAddress>)>,
    /// What differs from the configuration.
    pub orders: Orders,
}

/// What is remembered of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendMemory {
    /// Where it is.
    pub address: Address,
    /// What was believed of it.
    pub condition: Condition,
    /// Since when.
    pub since: Instant,
    /// How many ejections were not forgiven yet.
    pub strikes: u32,
    /// After how long it closes idle connections, as far as that was learned.
    pub idle_close: Option<Duration>,
}
