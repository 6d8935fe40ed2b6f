//! The text that `/metrics` answers. What is a state rather than an event (backends, stores, connections)
//! is written down at the moment of the scrape, so that series go when their address does.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use goodgate_upstream::{BackendView, Standing, State, Upstream};
use prometheus::TextEncoder;

use crate::{Metrics, RouteSurvival, StoreUsage};

/// As Prometheus has times.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

impl Metrics {
    /// The exposition in Prometheus' text format.
    pub fn text<'a>(
        &self,
        upstreams: &[Arc<Upstream>],
        stores: impl Iterator<Item = (&'a str, StoreUsage)>,
        certificates: &[(String, SystemTime)],
    ) -> Result<String, prometheus::Error> {
        let _one_at_a_time = self.scrape.lock();
        self.write_backends(upstreams);
        self.write_names(upstreams, Instant::now());
        self.write_stores(stores);
        self.write_certificates(certificates);
        self.write_survival();
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Notes a load of the configuration after the start.
    pub fn config_reloaded(&self, ok: bool) {
        self.config.last_reload_successful.set(f64::from(u8::from(ok)));
        self.config.reloads.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
    }

    /// Notes that what is known of backends was written down, or could not be.
    pub fn state_written(&self, ok: bool) {
        self.config.state_writes.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
    }

    /// Notes which configuration is in force since when.
    pub fn config_in_force(&self, hash: u64, since: SystemTime) {
        let seconds = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.config.last_success.set(seconds.as_secs_f64());
        self.config.hash.reset();
        self.config.hash.with_label_values(&[format!("{hash:016x}")]).set(1);
    }

    /// Which share of each route's live GET traffic a copy would answer if its upstream died now.
    pub fn survival(&self) -> Vec<RouteSurvival> {
        self.survivals.views(Instant::now())
    }

    fn write_survival(&self) {
        self.caches.survival.reset();
        for route in self.survival() {
            let share = route.survives.first().map_or(0.0, |outage| outage.share);
            self.caches.survival.with_label_values(&[route.route.as_str()]).set(share);
        }
    }

    fn write_backends(&self, upstreams: &[Arc<Upstream>]) {
        self.backends.in_rotation.reset();
        self.fail_open.now.reset();
        self.backends.state.reset();
        self.backends.in_flight.reset();
        self.certificates.backend_expiry.reset();
        self.backends.attempts.reset();
        self.queues.reset();
        for upstream in upstreams {
            self.queues.write(upstream, Instant::now());
            let name = upstream.spec().name.as_str();
            let in_rotation = i64::try_from(upstream.in_rotation()).unwrap_or(i64::MAX);
            self.backends.in_rotation.with_label_values(&[name]).set(in_rotation);
            let is_failing_open = upstream.failing_open_since().is_some();
            self.fail_open.now.with_label_values(&[name]).set(i64::from(is_failing_open));
            for view in upstream.views() {
                self.write_backend(name, &view);
            }
        }
    }

    fn write_names(&self, upstreams: &[Arc<Upstream>], now: Instant) {
        self.dns.kept_seconds.reset();
        for upstream in upstreams {
            let kept = upstream.name_views().into_iter().map(|view| match view.standing {
                Standing::Kept { since, .. } => now.saturating_duration_since(since).as_secs(),
                Standing::Known | Standing::Unresolved(_) => 0,
            });
            if let Some(longest) = kept.max() {
                let gauge = self.dns.kept_seconds.with_label_values(&[upstream.spec().name.as_str()]);
                gauge.set(i64::try_from(longest).unwrap_or(i64::MAX));
            }
        }
    }

    fn write_backend(&self, upstream: &str, view: &BackendView) {
        let backend = view.address.to_string();
        for state in State::ALL {
            let gauge = self.backends.state.with_label_values(&[upstream, &backend, state.name()]);
            gauge.set(i64::from(state == view.state));
        }
        let in_flight = i64::try_from(view.in_flight).unwrap_or(i64::MAX);
        self.backends.in_flight.with_label_values(&[upstream, &backend]).set(in_flight);
        if let Some(expires) = view.certificate_expires {
            let gauge = self.certificates.backend_expiry.with_label_values(&[upstream, &backend]);
            gauge.set(unix_seconds(expires));
        }
        self.backends.attempts.with_label_values(&[upstream, &backend, "ok"]).inc_by(view.ok);
        self.backends.attempts.with_label_values(&[upstream, &backend, "failed"]).inc_by(view.failed);
    }

    fn write_stores<'a>(&self, stores: impl Iterator<Item = (&'a str, StoreUsage)>) {
        self.caches.objects.reset();
        self.caches.bytes.reset();
        self.caches.evictions.reset();
        self.caches.purges.reset();
        self.caches.reset_disks();
        for (name, usage) in stores {
            self.write_tier([name, "memory"], usage.objects, usage.bytes, usage.evictions);
            self.caches.purges.with_label_values(&[name]).inc_by(usage.purges);
            if let Some(disk) = &usage.disk {
                self.write_tier([name, "disk"], disk.objects, disk.bytes, disk.evictions);
                self.caches.write_disk(name, disk);
            }
        }
    }

    fn write_tier(&self, labels: [&str; 2], objects: u64, bytes: u64, evictions: u64) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.caches.objects.with_label_values(&labels).set(gauge(objects));
        self.caches.bytes.with_label_values(&labels).set(gauge(bytes));
        self.caches.evictions.with_label_values(&labels).inc_by(evictions);
    }
}
