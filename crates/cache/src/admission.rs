//! May this answer be kept (RFC 9111 section 3, and the privacy rule of the room map)?
//!
//! Three verdicts: keep it by the standard, keep it only for the case of failure, or not at all. Privacy comes
//! first and in either mode. An error never becomes a copy, so it never displaces a good one. Pingora's own
//! stale-on-error is always off: `serving` decides that, with the cause at hand.

use std::time::{Duration, SystemTime};

use goodgate_failure::Word;
use http::{HeaderMap, HeaderName, StatusCode, header};
use pingora_cache::CacheMeta;
use pingora_http::ResponseHeader;

use crate::directives::{Directives, Elements, Flag};
use crate::freshness::{Lifetime, age_on_arrival};
use crate::{Audience, CachePolicy, CopyInfo, CopyKind, Mode, RequestFacts};

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
    now: SystemTime,
) -> Admission {
    let answer = Answer { policy, request, response, directives: Directives::of(&response.headers), now };
    answer.verdict().unwrap_or_else(Admission::Refuse)
}

struct Answer<'a> {
    policy: &'a CachePolicy,
    request: &'a RequestFacts,
    response: &'a ResponseHeader,
    directives: Directives,
    now: SystemTime,
}

impl Answer<'_> {
    fn verdict(&self) -> Result<Admission, &'static str> {
        self.check_request()?;
        self.check_privacy()?;
        match self.policy.mode {
            Mode::Fallback => self.last_good(),
            Mode::Standard => self.standard().or_else(|reason| {
                if self.policy.last_good { self.last_good().map_err(|_| reason) } else { Err(reason) }
            }),
        }
    }

    fn check_request(&self) -> Result<(), &'static str> {
        if !self.request.is_get {
            return Err("the method is not GET");
        }
        if self.request.bypasses() {
            return Err("the request bypasses the cache");
        }
        Ok(())
    }

    /// What is never stored, in either mode.
    fn check_privacy(&self) -> Result<(), &'static str> {
        if self.directives.has(Flag::NoStore) {
            return Err("no-store");
        }
        if self.directives.has(Flag::Private) {
            return Err("private");
        }
        if self.response.headers.contains_key(header::SET_COOKIE) {
            return Err("Set-Cookie");
        }
        if varies_by_person(&self.response.headers) {
            return Err("Vary names * or a credential");
        }
        Ok(())
    }

    fn standard(&self) -> Result<Admission, &'static str> {
        let status = self.response.status;
        let lifetime =
            Lifetime::of(self.policy, status, &self.response.headers, &self.directives, self.now);
        let lifetime = match lifetime {
            Some(Lifetime::Configured(_)) if needs_explicit_freshness(status) => None,
            other => other,
        };
        if !is_cacheable(status) {
            return Err("the status is not cacheable");
        }
        let audience = self.audience(lifetime)?;
        if self.directives.has(Flag::NoCache) {
            return Ok(Admission::Store(self.meta(CopyKind::Standard, audience, Duration::ZERO)));
        }
        let lifetime = lifetime.ok_or("nothing says how long it is fresh")?.duration();
        if lifetime <= age_on_arrival(&self.response.headers) && !self.has_validator() {
            return Err("it is not fresh and has no validator");
        }
        Ok(Admission::Store(self.meta(CopyKind::Standard, audience, lifetime)))
    }

    fn last_good(&self) -> Result<Admission, &'static str> {
        if !is_good(self.response.status) {
            return Err("the status is not that of a good answer");
        }
        let audience = self.audience(None)?;
        Ok(Admission::KeepLastGood(self.meta(CopyKind::LastGood, audience, Duration::ZERO)))
    }

    /// Who may see the copy; an error if the answer to a personal request does not say that it may be shared. A
    /// lifetime that is already over (`max-age=0`) says no such thing.
    fn audience(&self, lifetime: Option<Lifetime>) -> Result<Audience, &'static str> {
        let is_shared = self.directives.has(Flag::Public) || self.directives.s_maxage.is_some();
        let is_explicit = matches!(lifetime, Some(Lifetime::Explicit(lifetime)) if !lifetime.is_zero());
        if self.request.is_authorized && !is_shared {
            return Err("the request has Authorization and the response does not say that it may be shared");
        }
        if self.request.is_personal && !is_shared && !is_explicit {
            return Err("the request has a cookie and the response does not say that it may be shared");
        }
        Ok(if is_shared || is_explicit { Audience::Everyone } else { Audience::Anonymous })
    }

    /// `stale-while-revalidate` and `stale-if-error` of the response count in standard mode only.
    fn meta(&self, kind: CopyKind, audience: Audience, lifetime: Duration) -> CacheMeta {
        let heeds_response = self.policy.mode == Mode::Standard;
        let info = CopyInfo {
            kind,
            audience,
            stale_forbidden: self.is_stale_forbidden(),
            stored: self.now,
            stale_window: self.directives.stale_if_error.filter(|_| heeds_response),
        };
        let updating = self.updating_window(info.stale_forbidden);
        let epoch = self.now.checked_sub(age_on_arrival(&self.response.headers)).unwrap_or(SystemTime::UNIX_EPOCH);
        let fresh_until = self.fresh_until(epoch, lifetime);
        let header = without_hop_by_hop(self.response);
        let mut meta = CacheMeta::new(fresh_until, self.now, updating, 0, header);
        meta.set_epoch_override(epoch);
        meta.extensions_mut().insert(info);
        meta
    }

    /// A copy that was never fresh ceased to be so before it came: Pingora counts the very instant as fresh.
    fn fresh_until(&self, epoch: SystemTime, lifetime: Duration) -> SystemTime {
        let until = epoch.checked_add(lifetime).unwrap_or(self.now);
        if until > self.now {
            return until;
        }
        until.min(self.now.checked_sub(JUST_BEFORE).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    fn updating_window(&self, stale_forbidden: bool) -> u32 {
        let own = self.directives.stale_while_revalidate.filter(|_| self.policy.mode == Mode::Standard);
        let configured = self.policy.use_stale.contains(Word::Updating).then_some(self.policy.stale_for);
        let window = own.or(configured).filter(|_| !stale_forbidden).unwrap_or(Duration::ZERO);
        u32::try_from(window.as_secs()).unwrap_or(u32::MAX)
    }

    /// RFC 9111 sections 4.2.4 and 5.2.2.10: `s-maxage` implies `proxy-revalidate`.
    fn is_stale_forbidden(&self) -> bool {
        [Flag::NoCache, Flag::MustRevalidate, Flag::ProxyRevalidate]
            .into_iter()
            .any(|flag| self.directives.has(flag))
            || self.directives.s_maxage.is_some()
    }

    fn has_validator(&self) -> bool {
        self.response.headers.contains_key(header::ETAG)
            || self.response.headers.contains_key(header::LAST_MODIFIED)
    }
}

const JUST_BEFORE: Duration = Duration::from_millis(1);

/// Final statuses that this cache understands (RFC 9110 section 15.1, RFC 9111 section 3).
fn is_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 302 | 307 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Temporary redirects live only as long as they say themselves.
fn needs_explicit_freshness(status: StatusCode) -> bool {
    matches!(status.as_u16(), 302 | 307)
}

/// Answers worth having in an outage. Not 404 or 410: a page that vanished by mistake must not displace its copy.
fn is_good(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308)
}

fn varies_by_person(headers: &HeaderMap) -> bool {
    headers.get_all(header::VARY).iter().flat_map(Elements::of).any(|name| {
        [b"*".as_slice(), b"cookie", b"authorization"].iter().any(|word| name.eq_ignore_ascii_case(word))
    })
}

/// RFC 9111 section 3.1: what belongs to one connection is not stored.
fn without_hop_by_hop(response: &ResponseHeader) -> ResponseHeader {
    let mut header = response.clone();
    for name in response.headers.keys().filter(|name| is_hop_by_hop(name, &response.headers)) {
        header.remove_header(name);
    }
    header
}

/// Whether the field belongs to one connection: by its nature, or because `Connection` names it.
pub(crate) fn is_hop_by_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
        || headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(Elements::of)
            .any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
