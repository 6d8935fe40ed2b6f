//! Backends made of what the configuration says, with what has been seen of their addresses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::vitals::OfAll;
use crate::{Address, Backend, BackendSpec, FoundAddress, Health, Mode, Orders, UpstreamSpec, Vitals};

/// What new backends are made with.
pub(super) struct Seating<'a> {
    spec: &'a UpstreamSpec,
    known: HashMap<Address, &'a Arc<Backend>>,
    of_all: &'a Arc<OfAll>,
    orders: &'a Orders,
    now: Instant,
}

impl<'a> Seating<'a> {
    pub(super) fn new(
        spec: &'a UpstreamSpec,
        known: &'a [Arc<Backend>],
        of_all: &'a Arc<OfAll>,
        orders: &'a Orders,
        now: Instant,
    ) -> Self {
        let known = known.iter().map(|backend| (backend.address, backend)).collect();
        Self { spec, known, of_all, orders, now }
    }

    /// The backends that one entry stands for, those of an unwanted family left out. An address seen before keeps its vitals; a new one joins those
    /// that there are.
    pub(super) fn seats(&self, entry: &BackendSpec, found: &[FoundAddress]) -> Vec<Arc<Backend>> {
        let written: Arc<str> = entry.address.to_string().into();
        let tls_name: Option<Arc<str>> = entry.tls_name.as_deref().map(Into::into);
        let key = self.spec.sticky.as_ref().and_then(|sticky| sticky.key.as_ref());
        let family = self.spec.dns.family;
        let seat = |found: &FoundAddress| {
            let address = found.address;
            let is_put_back = entry.address.is_name() && family.puts_back(address);
            let order = self.orders.of(&entry.address, address);
            let own_weight = found.weight.unwrap_or(entry.weight);
            let weight = order.and_then(|order| order.weight).map_or(own_weight, |(weight, _)| weight);
            let mode = order.map_or(Mode::Serve, |order| order.mode);
            let vitals = self.vitals(address, mode);
            Arc::new(Backend {
                address,
                written: Arc::clone(&written),
                weight: weight.get(),
                own_weight: own_weight.get(),
                mode,
                ordered_since: order.filter(|_| mode != Mode::Serve).map(|order| order.since),
                backup: entry.backup,
                rank: rank(entry.backup, found.level, is_put_back),
                in_flight_max: entry.in_flight_max,
                id: key.map(|key| key.id(address)),
                ejection: entry.ejection,
                tls_name: tls_name.clone(),
                vitals,
            })
        };
        let is_used = |found: &&FoundAddress| !entry.address.is_name() || family.takes(found.address);
        found.iter().filter(is_used).map(seat).collect()
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
        let vitals = Vitals::new(Arc::clone(self.of_all), health, self.now);
        if !self.known.is_empty() {
            vitals.joins(self.now);
        }
        Arc::new(vitals)
    }
}

/// Backups come behind all others, then the levels of a service, then the family that is not preferred.
fn rank(is_backup: bool, level: u16, is_put_back: bool) -> u32 {
    u32::from(is_backup) << 17 | u32::from(level) << 1 | u32::from(is_put_back)
}
