//! How long a response is fresh, and how old it already was when it came (RFC 9111 section 4.2).
//!
//! Both ways to tell the age are used, `Age` and `Date`, and the greater wins (section 4.2.3); whole seconds count, as
//! those fields have no others. A lifetime is guessed (section 4.2.2) only where the route says so.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use crate::CachePolicy;
use crate::date::http_date;
use crate::directives::{Directives, Elements, Flag, delta_seconds};

/// Where a lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The response says it.
    Explicit(Duration),
    /// The route's `ttl` for this status says it.
    Configured(Duration),
    /// A share of the time since its last change.
    Guessed(Duration),
}

impl Lifetime {
    /// The lifetime of a response, counted from its generation; none if nobody says one.
    pub(crate) fn of(
        policy: &CachePolicy,
        status: StatusCode,
        headers: &HeaderMap,
        directives: &Directives,
        now: SystemTime,
    ) -> Option<Self> {
        let expires = || if directives.is_targeted { None } else { expires(headers, now) };
        let explicit = directives.s_maxage.or(directives.max_age).or_else(expires);
        let configured = || policy.ttl.iter().find(|(code, _)| *code == status).map(|(_, ttl)| *ttl);
        let may_guess = directives.has(Flag::Public) || is_guessable(status);
        let guessed = || guess(headers, policy.heuristic.filter(|_| may_guess)?, now);
        explicit
            .map(Self::Explicit)
            .or_else(|| configured().map(Self::Configured))
            .or_else(|| guessed().map(Self::Guessed))
    }

    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Explicit(lifetime) | Self::Configured(lifetime) | Self::Guessed(lifetime) => lifetime,
        }
    }
}

/// Statuses whose freshness may be guessed (RFC 9110 section 15.1).
pub(crate) fn is_guessable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The longest that is guessed: after a day one should ask.
const GUESS_MAX: Duration = Duration::from_hours(24);

/// So many hundredths of the time since the last change.
fn guess(headers: &HeaderMap, percent: u8, now: SystemTime) -> Option<Duration> {
    let changed = http_date(headers.get(header::LAST_MODIFIED)?.as_bytes(), now)?;
    let since = date(headers, now).unwrap_or(now).duration_since(changed).ok()?;
    Some((since * u32::from(percent) / 100).min(GUESS_MAX))
}

/// The response's age on arrival: the greater of what `Age` says and the time since `Date` (section 4.2.3). `Age` is
/// zero if absent or invalid, and the first of several (section 5.1).
pub(crate) fn age_on_arrival(headers: &HeaderMap, now: SystemTime) -> Duration {
    let first = headers.get(header::AGE).and_then(|line| Elements::of(line).next());
    let told = first.and_then(delta_seconds).unwrap_or(Duration::ZERO);
    let since = date(headers, now).and_then(|date| now.duration_since(date).ok());
    told.max(Duration::from_secs(since.unwrap_or(Duration::ZERO).as_secs()))
}

/// `Expires` counted from `Date`, or from now without one (section 4.2.1). What is no date has expired (section 5.3).
fn expires(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let first = headers.get(header::EXPIRES)?;
    let date = date(headers, now).unwrap_or(now);
    let of_line = |line: &http::HeaderValue| {
        let at = http_date(line.as_bytes(), now);
        at.and_then(|at| at.duration_since(date).ok()).unwrap_or(Duration::ZERO)
    };
    let shortest = headers.get_all(header::EXPIRES).iter().map(of_line).min();
    Some(shortest.unwrap_or_else(|| of_line(first)))
}

