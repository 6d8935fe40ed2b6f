//! Every metric: name, help, labels. Nothing is declared anywhere else than here and in this folder.

mod backends;
mod queues;
mod spool;
mod totals;

use std::sync::Arc;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use crate::declare::{Declare, Declared};
use crate::handles::{RouteAlone, RouteSeries};
use crate::in_use::InUse;
use crate::mirrored::MirrorSeries;
use crate::queues::QueueSeries;
use crate::refused::RefusedCounters;
use crate::survival::Survivals;
use crate::totals::Totals;
use crate::upstream_handles::UpstreamSeries;
pub(crate) use backends::{BackendFamilies, FailOpenFamilies};
pub(crate) use queues::QueueFamilies;
pub(crate) use spool::SpoolFamilies;
pub(crate) use totals::TotalFamilies;

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

/// All metric families of the process.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) entrance: EntranceFamilies,
    pub(crate) certificates: CertificateFamilies,
    pub(crate) refused: RefusedCounters,
    pub(crate) removed_fields: IntCounterVec,
    pub(crate) requests: RequestFamilies,
    pub(crate) backends: BackendFamilies,
    pub(crate) fail_open: FailOpenFamilies,
    pub(crate) queues: QueueFamilies,
    pub(crate) spool: SpoolFamilies,
    pub(crate) dns: DnsFamilies,
    pub(crate) caches: CacheFamilies,
    pub(crate) config: ConfigFamilies,
    /// Access-log records dropped because the target could not keep up.
    pub log_dropped: IntCounter,
    /// Spans dropped because the collector did not take them.
    pub spans_dropped: IntCounter,
    /// Panics caught; each cost one connection.
    pub panics: IntCounter,
    pub(crate) survivals: Arc<Survivals>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) routes: Arc<InUse<RouteSeries>>,
    pub(crate) routes_alone: Arc<InUse<RouteAlone>>,
    pub(crate) upstreams: Arc<InUse<UpstreamSeries>>,
    pub(crate) breakers: Arc<InUse<QueueSeries>>,
    pub(crate) mirrors: Arc<InUse<MirrorSeries>>,
    pub(crate) scrape: parking_lot::Mutex<()>,
}

impl Metrics {
    /// Declares everything. Fails only if two families were given one name.
    pub fn new(build: BuildInfo) -> Declared<Self> {
        let registry = Registry::new();
        let to = Declare(&registry);
        let info = to.gauges("goodgate_build_info", "1 for the build that runs", &["version", "revision"])?;
        info.with_label_values(&[build.version, build.revision]).set(1);
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            entrance: EntranceFamilies::declare(&to)?,
            certificates: CertificateFamilies::declare(&to)?,
            refused: RefusedCounters::new(&to.counters(
                "goodgate_requests_refused_total",
                "Requests that were refused for what they are",
                &["reason"],
            )?),
            removed_fields: to.counters(
                "goodgate_request_fields_removed_total",
                "Request fields of clients that backends do not get",
                &["field"],
            )?,
            requests: RequestFamilies::declare(&to)?,
            backends: BackendFamilies::declare(&to)?,
            fail_open: FailOpenFamilies::declare(&to)?,
            queues: QueueFamilies::declare(&to)?,
            spool: SpoolFamilies::declare(&to)?,
            dns: DnsFamilies::declare(&to)?,
            caches: CacheFamilies::declare(&to)?,
            config: ConfigFamilies::declare(&to)?,
            log_dropped: to.counter("goodgate_log_dropped_total", "Access-log records dropped")?,
            spans_dropped: to.counter("goodgate_trace_spans_dropped_total", "Spans dropped")?,
            panics: to.counter("goodgate_panics_total", "Panics caught")?,
            survivals: Arc::default(),
            totals: Arc::new(Totals::new(&TotalFamilies::declare(&to)?)),
            routes: Arc::default(),
            routes_alone: Arc::default(),
            upstreams: Arc::default(),
            breakers: Arc::default(),
            mirrors: Arc::default(),
            scrape: parking_lot::Mutex::new(()),
            registry,
        })
    }
}

/// What happens before there is a request.
#[derive(Debug)]
pub(crate) struct EntranceFamilies {
    pub(crate) connections: IntGaugeVec,
    pub(crate) turned_away: IntCounterVec,
    pub(crate) made_room: IntCounterVec,
    pub(crate) handshakes: IntCounterVec,
}

