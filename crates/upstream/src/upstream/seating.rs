//! Backends made of what the configuration says, with what has been seen of their addresses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use crate::{Address, Backend, BackendSpec, Health, Mode, Orders, UpstreamSpec, Vitals};

/// What new backends are made with.
pub(super) struct Seating<'a> {
    spec: &'a UpstreamSpec,
    known: HashMap<Address, &'a Arc<Backend>>,
    in_flight: &'a Arc<AtomicU64>,
    orders: &'a Orders,
    now: Instant,
}

impl<'a> Seating<'a> {
    pub(super) fn new(
        spec: &'a UpstreamSpec,
        known: &'a [Arc<Backend>],
        in_flight: &'a Arc<AtomicU64>,
        orders: &'a Orders,
        now: Instant,
    ) -> Self {
        let known = known.iter().map(|backend| (backend.address, backend)).collect();
        Self { spec, known, in_flight, orders, now }
    }

    /// The backends that one entry stands for. An address seen before keeps its vitals; a new one joins those
    /// that there are.
    pub(super) fn seats(&self, entry: &BackendSpec, addresses: &[Address]) -> Vec<Arc<Backend>> {
        let written: Arc<str> = entry.address.to_string().into();
        let tls_name: Option<Arc<str>> = entry.tls_name.as_deref().map(Into::into);
        let key = self.spec.sticky.as_ref().and_then(|sticky| sticky.key.as_ref());
        let seat = |address: &Address| {
            let order = self.orders.of(&entry.address, *address);
            let weight = order.and_then(|order| order.weight).map_or(entry.weight, |(weight, _)| weight);
            let mode = order.map_or(Mode::Serve, |order| order.mode);
            let vitals = self.vitals(*address, mode);
            Arc::new(Backend {
                address: *address,
                written: Arc::clone(&written),
                weight: weight.get(),
                mode,
                backup: entry.backup,
                in_flight_max: entry.in_flight_max,
                id: key.map(|key| key.id(*address)),
                ejection: entry.ejection,
                tls_name: tls_name.clone(),
                vitals,
            })
        };
        addresses.iter().map(seat).collect()
    }

    fn vitals(&self, address: Address, mode: Mode) -> Arc<Vitals> {
        if let Some(backend) = self.known.get(&address) {
            if backend.mode != Mode::Serve && mode == Mode::Serve {
                backend.vitals.joins(self.now);
            }
            return Arc::clone(&backend.vitals);
        }
        let starts_checking = self.spec.probe.as_ref().is_some_and(|probe| probe.starts_checking);
        let health = if starts_checking { Health::checking(self.now) } else { Health::up(self.now) };
        let vitals = Vitals::new(Arc::clone(self.in_flight), health, self.now);
        if !self.known.is_empty() {
            vitals.joins(self.now);
        }
        Arc::new(vitals)
    }
}
