//! Signals: SIGHUP reloads, SIGUSR1 opens the access log again, SIGTERM and SIGINT and SIGQUIT end the gateway
//! gently.

use std::sync::Arc;

use goodgate_proxy::Live;
use log::{error, info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::control_socket::Request;
use crate::offload::Offload;

/// The signals that the gateway obeys.
pub(crate) struct Signals {
    hangup: Signal,
    user: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

/// From now on the signals are received instead of killing the process.
pub(crate) fn listen() -> std::io::Result<Signals> {
    Ok(Signals {
        hangup: signal(SignalKind::hangup())?,
        user: signal(SignalKind::user_defined1())?,
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        quit: signal(SignalKind::quit())?,
    })
}

impl Signals {
    /// Asks for reloads and opens the log again when told to; returns when told to end, whatever a reload waits for. A
    /// second signal to end kills at once.
    pub(crate) async fn obey(mut self, live: &Arc<Live>, reloads: &mpsc::Sender<Request>) {
        let logs = Offload::default();
        loop {
            tokio::select! {
                // If the queue is full, one that comes later reads the file as it is now.
                _ = self.hangup.recv() => drop(reloads.try_send(None)),
                _ = self.user.recv() => reopen_log(&logs, live),
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.quit.recv() => break,
            }
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
            }
            warn!("told to stop a second time: ending at once");
            log::logger().flush();
            std::process::exit(1);
        });
    }
}

/// Opens the file of the access log again, which has been moved away.
fn reopen_log(logs: &Offload, live: &Arc<Live>) {
    let live = Arc::clone(live);
    let started = logs.start(move || match live.reopen_log() {
        Ok(true) => info!("the access log was opened again"),
        Ok(false) => info!("the access log goes to no file, so there is none to open again"),
        Err(error) => {
            error!(error:% = error; "the access log cannot be opened again: the file that is open is used on");
        }
    });
    if started.is_none() {
        error!("the access log cannot be opened again: the previous attempt still waits for the file");
    }
}