impl EntranceFamilies {
    fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            connections: to.gauges(
                "goodgate_client_connections",
                "Client connections",
                &["listener", "state"],
            )?,
            turned_away: to.counters(
                "goodgate_client_connections_refused_total",
                "Client connections that were turned away",
                &["listener", "reason"],
            )?,
            made_room: to.counters(
                "goodgate_client_connections_reclaimed_total",
                "Idle client connections that were closed to make room for others",
                &["listener"],
            )?,
            handshakes: to.counters(
                "goodgate_tls_handshakes_total",
                "TLS handshakes with clients",
                &["listener", "result"],
            )?,
        })
    }
}

/// Certificates, ours and those of backends.
#[derive(Debug)]
pub(crate) struct CertificateFamilies {
    pub(crate) expiry: IntGaugeVec,
    pub(crate) backend_expiry: IntGaugeVec,
    pub(crate) reloads: IntCounterVec,
}

impl CertificateFamilies {
    fn declare(to: &Declare<'_>) -> Declared<Self> {
        let families = Self {
            expiry: to.gauges(
                "goodgate_certificate_expiry_timestamp_seconds",
                "When a certificate that clients are shown ends",
                &["certificate"],
            )?,
            backend_expiry: to.gauges(
                "goodgate_backend_certificate_expiry_timestamp_seconds",
                "When the certificate that a backend shows ends",
                &["upstream", "backend"],
            )?,
            reloads: to.counters(
                "goodgate_certificate_reloads_total",
                "Changes of certificate files that were noticed",
                &["result"],
            )?,
        };
        for result in ["ok", "failed"] {
            families.reloads.with_label_values(&[result]);
        }
        Ok(families)
    }
}

/// What clients were answered.
#[derive(Clone, Debug)]
pub(crate) struct RequestFamilies {
    pub(crate) responses: IntCounterVec,
    pub(crate) gateway_errors: IntCounterVec,
    pub(crate) rescues: IntCounterVec,
    pub(crate) duration: HistogramVec,
    pub(crate) forgotten: IntCounterVec,
    pub(crate) client_aborts: IntCounterVec,
    pub(crate) mirrored: IntCounterVec,
}

impl RequestFamilies {
    fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            responses: to.counters(
                "goodgate_responses_total",
                "Responses sent",
                &["route", "upstream", "status", "origin"],
            )?,
            gateway_errors: to.counters(
                "goodgate_gateway_errors_total",
                "Errors that goodgate itself answered",
                &["route", "upstream", "status", "cause"],
            )?,
            rescues: to.counters(
                "goodgate_rescues_total",
                "Failures that the client never saw",
                &["route", "upstream", "by", "cause"],
            )?,
            duration: to.histograms(
                "goodgate_request_duration_seconds",
                "First request byte to last response byte",
                &["route"],
                &DURATION_BUCKETS,
            )?,
            forgotten: to.counters(
                "goodgate_rate_limit_forgotten_total",
                "Clients of a rate limit forgotten early to make room",
                &["route"],
            )?,
            mirrored: to.counters("goodgate_mirrored_requests_total", "Copies of requests", MIRRORED)?,
            client_aborts: to.counters("goodgate_client_aborts_total", "Clients that left", ABORTED)?,
        })
    }
}

/// What became of the lookups of names.
#[derive(Clone, Debug)]
pub(crate) struct DnsFamilies {
    pub(crate) lookups: IntCounterVec,
    pub(crate) stale: IntGaugeVec,
    pub(crate) kept: IntCounterVec,
    pub(crate) kept_seconds: IntGaugeVec,
}

const NAMES: &[&str] = &["upstream"];

impl DnsFamilies {
    fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            lookups: to.counters(
                "goodgate_dns_lookups_total",
                "Lookups of backend names",
                &["upstream", "result"],
            )?,
            stale: to.gauges("goodgate_dns_stale", "1 while last addresses are used on", NAMES)?,
            kept: to.counters("goodgate_dns_kept_total", "Last addresses kept", &["upstream", "event"])?,
            kept_seconds: to.gauges("goodgate_dns_kept_seconds", "For how long by now", NAMES)?,
        })
    }
}

