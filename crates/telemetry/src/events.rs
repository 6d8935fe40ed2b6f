//! Events worth a line in the error log, in constant phrases with key-values.

use std::time::Duration;

use goodgate_upstream::{State, Transition, Why};
use log::{info, warn};

use crate::UpstreamMetrics;

/// A backend changed its state: `warn` on the way out, `info` on the way back, and an ejection counted.
pub fn backend_changed(upstream: &str, metrics: &UpstreamMetrics, change: Option<Transition>) {
    let Some(Transition { backend, from, to, why, in_rotation, failed_open_for }) = change else {
        return;
    };
    let cause = why.map_or("none", Why::name);
    match (from, to) {
        (_, State::Up) => {
            info!(upstream = upstream, backend:% = backend, was = from.name(); "backend is in rotation");
        }
        (_, State::Trial) => {}
        // A trial that told nothing.
        (State::Trial, State::Ejected | State::Draining) if why.is_none() => {}
        (State::Trial, State::Ejected) => {
            info!(upstream = upstream, backend:% = backend, cause = cause; "backend failed its trial");
        }
        (State::Trial, State::Draining) => {
            info!(upstream = upstream, backend:% = backend; "backend still wants no new requests");
        }
        (_, State::Draining) => {
            info!(upstream = upstream, backend:% = backend; "backend wants no new requests");
        }
        (_, State::Ejected | State::Down | State::Checking | State::Disabled) => {
            warn!(upstream = upstream, backend:% = backend, state = to.name(), cause = cause; "backend is out of rotation");
        }
    }
    match (from, to) {
        (_, State::Up) if in_rotation == 1 => {
            info!(upstream = upstream; "the upstream has a backend in rotation again");
        }
        (State::Up, _) if in_rotation == 0 => {
            warn!(upstream = upstream; "the upstream has no backend in rotation");
        }
        _ => {}
    }
    if let (State::Ejected, Some(why)) = (to, why) {
        metrics.ejected(why);
    }
    if let Some(length) = failed_open_for {
        failed_open(upstream, length);
    }
}

/// Requests go to backends out of rotation from now on, for want of others.
pub fn fails_open(upstream: &str) {
    warn!(upstream = upstream; "no backend is in rotation and no copy at hand: requests go to the backend that failed the longest ago");
}

/// That has ended: a backend is in rotation again.
pub fn failed_open(upstream: &str, length: Duration) {
    let seconds = length.as_secs_f64();
    info!(upstream = upstream, seconds = seconds; "requests go to backends in rotation again");
}
