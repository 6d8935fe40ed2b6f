//! Bodies in memory and in files, and what cannot be kept.

use goodgate_telemetry::{BuildInfo, Metrics};

use super::*;

fn spool(folder: &Path, bytes_max: u64) -> Arc<Spool> {
    let metrics = Metrics::new(BuildInfo { version: "0", revision: "0" }).unwrap();
    Spool::new(folder, bytes_max, SpoolMetrics::new(&metrics))
}

/// Takes so many bytes in pieces, each another than the last, as a request does.
async fn fill(body: &mut Body, bytes: usize) -> Vec<u8> {
    let all: Vec<u8> = (0..bytes).map(|at| u8::try_from(at / 1000 % 251).unwrap()).collect();
    for piece in all.chunks(50_000) {
        assert!(body.next().await.unwrap().is_none(), "nothing is left of what came before");
        body.take(&Bytes::copy_from_slice(piece));
    }
    all
}

async fn rest(body: &mut Body) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = body.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

#[tokio::test]
async fn what_has_come_is_sent_again_as_often_as_needed() {
    for bytes in [0, 1, 200_000, 300_000, 2_000_000] {
        let spool = spool(&std::env::temp_dir(), 10_000_000);
        let mut body = Body::new(&spool, 5_000_000);
        let all = fill(&mut body, bytes).await;
        for _ in 0..3 {
            body.rewind();
            assert_eq!(body.is_sent(), bytes == 0);
            assert!(rest(&mut body).await.unwrap() == all, "{bytes} bytes");
            assert!(body.is_kept() && body.is_sent());
        }
        let in_files = if bytes > MEMORY_BYTES { bytes as u64 - 250_000 } else { 0 };
        assert_eq!(spool.bytes.load(Ordering::Relaxed), in_files);
        drop(body);
        assert_eq!(spool.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(spool.memory_bytes.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn when_all_bodies_together_have_their_memory_the_next_one_is_in_a_file_from_its_start() {
    let spool = spool(&std::env::temp_dir(), 10_000_000);
    assert!(spool.reserve_memory(MEMORY_BYTES_IN_ALL - 60_000));
    let mut body = Body::new(&spool, 5_000_000);
    let all = fill(&mut body, 200_000).await;
    body.rewind();
    assert!(rest(&mut body).await.unwrap() == all);
    assert_eq!((body.memory.len(), body.file_bytes), (50_000, 150_000));
}

#[tokio::test]
async fn who_goes_back_in_the_middle_of_a_read_begins_at_the_beginning() {
    let spool = spool(&std::env::temp_dir(), 10_000_000);
    let mut body = Body::new(&spool, 5_000_000);
    let all = fill(&mut body, 1_000_000).await;
    for _ in 0..20 {
        body.rewind();
        for _ in 0..5 {
            body.next().await.unwrap();
        }
        // Polled once and given up: the thread goes on.
        let begun = std::pin::pin!(body.next());
        let _ = futures_poll(begun);
    }
    body.rewind();
    assert!(rest(&mut body).await.unwrap() == all);
}

fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test]
async fn what_is_too_long_or_more_than_there_is_room_for_is_given_up_and_goes_on() {
    for (bytes_max, room, reason) in
        [(400_000, 10_000_000, SpoolResult::TooLarge), (5_000_000, 100_000, SpoolResult::Full)]
    {
        let spool = spool(&std::env::temp_dir(), room);
        let mut body = Body::new(&spool, bytes_max);
        fill(&mut body, 1_000_000).await;
        assert_eq!(body.state, Keeping::Lost(reason));
        assert!(!body.is_kept() && body.is_sent());
        assert_eq!((spool.bytes.load(Ordering::Relaxed), body.memory.capacity()), (0, 0));
        body.rewind();
        assert!(rest(&mut body).await.is_err(), "never a part of it for the whole");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_costs_the_copy_and_not_the_request() {
    let spool = spool(Path::new("/nowhere/at/all"), 10_000_000);
    let mut body = Body::new(&spool, 5_000_000);
    fill(&mut body, 1_000_000).await;
    assert!(body.next().await.unwrap().is_none());
    assert_eq!(body.state, Keeping::Lost(SpoolResult::Failed));
    assert_eq!(spool.bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn once_the_answer_goes_out_nothing_more_is_kept_and_the_rest_is_still_sent() {
    let spool = spool(&std::env::temp_dir(), 10_000_000);
    let mut body = Body::new(&spool, 5_000_000);
    let all = fill(&mut body, 1_000_000).await;
    body.rewind();
    body.next().await.unwrap();
    body.release();
    let sent = usize::try_from(body.sent).unwrap();
    assert!(rest(&mut body).await.unwrap() == all[sent..]);
    assert_eq!(spool.bytes.load(Ordering::Relaxed), 0);
    body.take(&Bytes::from_static(b"more"));
    assert!(body.is_sent() && body.next().await.unwrap().is_none());
}

#[test]
fn a_file_has_no_name() {
    let folder = std::env::temp_dir().join(format!("goodgate-spool-{}", fastrand::u64(..)));
    std::fs::create_dir(&folder).unwrap();
    let spool = spool(&folder, 10);
    let file = spool.file().unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    file.write_all_at(b"text", 0).unwrap();
    std::fs::remove_dir(&folder).unwrap();
}

#[tokio::test]
async fn a_disk_that_hangs_costs_the_copy_and_a_moment() {
    let spool = spool(&std::env::temp_dir(), 10_000_000);
    let hang = spool.threads.acquire_many(u32::try_from(THREADS_MAX).unwrap()).await.unwrap();
    let mut body = Body::new(&spool, 5_000_000);
    let begun = Instant::now();
    fill(&mut body, 1_000_000).await;
    assert_eq!(body.state, Keeping::Lost(SpoolResult::Failed));
    assert!((WRITE_LIMIT..WRITE_LIMIT * 5).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    drop(hang);
}

/// A disk that hangs, until it is dropped.
fn hang(spool: &Arc<Spool>) -> (std::sync::mpsc::Sender<()>, Vec<Running<io::Result<()>>>) {
    let (disk, hanging) = std::sync::mpsc::channel();
    let hanging = Arc::new(Mutex::new(hanging));
    let work = |_| {
        let hanging = Arc::clone(&hanging);
        spool.run(move || {
            let _ = hanging.lock().recv();
            Ok(())
        })
    };
    (disk, (0..THREADS_MAX).map(work).collect())
}

#[tokio::test]
async fn a_disk_that_hangs_leaks_nothing_and_what_waits_for_it_is_counted_and_bounded() {
    const PIECE: u64 = 65_536;
    let spool = spool(&std::env::temp_dir(), 1 << 30);
    assert!(spool.reserve_memory(MEMORY_BYTES_IN_ALL));
    let (disk, held) = hang(&spool);
    while spool.threads.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let new = |_| {
        let mut body = Body::new(&spool, 5_000_000);
        body.take(&Bytes::from(vec![0; 65_536]));
        body
    };
    let mut many: Vec<Body> = (0..300).map(new).collect();
    assert_eq!(spool.pending_bytes.load(Ordering::Relaxed), PENDING_BYTES_MAX);
    assert_eq!(spool.bytes.load(Ordering::Relaxed), PENDING_BYTES_MAX, "what waits is counted");
    let kept = u64::try_from(many.iter().filter(|body| body.is_kept()).count()).unwrap();
    assert_eq!(kept, PENDING_BYTES_MAX / PIECE);
    for body in &mut many {
        assert!(body.next().await.unwrap().is_none(), "the request goes on");
        assert!(!body.is_kept());
    }
    while spool.pending_bytes.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(spool.bytes.load(Ordering::Relaxed), 0);
    drop((disk, held));
}

#[tokio::test]
async fn a_piece_that_a_thread_writes_counts_until_the_thread_has_ended() {
    let spool = spool(&std::env::temp_dir(), 1 << 30);
    let pending = spool.reserve_piece(1000).unwrap();
    let (disk, hanging) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let job = spool.run(move || {
        begun.send(()).unwrap();
        let _ = hanging.recv();
        Ok(pending)
    });
    has_begun.await.unwrap();
    drop(job);
    assert_eq!(
        (spool.bytes.load(Ordering::Relaxed), spool.threads.available_permits()),
        (1000, THREADS_MAX - 1)
    );
    drop(disk);
    while spool.bytes.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    while spool.threads.available_permits() < THREADS_MAX {
        tokio::task::yield_now().await;
    }
    assert_eq!(spool.pending_bytes.load(Ordering::Relaxed), 0);
}
