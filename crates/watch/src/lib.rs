//! What the gateway believes true of the world outside, kept up to date in the background: the addresses
//! of names, active health checks, and when certificates end.
//!
//! One task per upstream name and kind, and one for all probes, lives from reload to reload and looks up the upstream
//! in force each time round, so that a storm of reloads delays no probe. Nothing here runs on the request path.

mod certificates;
mod check;
mod client;
mod discovery;
mod hosts;
mod line;
mod memory;
mod names;
mod probes;
mod resolver;
mod revival;
mod schedule;
mod service;
mod watcher;

pub use memory::{Memory, Recalled};
pub use watcher::Watcher;