pub(crate) fn date(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    http_date(headers.get(header::DATE)?.as_bytes(), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{headers, now, policy};

    fn lifetime(fields: &[(&str, &str)]) -> Option<Lifetime> {
        let headers = headers(fields);
        Lifetime::of(&policy(), StatusCode::OK, &headers, &Directives::of(&headers), now())
    }

    fn explicit(seconds: u64) -> Lifetime {
        Lifetime::Explicit(Duration::from_secs(seconds))
    }

    fn date(offset_seconds: i64) -> String {
        let offset = Duration::from_secs(offset_seconds.unsigned_abs());
        httpdate::fmt_http_date(if offset_seconds < 0 { now() - offset } else { now() + offset })
    }

    /// RFC 9111 section 4.2.1: s-maxage, then max-age, then Expires.
    #[test]
    fn section_4_2_1_order_of_sources() {
        let expires = date(10);
        let fields = [("cache-control", "max-age=20, s-maxage=30"), ("expires", expires.as_str())];
        assert_eq!(lifetime(&fields), Some(explicit(30)));
        assert_eq!(lifetime(&[("cache-control", "max-age=20"), fields[1]]), Some(explicit(20)));
        assert_eq!(lifetime(&[fields[1]]), Some(explicit(10)));
        assert_eq!(lifetime(&[]), None);
    }

    /// RFC 9111 section 5.3: Expires is measured by the origin's own clock, whatever ours says.
    #[test]
    fn section_5_3_expires_counts_from_date() {
        for skew in [-100_000, -300, 0, 300, 100_000] {
            let (date, expires) = (date(skew), date(skew + 60));
            assert_eq!(lifetime(&[("date", &date), ("expires", &expires)]), Some(explicit(60)), "{skew}");
        }
        assert_eq!(lifetime(&[("date", "yesterday"), ("expires", &date(60))]), Some(explicit(60)));
    }

    /// RFC 9111 section 4.2.3: the greater of both ages counts, and a clock ahead of ours makes nothing old.
    #[test]
    fn section_4_2_3_the_age_by_date_counts_too() {
        let age = |fields: &[(&str, &str)]| age_on_arrival(&headers(fields), now()).as_secs();
        assert_eq!(age(&[("date", &date(-40))]), 40);
        assert_eq!(age(&[("date", &date(-40)), ("age", "50")]), 50);
        assert_eq!(age(&[("date", &date(-40)), ("age", "30")]), 40);
        assert_eq!(age(&[("date", &date(40))]), 0);
        assert_eq!(age(&[("date", "yesterday")]), 0);
    }

    /// RFC 9111 section 4.2.2: a tenth of the time since the last change, where the route allows it.
    #[test]
    fn section_4_2_2_a_lifetime_is_guessed_only_where_the_route_says_so() {
        let guessing = CachePolicy { heuristic: Some(10), ..policy() };
        let guess = |policy: &CachePolicy, code: u16, fields: &[(&str, &str)]| {
            let headers = headers(fields);
            let status = StatusCode::from_u16(code).unwrap();
            Lifetime::of(policy, status, &headers, &Directives::of(&headers), now())
        };
        let changed = date(-1000);
        let fields = [("last-modified", changed.as_str())];
        assert_eq!(guess(&guessing, 200, &fields), Some(Lifetime::Guessed(Duration::from_secs(100))));
        assert_eq!(guess(&policy(), 200, &fields), None);
        assert_eq!(guess(&guessing, 302, &fields), None);
        assert!(guess(&guessing, 302, &[fields[0], ("cache-control", "public")]).is_some());
        assert_eq!(guess(&guessing, 200, &[]), None);
        assert_eq!(guess(&guessing, 200, &[("last-modified", &date(5))]), None);
        let long_ago = [("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")];
        assert_eq!(guess(&guessing, 200, &long_ago), Some(Lifetime::Guessed(GUESS_MAX)));
    }

    /// RFC 9111 section 5.3: an invalid date, especially 0, is in the past.
    #[test]
    fn section_5_3_an_invalid_expires_has_expired() {
        for line in ["0", "-1", "", "never", "Thu, 99 Jan 2026 00:00:00 GMT"] {
            assert_eq!(lifetime(&[("expires", line)]), Some(explicit(0)), "{line}");
        }
        assert_eq!(lifetime(&[("expires", &date(-5))]), Some(explicit(0)));
        assert_eq!(lifetime(&[("expires", &date(60)), ("expires", "0")]), Some(explicit(0)));
    }

    #[test]
    fn the_route_speaks_only_where_the_response_is_silent() {
        let mut policy = policy();
        policy.ttl = vec![(200, Duration::from_secs(7)), (404, Duration::from_secs(1))];
        let of = |code: u16, fields: &[(&str, &str)]| {
            let headers = headers(fields);
            let status = StatusCode::from_u16(code).unwrap();
            Lifetime::of(&policy, status, &headers, &Directives::of(&headers), now())
        };
        assert_eq!(of(200, &[]), Some(Lifetime::Configured(Duration::from_secs(7))));
        assert_eq!(of(404, &[]), Some(Lifetime::Configured(Duration::from_secs(1))));
        assert_eq!(of(301, &[]), None);
        assert_eq!(of(200, &[("cache-control", "max-age=0")]), Some(explicit(0)));
        assert_eq!(of(200, &[("expires", "0")]), Some(explicit(0)));
    }

    /// RFC 9111 sections 4.2.3 and 5.1.
    #[test]
    fn section_5_1_age_is_the_first_valid_value() {
        let age = |lines: &[&str]| {
            let fields: Vec<_> = lines.iter().map(|line| ("age", *line)).collect();
            age_on_arrival(&headers(&fields), now()).as_secs()
        };
        assert_eq!(age(&[]), 0);
        assert_eq!(age(&["30"]), 30);
        assert_eq!(age(&["30, 60"]), 30);
        assert_eq!(age(&["30", "60"]), 30);
        for invalid in ["", "-5", "1.5", "a", "\"30\"", "+5"] {
            assert_eq!(age(&[invalid]), 0, "{invalid}");
        }
        assert_eq!(age(&["99999999999999999999999"]), 1 << 31);
    }
}
