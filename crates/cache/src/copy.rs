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
}

/// Rides in the extensions of a [`CacheMeta`]; put there by [`crate::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyInfo {
    /// Why it is kept.
    pub kind: CopyKind,
    /// Who may see it.
    pub audience: Audience,
    /// It must not be served once stale, failure or not.
    pub stale_forbidden: bool,
    /// When it was stored or last confirmed.
    pub stored: SystemTime,
    /// `stale-if-error` of the response: how long it may be served stale in place of `stale_for`.
    pub stale_window: Option<Duration>,
}

impl CopyInfo {
    /// The info of a stored response. Meta data that did not come from [`crate::admit`] gets the strictest one.
    pub fn of(meta: &CacheMeta) -> Self {
        meta.extensions().get().copied().unwrap_or_else(|| Self {
            kind: CopyKind::Standard,
            audience: Audience::Anonymous,
            stale_forbidden: true,
            stored: meta.updated(),
            stale_window: None,
        })
    }
}
