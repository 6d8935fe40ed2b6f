//! What the cache must know of a request, read once.

use std::time::Duration;

use http::Method;
use http::header::{self, HeaderMap};

use crate::CachePolicy;
use crate::cookies::Cookie;
use crate::directives::{Directives, Elements, Flag};
use crate::sent::SentRequest;

/// The facts of one request that bear on storing and serving.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each read by name in a different decision"
)]
pub struct RequestFacts {
    /// GET: its answer may be stored.
    pub is_get: bool,
    /// GET or HEAD: it may be answered from a copy.
    pub is_readable: bool,
    /// It has a cookie that the route does not ignore.
    pub is_personal: bool,
    /// It has an `Authorization`, or its sender has proven an identity in another way.
    pub is_authorized: bool,
    /// It has a precondition (`If-*`).
    pub is_conditional: bool,
    /// It has a precondition that only the server can judge (`If-Match`, `If-Unmodified-Since`).
    pub is_for_server: bool,
    /// It asks for a part (`Range`).
    pub is_range: bool,
    /// `no-cache`, or `Pragma: no-cache` without a `Cache-Control`: ask before serving a copy.
    pub no_cache: bool,
    /// `only-if-cached`: answer from a copy or with 504.
    pub only_if_cached: bool,
    /// `max-age`: the oldest answer that is wanted.
    pub max_age: Option<Duration>,
    /// `min-fresh`: how much longer the answer must stay fresh.
    pub min_fresh: Option<Duration>,
    /// `max-stale`: how long past its freshness an answer will do without asking.
    pub max_stale: Option<Duration>,
    /// `stale-if-error` (RFC 5861 section 4): how long past its freshness one will do in place of a failure.
    pub stale_if_error: Option<Duration>,
    bypasses: bool,
}

impl RequestFacts {
    /// Reads a request that is sent as it came.
    pub fn new(method: &Method, headers: &HeaderMap, policy: &CachePolicy) -> Self {
        Self::of(method, headers, headers, policy)
    }

    /// Reads a request: its wishes as the client has sent them, its credentials as the backend receives them.
    pub fn of(method: &Method, headers: &HeaderMap, sent: &dyn SentRequest, policy: &CachePolicy) -> Self {
        let directives = Directives::of(headers);
        let is_get = method == Method::GET;
        Self {
            is_get,
            is_readable: is_get || method == Method::HEAD,
            is_personal: is_personal(sent, policy),
            is_authorized: is_authorized(sent),
            is_conditional: PRECONDITIONS.iter().any(|name| headers.contains_key(name)),
            is_for_server: [header::IF_MATCH, header::IF_UNMODIFIED_SINCE]
                .iter()
                .any(|name| headers.contains_key(name)),
            is_range: headers.contains_key(header::RANGE),
            no_cache: directives.has(Flag::NoCache)
                || directives.has(Flag::NoCacheFields)
                || pragma_no_cache(headers),
            only_if_cached: directives.has(Flag::OnlyIfCached),
            max_age: directives.max_age,
            min_fresh: directives.min_fresh,
            max_stale: directives.max_stale,
            stale_if_error: directives.stale_if_error,
            bypasses: directives.has(Flag::NoStore)
                || policy.bypass_headers.iter().any(|name| headers.contains_key(name)),
        }
    }

    /// The same request of a client whose identity is proven, as by a certificate: the backend may answer that client alone.
    #[must_use]
    pub fn identified(&self) -> Self {
        Self { is_authorized: true, ..*self }
    }

    /// The same request for the body as well.
    #[must_use]
    pub fn as_get(&self) -> Self {
        Self { is_get: true, ..*self }
    }

    /// Whether the request neither reads nor fills the cache: `no-store`, or a field of `bypass_headers`.
    pub fn bypasses(&self) -> bool {
        self.bypasses
    }
}

const PRECONDITIONS: [header::HeaderName; 5] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// RFC 9111 section 5.4: `Pragma` counts only where there is no `Cache-Control`.
fn pragma_no_cache(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::CACHE_CONTROL)
        && headers
            .get_all(header::PRAGMA)
            .iter()
            .flat_map(Elements::of)
            .any(|directive| directive.eq_ignore_ascii_case(b"no-cache"))
}

fn is_authorized(sent: &dyn SentRequest) -> bool {
    let mut is_found = false;
    sent.each_credential(&header::AUTHORIZATION, &mut |_| is_found = true);
    is_found
}

