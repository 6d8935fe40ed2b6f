//! How long a response is fresh, and how old it already was when it came (RFC 9111 section 4.2).
//!
//! The age is what the response's `Age` says (section 4.2.3). The age by `Date` is left out, as that section
//! allows: a backend whose clock is slow would switch its own caching off, and a copy confirmed by a 304 keeps the
//! `Date` of its first day. There is no heuristic freshness: without a word from response or route nothing is fresh.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use crate::CachePolicy;
use crate::directives::{Directives, Elements, seconds};

/// Where a lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The response says it.
    Explicit(Duration),
    /// The route's `ttl` for this status says it.
    Configured(Duration),
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
        let explicit = directives.s_maxage.or(directives.max_age).or_else(|| expires(headers, now));
        let configured = || policy.ttl.iter().find(|(code, _)| *code == status).map(|(_, ttl)| *ttl);
        explicit.map(Self::Explicit).or_else(|| configured().map(Self::Configured))
    }

    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Explicit(lifetime) | Self::Configured(lifetime) => lifetime,
        }
    }
}

/// The response's age on arrival: `Age`, zero if absent or invalid, the first of several (section 5.1).
pub(crate) fn age_on_arrival(headers: &HeaderMap) -> Duration {
    headers
        .get(header::AGE)
        .and_then(|line| Elements::of(line).next().and_then(seconds))
        .unwrap_or(Duration::ZERO)
}

/// `Expires` counted from `Date`, or from now without one (section 4.2.1). What is no date has expired (section 5.3).
fn expires(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let first = headers.get(header::EXPIRES)?;
    let date = headers.get(header::DATE).and_then(http_date).unwrap_or(now);
    let of_line =
        |line| http_date(line).and_then(|at| at.duration_since(date).ok()).unwrap_or(Duration::ZERO);
    let shortest = headers.get_all(header::EXPIRES).iter().map(of_line).min();
    Some(shortest.unwrap_or_else(|| of_line(first)))
}

fn http_date(line: &http::HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(line.to_str().ok()?).ok()
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
            age_on_arrival(&headers(&fields)).as_secs()
        };
        assert_eq!(age(&[]), 0);
        assert_eq!(age(&["30"]), 30);
        assert_eq!(age(&["30, 60"]), 30);
        assert_eq!(age(&["30", "60"]), 30);
        for invalid in ["", "-5", "1.5", "a"] {
            assert_eq!(age(&[invalid]), 0, "{invalid}");
        }
        assert_eq!(age(&["99999999999999999999999"]), 1 << 31);
    }
}
