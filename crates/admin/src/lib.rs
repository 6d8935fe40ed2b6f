//! The operator's side: `/metrics`, `/livez`, `/readyz`, and the state of the backends.
//!
//! `/metrics` and the two health pages are open. Everything else needs the token, but for a listener on
//! loopback without one. It runs beside the workers, never on them.

mod listener;
mod pages;

pub use listener::serve;
pub use pages::{Admin, Subject};
