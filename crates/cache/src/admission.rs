//! May this answer be kept (RFC 9111 section 3, and the privacy rule of the room map)?
//!
//! Three verdicts: keep it by the standard, keep it only for the case of failure, or not at all. Privacy comes
//! first and in either mode. An error never becomes a copy, so it never displaces a good one. Pingora's own
//! stale-on-error is always off: `serving` decides that, with the cause at hand.

use std::time::{Duration, SystemTime};

use goodgate_failure::Word;
use http::{HeaderMap, StatusCode, header};
use pingora_cache::CacheMeta;
use pingora_http::ResponseHeader;

use crate::directives::{Directives, Elements, Flag, no_cache_fields};
use crate::freshness::{Lifetime, age_on_arrival, is_guessable};
use crate::hop_by_hop::without_hop_by_hop;
use crate::{Audience, CachePolicy, CopyInfo, CopyKind, Forbids, Mode, Moment, RequestFacts};

/// What becomes of an answer.
#[derive(Debug)]
pub enum Admission {
    /// Stored by RFC 9111.
    Store(CacheMeta),
    /// Stored only for the case of failure.
    KeepLastGood(CacheMeta),
    /// Not stored, for this reason.
    Refuse(&'static str),
}

/// Decides about the answer to `request`. A 304 is judged by the stored response that it confirms, with the header
/// updated by [`crate::refresh_header`].
pub fn admit(
    policy: &CachePolicy,
    request: &RequestFacts,
    response: &ResponseHeader,
    now: impl Into<Moment>,
) -> Admission {
    let (directives, now) = (Directives::of_response(&response.headers), now.into());
    let answer = Answer { policy, request, response, directives, now };
    answer.verdict().unwrap_or_else(Admission::Refuse)
}

/// Decides about the answer to a CORS preflight: it is kept for the case of failure and for nothing else, since an
/// answer to OPTIONS is never fresh (RFC 9110 section 9.3.7). Without it, pages of other sites could not use the copies.
pub fn admit_preflight(
    policy: &CachePolicy,
    request: &RequestFacts,
    response: &ResponseHeader,
    now: impl Into<Moment>,
) -> Option<CacheMeta> {
    let (directives, now) = (Directives::of_response(&response.headers), now.into());
    let answer = Answer { policy, request, response, directives, now };
    let allows = response.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    let is_kept = response.status.is_success() && allows && answer.check_privacy().is_ok();
    let audience = answer.audience(None).ok().filter(|_| is_kept)?;
    Some(answer.meta(CopyKind::LastGood, audience, Duration::ZERO))
}

struct Answer<'a> {
    policy: &'a CachePolicy,
    request: &'a RequestFacts,
    response: &'a ResponseHeader,
    directives: Directives,
    now: Moment,
}

