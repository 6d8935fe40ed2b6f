//! For how long from now on a copy would answer a request whose backends are dead, or why it would not. It says of
//! the future what [`crate::may_serve_stale`] will say then.

use std::time::{Duration, SystemTime};

use goodgate_failure::Cause;

use crate::serving::{may_share_in_outage, stale_since, stale_window};
use crate::{CachePolicy, RequestFacts, Standing};

/// How long the copy would go on answering; an error says what stands in the way.
pub fn survives(
    copy: &Standing,
    policy: &CachePolicy,
    request: &RequestFacts,
    cause: Cause,
    now: SystemTime,
) -> Result<Duration, &'static str> {
    let info = &copy.info;
    if !policy.use_stale.covers(cause) {
        return Err("use_stale does not cover a dead upstream");
    }
    if !may_share_in_outage(info, request, policy) {
        return Err("the copy is not for a request with a cookie or Authorization");
    }
    let window = stale_window(info, policy, request);
    let until = match window {
        Some(window) => stale_since(copy).checked_add(window).map(|until| until.max(copy.fresh_until)),
        None => Some(copy.fresh_until),
    };
    match until.and_then(|until| until.duration_since(now).ok()) {
        Some(left) if !left.is_zero() => Ok(left),
        Some(_) | None => {
            let reason = info.forbids.without(policy.overrides).reason();
            Err(reason.unwrap_or("the copy is older than stale_for"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{fallback, now, policy, request, response};
    use crate::{Admission, Forbids, admit, may_serve_stale};

    const DEAD: Cause = Cause::ConnectionRefused;

    fn copy(policy: &CachePolicy, control: &str) -> Standing {
        let answer = response(200, &[("cache-control", control), ("etag", "\"a\"")]);
        match admit(policy, &request(&[]), &answer, now()) {
            Admission::Store(meta) | Admission::KeepLastGood(meta) => Standing::of(&meta),
            Admission::Refuse(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn it_says_of_the_future_what_will_be_decided_then() {
        let second = Duration::from_secs(1);
        let overridden = CachePolicy { overrides: Forbids::NO_CACHE, ..fallback() };
        for (policy, kept_by) in [(policy(), policy()), (fallback(), overridden)] {
            for control in [
                "max-age=60",
                "max-age=60, stale-if-error=5",
                "max-age=60, must-revalidate",
                "s-maxage=60",
                "no-cache",
            ] {
                let meta = copy(&kept_by, control);
                let serves = |at| may_serve_stale(&meta, &policy, &request(&[]), DEAD, at).is_some();
                match survives(&meta, &policy, &request(&[]), DEAD, now()) {
                    Ok(left) => {
                        assert!(serves(now()) && serves(now() + left - second), "{control}");
                        assert!(!serves(now() + left + second), "{control}");
                    }
                    Err(_) => assert!(!serves(now()), "{control}"),
                }
            }
        }
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let why = |meta: &Standing, fields: &[(&str, &str)], later| {
            survives(meta, &policy(), &request(fields), DEAD, now() + Duration::from_secs(later)).unwrap_err()
        };
        let meta = copy(&policy(), "max-age=60");
        assert_eq!(why(&meta, &[], 60 + 3601), "the copy is older than stale_for");
        assert!(why(&copy(&policy(), "s-maxage=60"), &[], 61).contains("override: [s_maxage]"));
        let anonymous = copy(&CachePolicy { last_good: true, ..policy() }, "");
        let cookie = [("cookie", "session=1")];
        assert_eq!(
            why(&anonymous, &cookie, 0),
            "the copy is not for a request with a cookie or Authorization"
        );
        let received = Cause::Received(goodgate_failure::ReceivedStatus::S503);
        let not_covered = survives(&meta, &policy(), &request(&[]), received, now()).unwrap_err();
        assert_eq!(not_covered, "use_stale does not cover a dead upstream");
    }
}
