//! What the disk tier costs: how long the index of many small copies takes, how much memory, and what a read costs
//! whose copy is in the page cache.
//!
//!     cargo build --release -p goodgate-cache --example disk
//!     target/release/examples/disk fill DIRECTORY 1000000
//!     target/release/examples/disk open DIRECTORY

#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goodgate_cache::{
    Admission, CachePolicy, DiskSpec, Key, Patience, RequestFacts, Store, StoreSpec, admit,
};
use http::{HeaderMap, Method};
use pingora_http::ResponseHeader;

const BODY_BYTES: usize = 1024;
const PATIENCE: Duration = Duration::from_mins(5);
/// Copies read one after the other.
const READS: u64 = 100_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mode, directory) = (arguments.next(), arguments.next().map(PathBuf::from));
    let objects = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    match (mode.as_deref(), directory) {
        (Some("fill"), Some(directory)) => fill(directory, objects),
        (Some("open"), Some(directory)) => open(directory),
        _ => println!("disk fill DIRECTORY [OBJECTS] | disk open DIRECTORY"),
    }
}

fn store(path: PathBuf) -> &'static Store {
    let refresh = Duration::from_secs(10);
    let disk = DiskSpec { path, bytes: 1 << 36, object_bytes_max: 1 << 30, last_good_percent: 80, refresh };
    let spec = StoreSpec {
        name: "bench".to_owned(),
        memory_bytes: 1 << 22,
        object_bytes_max: 1 << 20,
        last_good_percent: 50,
        disk: Some(disk),
    };
    let store: &'static Store = Box::leak(Box::new(Store::new(&spec)));
    store.use_disk(&spec, Box::new(|event| println!("{event:?}")));
    store.wait_for_disk(PATIENCE);
    store
}

fn key(at: u64) -> Key {
    Key::new("http", b"www.example.com", format!("/articles/{at}").as_bytes())
}

fn fill(directory: PathBuf, objects: u64) {
    let store = store(directory);
    let started = Instant::now();
    for at in 0..objects {
        if let Admission::Store(meta) = admitted() {
            let mut writer = store.write(&key(at), &HeaderMap::new(), meta);
            writer.push(&Bytes::from(vec![b'x'; BODY_BYTES]));
            writer.finish();
        }
        if at % 1000 == 0 {
            store.flush(PATIENCE);
        }
    }
    store.flush(PATIENCE);
    println!("{objects} copies in {:?}: {:?}", started.elapsed(), store.usage().disk);
}

fn open(directory: PathBuf) {
    let before = resident_bytes();
    let started = Instant::now();
    let store = store(directory);
    let opened = started.elapsed();
    let objects = store.usage().disk.map_or(0, |disk| disk.objects).max(1);
    let each = (resident_bytes() - before) / objects;
    println!("{objects} copies opened in {opened:?}, {each} bytes of memory each");
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    for round in ["cold or not", "from the page cache"] {
        let (started, cpu) = (Instant::now(), cpu_ticks());
        let found = runtime.block_on(async {
            let mut found = 0;
            for at in 0..READS {
                let at = at * 7919 % objects;
                found += u64::from(store.load(&key(at), &HeaderMap::new(), Patience::Much).await.is_some());
            }
            found
        });
        let (each, cpu) = (started.elapsed() / 100_000, (cpu_ticks() - cpu) * 10_000_000 / READS);
        println!("{found} of {READS} read, {round}: {each:?} each, {cpu} ns of CPU");
    }
}

fn admitted() -> Admission {
    let policy = CachePolicy::standard();
    let request = RequestFacts::new(&Method::GET, &HeaderMap::new(), &policy);
    let mut response = match ResponseHeader::build(200, Some(8)) {
        Ok(response) => response,
        Err(error) => unreachable!("{error}"),
    };
    for (name, value) in [
        ("Server", "nginx"),
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "max-age=3600"),
        ("ETag", "\"5f0c1a2b-400\""),
        ("Content-Length", "1024"),
    ] {
        drop(response.append_header(name, value));
    }
    admit(&policy, &request, &response, goodgate_cache::clock::now())
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// CPU time of the process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}
