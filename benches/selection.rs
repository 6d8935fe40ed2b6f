//! What a selection costs: one pick with its report, for small and huge upstreams.

use std::hint::black_box;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use goodgate_failure::{Word, Words};
use goodgate_upstream::{
    BackendAddress, BackendSpec, EjectionPolicy, HostHeader, Timeouts, TlsPolicy, Upstream, UpstreamSpec,
    Wish,
};

fn spec(backends: u16) -> UpstreamSpec {
    let second = Duration::from_secs(1);
    let entry = |port: u16| BackendSpec {
        address: BackendAddress::Ip(SocketAddr::from(([10, 0, 0, 1], port))),
        weight: NonZeroU16::MIN,
        backup: false,
        tls_name: None,
        ejection: EjectionPolicy {
            max_fails: 3,
            fail_timeout: second,
            fail_on: Words::of(&[Word::Error]),
            min_fail_share: 0.2,
        },
    };
    UpstreamSpec {
        name: "bench".into(),
        host: HostHeader::Client,
        backends: (1..=backends).map(entry).collect(),
        probe: None,
        tls: TlsPolicy { ca: None, verify: true, client: None },
        timeouts: Timeouts {
            connect: second,
            first_byte: second,
            read: second,
            write: second,
            idle: second,
            tunnel: second,
        },
    }
}

fn selection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selection");
    let first = Wish { is_retry: false, may_be_trial: true };
    for backends in [3, 100, 10_000] {
        let now = Instant::now();
        let upstream = Upstream::new(spec(backends), None, now);
        group.bench_function(BenchmarkId::new("pick_and_report", backends), |bencher| {
            bencher.iter(|| {
                let lease = upstream.select(|_| false, first, now);
                if let Some(mut lease) = lease {
                    black_box(lease.succeeded(now));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, selection);
criterion_main!(benches);
