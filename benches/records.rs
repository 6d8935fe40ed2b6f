//! What a record costs the worker: masking, writing into the buffer, naming the place in a trace.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use goodgate_failure::{Attempt, Cause, Phase};
use goodgate_telemetry::{AccessLog, AccessRecord, BuildInfo, Format, Mask, Metrics, Target, TraceContext};

fn record(query: Option<&'static str>) -> AccessRecord<'static> {
    let mut attempt = Attempt::new(std::net::SocketAddr::from(([10, 0, 0, 1], 8080)).into(), false);
    attempt.phase = Phase::Response;
    attempt.status = Some(200);
    attempt.total = Some(Duration::from_micros(3_140));
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let id = "0af7651916cd43dd8448eb211c80319c";
    AccessRecord {
        method: "GET".into(),
        host: "www.example.com".into(),
        path: "/articles/2026/what-a-record-costs".into(),
        query: query.map(Into::into),
        version: "1.1",
        status: 200,
        cause: None,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into()),
        attempts: vec![attempt].into(),
        ..AccessRecord::of_no_request(SystemTime::UNIX_EPOCH, id, client, 200, Cause::HttpRequestError)
    }
}

/// Records written at once: what the log keeps before it drops is not reached.
const BURST: u64 = 1000;

/// How long so many records take. After each burst the log's thread has time to write it.
fn in_bursts(log: &AccessLog, record: &AccessRecord<'_>, format: Format, count: u64) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let burst = left.min(BURST);
        let start = Instant::now();
        for _ in 0..burst {
            log.write(black_box(record), format);
        }
        took += start.elapsed();
        left -= burst;
        std::thread::sleep(Duration::from_millis(25));
    }
    took
}

fn records(criterion: &mut Criterion) {
    let mask = Mask::new(&["token", "code", "key", "password"].map(str::to_owned), false);
    for (name, query) in
        [("nothing secret", "page=2&sort=date&lang=en"), ("a secret", "page=2&token=0af76519")]
    {
        criterion.bench_function(&format!("mask/{name}"), |bench| {
            bench.iter(|| mask.query(black_box(query)).len());
        });
    }
    let Ok(metrics) = Metrics::new(BuildInfo { version: "", revision: "" }) else {
        return;
    };
    let target = Target::File(PathBuf::from("/dev/null"));
    let Ok(log) = AccessLog::open(target, metrics.log_dropped.clone()) else {
        return;
    };
    for (name, format) in [("json", Format::Json), ("text", Format::Text)] {
        for (with, query) in [("no query", None), ("a query", Some("page=2&sort=date&lang=en"))] {
            let record = record(query);
            criterion.bench_function(&format!("write/{name}, {with}"), |bench| {
                bench.iter_custom(|count| in_bursts(&log, &record, format, count));
            });
        }
    }
    log.close();
    let context = TraceContext::new(1, 2, true);
    criterion.bench_function("traceparent", |bench| bench.iter(|| black_box(&context).traceparent(0).len()));
}

criterion_group!(benches, records);
criterion_main!(benches);
