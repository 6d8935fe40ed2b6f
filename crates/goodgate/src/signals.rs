//! Signals: SIGHUP reloads, SIGUSR1 opens the access log again, SIGTERM and SIGINT and SIGQUIT end the gateway
//! gently.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::reload::Reloader;

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
    /// Reloads and opens the log again when told to; returns when told to end. A second signal to end kills at once.
    pub(crate) async fn obey(mut self, reloader: &mut Reloader) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => reloader.reload().await,
                _ = self.user.recv() => reloader.reopen_log(),
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
            log::warn!("told to stop a second time: ending at once");
            log::logger().flush();
            std::process::exit(1);
        });
    }
}
