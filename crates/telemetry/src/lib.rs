//! Everything counted or logged; the only room that knows Prometheus.
//!
//! The lower rooms return what happened, the adapters hand it over, and here it becomes a series or a line.
//! Handles are resolved when a configuration is loaded: counting on the request path is atomic additions.

mod access_log;
mod events;
mod exposition;
mod handles;
mod metrics;
mod record;

pub use access_log::{AccessLog, Target};
pub use events::backend_changed;
pub use handles::{By, CacheResult, Origin, RouteMetrics, UpstreamMetrics};
pub use metrics::{BuildInfo, Metrics, StoreUsage};
pub use record::AccessRecord;
