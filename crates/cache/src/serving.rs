//! May this copy be served: fresh, or stale in place of a failure? Time is an argument.

use std::time::{Duration, SystemTime};

use crate::{Audience, CachePolicy, CopyInfo, CopyKind, Mode, RequestFacts, ServeAnonymous, Standing};
use goodgate_failure::Cause;

/// A copy that may be served in place of a failure, and how old it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Its age as in the `Age` field (RFC 9111 section 4.2.3).
    pub age: Duration,
    /// How long ago it ceased to be fresh, a last-good copy: how long ago it was stored. Zero while fresh.
    pub past_freshness: Duration,
    /// The response forbids it, and the route overrides that (`cache.override`).
    pub is_overridden: bool,
}

/// Privacy on the way out: whether this request may see the copy at all.
pub fn may_share(info: &CopyInfo, request: &RequestFacts, policy: &CachePolicy) -> bool {
    match info.audience {
        Audience::Everyone => true,
        Audience::Anonymous => {
            let is_for_all = policy.serve_anonymous == ServeAnonymous::Always;
            !request.is_authorized && (!request.is_personal || is_for_all)
        }
        Audience::WithoutCredentials => !request.is_authorized && !request.is_personal,
    }
}

/// The same in place of a failure.
pub(crate) fn may_share_in_outage(info: &CopyInfo, request: &RequestFacts, policy: &CachePolicy) -> bool {
    let is_for_all = policy.serve_anonymous != ServeAnonymous::Never;
    info.audience == Audience::Everyone || !request.is_authorized && (!request.is_personal || is_for_all)
}

/// Whether the copy answers the request without asking (RFC 9111 section 4, and the request's directives of
/// section 5.2.1).
pub fn may_serve_fresh(
    copy: &Standing,
    policy: &CachePolicy,
    request: &RequestFacts,
    now: SystemTime,
) -> bool {
    let info = copy.info;
    let age = copy.age(now);
    policy.mode == Mode::Standard
        && info.kind == CopyKind::Standard
        && may_read(request)
        && may_share(&info, request, policy)
        && !request.no_cache
        && request.max_age.is_none_or(|limit| age <= limit && !limit.is_zero())
        && (is_fresh_until(copy, request.min_fresh, now) || is_stale_enough(copy, request, now))
}

/// Whether the copy, which is not fresh, answers the request while a newer response is fetched (RFC 5861 section 3).
/// `window` is the time past its freshness for which the response or the route allows it.
pub fn may_serve_updating(
    copy: &Standing,
    window: Duration,
    policy: &CachePolicy,
    request: &RequestFacts,
    now: SystemTime,
) -> bool {
    let wants_newer = request.no_cache || request.max_age.is_some() || request.min_fresh.is_some();
    let staleness = now.duration_since(copy.fresh_until).unwrap_or(Duration::MAX);
    policy.mode == Mode::Standard
        && copy.info.kind == CopyKind::Standard
        && copy.info.stored <= now
        && may_read(request)
        && may_share(&copy.info, request, policy)
        && !copy.info.forbids.any()
        && !wants_newer
        && !window.is_zero()
        && staleness <= window
}

/// Fresh, and for as much longer as the request wants.
fn is_fresh_until(copy: &Standing, min_fresh: Option<Duration>, now: SystemTime) -> bool {
    now.checked_add(min_fresh.unwrap_or(Duration::ZERO)).is_some_and(|then| copy.is_fresh(then))
}

/// Not staler than the request takes without asking (section 5.2.1.2), where the response does not forbid it.
fn is_stale_enough(copy: &Standing, request: &RequestFacts, now: SystemTime) -> bool {
    let staleness = now.duration_since(copy.fresh_until).unwrap_or(Duration::ZERO);
    !copy.info.forbids.any()
        && request.min_fresh.is_none()
        && request.max_stale.is_some_and(|limit| staleness <= limit)
}

