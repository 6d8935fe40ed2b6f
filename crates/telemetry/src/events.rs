//! Events worth a line in the error log, in constant phrases with key-values.

use goodgate_upstream::{State, Transition};
use log::{info, warn};

use crate::UpstreamMetrics;

/// A backend changed its state: `warn` on the way out, `info` on the way back, and an ejection counted.
pub fn backend_changed(upstream: &str, metrics: &UpstreamMetrics, change: Option<Transition>) {
    let Some(Transition { backend, from, to, cause, in_rotation }) = change else {
        return;
    };
    let cause_name = cause.map_or("none", |cause| cause.name());
    match (from, to) {
        (_, State::Up) => {
            info!(upstream = upstream, backend:% = backend, was = from.name(); "backend is in rotation");
        }
        (_, State::Trial) | (State::Trial, State::Ejected) if cause.is_none() => {}
        (State::Trial, State::Ejected) => {
            info!(upstream = upstream, backend:% = backend, cause = cause_name; "backend failed its trial");
        }
        (_, State::Ejected | State::Down | State::Trial) => {
            warn!(upstream = upstream, backend:% = backend, state = to.name(), cause = cause_name; "backend is out of rotation");
        }
    }
    match (from, to) {
        (_, State::Up) if in_rotation == 1 => {
            info!(upstream = upstream; "the upstream has a backend in rotation again");
        }
        (State::Up, State::Down | State::Ejected | State::Trial) if in_rotation == 0 => {
            warn!(upstream = upstream; "the upstream has no backend in rotation: copies are served, else the backend that failed the longest ago is tried");
        }
        (State::Up | State::Down | State::Ejected | State::Trial, _) => {}
    }
    if let (State::Ejected, Some(cause)) = (to, cause) {
        metrics.ejected(cause);
    }
}
