//! Orders of operators: carried out at once, kept beside the configuration.

use std::collections::HashMap;
use std::time::Instant;

use super::Upstream;
use super::names::left;
use crate::{Address, BackendAddress, NotOrdered, Order, Orders};

impl Upstream {
    /// Carries out an order for a backend as it is written in the configuration, or for one of its addresses.
    pub fn order(&self, backend: &str, order: Order, now: Instant) -> Result<(), NotOrdered> {
        let mut orders = self.orders.lock();
        let file = &self.spec.backends;
        match order {
            Order::Add(spec) => orders.add(file, *spec)?,
            Order::Mode(_) | Order::Weight(_) | Order::Remove | Order::Reset => match self.find(backend) {
                Some((entry, address)) => orders.give(file, (&entry, address), &order, now)?,
                None if matches!(order, Order::Reset) && orders.put_back(backend) => {}
                None => return Err(NotOrdered::Unknown),
            },
        }
        self.reseat(&orders, now);
        Ok(())
    }

    /// All that differs from the configuration.
    pub fn orders(&self) -> Orders {
        self.orders.lock().clone()
    }

    /// The members anew by the orders; what was seen of them stays.
    pub(super) fn reseat(&self, orders: &Orders, now: Instant) {
        let known = self.backends();
        let mut members = self.members.lock();
        let names = members.iter().filter(|member| member.is_name());
        let names: HashMap<_, _> =
            names.map(|member| (member.spec.address.clone(), member.known())).collect();
        *members = self.seat(orders, &known, |name| names.get(name).cloned(), now);
        let left = left(known, &members);
        drop(members);
        self.regroup();
        for backend in left {
            backend.leaves();
        }
    }

    /// The entry that is meant, and the address of it if only that one is.
    fn find(&self, backend: &str) -> Option<(BackendAddress, Option<Address>)> {
        let members = self.members.lock();
        let written = members.iter().find(|member| member.spec.address.to_string() == backend);
        if let Some(member) = written {
            return Some((member.spec.address.clone(), None));
        }
        members.iter().find_map(|member| {
            let mut addresses = member.backends.iter().map(|backend| backend.address);
            let address = addresses.find(|address| address.to_string() == backend)?;
            Some((member.spec.address.clone(), Some(address)))
        })
    }
}