/// Whether the copy may be served in place of a failure. The request's wish for a newer answer (`no-cache`,
/// `max-age`) does not count then: there is none.
pub fn may_serve_stale(
    copy: &Standing,
    policy: &CachePolicy,
    request: &RequestFacts,
    cause: Cause,
    now: SystemTime,
) -> Option<Stale> {
    let info = copy.info;
    let may_read = may_read(request) && may_share_in_outage(&info, request, policy);
    if !policy.use_stale.covers(cause) || !may_read {
        return None;
    }
    let age = copy.age(now);
    if copy.is_fresh(now) {
        return Some(Stale { age, past_freshness: Duration::ZERO, is_overridden: false });
    }
    let past_freshness = now.duration_since(stale_since(copy)).unwrap_or(Duration::ZERO);
    let is_overridden = info.forbids.any();
    stale_window(&info, policy, request).filter(|window| past_freshness <= *window).map(|_| Stale {
        age,
        past_freshness,
        is_overridden,
    })
}

/// From when on a copy counts as old.
pub(crate) fn stale_since(copy: &Standing) -> SystemTime {
    match copy.info.kind {
        CopyKind::Standard => copy.fresh_until,
        CopyKind::LastGood => copy.info.stored,
    }
}

/// For how long from then on it may answer in place of a failure; none if it must not.
pub(crate) fn stale_window(
    info: &CopyInfo,
    policy: &CachePolicy,
    request: &RequestFacts,
) -> Option<Duration> {
    let is_standard = policy.mode == Mode::Standard;
    let window = info.stale_window.filter(|_| is_standard).unwrap_or(policy.stale_for);
    let asked = request.stale_if_error.filter(|_| is_standard).unwrap_or(Duration::ZERO);
    (!info.forbids.without(policy.overrides).any()).then_some(window.max(asked))
}

