//! The directory is in use, goes away, or cannot be written to.

use super::super::Disk;
use super::*;

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn two_do_not_share_a_directory_and_the_second_takes_over() {
    let folder = Folder::new();
    let first = open(&folder.0);
    keep(first, "/a", b"hello");
    first.flush(PATIENCE);
    let second = open_anyhow(&spec(&folder.0, 64 * MIB));
    assert_eq!(usage(second).state, DiskState::Locked);
    keep(second, "/b", b"only in memory");
    assert_eq!(found(second, "/b").await.unwrap(), b"only in memory");
    assert_eq!(usage(second).dropped, 1);
    close(first);
    until("taken over", || usage(second).state == DiskState::Working).await;
    assert_eq!(found(second, "/a").await.unwrap(), b"hello");
}

/// A disk that is tried again soon, with the events it told.
fn impatient(path: &Path) -> (Disk, Arc<parking_lot::Mutex<Vec<String>>>) {
    retrying(path, Duration::from_millis(20))
}

fn retrying(path: &Path, retry: Duration) -> (Disk, Arc<parking_lot::Mutex<Vec<String>>>) {
    let told = shared(Vec::new());
    let to = Arc::clone(&told);
    let report = Box::new(move |event: &DiskEvent<'_>| to.lock().push(format!("{event:?}")));
    let spec = spec(path, 64 * MIB).disk.unwrap();
    let of_store: (_, Arc<_>) = (Box::new(|_: &[u8]| false) as _, Arc::default());
    let disk = Disk::start_retrying(&spec, MIB, report, of_store, (retry, 2 * retry)).unwrap();
    disk.wait_until_open(PATIENCE);
    (disk, told)
}

#[tokio::test]
async fn a_directory_that_goes_away_is_noticed_and_made_again() {
    let folder = Folder::new();
    let path = folder.0.join("inner");
    let (disk, told) = impatient(&path);
    disk.purge(b"something, so that there is a segment");
    disk.flush(PATIENCE);
    std::fs::remove_dir_all(&path).unwrap();
    until("an error", || told.lock().iter().any(|line| line.contains("Degraded"))).await;
    until("recovered", || disk.usage().state == DiskState::Working).await;
    assert!(path.join("copies").is_dir());
    assert!(disk.usage().errors.iter().sum::<u64>() >= 1);
}

#[tokio::test]
async fn a_path_that_is_no_directory_costs_only_the_disk() {
    let folder = Folder::new();
    let path = folder.0.join("file");
    std::fs::write(&path, "in the way").unwrap();
    let store = open_anyhow(&spec(&path, 64 * MIB));
    assert_eq!(usage(store).state, DiskState::Degraded);
    keep(store, "/a", b"in memory");
    assert_eq!(found(store, "/a").await.unwrap(), b"in memory");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "in the way");
}

#[tokio::test]
async fn purges_in_bad_times_are_written_in_good_ones() {
    let folder = Folder::new();
    let store = open(&folder.0);
    keep(store, "/a", b"old");
    close(store);
    // Somebody else is in the way of the directory for a while.
    let (former, _) = impatient(&folder.0);
    until("open", || former.usage().objects == 1).await;
    let (disk, _) = impatient(&folder.0);
    assert_eq!(disk.usage().state, DiskState::Locked);
    disk.purge(key("/a").bytes());
    drop(former);
    until("taken over", || disk.usage().state == DiskState::Working).await;
    assert_eq!(disk.usage().objects, 0, "the purge came before anything could be read");
    drop(disk);
    let (disk, _) = impatient(&folder.0);
    until("open", || disk.usage().state == DiskState::Working).await;
    assert_eq!(disk.usage().objects, 0);
}

#[tokio::test]
async fn purges_that_wait_are_written_at_the_end_or_their_loss_is_told() {
    let folder = Folder::new();
    let store = open(&folder.0);
    keep(store, "/a", b"old");
    close(store);
    let (copies, aside) = (folder.0.join("copies"), folder.0.join("aside"));
    std::fs::rename(&copies, &aside).unwrap();
    std::fs::write(&copies, "in the way").unwrap();
    // It is tried again long after this test.
    let (disk, told) = retrying(&folder.0, Duration::from_hours(1));
    assert_eq!(disk.usage().state, DiskState::Degraded);
    let has_told = |what: &str| told.lock().iter().filter(|line| line.contains(what)).count();
    for _ in 0..3 {
        disk.purge(key("/a").bytes());
    }
    disk.flush(PATIENCE);
    assert_eq!((has_told("PurgesWait"), has_told("PurgesLost { purges: 3 }")), (1, 1), "{:?}", told.lock());
    std::fs::remove_file(&copies).unwrap();
    std::fs::rename(&aside, &copies).unwrap();
    disk.flush(PATIENCE);
    assert_eq!((disk.usage().state, has_told("PurgesLost")), (DiskState::Working, 1));
    drop(disk);
    let (disk, _) = impatient(&folder.0);
    until("open", || disk.usage().state == DiskState::Working).await;
    assert_eq!(disk.usage().objects, 0);
}