const ABORTED: &[&str] = &["upstream", "phase"];
const MIRRORED: &[&str] = &["route", "result"];
const CACHE: &[&str] = &["cache"];
const TIER: &[&str] = &["cache", "tier"];
const DROPPED_WRITES: &str = "goodgate_cache_disk_dropped_writes_total";
const DISK_ERRORS: &str = "goodgate_cache_disk_errors_total";
const CHECKSUM_FAILURES: &str = "goodgate_cache_disk_checksum_failures_total";

/// What the caches did and hold.
#[derive(Clone, Debug)]
pub(crate) struct CacheFamilies {
    pub(crate) requests: IntCounterVec,
    pub(crate) objects: IntGaugeVec,
    pub(crate) bytes: IntGaugeVec,
    pub(crate) evictions: IntCounterVec,
    pub(crate) purges: IntCounterVec,
    pub(crate) survival: GaugeVec,
    pub(crate) stale_age: HistogramVec,
    pub(crate) disk_limit: IntGaugeVec,
    pub(crate) disk_state: IntGaugeVec,
    pub(crate) disk_reads: IntCounterVec,
    pub(crate) disk_writes: IntCounterVec,
    pub(crate) disk_dropped: IntCounterVec,
    pub(crate) disk_errors: IntCounterVec,
    pub(crate) disk_corrupt: IntCounterVec,
}

impl CacheFamilies {
    fn declare(to: &Declare<'_>) -> Declared<Self> {
        Ok(Self {
            requests: to.counters(
                "goodgate_cache_requests_total",
                "Requests by what the cache did",
                &["route", "result"],
            )?,
            objects: to.gauges("goodgate_cache_objects", "Objects held", TIER)?,
            bytes: to.gauges("goodgate_cache_bytes", "Bytes held", TIER)?,
            evictions: to.counters("goodgate_cache_evictions_total", "Objects evicted", TIER)?,
            survival: to.ratios(
                "goodgate_survival_ratio",
                "The share of GET requests that a copy would answer if the upstream died now",
                &["route"],
            )?,
            purges: to.counters("goodgate_cache_purges_total", "Purges of one scope each", &["cache"])?,
            stale_age: to.histograms(
                "goodgate_stale_age_seconds",
                "How far past their freshness stale copies were",
                &["route"],
                &STALE_AGE_BUCKETS,
            )?,
            disk_limit: to.gauges("goodgate_cache_disk_limit_bytes", "Bytes allowed on disk", CACHE)?,
            disk_state: to.gauges("goodgate_cache_disk_state", "1 for its state", &["cache", "state"])?,
            disk_reads: to.counters("goodgate_cache_disk_reads_total", "Copies read", CACHE)?,
            disk_writes: to.counters("goodgate_cache_disk_writes_total", "Copies written", CACHE)?,
            disk_dropped: to.counters(DROPPED_WRITES, "Copies that were not written", CACHE)?,
            disk_errors: to.counters(DISK_ERRORS, "Errors", &["cache", "operation"])?,
            disk_corrupt: to.counters(CHECKSUM_FAILURES, "What was not as it had been written", CACHE)?,
        })
    }
}

/// Which configuration is in force.
#[derive(Debug)]
pub(crate) struct ConfigFamilies {
    pub(crate) reloads: IntCounterVec,
    pub(crate) last_reload_successful: Gauge,
    pub(crate) last_success: Gauge,
    pub(crate) hash: IntGaugeVec,
    pub(crate) state_writes: IntCounterVec,
}

impl ConfigFamilies {
    fn declare(to: &Declare<'_>) -> Declared<Self> {
        let families = Self {
            reloads: to.counters(
                "goodgate_config_reloads_total",
                "Loads of the configuration after the start",
                &["result"],
            )?,
            last_reload_successful: to.gauge(
                "goodgate_config_last_reload_successful",
                "1 unless the last load of the configuration failed",
            )?,
            last_success: to.gauge(
                "goodgate_config_last_success_timestamp_seconds",
                "When the configuration was last loaded",
            )?,
            hash: to.gauges("goodgate_config_hash", "1 for the configuration in force", &["hash"])?,
            state_writes: to.counters(
                "goodgate_state_writes_total",
                "Times that what is known of backends was written down",
                &["result"],
            )?,
        };
        families.last_reload_successful.set(1.0);
        for result in ["ok", "failed"] {
            families.state_writes.with_label_values(&[result]);
            families.reloads.with_label_values(&[result]);
        }
        Ok(families)
    }
}
