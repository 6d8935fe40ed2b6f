//! Telling of certificates that end soon: in the error log, 21, 7 and 1 days before, and when it has happened.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use log::{error, warn};

/// Days before the end of a certificate at which it is told, each once.
const WARN_DAYS: [u64; 3] = [21, 7, 1];
const DAY: Duration = Duration::from_hours(24);

/// What has been told of whose certificate.
#[derive(Debug, Default)]
pub struct ExpiryNotices {
    /// The end that was told of, and the last step, in days before it.
    told: HashMap<String, (SystemTime, u64)>,
}

impl ExpiryNotices {
    /// Looks whether something is to be told of the certificate of `whose`.
    pub fn look(&mut self, whose: &str, expires: SystemTime, now: SystemTime) {
        let left = days_left(expires, now);
        let before = self.told.get(whose).filter(|(of, _)| *of == expires).map(|(_, days)| *days);
        if let Some(step) = due(left, before) {
            self.told.insert(whose.to_owned(), (expires, step));
            tell(whose, expires, left);
        }
    }

    /// Forgets those that are not named.
    pub fn keep(&mut self, known: impl Fn(&str) -> bool) {
        self.told.retain(|whose, _| known(whose));
    }
}

/// Which of the steps has been reached since the last one; 0 is the end itself.
fn due(days_left: u64, before: Option<u64>) -> Option<u64> {
    let step =
        if days_left == 0 { Some(0) } else { WARN_DAYS.into_iter().filter(|days| days_left <= *days).min() };
    step.filter(|step| before.is_none_or(|before| *step < before))
}

fn tell(whose: &str, expires: SystemTime, days_left: u64) {
    let expires = humantime::format_rfc3339_seconds(expires);
    if days_left == 0 {
        error!(certificate = whose, expired:% = expires; "a certificate has expired: it is refused");
    } else {
        warn!(certificate = whose, expires:% = expires, days_left = days_left; "a certificate ends soon");
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
