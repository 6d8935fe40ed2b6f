//! Every metric: name, help, labels. Nothing is declared anywhere else.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// Seconds: from a cache hit to the longest default timeout.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Seconds: from "just went stale" to the default `stale_for` and beyond.
const STALE_AGE_BUCKETS: [f64; 9] = [1.0, 5.0, 30.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0];

/// What identifies the build, for `goodgate_build_info`.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// The version.
    pub version: &'static str,
    /// The revision it was built from.
    pub revision: &'static str,
}

/// What a store holds, for the cache metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreUsage {
    /// Objects held.
    pub objects: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Objects evicted since the start.
    pub evictions: u64,
}

/// All metric families of the process.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) responses: IntCounterVec,
    pub(crate) gateway_errors: IntCounterVec,
    pub(crate) rescues: IntCounterVec,
    pub(crate) attempts: IntCounterVec,
    pub(crate) attempt_failures: IntCounterVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) retries_refused: IntCounterVec,
    pub(crate) request_duration: HistogramVec,
    pub(crate) connect: HistogramVec,
    pub(crate) first_byte: HistogramVec,
    pub(crate) backend_state: IntGaugeVec,
    pub(crate) backend_in_flight: IntGaugeVec,
    pub(crate) health_checks: IntCounterVec,
    pub(crate) ejections: IntCounterVec,
    pub(crate) client_aborts: IntCounterVec,
    pub(crate) dns_lookups: IntCounterVec,
    pub(crate) dns_stale: IntGaugeVec,
    pub(crate) cache_requests: IntCounterVec,
    pub(crate) cache_objects: IntGaugeVec,
    pub(crate) cache_bytes: IntGaugeVec,
    pub(crate) cache_evictions: IntCounterVec,
    pub(crate) stale_age: HistogramVec,
    pub(crate) client_connections: IntGaugeVec,
    /// Access-log records dropped because the target could not keep up.
    pub log_dropped: IntCounter,
    /// Panics caught; each cost one connection.
    pub panics: IntCounter,
    pub(crate) config_reloads: IntCounterVec,
    pub(crate) config_last_success: Gauge,
    pub(crate) config_hash: IntGaugeVec,
    pub(crate) scrape: parking_lot::Mutex<()>,
}

impl Metrics {
    /// Declares everything. Fails only if two families were given one name.
    pub fn new(build: BuildInfo) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            responses: counters(r, "goodgate_responses_total", "Responses sent", &["route", "upstream", "status", "origin"])?,
            gateway_errors: counters(r, "goodgate_gateway_errors_total", "Errors that goodgate itself answered", &["route", "upstream", "status", "cause"])?,
            rescues: counters(r, "goodgate_rescues_total", "Failures that the client never saw", &["route", "upstream", "by", "cause"])?,
            attempts: counters(r, "goodgate_attempts_total", "Tries at a backend", &["upstream", "backend", "outcome"])?,
            attempt_failures: counters(r, "goodgate_attempt_failures_total", "Failed tries by cause", &["upstream", "cause"])?,
            retries: counters(r, "goodgate_retries_total", "Attempts after the first", &["upstream"])?,
            retries_refused: counters(r, "goodgate_retries_refused_total", "Why no further try was made", &["upstream", "reason"])?,
            request_duration: histograms(r, "goodgate_request_duration_seconds", "First request byte to last response byte", &["route"], &DURATION_BUCKETS)?,
            connect: histograms(r, "goodgate_upstream_connect_seconds", "Time to a new connection", &["upstream"], &DURATION_BUCKETS)?,
            first_byte: histograms(r, "goodgate_upstream_first_byte_seconds", "Time to the response header", &["upstream"], &DURATION_BUCKETS)?,
            backend_state: gauges(r, "goodgate_backend_state", "1 for the state that the backend is in", &["upstream", "backend", "state"])?,
            backend_in_flight: gauges(r, "goodgate_backend_requests_in_flight", "Requests under way", &["upstream", "backend"])?,
            health_checks: counters(r, "goodgate_health_checks_total", "Active health checks", &["upstream", "result"])?,
            ejections: counters(r, "goodgate_ejections_total", "Backends taken out of rotation by live traffic", &["upstream", "cause"])?,
            client_aborts: counters(r, "goodgate_client_aborts_total", "Clients that left", &["upstream", "phase"])?,
            dns_lookups: counters(r, "goodgate_dns_lookups_total", "Lookups of backend names", &["upstream", "result"])?,
            dns_stale: gauges(r, "goodgate_dns_stale", "1 while the last good addresses are used because lookups fail", &["upstream"])?,
            cache_requests: counters(r, "goodgate_cache_requests_total", "Requests by what the cache did", &["route", "result"])?,
            cache_objects: gauges(r, "goodgate_cache_objects", "Objects held", &["cache", "tier"])?,
            cache_bytes: gauges(r, "goodgate_cache_bytes", "Bytes held", &["cache", "tier"])?,
            cache_evictions: counters(r, "goodgate_cache_evictions_total", "Objects evicted", &["cache", "tier"])?,
            stale_age: histograms(r, "goodgate_stale_age_seconds", "How far past their freshness stale copies were", &["route"], &STALE_AGE_BUCKETS)?,
            client_connections: gauges(r, "goodgate_client_connections", "Client connections", &["listener", "state"])?,
            log_dropped: add(r, IntCounter::new("goodgate_log_dropped_total", "Access-log records dropped")?)?,
            panics: add(r, IntCounter::new("goodgate_panics_total", "Panics caught")?)?,
            config_reloads: counters(r, "goodgate_config_reloads_total", "Loads of the configuration after the start", &["result"])?,
            config_last_success: add(r, Gauge::new("goodgate_config_last_success_timestamp_seconds", "When the configuration was last loaded")?)?,
            config_hash: gauges(r, "goodgate_config_hash", "1 for the configuration in force", &["hash"])?,
            scrape: parking_lot::Mutex::new(()),
            registry: registry.clone(),
        };
        let info = gauges(r, "goodgate_build_info", "1 for the build that runs", &["version", "revision"])?;
        info.with_label_values(&[build.version, build.revision]).set(1);
        registry.register(Box::new(ProcessCollector::for_self()))?;
        for result in ["ok", "failed"] {
            metrics.config_reloads.with_label_values(&[result]);
        }
        Ok(metrics)
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
}