fn is_personal(sent: &dyn SentRequest, policy: &CachePolicy) -> bool {
    let mut is_found = false;
    sent.each_credential(&header::COOKIE, &mut |line| {
        is_found |= Cookie::of_line(line).any(|cookie| !is_harmless(&cookie, policy));
    });
    is_found
}

/// Whether a cookie makes no request personal, or is in the key: then another value asks for another cached response. A
/// cookie that some program may read as another one is not harmless.
fn is_harmless(cookie: &Cookie<'_>, policy: &CachePolicy) -> bool {
    let Some(name) = std::str::from_utf8(cookie.name).ok().filter(|_| cookie.is_well_formed()) else {
        return false;
    };
    if policy.key.cookies.iter().any(|keyed| cookie.may_be_read_as(keyed)) {
        return false;
    }
    !policy.personal_cookies.has(name) || policy.key.cookies.iter().any(|keyed| keyed == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{headers, policy};
    use crate::{NamePattern, PersonalCookies};

    fn facts(fields: &[(&str, &str)]) -> RequestFacts {
        let mut policy = policy();
        policy.personal_cookies =
            PersonalCookies::AllBut(vec![NamePattern::parse("_ga*"), NamePattern::parse("lang")]);
        policy.bypass_headers = vec![http::HeaderName::from_static("x-preview")];
        RequestFacts::new(&Method::GET, &headers(fields), &policy)
    }

    #[test]
    fn only_a_cookie_that_is_not_ignored_is_personal() {
        for (cookie, is_personal) in [
            ("", false),
            (" ; ;", false),
            ("lang=de", false),
            ("_ga=1; _ga_X=2;lang=de", false),
            ("lang=de; session=1", true),
            ("LANG=de", true),
            ("lang", true),
            ("=lang", true),
            ("lang2=x", true),
            ("session=lang=de", true),
            ("lang =de", false),
            ("_ga.x=1", false),
            ("lang=\"de", true),
            ("lang=de, session=1", true),
            ("_ga[0]=1", true),
        ] {
            assert_eq!(facts(&[("cookie", cookie)]).is_personal, is_personal, "{cookie:?}");
        }
        assert!(facts(&[("cookie", "lang=de"), ("cookie", "session=1")]).is_personal);
        assert!(!facts(&[]).is_personal);
    }

    #[test]
    fn where_the_personal_cookies_are_named_all_others_are_harmless() {
        let mut policy = policy();
        policy.personal_cookies = PersonalCookies::Only(vec![
            NamePattern::parse("wordpress_logged_in_*"),
            NamePattern::parse("sid"),
        ]);
        for (cookie, is_personal) in [
            ("", false),
            ("theme=dark; _ga=1", false),
            ("wordpress_logged_in_1=x", true),
            ("theme=dark; WordPress.logged_in_1=x", true),
            ("sid=1", true),
            ("SID=1", true),
            ("sidebar=1", false),
            ("theme", true),
            ("theme=\"x", true),
            ("theme=1, sid=2", true),
            ("s%69d=1", true),
        ] {
            let facts = RequestFacts::new(&Method::GET, &headers(&[("cookie", cookie)]), &policy);
            assert_eq!(facts.is_personal, is_personal, "{cookie:?}");
        }
    }

    /// RFC 9111 section 5.4.
    #[test]
    fn section_5_4_pragma_counts_only_without_cache_control() {
        assert!(facts(&[("pragma", "x, No-Cache")]).no_cache);
        assert!(!facts(&[("pragma", "no-cache"), ("cache-control", "max-age=60")]).no_cache);
    }

    #[test]
    fn no_store_and_the_named_fields_bypass() {
        assert!(facts(&[("cache-control", "no-store")]).bypasses());
        assert!(facts(&[("x-preview", "")]).bypasses());
        assert!(!facts(&[("cache-control", "no-cache"), ("cookie", "session=1")]).bypasses());
    }

    #[test]
    fn only_get_fills_but_head_reads_too() {
        let of = |method: &Method| RequestFacts::new(method, &HeaderMap::new(), &policy());
        assert!(of(&Method::GET).is_get && of(&Method::GET).is_readable);
        assert!(!of(&Method::HEAD).is_get && of(&Method::HEAD).is_readable);
        assert!(!of(&Method::POST).is_get && !of(&Method::POST).is_readable);
    }
}
