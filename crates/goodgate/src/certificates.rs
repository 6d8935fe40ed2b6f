//! Watching the files of certificates: what changes there is shown to clients from the next handshake on, and
//! who forgets to renew is told in time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use goodgate_config::{Certificate, FileState};
use log::{error, info, warn};

use crate::run::Running;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Days before the end of a certificate at which it is told, each once.
const WARN_DAYS: [u64; 3] = [21, 7, 1];
const DAY: Duration = Duration::from_hours(24);

/// Watches until the gateway ends.
pub(crate) async fn watch(running: Arc<Running>) {
    let mut watch = Watch::default();
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
        watch.warn(&certificates, SystemTime::now());
        tokio::time::sleep(INTERVAL).await;
    }
}

#[derive(Default)]
struct Watch {
    /// Files that could not be used, as they were then: they are not tried again before they change.
    refused: HashMap<PathBuf, FileState>,
    /// What was told last of a certificate, in days before its end.
    told: HashMap<PathBuf, (SystemTime, u64)>,
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
                    let days = days_left(new.expires(), SystemTime::now());
                    info!(certificate:% = old.cert().display(), names:? = new.names(), days_left = days; "a certificate was loaded anew");
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

    /// Tells of certificates that end soon.
    fn warn(&mut self, certificates: &[Arc<Certificate>], now: SystemTime) {
        self.told.retain(|file, _| certificates.iter().any(|certificate| certificate.cert() == file));
        for certificate in certificates {
            let (file, expires) = (certificate.cert(), certificate.expires());
            let left = days_left(expires, now);
            let before = self.told.get(file).filter(|(of, _)| *of == expires).map(|(_, days)| *days);
            if let Some(days) = due(left, before) {
                self.told.insert(file.to_owned(), (expires, days));
                tell(file, expires, left);
            }
        }
    }
}

/// Which of the steps has been reached since the last one; 0 is the end itself.
fn due(days_left: u64, before: Option<u64>) -> Option<u64> {
    let step =
        if days_left == 0 { Some(0) } else { WARN_DAYS.into_iter().filter(|days| days_left <= *days).min() };
    step.filter(|step| before.is_none_or(|before| *step < before))
}

fn tell(file: &Path, expires: SystemTime, days_left: u64) {
    let expires = humantime::format_rfc3339_seconds(expires);
    if days_left == 0 {
        error!(certificate:% = file.display(), expired:% = expires; "a certificate has expired: clients refuse it");
    } else {
        warn!(certificate:% = file.display(), expires:% = expires, days_left = days_left; "a certificate ends soon");
    }
}

/// Days that are left, those begun included; 0 behind the end.
fn days_left(expires: SystemTime, now: SystemTime) -> u64 {
    expires.duration_since(now).map_or(0, |left| left.as_secs().div_ceil(DAY.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_told_once() {
        assert_eq!(due(22, None), None);
        assert_eq!(due(21, None), Some(21));
        assert_eq!(due(20, Some(21)), None);
        assert_eq!(due(7, Some(21)), Some(7));
        assert_eq!(due(1, Some(21)), Some(1));
        assert_eq!(due(0, Some(1)), Some(0));
        assert_eq!(due(0, Some(0)), None);
        assert_eq!(due(3, None), Some(7));
    }

    #[test]
    fn a_day_begun_counts() {
        let now = SystemTime::now();
        assert_eq!(days_left(now + Duration::from_secs(1), now), 1);
        assert_eq!(days_left(now + DAY, now), 1);
        assert_eq!(days_left(now, now), 0);
        assert_eq!(days_left(now - DAY, now), 0);
    }
}
