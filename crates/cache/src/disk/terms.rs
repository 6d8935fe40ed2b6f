//! What the index knows of a copy without reading it: why it is kept, for whom, and how long it is good for.
//!
//! It is told by the journal, and it is what says beforehand whether a copy on disk would answer in an outage.

use std::time::{Duration, SystemTime};

use super::bytes::Take;
use super::key::whole_seconds;
use crate::copy;
use crate::{Audience, CopyInfo, CopyKind, Forbids, Standing};

/// In place of a `stale-if-error`.
const NO_WINDOW: u32 = u32::MAX;

/// The terms of one copy. Packed: there is one for each copy on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed)]
pub(super) struct Terms {
    pub(super) kind: CopyKind,
    audience: Audience,
    forbids: Forbids,
    /// For how many seconds it was fresh when it was stored.
    pub(super) fresh_for: u32,
    /// Its `stale-if-error` in seconds, or none.
    stale_window: u32,
}

impl Terms {
    /// Of something that is no copy.
    pub(super) const NONE: Self = Self {
        kind: CopyKind::Standard,
        audience: Audience::Anonymous,
        forbids: Forbids::NOTHING,
        fresh_for: 0,
        stale_window: NO_WINDOW,
    };

    pub(super) fn of(copy: &Standing) -> Self {
        let info = &copy.info;
        let fresh_for = copy.fresh_until.duration_since(info.stored).unwrap_or_default();
        let window =
            |window: Duration| u32::try_from(window.as_secs()).unwrap_or(NO_WINDOW).min(NO_WINDOW - 1);
        Self {
            kind: info.kind,
            audience: info.audience,
            forbids: info.forbids,
            fresh_for: whole_seconds(fresh_for),
            stale_window: info.stale_window.map_or(NO_WINDOW, window),
        }
    }

    /// The same as it is known of a copy that was read.
    pub(super) fn info(self, stored: SystemTime) -> CopyInfo {
        let window = Duration::from_secs(u64::from(self.stale_window));
        CopyInfo {
            kind: self.kind,
            audience: self.audience,
            forbids: self.forbids,
            stored,
            stale_window: Some(window).filter(|_| self.stale_window != NO_WINDOW),
        }
    }

    /// The flags of an entry.
    pub(super) fn flags(self) -> u8 {
        copy::bits(self.kind, self.audience, self.forbids)
    }

    /// The spans of an entry, behind its numbers.
    pub(super) fn spans(self) -> [u32; 2] {
        // Turned around, so that zero, which fills an entry, says that there is none.
        [self.fresh_for, NO_WINDOW - self.stale_window]
    }

    /// Reads both again.
    pub(super) fn read(flags: u8, take: &mut Take<'_>) -> Option<Self> {
        let (kind, audience, forbids) = copy::of_bits(flags);
        Some(Self { kind, audience, forbids, fresh_for: take.u32()?, stale_window: NO_WINDOW - take.u32()? })
    }
}
