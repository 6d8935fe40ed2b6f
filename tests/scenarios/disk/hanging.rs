//! Disks that turn read-only or do not answer while they are in use: clients wait for nothing and see nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{WORKING, content, kept_pages, path_of, site, stop, until_written};
use crate::harness::backend::response;
use crate::harness::gateway::folder;
use crate::harness::{Act, Backend, Connection, Gateway, eventually, request};

/// A file system of its own, in a file.
struct Ext4 {
    image: PathBuf,
    path: PathBuf,
    /// The group whose reads of it are held up.
    slowed: Option<PathBuf>,
}

const BYTES: u64 = 64 << 20;

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

impl Ext4 {
    /// None, with a word about it, where that is not permitted.
    fn make() -> Option<Self> {
        let path = folder();
        let image = path.with_extension("img");
        std::fs::File::create(&image).unwrap().set_len(BYTES).unwrap();
        let this = Self { image, path, slowed: None };
        let made = run("mkfs.ext4", &["-q", "-F", this.image()]).and_then(|_| this.mount());
        made.inspect_err(|error| eprintln!("skipped: no file system can be made here ({error})")).ok()?;
        Some(this)
    }

    fn image(&self) -> &str {
        self.image.to_str().unwrap()
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn mount(&self) -> Result<String, String> {
        run("mount", &["-o", "loop,errors=remount-ro", self.image(), self.path()])
    }

    /// Whoever has files of it open keeps them.
    fn unmount(&self) -> Result<String, String> {
        run("umount", &["--lazy", self.path()])
    }

    /// Another disk, empty, in place of this one.
    fn replace(&self) {
        self.unmount().unwrap();
        std::fs::remove_file(&self.image).unwrap();
        std::fs::File::create(&self.image).unwrap().set_len(BYTES).unwrap();
        run("mkfs.ext4", &["-q", "-F", self.image()]).unwrap();
        self.mount().unwrap();
    }

    /// Finds an error and turns read-only, as a file system does whose disk fails.
    fn turn_read_only(&self) -> Result<(), String> {
        let device = run("findmnt", &["-n", "-o", "SOURCE", self.path()])?;
        let name = Path::new(&device).file_name().unwrap().to_owned();
        let trigger = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
        std::fs::write(trigger, "1").map_err(|error| error.to_string())
    }

    /// Every write waits.
    fn freeze(&self) -> Result<String, String> {
        run("fsfreeze", &["--freeze", self.path()])
    }

    fn thaw(&self) -> Result<String, String> {
        run("fsfreeze", &["--unfreeze", self.path()])
    }

    /// Every read of the process that has to go to the disk waits.
    fn hold_up_reads(&mut self, gateway: &Gateway) -> std::io::Result<()> {
        let group = Path::new("/sys/fs/cgroup/blkio").join(self.path.file_name().unwrap());
        std::fs::create_dir(&group)?;
        self.slowed = Some(group.clone());
        let device = run("mountpoint", &["-d", self.path()]).map_err(std::io::Error::other)?;
        std::fs::write(group.join(READ_RATE), format!("{device} 1"))?;
        std::fs::write(group.join("cgroup.procs"), gateway.pid().to_string())
    }

    fn let_reads_go(&self) {
        if let (Some(group), Ok(device)) = (&self.slowed, run("mountpoint", &["-d", self.path()])) {
            let _ = std::fs::write(group.join(READ_RATE), format!("{device} 0"));
        }
    }
}

/// More than memory takes.
const LARGE: usize = 3 << 20;

fn large_and_small(head: &str) -> String {
    if path_of(head) != "/large" {
        return kept_pages(head);
    }
    response(200, "Cache-Control: max-age=3600\r\n", &"x".repeat(LARGE), false)
}

/// Drops what the kernel has in memory of the files.
fn forget(directory: &Path) {
    for entry in std::fs::read_dir(directory.join("copies")).unwrap() {
        let path = entry.unwrap().path();
        run("dd", &[&format!("if={}", path.display()), "iflag=nocache", "count=0"]).unwrap();
    }
}

const READ_RATE: &str = "blkio.throttle.read_bps_device";

impl Drop for Ext4 {
    fn drop(&mut self) {
        self.let_reads_go();
        let _ = self.thaw();
        let _ = self.unmount();
        let _ = std::fs::remove_file(&self.image);
        let _ = std::fs::remove_dir(&self.path);
        let _ = self.slowed.take().map(std::fs::remove_dir);
    }
}

/// Asks for all of them at once; how long the slowest took.
async fn slowest(gateway: &Gateway, paths: std::ops::Range<u32>) -> Duration {
    let mut clients = JoinSet::new();
    for at in paths {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        clients.spawn(async move {
            let (path, asked) = (format!("/{at}"), Instant::now());
            let answer = connection.get(&path).await.unwrap();
            assert_eq!((answer.status, answer.complete), (200, true), "{path}: {answer:?}");
            assert!(answer.text() == content(&path), "{path}");
            asked.elapsed()
        });
    }
    clients.join_all().await.into_iter().max().unwrap()
}

/// Longer than this is no request held up that only waits for its turn, on a busy machine too.
const NO_DELAY: Duration = Duration::from_millis(1500);

async fn becomes_degraded(gateway: &Gateway, line: &str) {
    let degraded = "goodgate_cache_disk_state{state=\"degraded\"}";
    eventually("the disk is out of use", || async { gateway.metric(degraded).await == 1.0 }).await;
    assert!(gateway.metric("goodgate_cache_disk_errors_total").await >= 1.0);
    // The state is there a moment before its line.
    eventually("it is told", || async { gateway.errors().contains(line) }).await;
    assert_eq!(gateway.errors().matches(line).count(), 1, "{}", gateway.errors());
}

async fn works_within(gateway: &Gateway, limit: Duration) {
    let since = Instant::now();
    while gateway.metric(WORKING).await < 1.0 {
        assert!(since.elapsed() < limit, "not in use again: {}", gateway.errors());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const STANDARD: &str = "    cache: { mode: standard, purge: { allow: [127.0.0.1] } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_is_left_alone_until_it_can_be_written_to() {
    let Some(disk) = Ext4::make() else { return };
    let backend = Backend::start(Act::Reply(kept_pages)).await;
    let gateway = Gateway::start(&site(&backend, &disk.path, "32MiB", STANDARD)).await;
    slowest(&gateway, 0..50).await;
    until_written(&gateway, 50.0).await;
    if let Err(error) = disk.turn_read_only() {
        eprintln!("skipped: no error can be caused here ({error})");
        return;
    }
    assert!(slowest(&gateway, 50..100).await < NO_DELAY);
    becomes_degraded(&gateway, "the disk cache failed").await;
    assert!(slowest(&gateway, 0..150).await < NO_DELAY);
    let purge = "PURGE /7 HTTP/1.1\r\nHost: test\r\nPurge-Mode: hard\r\nConnection: close\r\n\r\n";
    assert_eq!(request(gateway.address, purge).await.unwrap().status, 200);
    eventually("it is told", || async { gateway.errors().contains("purges wait for the disk cache") }).await;
    disk.replace();
    works_within(&gateway, Duration::from_secs(40)).await;
    slowest(&gateway, 200..250).await;
    until_written(&gateway, 50.0).await;
    stop(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_writes_holds_nobody_up() {
    let Some(disk) = Ext4::make() else { return };
    let backend = Backend::start(Act::Reply(kept_pages)).await;
    let gateway = Gateway::start(&site(&backend, &disk.path, "32MiB", STANDARD)).await;
    slowest(&gateway, 0..50).await;
    until_written(&gateway, 50.0).await;
    if let Err(error) = disk.freeze() {
        eprintln!("skipped: a file system cannot be frozen here ({error})");
        return;
    }
    assert!(slowest(&gateway, 50..100).await < NO_DELAY);
    becomes_degraded(&gateway, "the disk cache hangs").await;
    assert!(slowest(&gateway, 0..200).await < NO_DELAY);
    assert!(gateway.metric("goodgate_cache_disk_dropped_writes_total").await >= 50.0);
    disk.thaw().unwrap();
    works_within(&gateway, Duration::from_secs(5)).await;
    eventually("it is told", || async { gateway.errors().contains("the disk cache goes on") }).await;
    let held = gateway.metric("goodgate_cache_objects{tier=\"disk\"}").await;
    slowest(&gateway, 300..350).await;
    until_written(&gateway, held + 50.0).await;
    stop(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_answers_no_reads_holds_nobody_up() {
    let Some(mut disk) = Ext4::make() else { return };
    let backend = Backend::start(Act::Reply(large_and_small)).await;
    let config = site(&backend, &disk.path, "32MiB", STANDARD);
    let gateway = Gateway::start(&config).await;
    // A few at a time: memory has room for no more.
    for at in 0..60 {
        slowest(&gateway, 5 * at..5 * at + 5).await;
    }
    assert_eq!(gateway.get("/large").await.body.len(), LARGE);
    until_written(&gateway, 290.0).await;
    stop(gateway).await;
    // Mounted anew, nothing of it is in memory.
    run("umount", &[disk.path()]).unwrap();
    disk.mount().unwrap();
    let gateway = Gateway::start(&config).await;
    assert!(gateway.metric("goodgate_cache_objects{tier=\"disk\"}").await >= 290.0);
    assert_eq!(gateway.get("/large").await.body.len(), LARGE);
    forget(&disk.path);
    if let Err(error) = disk.hold_up_reads(&gateway) {
        eprintln!("skipped: reads cannot be held up here ({error})");
        return;
    }
    slowest(&gateway, 0..2).await;
    // What is known of it is in memory, its body is not.
    let (asked, large) = (Instant::now(), gateway.get("/large").await);
    assert_eq!((large.status, large.complete, large.body.len()), (200, true, LARGE), "from the backend");
    assert!(asked.elapsed() < NO_DELAY);
    let first = slowest(&gateway, 2..100).await;
    let then = slowest(&gateway, 100..200).await;
    eprintln!("the slowest of the first hundred took {first:?}, of the second {then:?}");
    assert!(first < NO_DELAY && then < NO_DELAY);
    let errors = gateway.metric("goodgate_cache_disk_errors_total{operation=\"read\"}").await;
    assert!((1.0..=100.0).contains(&errors), "{errors}");
    assert_eq!(gateway.errors().matches("the disk cache had an error").count(), 1, "{}", gateway.errors());
    disk.let_reads_go();
    let reads = || gateway.metric("goodgate_cache_disk_reads_total");
    eventually("it is read again", || async {
        slowest(&gateway, 200..300).await;
        reads().await >= 1.0
    })
    .await;
    stop(gateway).await;
}
