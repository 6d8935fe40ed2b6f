//! The families of bodies that are kept to be sent again.

use prometheus::{IntCounterVec, IntGaugeVec};

use crate::declare::{Declare, Declared};

/// What is kept, and what became of it.
#[derive(Debug)]
pub(crate) struct SpoolFamilies {
    pub(crate) bytes: IntGaugeVec,
    pub(crate) bodies: IntCounterVec,
}

impl SpoolFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            bytes: to.gauges("goodgate_spool_bytes", "Bytes of request bodies in files", &[])?,
            bodies: to.counters("goodgate_spool_bodies_total", "Request bodies to be kept", &["result"])?,
        })
    }
}
