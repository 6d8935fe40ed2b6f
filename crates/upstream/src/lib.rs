//! Who gets the next attempt: backends, rotation, passive and active health.
//!
//! An [`Upstream`] is what one configuration says; its backends' [`Vitals`] are what has been seen of
//! them, keyed by address, and outlive it. This room does no I/O and reads no clock: `watch` brings
//! addresses and probe results, `proxy` the outcomes of attempts, each with the time.
//! Transitions are returned, never logged here.

mod alarm;
mod average;
mod backend;
mod balance;
mod breaker;
mod dns;
mod hash_key;
mod health;
mod idle;
mod lease;
mod lookups;
mod memory;
mod orders;
mod outliers;
mod policy;
mod probe_log;
mod probe_policy;
mod rotation;
mod seen;
mod slow_start;
mod sticky;
mod upstream;
mod vitals;

pub use goodgate_failure::Address;

pub use alarm::Alarm;
pub use backend::{Backend, BackendView};
pub use balance::{Balance, BalanceFactor};
pub use breaker::{Admission, BreakerPolicy, BreakerState, BreakerView, Place, Shed, Turn};
pub use dns::{DnsPolicy, Family, FoundAddress, NameView, Standing, Unresolved};
pub use hash_key::{HashOn, hash_of};
pub use health::{Condition, Health, State, Transition, Why};
pub use idle::IdleCloseView;
pub use lease::{How, Lease};
pub use memory::{BackendMemory, UpstreamMemory};
pub use orders::{Changed, Mode, NotOrdered, Order, Orders};
pub use outliers::OutlierPolicy;
pub use policy::{
    AddedBackend, BackendAddress, BackendSpec, CaBundle, ClientIdentity, EjectionPolicy, HostHeader,
    Timeouts, TlsPolicy, UpstreamSpec, domain_of,
};
pub use probe_log::ProbeResult;
pub use probe_policy::{BadPattern, BodyPattern, HttpProbe, ProbeKind, ProbePolicy, ProbeTls};
pub use sticky::{BackendId, StickyKey, StickyPolicy};
pub use upstream::{Probed, Ties, Upstream, Wish};
pub use vitals::Vitals;
