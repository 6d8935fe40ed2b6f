//! Everything counted or logged; the only room that knows Prometheus.
//!
//! The lower rooms return what happened, the adapters hand it over, and here it becomes a series or a line.
//! Handles are resolved when a configuration is loaded: counting on the request path is atomic additions.

mod access_log;
mod causes;
mod collector;
mod declare;
mod entrance;
mod error_log;
mod events;
mod expiry;
mod exposition;
mod handles;
mod in_use;
mod logged_client;
mod mask;
mod metrics;
mod mirrored;
mod names;
mod outlet;
mod quantile;
mod queues;
mod record;
mod refused;
mod ring;
mod spans;
mod spool;
mod stores;
mod survival;
mod text;
mod totals;
mod trace_context;
mod traces;
mod upstream_handles;

pub use access_log::{AccessLog, Format, LogPolicy, Target};
pub use entrance::{Handshake, ListenerMetrics, TurnedAway};
pub use error_log::ErrorLog;
pub use events::{backend_changed, failed_open, fails_open};
pub use expiry::ExpiryNotices;
pub use handles::{By, CacheResult, Origin, RouteMetrics};
pub use logged_client::LoggedClient;
pub use mask::Mask;
pub use metrics::{BuildInfo, Metrics};
pub use mirrored::{MirrorMetrics, MirrorResult};
pub use names::NameMetrics;
pub use quantile::{Quantile, Spread};
pub use queues::QueueMetrics;
pub use record::{AccessRecord, is_of_interest};
pub use refused::Refused;
pub use ring::{KeptRecord, Ring};
pub use spool::{SpoolMetrics, SpoolResult};
pub use stores::{StoreUsage, disk_event};
pub use survival::{Fate, OutageShare, ReasonShare, RouteSurvival};
pub use trace_context::{TraceContext, TraceId};
pub use traces::Traces;
pub use upstream_handles::UpstreamMetrics;
