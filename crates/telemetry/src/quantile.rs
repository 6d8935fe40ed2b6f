//! Quantiles of a histogram, as exact as its buckets are and no more.

use std::time::Duration;

use prometheus::Histogram;
use prometheus::core::Metric;

use crate::Metrics;

/// Where a quantile lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// In the first bucket: less than this.
    Below(Duration),
    /// Between two bounds; the first is an estimate as if the bucket were filled evenly.
    About(Duration, Duration, Duration),
    /// Beyond the last bound.
    Above(Duration),
}

/// What a histogram of times says in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How many times were measured.
    pub count: u64,
    /// The time that half of them are below.
    pub p50: Quantile,
    /// The time that 99 of 100 are below.
    pub p99: Quantile,
}

impl Metrics {
    /// The times to the response header of an upstream that exists; none if there was no answer yet.
    pub fn first_byte_of(&self, upstream: &str) -> Option<Spread> {
        spread(&self.backends.first_byte.with_label_values(&[upstream]))
    }

    /// The times to a new connection of an upstream that exists; none if there was no connection yet.
    pub fn connect_of(&self, upstream: &str) -> Option<Spread> {
        spread(&self.backends.connect.with_label_values(&[upstream]))
    }

    /// Whether an upstream that exists uses the last good addresses because lookups fail.
    pub fn is_dns_stale(&self, upstream: &str) -> bool {
        self.dns.stale.with_label_values(&[upstream]).get() > 0
    }
}

fn spread(histogram: &Histogram) -> Option<Spread> {
    let metric = histogram.metric();
    let histogram = metric.get_histogram();
    let buckets: Vec<(f64, u64)> = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .filter(|(bound, _)| bound.is_finite())
        .collect();
    let count = histogram.get_sample_count();
    Some(Spread { count, p50: quantile(&buckets, count, 0.5)?, p99: quantile(&buckets, count, 0.99)? })
}

/// The quantile of cumulative buckets: upper bounds in seconds, rising, each with the count up to it.
fn quantile(buckets: &[(f64, u64)], count: u64, share: f64) -> Option<Quantile> {
    if count == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let float = |count: u64| count as f64;
    let rank = float(count) * share;
    let (mut low, mut below) = (0.0, 0);
    for &(high, until) in buckets {
        if float(until) >= rank && until > below {
            if low == 0.0 {
                return Some(Quantile::Below(seconds(high)));
            }
            let part = (rank - float(below)) / float(until - below);
            let about = low + (high - low) * part;
            return Some(Quantile::About(seconds(about), seconds(low), seconds(high)));
        }
        (low, below) = (high, until);
    }
    Some(Quantile::Above(seconds(low)))
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn it_says_no_more_than_the_buckets_do() {
        let buckets = [(0.25, 50), (1.0, 90), (5.0, 90), (15.0, 98)];
        assert_eq!(quantile(&buckets, 100, 0.5), Some(Quantile::Below(secs(0.25))));
        assert_eq!(quantile(&buckets, 100, 0.7), Some(Quantile::About(secs(0.625), secs(0.25), secs(1.0))));
        assert_eq!(quantile(&buckets, 100, 0.94), Some(Quantile::About(secs(10.0), secs(5.0), secs(15.0))));
        assert_eq!(quantile(&buckets, 100, 0.99), Some(Quantile::Above(secs(15.0))));
        assert_eq!(quantile(&buckets, 0, 0.5), None);
    }

    #[test]
    fn it_reads_a_histogram_of_ours() {
        let metrics = Metrics::new(crate::BuildInfo { version: "1", revision: "x" }).unwrap();
        assert_eq!(metrics.first_byte_of("web"), None);
        let ours = crate::UpstreamMetrics::new(&metrics, "web");
        for _ in 0..10 {
            ours.first_byte(Duration::from_millis(300));
        }
        let spread = metrics.first_byte_of("web").unwrap();
        assert_eq!(spread.count, 10);
        let middle = Duration::from_millis(375);
        assert_eq!(
            spread.p50,
            Quantile::About(middle, Duration::from_millis(250), Duration::from_millis(500))
        );
    }
}
