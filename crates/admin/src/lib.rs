//! The operator's side: `/metrics`, `/livez`, `/readyz`, the state of the backends, the last failures and
//! the story of each.
//!
//! `/metrics` and the two health pages are open. Everything else needs the token, but for a listener on
//! loopback without one. It runs beside the workers, never on them.

mod backends;
mod compression;
mod explain;
mod failures;
mod listener;
mod names;
mod pages;
mod places;
mod probes;
mod purge;
mod query;
mod visitor;

pub use listener::serve;
pub use pages::{Admin, Subject};
