//! What a copy knows of itself beyond Pingora's meta data: why it is kept and who may see it.

use std::time::{Duration, SystemTime};

use pingora_cache::CacheMeta;

/// Why a copy is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    /// By RFC 9111: served while fresh.
    Standard,
    /// Only for the case of failure.
    LastGood,
}

/// Who may see a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The response itself says that it may be shared.
    Everyone,
    /// It says nothing, and was the answer to a request without a personal cookie and without `Authorization`.
    Anonymous,
    /// The same, and its `Vary` names `Cookie` or `Authorization`: it says that others get another response.
    WithoutCredentials,
}

/// What stands against serving a copy once it is stale, failure or not (RFC 9111 section 4.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forbids(u8);

impl Forbids {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// `no-cache`.
    pub const NO_CACHE: Self = Self(1);
    /// `must-revalidate` or `proxy-revalidate`.
    pub const MUST_REVALIDATE: Self = Self(2);
    /// It is an error: one that is over helps nobody.
    pub const ERROR: Self = Self(4);
    /// `s-maxage`, which implies `proxy-revalidate`.
    pub const S_MAXAGE: Self = Self(8);
    /// `private`. Such a response is stored only where a route overrides it, so that no stored response has this.
    pub const PRIVATE: Self = Self(16);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is left if these are overridden.
    #[must_use]
    pub const fn without(self, overridden: Self) -> Self {
        Self(self.0 & !overridden.0)
    }

    /// Whether there is anything.
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// What forbids it, and the setting that lifts it; none if nothing does.
    pub const fn reason(self) -> Option<&'static str> {
        if self.has(Self::ERROR) {
            return Some("it is an error response");
        }
        if self.has(Self::NO_CACHE) {
            return Some("`no-cache` forbids it; `cache.override: [no_cache]` lifts this");
        }
        if self.has(Self::MUST_REVALIDATE) {
            return Some(
                "`must-revalidate` or `proxy-revalidate` forbids it once stale; `cache.override: [must_revalidate]` lifts this",
            );
        }
        if self.has(Self::S_MAXAGE) {
            return Some("`s-maxage` forbids it once stale; `cache.override: [s_maxage]` lifts this");
        }
        None
    }

    /// Whether that is among it.
    pub const fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }
}

/// Rides in the extensions of a [`CacheMeta`]; put there by [`crate::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyInfo {
    /// Why it is kept.
    pub kind: CopyKind,
    /// Who may see it.
    pub audience: Audience,
    /// It must not be served once stale, failure or not.
    pub forbids: Forbids,
    /// When it was stored or last confirmed.
    pub stored: SystemTime,
    /// `stale-if-error` of the response: how long it may be served stale in place of `stale_for`.
    pub stale_window: Option<Duration>,
}

const LAST_GOOD: u8 = 1;
const FOR_EVERYONE: u8 = 2;
const WITHOUT_CREDENTIALS: u8 = 64;
/// What stands against a stale copy, and where it is written down.
const FORBIDS: [(u8, Forbids); 4] =
    [(4, Forbids::MUST_REVALIDATE), (8, Forbids::NO_CACHE), (16, Forbids::ERROR), (32, Forbids::S_MAXAGE)];

/// How many [`bits`] there are.
pub(crate) const INFO_BITS: u32 = 7;

/// All of a [`CopyInfo`] but its times, from its [`bits`].
pub(crate) fn of_bits(bits: u8) -> (CopyKind, Audience, Forbids) {
    let kind = if bits & LAST_GOOD == 0 { CopyKind::Standard } else { CopyKind::LastGood };
    let audience = if bits & WITHOUT_CREDENTIALS != 0 {
        Audience::WithoutCredentials
    } else if bits & FOR_EVERYONE != 0 {
        Audience::Everyone
    } else {
        Audience::Anonymous
    };
    let set = FORBIDS.into_iter().filter(|(bit, _)| bits & bit != 0);
    (kind, audience, set.fold(Forbids::NOTHING, |all, (_, one)| all.and(one)))
}

/// All of a [`CopyInfo`] but its times as it is written down: on disk it must mean the same in the next process.
pub(crate) fn bits(kind: CopyKind, audience: Audience, forbids: Forbids) -> u8 {
    let kind = if kind == CopyKind::LastGood { LAST_GOOD } else { 0 };
    let audience = match audience {
        Audience::Everyone => FOR_EVERYONE,
        Audience::Anonymous => 0,
        Audience::WithoutCredentials => WITHOUT_CREDENTIALS,
    };
    let set = FORBIDS.into_iter().filter(|(_, one)| forbids.has(*one));
    kind | audience | set.map(|(bit, _)| bit).sum::<u8>()
}

/// By what a copy is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Why it is kept and who may see it.
    pub info: CopyInfo,
    /// The last moment at which it is fresh.
    pub fresh_until: SystemTime,
    /// When its age was zero.
    pub epoch: SystemTime,
}

impl Standing {
    /// That of a stored response.
    pub fn of(meta: &CacheMeta) -> Self {
        Self { info: CopyInfo::of(meta), fresh_until: meta.fresh_until(), epoch: meta.epoch() }
    }

    /// Whether it is fresh at this moment. At a moment before it was stored nothing is known of its age.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        self.fresh_until >= now && self.info.stored <= now
    }

    /// Its age as in the `Age` field (RFC 9111 section 4.2.3); zero where the clock was set back.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.epoch).unwrap_or(Duration::ZERO)
    }
}

impl CopyInfo {
    /// The info of a stored response. Meta data that did not come from [`crate::admit`] gets the strictest one.
    pub fn of(meta: &CacheMeta) -> Self {
        meta.extensions().get().copied().unwrap_or_else(|| Self {
            kind: CopyKind::Standard,
            audience: Audience::Anonymous,
            forbids: Forbids::ERROR,
            stored: meta.updated(),
            stale_window: None,
        })
    }
}
