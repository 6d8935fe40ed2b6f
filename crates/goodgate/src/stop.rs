//! Stopping: not ready, a delay for the balancer in front to notice, then no new connections, and out as
//! soon as nothing is under way. The last writes have a deadline, so that a disk that hangs does not keep the process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use goodgate_config::Config;
use log::{info, warn};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use crate::run::Running;

/// How often it is asked whether anything is under way.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long nothing must have been under way: kept connections may bring a last request that long.
const QUIET: Duration = Duration::from_millis(350);
/// How long the last writes may take when the drain time is over.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Ends the gateway gently.
pub(crate) async fn stop(running: &Arc<Running>, config: &Config, stopping: &watch::Sender<bool>) {
    running.ready.store(false, Ordering::Relaxed);
    info!(delay:? = config.server.shutdown_delay, drain:? = config.server.shutdown_drain; "goodgate stops");
    tokio::time::sleep(config.server.shutdown_delay).await;
    running.live.drain();
    // It fails only if nobody listens any more, which is what is wanted.
    let _ = stopping.send(true);
    let deadline = Instant::now() + config.server.shutdown_drain;
    let mut quiet_since = None;
    while Instant::now() < deadline {
        if running.live.requests_in_flight() > 0 {
            quiet_since = None;
        } else if quiet_since.get_or_insert_with(Instant::now).elapsed() >= QUIET {
            break;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    let left = running.live.requests_in_flight();
    if left > 0 {
        warn!(requests = left; "the drain time is over with requests under way");
    }
    let deadline = deadline.max(Instant::now() + LAST_WRITES);
    let (memory, stores, log) = (Arc::clone(running), Arc::clone(running), Arc::clone(running));
    let left = deadline.saturating_duration_since(Instant::now());
    let last_writes = [
        begin("server.state_dir", move || memory.remember()),
        begin("the caches on disk", move || stores.live.flush_stores(left)),
        begin("the access log", move || log.live.close_log()),
    ];
    for (what, done) in last_writes {
        if timeout_at(deadline.into(), done).await.is_err() {
            warn!(target:% = what; "the last writes did not end in time: they are given up");
        }
    }
    info!("goodgate has stopped");
}

/// Begins to write on a thread of its own, which the end of the process does not wait for.
fn begin(what: &'static str, write: impl FnOnce() + Send + 'static) -> (&'static str, oneshot::Receiver<()>) {
    let (sender, done) = oneshot::channel();
    std::thread::spawn(move || {
        write();
        // Nothing waits any more if it was too late.
        let _ = sender.send(());
    });
    (what, done)
}
