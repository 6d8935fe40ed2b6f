//! Stopping: not ready, a delay for the balancer in front to notice, then no new connections, and out as
//! soon as nothing is under way.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use goodgate_config::Config;
use log::{info, warn};
use tokio::sync::watch;

use crate::run::Running;

/// How often it is asked whether anything is under way.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long nothing must have been under way: kept connections may bring a last request that long.
const QUIET: Duration = Duration::from_millis(350);

/// Ends the gateway gently.
pub(crate) async fn stop(running: &Running, config: &Config, stopping: &watch::Sender<bool>) {
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
    running.remember();
    running.live.flush_stores();
    running.live.close_log();
    info!("goodgate has stopped");
}