impl Answer<'_> {
    fn verdict(&self) -> Result<Admission, &'static str> {
        self.check_use()?;
        self.check_privacy()?;
        match self.policy.mode {
            Mode::Fallback => self.last_good(),
            Mode::Standard => self.standard().or_else(|reason| {
                if self.policy.last_good { self.last_good().map_err(|_| reason) } else { Err(reason) }
            }),
        }
    }

    /// What is of no use as a copy.
    fn check_use(&self) -> Result<(), &'static str> {
        if !self.request.is_get {
            return Err("the method is not GET");
        }
        if self.request.bypasses() {
            return Err("the request bypasses the cache");
        }
        if is_endless(&self.response.headers) {
            return Err("it is a stream without an end");
        }
        Ok(())
    }

    /// What is never stored, in either mode.
    fn check_privacy(&self) -> Result<(), &'static str> {
        if self.directives.has(Flag::NoStore) && !self.is_understood() {
            return Err("no-store");
        }
        if self.directives.has(Flag::Private) && !self.policy.overrides.has(Forbids::PRIVATE) {
            return Err("`private`; `cache.override: [private]` lifts it for requests without credentials");
        }
        if self.response.headers.contains_key(header::SET_COOKIE) && !self.policy.drops_set_cookie {
            return Err("Set-Cookie");
        }
        if varies_by_one_of(&self.response.headers, &UNSHARED) {
            return Err("Vary names *, or a field that is different in each request");
        }
        if self.varies_by_credential() && (self.request.is_personal || self.request.is_authorized) {
            return Err("Vary names Cookie or Authorization, and the request has a personal one");
        }
        Ok(())
    }

    /// RFC 9111 section 5.2.2.3: `must-understand` lifts a `no-store` that is there for caches that do not.
    fn is_understood(&self) -> bool {
        self.policy.mode == Mode::Standard
            && self.directives.has(Flag::MustUnderstand)
            && is_defined(self.response.status)
    }

    fn standard(&self) -> Result<Admission, &'static str> {
        let status = self.response.status;
        let lifetime =
            Lifetime::of(self.policy, status, &self.response.headers, &self.directives, self.now.wall);
        if !is_storable(status) {
            return Err("the status is not cacheable");
        }
        if self.directives.has(Flag::MustUnderstand) && !is_defined(status) {
            return Err("the status is not understood");
        }
        let audience = self.audience(lifetime)?;
        if self.directives.has(Flag::NoCache) {
            return Ok(Admission::Store(self.meta(CopyKind::Standard, audience, Duration::ZERO)));
        }
        let lifetime = lifetime.ok_or("nothing says how long it is fresh")?.duration();
        if lifetime <= age_on_arrival(&self.response.headers, self.now.wall)
            && !self.has_validator()
            && !self.may_be_stale()
        {
            return Err("it is not fresh and has no validator");
        }
        Ok(Admission::Store(self.meta(CopyKind::Standard, audience, lifetime)))
    }

    fn last_good(&self) -> Result<Admission, &'static str> {
        if !is_good(self.response.status) {
            return Err("the status is not that of a good answer");
        }
        let audience = self.audience(None)?;
        let lifetime = self.stated_lifetime();
        let forbids = self.forbids().without(self.policy.overrides);
        if lifetime <= age_on_arrival(&self.response.headers, self.now.wall)
            && let Some(reason) = forbids.reason()
        {
            return Err(reason);
        }
        Ok(Admission::KeepLastGood(self.meta(CopyKind::LastGood, audience, lifetime)))
    }

    /// For how long the response itself says that it is fresh. RFC 9111 section 4.2.4 forbids only stale use, so within
    /// this time a last-good response answers whatever else its `Cache-Control` says.
    fn stated_lifetime(&self) -> Duration {
        let headers = &self.response.headers;
        match Lifetime::of(self.policy, self.response.status, headers, &self.directives, self.now.wall) {
            Some(Lifetime::Explicit(lifetime)) if !self.directives.has(Flag::NoCache) => lifetime,
            _ => Duration::ZERO,
        }
    }

    fn varies_by_credential(&self) -> bool {
        varies_by_one_of(&self.response.headers, &CREDENTIALS)
    }

    /// Who may see the copy; an error if the answer to a personal request does not say that it may be shared. A
    /// lifetime that is already over (`max-age=0`) says no such thing.
    fn audience(&self, lifetime: Option<Lifetime>) -> Result<Audience, &'static str> {
        let is_private = self.directives.has(Flag::Private);
        let is_shared =
            !is_private && (self.directives.has(Flag::Public) || self.directives.s_maxage.is_some());
        let is_explicit =
            !is_private && matches!(lifetime, Some(Lifetime::Explicit(lifetime)) if !lifetime.is_zero());
        if self.request.is_authorized && !is_shared {
            return Err("the request has Authorization and the response does not say that it may be shared");
        }
        if self.request.is_personal && !is_shared && !is_explicit {
            return Err("the request has a cookie and the response does not say that it may be shared");
        }
        if self.varies_by_credential() {
            return Ok(Audience::WithoutCredentials);
        }
        Ok(if is_shared || is_explicit { Audience::Everyone } else { Audience::Anonymous })
    }

    /// `stale-while-revalidate` and `stale-if-error` of the response count in standard mode only.
    fn meta(&self, kind: CopyKind, audience: Audience, lifetime: Duration) -> CacheMeta {
        let heeds_response = self.policy.mode == Mode::Standard;
        let info = CopyInfo {
            kind,
            audience,
            forbids: self.forbids(),
            stored: self.now.steady,
            stale_window: self.directives.stale_if_error.filter(|_| heeds_response),
        };
        let updating = self.updating_window(info.forbids.any());
        let age = age_on_arrival(&self.response.headers, self.now.wall);
        let epoch = self.now.steady.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let fresh_until = self.fresh_until(epoch, lifetime);
        let mut header = without_hop_by_hop(self.response);
        header.remove_header(&header::SET_COOKIE);
        // Each answer gets the id of the request that it is for.
        header.remove_header("x-request-id");
        if self.directives.has(Flag::NoCacheFields) {
            for name in no_cache_fields(&self.response.headers) {
                header.remove_header(&name);
            }
        }
        let mut meta = CacheMeta::new(fresh_until, self.now.steady, updating, 0, header);
        meta.set_epoch_override(epoch);
        meta.extensions_mut().insert(info);
        meta
    }

    /// A copy that was never fresh ceased to be so before it came: Pingora counts the very instant as fresh.
    fn fresh_until(&self, epoch: SystemTime, lifetime: Duration) -> SystemTime {
        let now = self.now.steady;
        let until = epoch.checked_add(lifetime).unwrap_or(now);
        if until > now {
            return until;
        }
        until.min(now.checked_sub(JUST_BEFORE).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    fn updating_window(&self, stale_forbidden: bool) -> u32 {
        let own = self.directives.stale_while_revalidate.filter(|_| self.policy.mode == Mode::Standard);
        let configured = self.policy.use_stale.contains(Word::Updating).then_some(self.policy.stale_for);
        let window = own.or(configured).filter(|_| !stale_forbidden).unwrap_or(Duration::ZERO);
        u32::try_from(window.as_secs()).unwrap_or(u32::MAX)
    }

    /// RFC 9111 sections 4.2.4 and 5.2.2.10: `s-maxage` implies `proxy-revalidate`, unless the response says itself for how
    /// long it may be stale (RFC 5861). An error that is over helps nobody.
    fn forbids(&self) -> Forbids {
        let must_revalidate =
            self.directives.has(Flag::MustRevalidate) || self.directives.has(Flag::ProxyRevalidate);
        let windows = [self.directives.stale_while_revalidate, self.directives.stale_if_error];
        let is_silent = windows.iter().all(Option::is_none);
        [
            (is_error(self.response.status), Forbids::ERROR),
            (self.directives.has(Flag::NoCache), Forbids::NO_CACHE),
            (must_revalidate, Forbids::MUST_REVALIDATE),
            (self.directives.s_maxage.is_some() && is_silent, Forbids::S_MAXAGE),
        ]
        .into_iter()
        .filter_map(|(is_said, one)| is_said.then_some(one))
        .fold(Forbids::NOTHING, Forbids::and)
    }

    /// Whether the response itself says that it is of use when it is old (RFC 5861).
    fn may_be_stale(&self) -> bool {
        let windows = [self.directives.stale_while_revalidate, self.directives.stale_if_error];
        !self.forbids().any() && windows.into_iter().flatten().any(|window| !window.is_zero())
    }

    fn has_validator(&self) -> bool {
        self.response.headers.contains_key(header::ETAG)
            || self.response.headers.contains_key(header::LAST_MODIFIED)
    }
}

const JUST_BEFORE: Duration = Duration::from_millis(1);

/// Whether an answer with this status may take the place of the stored one. An error gives way to anything, and
/// displaces no good answer: who has one asks again, and has it for the case of failure.
pub fn may_displace(stored: StatusCode, new: StatusCode) -> bool {
    is_error(stored) || !is_error(new)
}

/// From 400, but for what is as good as an answer: that there is nothing, or no such method.
fn is_error(status: StatusCode) -> bool {
    status.as_u16() >= 400 && (!is_guessable(status) || status == StatusCode::NOT_IMPLEMENTED)
}

/// Final statuses that may be stored if something says for how long (RFC 9111 section 3). Not: answers to a question
/// about a part or a condition, which nobody knows here; those that say something of one message, connection or
/// client; and those that their definition keeps out of caches (RFC 6585).
fn is_storable(status: StatusCode) -> bool {
    !matches!(
        status.as_u16(),
        100..=199
            | 206
            | 304
            | 401
            | 407
            | 408
            | 412
            | 413
            | 416
            | 417
            | 421
            | 425
            | 428
            | 429
            | 431
            | 511
            | 600..
    )
}

/// Statuses whose meaning is known here, for `must-understand`.
fn is_defined(status: StatusCode) -> bool {
    status.canonical_reason().is_some() && is_storable(status)
}

/// Answers worth having in an outage. Not 404 or 410: a page that vanished by mistake must not displace its copy.
fn is_good(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308)
}

