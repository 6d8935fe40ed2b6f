//! What an upstream remembers over a restart of the process. The configuration wins: what it does not have is not
//! recalled, and what it does not do (no health check, no ejection) nobody is out for.

use std::collections::HashMap;
use std::time::Instant;

use super::Upstream;
use super::names::Member;
use crate::{
    Address, Backend, BackendAddress, BackendMemory, Condition, FoundAddress, Health, Orders, State,
    UpstreamMemory, Why,
};

impl Upstream {
    /// All that is worth knowing after a restart.
    pub fn remember(&self, now: Instant) -> UpstreamMemory {
        let (backends, orders) = (self.backends(), self.orders());
        let members = self.members.lock();
        let names = members.iter().filter(|member| member.is_name());
        let found = names.map(|member| (member.spec.address.clone(), member.known().0));
        UpstreamMemory {
            names: found.filter(|(_, found)| !found.is_empty()).collect(),
            backends: backends.iter().filter_map(|backend| of_backend(backend, now)).collect(),
            orders,
        }
    }

    /// Takes up what was ordered before the restart.
    pub fn recall_orders(&self, remembered: Orders, now: Instant) {
        let mut orders = self.orders.lock();
        orders.recall(remembered);
        orders.fit(&self.spec.backends);
        self.reseat(&orders, now);
    }

    /// Takes up what was known of a name, if it could not be looked up.
    pub fn recall_names(&self, names: &[(BackendAddress, Vec<FoundAddress>)], now: Instant) {
        for (name, found) in names {
            let lacks = self.with_member(name, Member::why_unresolved).flatten();
            if let Some(cause) = lacks {
                self.resolved(name, found, now);
                self.unresolved(name, cause, now);
            }
        }
    }

    /// Takes up what was seen of backends, if nothing has been seen of them since.
    pub fn recall_backends(&self, memories: &[BackendMemory], now: Instant) {
        let by_address: HashMap<Address, &BackendMemory> =
            memories.iter().map(|memory| (memory.address, memory)).collect();
        for backend in self.backends() {
            if let Some(memory) = by_address.get(&backend.address) {
                self.recall_backend(&backend, memory, now);
            }
        }
    }

    fn recall_backend(&self, backend: &Backend, memory: &BackendMemory, now: Instant) {
        if let Some(limit) = memory.idle_close {
            backend.vitals.idle_close.recall(limit, now);
        }
        let recalled = Health::recalled(memory.condition, memory.since, memory.strikes);
        let recalled = recalled.capped(&backend.ejection, now);
        let is_new = |health: Health| {
            let waits = health.state() == State::Checking && memory.condition != Condition::Up;
            waits || health.state() == State::Up
        };
        if self.would_say(backend, memory.condition) {
            let _ = backend.vitals.step(|health| if is_new(health) { recalled } else { health }, now);
        }
    }

    /// Whether a backend could be in this condition by the configuration.
    fn would_say(&self, backend: &Backend, condition: Condition) -> bool {
        match condition {
            Condition::Up => true,
            Condition::Ejected { why: Why::SuccessRate | Why::FirstByte, .. } => self.spec.outliers.is_some(),
            Condition::Ejected { .. } => backend.ejection.max_fails > 0,
            Condition::Down { .. } | Condition::Draining { until: None } => self.spec.probe.is_some(),
            Condition::Draining { until: Some(_) } => self.spec.drain_header.is_some(),
            Condition::Checking | Condition::Trial { .. } => false,
        }
    }
}

/// None if there is nothing to remember.
fn of_backend(backend: &Backend, now: Instant) -> Option<BackendMemory> {
    let health = backend.vitals.health();
    // What a trial that is under way finds out is not known yet.
    let condition = health.trial_abandoned(now).condition();
    let idle_close = backend.idle_close(now).believed;
    let is_plain = matches!(condition, Condition::Up | Condition::Checking);
    if is_plain && health.strikes() == 0 && idle_close.is_none() {
        return None;
    }
    let (address, since, strikes) = (backend.address, health.since(), health.strikes());
    Some(BackendMemory { address, condition, since, strikes, idle_close })
}
