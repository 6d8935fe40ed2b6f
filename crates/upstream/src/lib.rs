//! Who gets the next attempt: backends, rotation, passive and active health.

mod policy;

pub use policy::{
    BackendAddress, BackendSpec, EjectionPolicy, HostHeader, ProbeKind, ProbePolicy, Timeouts, UpstreamSpec,
};