/// Streams that last until somebody leaves: server-sent events, and pictures that replace each other. To keep one
/// would mean to fetch it for nobody.
fn is_endless(headers: &HeaderMap) -> bool {
    let types = [b"text/event-stream".as_slice(), b"multipart/x-mixed-replace"];
    headers.get_all(header::CONTENT_TYPE).iter().any(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        types.iter().any(|endless| essence.eq_ignore_ascii_case(endless))
    })
}

/// Names in `Vary` that keep a response from being stored: fields that are different in each request.
const UNSHARED: [&[u8]; 4] = [b"*", b"x-request-id", b"traceparent", b"tracestate"];
/// Names in `Vary` that leave the response to requests without them, see [`Audience::WithoutCredentials`].
const CREDENTIALS: [&[u8]; 2] = [b"cookie", b"authorization"];

fn varies_by_one_of(headers: &HeaderMap, names: &[&[u8]]) -> bool {
    let mut varied = headers.get_all(header::VARY).iter().flat_map(Elements::of);
    varied.any(|name| names.iter().any(|word| name.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{fallback, headers, now, policy, request, response};

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn stored(policy: &CachePolicy, asked: Fields<'_>, code: u16, answered: Fields<'_>) -> Option<CacheMeta> {
        match admit(policy, &request(asked), &response(code, answered), now()) {
            Admission::Store(meta) => {
                assert_eq!(CopyInfo::of(&meta).kind, CopyKind::Standard);
                Some(meta)
            }
            Admission::KeepLastGood(meta) => {
                assert_eq!(CopyInfo::of(&meta).kind, CopyKind::LastGood);
                Some(meta)
            }
            Admission::Refuse(_) => None,
        }
    }

    #[test]
    fn a_stream_of_events_is_never_kept() {
        for kind in
            ["text/event-stream", "Text/Event-Stream; charset=utf-8", "multipart/x-mixed-replace;boundary=x"]
        {
            let fields = [("content-type", kind), ("cache-control", "max-age=60")];
            assert!(standard(200, &fields).is_none(), "{kind}");
            assert!(stored(&fallback(), &[], 200, &fields).is_none(), "{kind}");
        }
        assert!(standard(200, &[("content-type", "text/events"), ("cache-control", "max-age=60")]).is_some());
    }

    fn standard(code: u16, answered: Fields<'_>) -> Option<CacheMeta> {
        stored(&policy(), &[], code, answered)
    }

    fn is_fresh_after(meta: &CacheMeta, seconds: u64) -> bool {
        meta.is_fresh(now() + Duration::from_secs(seconds))
    }

    fn last_good_too() -> CachePolicy {
        CachePolicy { last_good: true, ..policy() }
    }

    /// Invariant 10, the part that no request can change: never stored, in either mode.
    #[test]
    fn what_is_private_is_never_stored_in_any_mode() {
        for forbidden in [
            ("cache-control", "no-store"),
            ("cache-control", "private"),
            ("cache-control", "Private=\"x-a\""),
            ("cache-control", "max-age=9, PRIVATE"),
            ("set-cookie", "a=b"),
            ("vary", "*"),
            ("vary", "accept, *"),
            ("vary", "X-Request-Id"),
        ] {
            let answered = [("cache-control", "public, s-maxage=60"), ("etag", "\"a\""), forbidden];
            for policy in [policy(), fallback(), last_good_too()] {
                assert!(stored(&policy, &[], 200, &answered).is_none(), "{forbidden:?}");
            }
        }
    }

    #[test]
    fn a_response_that_varies_by_a_credential_is_stored_for_requests_without_one() {
        for varied in ["Cookie", "accept-encoding,cookie", "authorization"] {
            let answered = [("cache-control", "public, max-age=60"), ("vary", varied)];
            for policy in [policy(), fallback()] {
                let meta = stored(&policy, &[], 200, &answered).unwrap();
                assert_eq!(CopyInfo::of(&meta).audience, Audience::WithoutCredentials);
                for personal in [("cookie", "a=1"), ("authorization", "x")] {
                    assert!(stored(&policy, &[personal], 200, &answered).is_none(), "{personal:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_said_to_be_private_is_stored_for_nobody_in_particular_where_a_route_overrides_it() {
        let overriding = |policy| CachePolicy { overrides: Forbids::PRIVATE, ..policy };
        let answered = [("cache-control", "private, max-age=60, public")];
        for policy in [policy(), fallback()] {
            assert!(stored(&policy, &[], 200, &answered).is_none());
            let policy = overriding(policy);
            let meta = stored(&policy, &[], 200, &answered).unwrap();
            assert_eq!(CopyInfo::of(&meta).audience, Audience::Anonymous);
            for personal in [("cookie", "a=1"), ("authorization", "x")] {
                assert!(stored(&policy, &[personal], 200, &answered).is_none(), "{personal:?}");
            }
            assert!(stored(&policy, &[], 200, &[answered[0], ("set-cookie", "a=b")]).is_none());
        }
    }

    /// RFC 9111 section 4.2.4 forbids stale use; RFC 5861: a window of the response itself lifts what `s-maxage` implies.
    #[test]
    fn section_4_2_4_what_forbids_stale_use_by_its_words() {
        let forbids = |control: &str| {
            let answered = [("cache-control", control), ("etag", "\"a\"")];
            CopyInfo::of(&stored(&policy(), &[], 200, &answered).unwrap()).forbids
        };
        assert_eq!(forbids("s-maxage=60"), Forbids::S_MAXAGE);
        assert_eq!(forbids("s-maxage=60, stale-while-revalidate=9"), Forbids::NOTHING);
        assert_eq!(forbids("s-maxage=60, stale-if-error=9"), Forbids::NOTHING);
        assert_eq!(forbids("s-maxage=60, stale-if-error=9, proxy-revalidate"), Forbids::MUST_REVALIDATE);
        assert_eq!(forbids("no-cache, s-maxage=60, stale-if-error=9"), Forbids::NO_CACHE);
    }

    #[test]
    fn a_last_good_response_that_could_never_be_served_is_not_kept() {
        let reason = |control: &str, overrides| {
            let answered = response(200, &[("cache-control", control), ("age", "10")]);
            let policy = CachePolicy { overrides, ..fallback() };
            match admit(&policy, &request(&[]), &answered, now()) {
                Admission::Refuse(reason) => Some(reason),
                Admission::Store(_) | Admission::KeepLastGood(_) => None,
            }
        };
        for (control, overrides, setting) in [
            ("no-cache", Forbids::NO_CACHE, "no_cache"),
            ("max-age=10, must-revalidate", Forbids::MUST_REVALIDATE, "must_revalidate"),
            ("s-maxage=10", Forbids::S_MAXAGE, "s_maxage"),
        ] {
            assert!(reason(control, Forbids::NOTHING).unwrap().contains(setting), "{control}");
            assert_eq!(reason(control, overrides), None, "{control}");
        }
        assert_eq!(reason("s-maxage=11", Forbids::NOTHING), None);
        assert_eq!(reason("max-age=11, must-revalidate", Forbids::NOTHING), None);
    }

    /// Invariant 10, by what the request shows: (answer's Cache-Control, standard, fallback), each for an
    /// anonymous request, one with a cookie, one with Authorization.
    #[test]
    fn a_personal_answer_is_stored_only_if_it_says_that_it_may_be_shared() {
        const EVERYONE: Option<Audience> = Some(Audience::Everyone);
        const ANONYMOUS: Option<Audience> = Some(Audience::Anonymous);
        let table = [
            ("public, max-age=60", [EVERYONE; 3], [EVERYONE; 3]),
            ("public", [EVERYONE; 3], [EVERYONE; 3]),
            ("s-maxage=60", [EVERYONE; 3], [EVERYONE; 3]),
            ("max-age=60", [EVERYONE, EVERYONE, None], [ANONYMOUS, None, None]),
            ("max-age=0", [ANONYMOUS, None, None], [ANONYMOUS, None, None]),
            ("no-cache", [ANONYMOUS, None, None], [None, None, None]),
            ("must-revalidate", [ANONYMOUS, None, None], [None, None, None]),
            ("max-age=60, must-revalidate", [EVERYONE, EVERYONE, None], [ANONYMOUS, None, None]),
            ("max-age=60, no-cache", [EVERYONE, EVERYONE, None], [None, None, None]),
            ("max-age=0, must-revalidate", [ANONYMOUS, None, None], [None, None, None]),
            ("", [ANONYMOUS, None, None], [ANONYMOUS, None, None]),
        ];
        let asked: [Fields<'_>; 3] = [&[], &[("cookie", "session=1")], &[("authorization", "Basic eDp5")]];
        for (control, in_standard, in_fallback) in table {
            let audience = |policy: &CachePolicy, asked: Fields<'_>| {
                let answered = [("cache-control", control), ("etag", "\"a\"")];
                stored(policy, asked, 200, &answered).map(|meta| CopyInfo::of(&meta).audience)
            };
            let mut standard = last_good_too();
            standard.ttl = vec![(200, Duration::from_secs(5))];
            for (at, asked) in asked.into_iter().enumerate() {
                assert_eq!(audience(&standard, asked), in_standard[at], "standard {control:?} {asked:?}");
                assert_eq!(audience(&fallback(), asked), in_fallback[at], "fallback {control:?} {asked:?}");
            }
        }
    }

    #[test]
    fn a_cookie_that_is_set_is_dropped_only_if_the_route_says_so() {
        let answered = [("cache-control", "public, max-age=60"), ("set-cookie", "a=b"), ("x-a", "1")];
        for policy in [policy(), fallback()] {
            assert!(stored(&policy, &[], 200, &answered).is_none());
            let dropping = CachePolicy { drops_set_cookie: true, ..policy };
            let meta = stored(&dropping, &[], 200, &answered).unwrap();
            assert!(!meta.headers().contains_key("set-cookie") && meta.headers().contains_key("x-a"));
        }
    }

    #[test]
    fn an_ignored_cookie_does_not_make_the_answer_personal() {
        let mut policy = fallback();
        policy.personal_cookies = crate::PersonalCookies::AllBut(vec![crate::NamePattern::parse("_ga*")]);
        let facts = RequestFacts::new(&http::Method::GET, &headers(&[("cookie", "_ga=1")]), &policy);
        assert!(matches!(admit(&policy, &facts, &response(200, &[]), now()), Admission::KeepLastGood(_)));
    }

    /// RFC 9111 section 3: the method is understood as cacheable; the request does not forbid storing (5.2.1.5).
    #[test]
    fn section_3_only_get_without_no_store_is_stored() {
        let answer = response(200, &[("cache-control", "public, max-age=60")]);
        for method in [http::Method::HEAD, http::Method::POST, http::Method::PUT] {
            let facts = RequestFacts::new(&method, &HeaderMap::new(), &policy());
            assert!(matches!(admit(&policy(), &facts, &answer, now()), Admission::Refuse(_)), "{method}");
        }
        let forbidden = request(&[("cache-control", "no-store")]);
        assert!(matches!(admit(&policy(), &forbidden, &answer, now()), Admission::Refuse(_)));
    }

    /// RFC 9111 section 3: any final status that says how long, but for those that are about one message or asker.
    #[test]
    fn section_3_statuses_that_are_stored() {
        let with_ttl = |code| CachePolicy { ttl: vec![(code, Duration::from_mins(1))], ..policy() };
        let never = [206, 304, 401, 407, 408, 412, 413, 416, 417, 421, 425, 428, 429, 431, 511];
        for code in 200..=599 {
            let explicit = standard(code, &[("cache-control", "max-age=60")]).is_some();
            let by_ttl = stored(&with_ttl(code), &[], code, &[]).is_some();
            assert_eq!(explicit, !never.contains(&code), "{code}");
            assert_eq!(by_ttl, !never.contains(&code), "{code}");
        }
    }

    /// RFC 9111 section 5.2.2.3.
    #[test]
    fn section_5_2_2_3_must_understand() {
        let control = |text| [("cache-control", text)];
        assert!(standard(200, &control("must-understand, no-store, max-age=60")).is_some());
        assert!(standard(599, &control("must-understand, max-age=60")).is_none());
        assert!(standard(599, &control("must-understand, no-store, max-age=60")).is_none());
        assert!(stored(&fallback(), &[], 200, &control("must-understand, no-store, max-age=60")).is_none());
    }

    /// RFC 9111 section 5.2.2.4.
    #[test]
    fn section_5_2_2_4_fields_that_no_cache_names_are_not_stored() {
        let answered = [("cache-control", "no-cache=\"x-a\", max-age=60"), ("x-a", "1"), ("x-b", "2")];
        let meta = standard(200, &answered).unwrap();
        assert!(is_fresh_after(&meta, 60));
        assert!(!meta.headers().contains_key("x-a") && meta.headers().contains_key("x-b"));
    }

    #[test]
    fn an_error_takes_the_place_of_an_error_alone() {
        for (status, forbids) in [(200, false), (404, false), (403, true), (500, true), (501, true)] {
            let info = CopyInfo::of(&standard(status, &[("cache-control", "max-age=60")]).unwrap());
            assert_eq!(info.forbids.any(), forbids, "{status}");
        }
        let may = |stored: u16, new: u16| {
            may_displace(StatusCode::from_u16(stored).unwrap(), StatusCode::from_u16(new).unwrap())
        };
        for error in [400, 403, 429, 500, 501, 503, 599] {
            for good in [200, 204, 301, 404, 410] {
                assert!(!may(good, error) && may(error, good), "{good} {error}");
            }
            assert!(may(error, 500));
        }
        assert!(may(200, 404) && may(404, 200) && may(200, 200));
    }

    /// RFC 9111 section 4.2.2 allows guessing; without a word of the route nobody does.
    #[test]
    fn section_4_2_2_without_a_word_about_freshness_nothing_is_stored() {
        assert!(standard(200, &[]).is_none());
        assert!(standard(200, &[("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT")]).is_none());
        assert!(standard(200, &[("cache-control", "public")]).is_none());
    }

    /// RFC 9111 sections 4.2 and 4.2.3.
    #[test]
    fn section_4_2_3_the_age_on_arrival_is_used_up() {
        let meta = standard(200, &[("cache-control", "max-age=60"), ("age", "20")]).unwrap();
        assert!(is_fresh_after(&meta, 40) && !is_fresh_after(&meta, 41));
        assert_eq!(meta.epoch(), now() - Duration::from_secs(20));
        assert_eq!(meta.created(), now());
        assert_eq!(meta.fresh_sec(), 60);
        assert!(standard(200, &[("cache-control", "max-age=60"), ("age", "60")]).is_none());
    }

    /// RFC 9111 section 1.2.2: the longest times overflow nothing.
    #[test]
    fn section_1_2_2_extreme_times_are_survived() {
        let huge = "99999999999999999999";
        let control = format!("max-age={huge}, stale-while-revalidate={huge}, stale-if-error={huge}");
        let meta = standard(200, &[("cache-control", &control)]).unwrap();
        assert!(is_fresh_after(&meta, 1 << 30));
        assert!(standard(200, &[("cache-control", "max-age=60"), ("age", huge)]).is_none());
        let meta =
            standard(200, &[("cache-control", "max-age=60"), ("age", huge), ("etag", "\"a\"")]).unwrap();
        assert!(!is_fresh_after(&meta, 0));
        for date in ["Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            let fields = [("cache-control", "max-age=60"), ("date", date), ("etag", "\"a\"")];
            assert!(standard(200, &fields).is_some(), "{date}");
        }
    }

    /// RFC 9111 section 5.2.2.4: kept, but never used without asking.
    #[test]
    fn section_5_2_2_4_no_cache_is_stored_and_never_fresh() {
        let meta = standard(200, &[("cache-control", "no-cache, max-age=60")]).unwrap();
        assert!(!is_fresh_after(&meta, 0));
        assert!(CopyInfo::of(&meta).forbids.any());
        assert_eq!(meta.stale_while_revalidate_sec(), 0);
    }

    /// RFC 9111 sections 4.2.4, 5.2.2.2, 5.2.2.8 and 5.2.2.10.
    #[test]
    fn section_4_2_4_some_directives_forbid_stale() {
        for (control, is_forbidden) in [
            ("max-age=60", false),
            ("max-age=60, must-revalidate", true),
            ("max-age=60, proxy-revalidate", true),
            ("s-maxage=60", true),
        ] {
            let info = CopyInfo::of(&standard(200, &[("cache-control", control)]).unwrap());
            assert_eq!(info.forbids.any(), is_forbidden, "{control}");
        }
    }

    /// RFC 5861: the response's own windows win, in standard mode only.
    #[test]
    fn rfc_5861_windows_of_the_response_win_in_standard_mode() {
        let updating = CachePolicy { use_stale: goodgate_failure::Words::of(&[Word::Updating]), ..policy() };
        let own = [("cache-control", "max-age=60, stale-while-revalidate=7, stale-if-error=8")];
        let plain = [("cache-control", "max-age=60")];
        let windows = |policy: &CachePolicy, answered: Fields<'_>| {
            let meta = stored(policy, &[], 200, answered).unwrap();
            assert_eq!(meta.stale_if_error_sec(), 0);
            let own = CopyInfo::of(&meta).stale_window.map(|window| window.as_secs());
            (meta.stale_while_revalidate_sec(), own)
        };
        assert_eq!(windows(&updating, &own), (7, Some(8)));
        assert_eq!(windows(&updating, &plain), (3600, None));
        assert_eq!(windows(&policy(), &plain), (0, None));
        assert_eq!(windows(&fallback(), &own), (0, None));
    }

    #[test]
    fn an_error_or_a_vanished_page_is_never_last_good() {
        for code in [206, 302, 304, 400, 403, 404, 410, 429, 500, 501, 502, 503, 504] {
            assert!(stored(&fallback(), &[], code, &[]).is_none(), "{code}");
        }
        for code in [200, 203, 204, 300, 301, 308] {
            assert!(stored(&fallback(), &[], code, &[]).is_some(), "{code}");
        }
    }

    #[test]
    fn standard_mode_keeps_last_good_only_what_it_cannot_store() {
        let kind = |answered: Fields<'_>| {
            stored(&last_good_too(), &[], 200, answered).map(|meta| CopyInfo::of(&meta).kind)
        };
        assert_eq!(kind(&[("cache-control", "max-age=60")]), Some(CopyKind::Standard));
        assert_eq!(kind(&[]), Some(CopyKind::LastGood));
        assert_eq!(kind(&[("cache-control", "max-age=0")]), Some(CopyKind::LastGood));
        let checked = [("cache-control", "max-age=0"), ("etag", "\"a\"")];
        assert_eq!(kind(&checked), Some(CopyKind::Standard));
        assert!(stored(&policy(), &[], 200, &[("cache-control", "max-age=0")]).is_none());
    }

    /// RFC 9111 section 3.1.
    #[test]
    fn section_3_1_fields_of_one_connection_are_not_stored() {
        let answered = [
            ("cache-control", "max-age=60"),
            ("connection", "x-hop, keep-alive"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ];
        let meta = standard(200, &answered).unwrap();
        let names: Vec<_> = meta.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(meta.headers().contains_key("x-kept"));
    }
}
