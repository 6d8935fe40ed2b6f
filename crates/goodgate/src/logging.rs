//! The error log: `env_logger` on standard error, the libraries beneath quiet unless asked.

use std::sync::Arc;

use goodgate_telemetry::Metrics;

/// What is logged unless `RUST_LOG` says otherwise. Pingora tells of each failed request, which is what
/// the access log is for.
const DEFAULT: &str =
    "info,pingora_proxy=off,pingora_core=off,pingora_cache=off,hickory_resolver=error,hickory_proto=error";

pub(crate) fn start() {
    let filter = env_logger::Env::default().default_filter_or(DEFAULT);
    // A second start (demo within tests) keeps the first logger.
    let _ = env_logger::Builder::from_env(filter).format_timestamp_millis().try_init();
}

/// A panic costs one connection: it is counted and logged in one line.
pub(crate) fn count_panics(metrics: &Arc<Metrics>) {
    let metrics = Arc::clone(metrics);
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        log::error!(panic:% = panic; "a bug of goodgate's was caught");
    }));
}