fn may_read(request: &RequestFacts) -> bool {
    request.is_readable && !request.bypasses()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{fallback, headers, now, policy, request, response};
    use crate::{Admission, Forbids, admit};
    use goodgate_failure::ReceivedStatus;

    const REFUSED: Cause = Cause::ConnectionRefused;

    fn copy(policy: &CachePolicy, control: &str) -> Standing {
        let answer = response(200, &[("cache-control", control), ("etag", "\"a\"")]);
        match admit(policy, &request(&[]), &answer, now()) {
            Admission::Store(meta) | Admission::KeepLastGood(meta) => Standing::of(&meta),
            Admission::Refuse(reason) => panic!("{reason}"),
        }
    }

    fn after(seconds: u64) -> SystemTime {
        now() + Duration::from_secs(seconds)
    }

    fn past(meta: &Standing, policy: &CachePolicy, seconds: u64) -> Option<u64> {
        let stale = may_serve_stale(meta, policy, &request(&[]), REFUSED, after(seconds));
        stale.map(|stale| stale.past_freshness.as_secs())
    }

    /// Invariant 10 on the way out: audience, then anonymous, cookie, Authorization.
    #[test]
    fn an_anonymous_copy_goes_to_a_personal_request_only_if_the_route_says_so() {
        let requests = [
            request(&[]),
            request(&[("cookie", "session=1")]),
            request(&[("authorization", "x")]),
            request(&[("authorization", "x"), ("cookie", "session=1")]),
        ];
        let strict = policy();
        let lenient = CachePolicy { serve_anonymous: ServeAnonymous::Always, ..policy() };
        let in_outage = CachePolicy { serve_anonymous: ServeAnonymous::Outage, ..policy() };
        let (all, none) = ([true; 4], [true, false, false, false]);
        let with_cookie = [true, true, false, false];
        for (policy, audience, expected, in_place_of_a_failure) in [
            (&strict, Audience::Everyone, all, all),
            (&strict, Audience::Anonymous, none, none),
            (&strict, Audience::WithoutCredentials, none, none),
            (&lenient, Audience::Everyone, all, all),
            (&lenient, Audience::Anonymous, with_cookie, with_cookie),
            (&lenient, Audience::WithoutCredentials, none, with_cookie),
            (&in_outage, Audience::Everyone, all, all),
            (&in_outage, Audience::Anonymous, none, with_cookie),
            (&in_outage, Audience::WithoutCredentials, none, with_cookie),
        ] {
            let info = CopyInfo { audience, ..copy(policy, "max-age=60").info };
            let got = requests.map(|request| may_share(&info, &request, policy));
            assert_eq!(got, expected, "{audience:?} {:?}", policy.serve_anonymous);
            let got = requests.map(|request| may_share_in_outage(&info, &request, policy));
            assert_eq!(got, in_place_of_a_failure, "{audience:?} {:?}", policy.serve_anonymous);
        }
    }

    /// RFC 9111 sections 4.2 and 5.2.1.
    #[test]
    fn section_5_2_1_directives_of_the_request_are_heeded() {
        let meta = copy(&policy(), "max-age=60");
        let fresh = |control: &str, seconds| {
            let request = request(&[("cache-control", control)]);
            may_serve_fresh(&meta, &policy(), &request, after(seconds))
        };
        assert!(fresh("", 0) && fresh("", 60) && !fresh("", 61));
        assert!(!fresh("no-cache", 1));
        assert!(!fresh("max-age=0", 0));
        assert!(fresh("max-age=10", 10) && !fresh("max-age=10", 11));
        assert!(fresh("min-fresh=10", 50) && !fresh("min-fresh=10", 51));
        assert!(!fresh("no-store", 1));
        assert!(!fresh("max-age=nonsense", 1));
        assert!(!may_serve_fresh(&meta, &policy(), &request(&[("pragma", "no-cache")]), after(1)));
    }

    /// RFC 9111 section 5.2.1.2.
    #[test]
    fn section_5_2_1_2_max_stale_is_heeded() {
        let serve = |held: &str, asked: &str, seconds| {
            let meta = copy(&policy(), held);
            may_serve_fresh(&meta, &policy(), &request(&[("cache-control", asked)]), after(seconds))
        };
        assert!(serve("max-age=60", "max-stale", 100_000));
        assert!(serve("max-age=60", "max-stale=10", 70) && !serve("max-age=60", "max-stale=10", 71));
        assert!(!serve("max-age=60", "max-stale=10, max-age=65", 70));
        assert!(!serve("max-age=60", "max-stale, no-cache", 70));
        for control in ["max-age=60, must-revalidate", "s-maxage=60", "no-cache, max-age=60"] {
            assert!(!serve(control, "max-stale", 70), "{control}");
        }
    }

    /// RFC 5861 section 4: the request may take what is older, but not what must be asked about.
    #[test]
    fn rfc_5861_section_4_the_request_may_widen_the_window() {
        let serve = |held: &str, seconds| {
            let request = request(&[("cache-control", "stale-if-error=100")]);
            may_serve_stale(&copy(&policy(), held), &policy(), &request, REFUSED, after(seconds)).is_some()
        };
        assert!(serve("max-age=60, stale-if-error=5", 160) && !serve("max-age=60, stale-if-error=5", 161));
        assert!(!serve("max-age=60, must-revalidate", 70));
    }

    #[test]
    fn fallback_mode_and_last_good_copies_serve_nothing_fresh() {
        let meta = copy(&fallback(), "max-age=60");
        assert!(!may_serve_fresh(&meta, &fallback(), &request(&[]), now()));
        assert!(!may_serve_fresh(&meta, &policy(), &request(&[]), now()));
        let standard = copy(&policy(), "max-age=60");
        assert!(!may_serve_fresh(&standard, &fallback(), &request(&[]), now()));
    }

    #[test]
    fn stale_is_counted_from_the_end_of_freshness_or_from_storing() {
        let standard = copy(&policy(), "max-age=60");
        assert_eq!(past(&standard, &policy(), 10), Some(0));
        assert_eq!(past(&standard, &policy(), 70), Some(10));
        assert_eq!(past(&standard, &policy(), 3660), Some(3600));
        assert_eq!(past(&standard, &policy(), 3661), None);
        let last_good = copy(&fallback(), "");
        assert_eq!(past(&last_good, &fallback(), 10), Some(10));
        assert_eq!(past(&last_good, &fallback(), 3600), Some(3600));
        assert_eq!(past(&last_good, &fallback(), 3601), None);
    }

    /// RFC 5861 section 4.
    #[test]
    fn rfc_5861_section_4_the_response_sets_its_own_window() {
        let meta = copy(&policy(), "max-age=60, stale-if-error=5");
        assert_eq!(past(&meta, &policy(), 65), Some(5));
        assert_eq!(past(&meta, &policy(), 66), None);
        let fallback_copy = copy(&fallback(), "max-age=60, stale-if-error=5");
        assert_eq!(past(&fallback_copy, &fallback(), 66), Some(66));
    }

    /// RFC 9111 section 4.2.4.
    #[test]
    fn section_4_2_4_forbidden_stale_is_not_served_even_in_an_outage() {
        for control in ["max-age=60, must-revalidate", "s-maxage=60", "max-age=60, proxy-revalidate"] {
            let meta = copy(&policy(), control);
            assert_eq!(past(&meta, &policy(), 60), Some(0), "{control}");
            assert_eq!(past(&meta, &policy(), 61), None, "{control}");
        }
        assert_eq!(past(&copy(&policy(), "no-cache"), &policy(), 0), None);
    }

    #[test]
    fn a_last_good_response_answers_while_it_is_fresh_whatever_forbids_it_once_stale() {
        for control in ["max-age=60, must-revalidate", "s-maxage=60", "max-age=60, proxy-revalidate"] {
            let meta = copy(&fallback(), control);
            assert_eq!(past(&meta, &fallback(), 60), Some(0), "{control}");
            assert_eq!(past(&meta, &fallback(), 61), None, "{control}");
        }
        let year = copy(&fallback(), "max-age=31536000");
        assert_eq!(past(&year, &fallback(), 31_000_000), Some(0));
    }

    #[test]
    fn what_a_route_overrides_by_name_no_longer_stands_in_the_way() {
        for (control, overrides, allowed) in [
            ("max-age=60, must-revalidate", Forbids::MUST_REVALIDATE, true),
            ("s-maxage=60", Forbids::S_MAXAGE, true),
            ("s-maxage=60", Forbids::MUST_REVALIDATE, false),
            ("max-age=60, proxy-revalidate", Forbids::NO_CACHE, false),
            ("no-cache", Forbids::NO_CACHE, true),
            ("no-cache, must-revalidate", Forbids::NO_CACHE, false),
            ("no-cache, must-revalidate", Forbids::NO_CACHE.and(Forbids::MUST_REVALIDATE), true),
        ] {
            for policy in [policy(), fallback()] {
                // What could not be served at all without the override is kept only with it.
                let keeping =
                    CachePolicy { overrides: Forbids::NO_CACHE.and(Forbids::MUST_REVALIDATE), ..policy };
                let meta = copy(&keeping, control);
                let policy = CachePolicy { overrides, ..keeping };
                let stale = may_serve_stale(&meta, &policy, &request(&[]), REFUSED, after(70));
                assert_eq!(stale.map(|stale| stale.is_overridden), allowed.then_some(true), "{control}");
            }
        }
        let policy = CachePolicy { overrides: Forbids::NO_CACHE, ..policy() };
        let plain = may_serve_stale(&copy(&policy, "max-age=60"), &policy, &request(&[]), REFUSED, after(70));
        assert_eq!(plain.map(|stale| stale.is_overridden), Some(false));
    }

    #[test]
    fn stale_needs_the_cause_in_use_stale() {
        let meta = copy(&policy(), "max-age=60");
        for seconds in [0, 70] {
            let serve = |cause| may_serve_stale(&meta, &policy(), &request(&[]), cause, after(seconds));
            assert!(serve(Cause::ConnectionRefused).is_some());
            assert!(serve(Cause::HttpResponseTimeout).is_some());
            assert!(serve(Cause::Received(ReceivedStatus::S503)).is_none());
            assert!(serve(Cause::ClientDisconnected).is_none());
        }
    }

    #[test]
    fn a_reload_in_the_browser_still_gets_the_copy_in_an_outage() {
        let meta = copy(&policy(), "max-age=60");
        let serve = |fields: &[(&str, &str)]| {
            may_serve_stale(&meta, &policy(), &request(fields), REFUSED, after(70)).is_some()
        };
        assert!(serve(&[("cache-control", "no-cache")]));
        assert!(serve(&[("cache-control", "max-age=0")]));
        assert!(!serve(&[("cache-control", "no-store")]));
        let post = RequestFacts::new(&http::Method::POST, &headers(&[]), &policy());
        assert!(may_serve_stale(&meta, &policy(), &post, REFUSED, after(70)).is_none());
    }

    #[test]
    fn a_clock_set_back_makes_nothing_old() {
        let meta = copy(&fallback(), "");
        let stale =
            may_serve_stale(&meta, &fallback(), &request(&[]), REFUSED, now() - Duration::from_hours(9));
        assert_eq!(
            stale,
            Some(Stale { age: Duration::ZERO, past_freshness: Duration::ZERO, is_overridden: false })
        );
    }
}
