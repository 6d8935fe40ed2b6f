//! Watching the files of certificates: what changes there is shown to clients from the next handshake on, and
//! who forgets to renew is told in time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use goodgate_config::{Certificate, FileState};
use goodgate_telemetry::ExpiryNotices;
use humantime::format_rfc3339_seconds;
use log::{error, info};

use crate::run::Running;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watches until the gateway ends.
pub(crate) async fn watch(running: Arc<Running>) {
    let mut watch = Watch::default();
    let mut notices = ExpiryNotices::default();
    loop {
        let certificates = running.live.certificates();
        let known = certificates.clone();
        let looked = tokio::task::spawn_blocking(move || watch.look(&known)).await;
        let Ok((seen, renewed)) = looked else { return };
        watch = seen;
        for result in renewed {
            running.live.metrics().certificate_reloaded(result.is_ok());
            if let Ok(certificate) = result {
                running.live.renew(&Arc::new(certificate));
            }
        }
        let file = |certificate: &Certificate| certificate.cert().display().to_string();
        notices.keep(|whose| certificates.iter().any(|certificate| file(certificate) == whose));
        for certificate in &certificates {
            notices.look(&file(certificate), certificate.expires(), SystemTime::now());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[derive(Default)]
struct Watch {
    /// Files that could not be used, as they were then: they are not tried again before they change.
    refused: HashMap<PathBuf, FileState>,
}

impl Watch {
    /// Reads what has changed.
    fn look(mut self, certificates: &[Arc<Certificate>]) -> (Self, Vec<Result<Certificate, ()>>) {
        let mut renewed = Vec::new();
        for old in certificates {
            let now = old.state_now();
            if now == *old.state() || self.refused.get(old.cert()) == Some(&now) {
                continue;
            }
            match old.again() {
                Ok(new) => {
                    info!(certificate:% = old.cert().display(), names:? = new.names(), expires:% = format_rfc3339_seconds(new.expires()); "a certificate was loaded anew");
                    self.refused.remove(old.cert());
                    renewed.push(Ok(new));
                }
                Err(bad) => {
                    error!(certificate:% = old.cert().display(); "a certificate has changed and cannot be used, the one before is shown on: {bad}");
                    self.refused.insert(old.cert().to_owned(), now);
                    renewed.push(Err(()));
                }
            }
        }
        (self, renewed)
    }
}
