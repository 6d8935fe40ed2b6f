//! What a selection costs: one pick with its report, for each way of balancing, for small and huge upstreams; and
//! what making an upstream, or its order anew, costs. `cargo bench -p goodgate-upstream -- memory` tells the bytes
//! that a backend takes.

#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use goodgate_failure::{Cause, Word, Words};
use goodgate_upstream::{
    BackendAddress, BackendSpec, Balance, BalanceFactor, EjectionPolicy, ProbeKind, ProbePolicy, ProbeTls,
    Probed, Ties, Timeouts, Upstream, UpstreamSpec, Wish,
};

const FIRST: Wish = Wish { is_retry: false, may_be_trial: true };
const SIZES: [u16; 3] = [10, 1000, 10_000];
/// Requests under way while one is chosen for.
const UNDER_WAY: u64 = 2000;

fn ways() -> [(&'static str, Balance); 6] {
    [
        ("round_robin", Balance::RoundRobin),
        ("least_conn", Balance::LeastConn),
        ("random_two", Balance::RandomTwo),
        ("least_time", Balance::LeastTime),
        ("consistent_hash", Balance::ConsistentHash { factor: None }),
        ("bounded_hash", Balance::ConsistentHash { factor: BalanceFactor::from_percent(125) }),
    ]
}

fn spec(balance: Balance, backends: u16) -> UpstreamSpec {
    let second = Duration::from_secs(1);
    let entry = |port: u16| BackendSpec {
        address: BackendAddress::Ip(SocketAddr::from(([10, 0, 0, 1], port))),
        weight: NonZeroU16::MIN,
        backup: false,
        in_flight_max: 0,
        tls_name: None,
        ejection: EjectionPolicy {
            max_fails: 3,
            fail_timeout: second,
            fail_timeout_max: second,
            fail_on: Words::of(&[Word::Error]),
            min_fail_share: 0.2,
        },
    };
    let timeouts = Timeouts {
        connect: second,
        first_byte: second,
        read: second,
        write: second,
        idle: second,
        tunnel: second,
    };
    let backends = (1..=backends).map(entry).collect();
    UpstreamSpec { balance, backends, ..UpstreamSpec::plain("bench", timeouts) }
}

fn upstream(balance: Balance, backends: u16) -> Arc<Upstream> {
    Upstream::new(spec(balance, backends), None, Instant::now())
}

/// A request for one of so many addresses.
fn ties(request: u64) -> Ties {
    Ties { hash: Some(request % 5000), bound: None }
}

fn selection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick_and_report");
    for ((name, balance), backends) in ways().into_iter().flat_map(|way| SIZES.map(|size| (way, size))) {
        let (now, upstream) = (Instant::now(), upstream(balance, backends));
        let select = |request| upstream.select_tied(|_| false, FIRST, ties(request), now);
        let _under_way: Vec<_> = (0..UNDER_WAY).map(select).collect();
        let mut request = 0;
        group.bench_function(BenchmarkId::new(name, backends), |bencher| {
            bencher.iter(|| {
                request += 1;
                if let Some(mut lease) = select(request) {
                    lease.answered(Duration::from_millis(request % 16), 200, now);
                    black_box(lease.succeeded(now));
                }
            });
        });
    }
    group.finish();
}

/// Members come, and health changes.
fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("changes");
    group.sample_size(10);
    let backends = 10_000;
    for (name, balance) in ways() {
        group.bench_function(BenchmarkId::new("start", name), |bencher| {
            bencher.iter(|| upstream(balance, backends));
        });
        let old = upstream(balance, backends);
        group.bench_function(BenchmarkId::new("reload", name), |bencher| {
            bencher.iter(|| Upstream::new(spec(balance, backends), Some(&old), Instant::now()));
        });
        let probe = ProbePolicy {
            kind: ProbeKind::Tcp,
            port: None,
            tls: ProbeTls::AsBackend,
            interval: Duration::from_secs(1),
            interval_down: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: NonZeroU32::MIN,
            fall: NonZeroU32::MIN,
            starts_checking: false,
        };
        let probed = UpstreamSpec { probe: Some(probe), ..spec(balance, backends) };
        let upstream = Upstream::new(probed, None, Instant::now());
        let address = SocketAddr::from(([10, 0, 0, 1], 1)).into();
        let mut is_down = false;
        group.bench_function(BenchmarkId::new("down_or_up", name), |bencher| {
            bencher.iter(|| {
                is_down = !is_down;
                let found = if is_down { Probed::Failed(Cause::ConnectionRefused) } else { Probed::Passed };
                upstream.probed(address, found, Instant::now())
            });
        });
    }
    group.finish();
}

/// Not a matter of time: it is printed, and the benchmark beside it says nothing.
fn memory(criterion: &mut Criterion) {
    const UPSTREAMS: u64 = 10;
    let mut group = criterion.benchmark_group("memory");
    group.sample_size(10);
    for (name, balance) in ways() {
        group.bench_function(name, |bencher| {
            let before = resident_bytes();
            let upstreams: Vec<_> = (0..UPSTREAMS).map(|_| upstream(balance, 10_000)).collect();
            let bytes = resident_bytes().saturating_sub(before);
            println!("{} bytes for each of 10,000 backends", bytes / (UPSTREAMS * 10_000));
            bencher.iter(|| black_box(&upstreams));
        });
    }
    group.finish();
}

/// Memory in use.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = status.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * 4096
}

criterion_group!(benches, selection, changes, memory);
criterion_main!(benches);
