//! Everything counted or logged; the only room that knows Prometheus.
//!
//! The lower rooms return what happened, the adapters hand it over, and here it becomes a series or a line.
//! Handles are resolved when a configuration is loaded: counting on the request path is atomic additions.

mod access_log;
mod causes;
mod events;
mod exposition;
mod handles;
mod metrics;
mod quantile;
mod record;
mod ring;

pub use access_log::{AccessLog, Target};
pub use causes::is_of_interest;
pub use events::backend_changed;
pub use handles::{By, CacheResult, Origin, RouteMetrics, UpstreamMetrics};
pub use metrics::{BuildInfo, Metrics, StoreUsage};
pub use quantile::{Quantile, Spread};
pub use record::AccessRecord;
pub use ring::{KeptRecord, Ring};
