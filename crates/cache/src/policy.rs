//! What a route's cache is told to do: plain values, built by `config`, applied by this room and `proxy`.

use std::path::PathBuf;
use std::time::Duration;

use goodgate_failure::{Networks, Words};
use http::header::HeaderName;

use crate::cookies::same_folded;
use crate::{Forbids, KeyPolicy};

/// One store as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// Its name: a metric label. A reload changes limits, never the identity of a store of the same name.
    pub name: String,
    /// Bytes of memory for objects, headers and bookkeeping included.
    pub memory_bytes: u64,
    /// The largest object kept, body and header, in bytes.
    pub object_bytes_max: u64,
    /// The share of the space, in percent, that copies which were asked for again hold against those which were not.
    pub last_good_percent: u8,
    /// The tier under the memory.
    pub disk: Option<DiskSpec>,
}

/// The disk tier of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Its directory, of which no other store has a part.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
    /// The largest body kept, in bytes. What memory does not take goes to disk only.
    pub object_bytes_max: u64,
    /// As of the store.
    pub last_good_percent: u8,
    /// How soon a copy may be written again that nobody would miss: see `caches.*.disk.refresh`.
    pub refresh: Duration,
}

/// A route's `cache`.
#[derive(Clone, Debug)]
pub struct CachePolicy {
    /// Index into the configured stores.
    pub store: usize,
    /// When copies are served at all.
    pub mode: Mode,
    /// Also keep copies of what has no freshness, only for the case of failure.
    pub last_good: bool,
    /// For which failures an old copy may be served.
    pub use_stale: Words,
    /// How long past its freshness (a last-good copy: past its storing) a copy may be served for those.
    pub stale_for: Duration,
    /// Freshness by status where the response itself says nothing.
    pub ttl: Vec<(u16, Duration)>,
    /// How many hundredths of the time since its last change a response is taken to be fresh that says nothing
    /// itself; none: nothing is guessed.
    pub heuristic: Option<u8>,
    /// What makes two requests the same besides scheme, host, port and path.
    pub key: KeyPolicy,
    /// Which cookies make a request personal.
    pub personal_cookies: PersonalCookies,
    /// When a request with a personal cookie may get a response that was stored for a request without one.
    pub serve_anonymous: ServeAnonymous,
    /// Whether an answer that sets a cookie is stored, without it.
    pub drops_set_cookie: bool,
    /// A request with one of these fields neither reads nor fills the cache.
    pub bypass_headers: Vec<HeaderName>,
    /// What of a response's words against stale copies does not count in place of a failure.
    pub overrides: Forbids,
    /// From where `PURGE` is taken; empty: from nowhere, and the method is one like any other.
    pub purge_allow: Networks,
    /// Whether responses carry `Cache-Status` (RFC 9211).
    pub status_header: bool,
}

impl CachePolicy {
    /// A shared cache by RFC 9111 with nothing configured beyond that.
    pub fn standard() -> Self {
        Self {
            store: 0,
            mode: Mode::Standard,
            last_good: false,
            use_stale: Words::NONE,
            stale_for: Duration::ZERO,
            ttl: Vec::new(),
            heuristic: None,
            key: KeyPolicy::default(),
            personal_cookies: PersonalCookies::AllBut(Vec::new()),
            serve_anonymous: ServeAnonymous::Never,
            drops_set_cookie: false,
            bypass_headers: Vec::new(),
            overrides: Forbids::NOTHING,
            purge_allow: Networks::default(),
            status_header: false,
        }
    }
}

/// Which cookies make a request personal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersonalCookies {
    /// All but these.
    AllBut(Vec<NamePattern>),
    /// These and no others.
    Only(Vec<NamePattern>),
}

impl PersonalCookies {
    /// Whether a cookie of this name makes its request personal. A name that some program reads as another one is personal
    /// if either is.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::AllBut(ignored) => {
                let is_ignored = |name: &str| ignored.iter().any(|pattern| pattern.matches(name));
                !is_ignored(name) || name.contains('.') && !is_ignored(&name.replace('.', "_"))
            }
            Self::Only(personal) => personal.iter().any(|pattern| pattern.may_match(name)),
        }
    }
}

/// When a request with a personal cookie may get a response that was stored for a request without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeAnonymous {
    /// Never.
    Never,
    /// In place of a failure.
    Outage,
    /// Always. Where the response's `Vary` names `Cookie`, in place of a failure.
    Always,
}

/// When a copy is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A shared cache by RFC 9111.
    Standard,
    /// Nothing is served while a backend answers; copies are for the case of failure only.
    Fallback,
}

/// The name of a cookie or a parameter, or the beginning of one if it was written with a `*` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// Exactly this name.
    Exact(String),
    /// Every name that begins so.
    Prefix(String),
}

impl NamePattern {
    /// Reads `name` or `name*`.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    /// Whether the name matches. Cookie names are case-sensitive (RFC 6265).
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }

    /// Whether some program may read the name as one that matches: case does not count, and `.` is `_`.
    pub(crate) fn may_match(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => same_folded(name.as_bytes(), exact.as_bytes()),
            Self::Prefix(prefix) => {
                let begin = name.as_bytes().get(..prefix.len());
                begin.is_some_and(|begin| same_folded(begin, prefix.as_bytes()))
            }
        }
    }

    /// Whether it matches a name in lower case if its own case does not count either.
    pub(crate) fn matches_lower(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name.eq_ignore_ascii_case(exact),
            Self::Prefix(prefix) => name.starts_with(&prefix.to_ascii_lowercase()),
        }
    }
}
