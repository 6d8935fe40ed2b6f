//! One complete copy: immutable but for the mark of use and the note of a failed refresh.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use goodgate_failure::Cause;
use http::StatusCode;
use pingora_cache::CacheMeta;
use pingora_error::Result;
use pingora_http::ResponseHeader;

use super::body::Body;
use super::hit::BodyReader;
use super::last_failure::LastFailure;
use super::meta::CopyId;
use crate::fields::{Fields, Header};
use crate::kept::Kept;
use crate::purge::Generation;
use crate::sent::SentRequest;
use crate::{CopyInfo, Standing, may_displace};

/// It is for the case of failure alone, see [`StoredCopy::outlive`].
const OUTLIVED: u8 = 1;
/// The last response to a request for it was that there is no such page.
const MISSING: u8 = 2;

pub(crate) struct Object {
    pub(crate) kept: Kept,
    pub(super) id: CopyId,
    pub(crate) body: Body,
    /// What it weighs besides its body in memory.
    base: u32,
    failure: LastFailure,
    /// The number of the last purge that is known not to concern it.
    settled: AtomicU64,
    visited: AtomicBool,
    /// The next visit is no use of its own: the copy was read from disk for it.
    is_expected: AtomicBool,
    /// [`OUTLIVED`], [`MISSING`].
    marks: AtomicU8,
    /// Stored by a process before this one.
    is_foreign: bool,
}

impl Object {
    /// `weight` is what has been reserved for it.
    pub(super) fn new(kept: Kept, id: u64, body: Body, weight: u64) -> Self {
        Self {
            settled: AtomicU64::new(kept.facts.generation),
            kept,
            id: CopyId(id),
            base: u32::try_from(weight.saturating_sub(body.weight())).unwrap_or(u32::MAX),
            body,
            failure: LastFailure::default(),
            visited: AtomicBool::new(false),
            is_expected: AtomicBool::new(false),
            marks: AtomicU8::new(0),
            is_foreign: false,
        }
    }

    /// The same copy with other meta data: a confirmed or an expired one.
    pub(super) fn with_kept(&self, kept: Kept, weight: u64) -> Self {
        let is_same_response = kept.facts.generation == self.kept.facts.generation;
        let mut copy = Self::new(kept, self.id.0, self.body.clone(), weight);
        copy.is_foreign = self.is_foreign && is_same_response;
        copy.visited.store(self.visited.load(Ordering::Relaxed), Ordering::Relaxed);
        copy
    }

    /// Its place in the order of this process is not known: any response that comes now is newer.
    pub(super) fn forget_order(&mut self) {
        self.is_foreign = true;
    }

    /// Whether it was asked for after the other one, which must not replace it then. An error gives way to anything.
    pub(super) fn outranks(&self, other: &Self) -> bool {
        self.is_asked_after(other.kept.facts.generation)
            && self.body.is_sound()
            && may_displace(other.kept.status(), self.kept.status())
    }

    /// Whether it was asked for after the request with this number.
    pub(super) fn is_asked_after(&self, asked: u64) -> bool {
        !self.is_foreign && self.kept.facts.generation > asked
    }

    /// The address has changed since this was asked for: it is for the case of failure.
    pub(super) fn outdate(&mut self, now: SystemTime) {
        self.kept.expire(now);
        self.outlive();
    }

    /// What it weighs besides its body.
    pub(super) fn base(&self) -> u64 {
        u64::from(self.base)
    }

    /// What is reserved for it.
    pub(crate) fn weight(&self) -> u64 {
        self.base() + self.body.weight()
    }

    /// Its meta data as Pingora wants it.
    pub(super) fn meta(&self) -> Result<CacheMeta> {
        let mut meta = self.kept.meta()?;
        meta.extensions_mut().insert(self.id);
        Ok(meta)
    }

    /// Notes that there is no such page any more, by the backend's word. Whether it has said so before.
    pub(super) fn note_missing(&self) -> bool {
        self.marks.fetch_or(MISSING, Ordering::Relaxed) & MISSING != 0
    }

    /// See [`StoredCopy::outlive`].
    pub(super) fn outlive(&self) {
        self.marks.fetch_or(OUTLIVED, Ordering::Relaxed);
    }

    /// The number of the last purge that is known not to concern it.
    pub(super) fn settled(&self) -> Generation {
        Generation::from_number(self.settled.load(Ordering::Relaxed))
    }

    /// No purge up to this one concerns it any more.
    pub(super) fn settle(&self, generation: Generation) {
        self.settled.store(generation.number(), Ordering::Relaxed);
    }

    /// The next visit does not count.
    pub(super) fn expect_visit(&self) {
        self.is_expected.store(true, Ordering::Relaxed);
    }

    pub(super) fn visit(&self) {
        if self.is_expected.load(Ordering::Relaxed) {
            self.is_expected.store(false, Ordering::Relaxed);
            return;
        }
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the last call.
    pub(super) fn take_visit(&self) -> bool {
        self.visited.swap(false, Ordering::Relaxed)
    }
}

/// A complete copy found in a store. A clone is cheap, and stays whole whatever becomes of the store.
#[derive(Clone)]
pub struct StoredCopy(pub(super) Arc<Object>);

impl StoredCopy {
    /// By what it is judged.
    pub fn standing(&self) -> Standing {
        self.0.kept.standing()
    }

    /// Why it is kept, and for whom.
    pub fn info(&self) -> CopyInfo {
        self.0.kept.info()
    }

    /// Its header as a map of its own.
    pub fn header(&self) -> Result<ResponseHeader> {
        self.0.kept.header()
    }

    /// Status line and fields of the answer as they go out, each with its line's end.
    pub fn head(&self) -> &[u8] {
        self.0.kept.head()
    }

    /// Whether the head says when the answer was made.
    pub fn has_date(&self) -> bool {
        self.0.kept.has_date()
    }

    /// Whether the head says how long the body is.
    pub fn has_length(&self) -> bool {
        self.0.kept.has_length()
    }

    /// Header and times as Pingora wants them.
    #[cfg(test)]
    pub(crate) fn meta(&self) -> CacheMeta {
        self.0.meta().unwrap()
    }

    /// A reader of the body, from its first byte.
    pub fn read(&self) -> BodyReader {
        BodyReader::new(Arc::clone(&self.0))
    }

    /// A reader of these bytes of the body; of none if there are none.
    pub fn read_part(&self, bytes: Range<usize>) -> Result<BodyReader> {
        let mut reader = self.read();
        reader.seek(bytes.start, Some(bytes.end))?;
        Ok(reader)
    }

    /// Whether the whole body is at hand.
    pub fn is_in_memory(&self) -> bool {
        self.0.body.is_in_memory()
    }

    /// The body's length in bytes.
    pub fn body_len(&self) -> usize {
        self.0.body.len()
    }

    /// Gives meta data the variance of this copy.
    pub(super) fn mark(&self, meta: &mut CacheMeta) {
        match self.0.kept.variance() {
            Some(variance) => meta.set_variance(variance),
            None => meta.remove_variance(),
        }
    }

    /// Whether that is the same copy, perhaps with newer meta data.
    pub(super) fn is(&self, object: &Object) -> bool {
        self.0.id == object.id
    }

    /// Notes that asking for a newer answer failed.
    pub fn refresh_failed(&self, cause: Cause, now: Instant) {
        self.0.failure.set(cause, now);
    }

    /// Notes that the backend answers again, though this copy was not replaced.
    pub fn refresh_succeeded(&self) {
        self.0.failure.clear();
    }

    /// Notes that the backend has given a good answer that may not be kept: from now on the copy is only for
    /// the case of failure, and must not be served while it is refreshed, which will not happen.
    pub fn outlive(&self) {
        self.0.outlive();
    }

    /// Whether [`StoredCopy::outlive`] was called.
    pub fn is_outlived(&self) -> bool {
        self.0.marks.load(Ordering::Relaxed) & OUTLIVED != 0
    }

    /// Why the last refresh failed, within [`super::REFRESH_BACKOFF`] of it.
    pub fn refresh_failure(&self, now: Instant) -> Option<Cause> {
        self.0.failure.recent(now)
    }

    /// Until how long past its freshness it may be served while it is refreshed.
    pub fn while_revalidate(&self) -> Duration {
        Duration::from_secs(u64::from(self.0.kept.facts.while_revalidate))
    }

    /// Whether the caller is to refresh it: nobody does, and it has not failed a moment ago.
    pub fn begin_refresh(&self, now: Instant) -> bool {
        self.0.failure.begin_refresh(now, super::FILL_WAIT)
    }

    /// Whether a request with these fields is for this variant.
    pub fn is_variant_of(&self, request: &dyn SentRequest) -> bool {
        self.0.kept.vary_by().variance(request) == self.0.kept.variance()
    }

    /// As [`StoredCopy::refresh_failure`], but when the back-off is over only the first caller is told so: it is
    /// the one to ask, and the others have another back-off to wait.
    pub fn claim_refresh(&self, now: Instant) -> Option<Cause> {
        self.0.failure.claim(now)
    }
}

impl Fields for StoredCopy {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.kept.all(name)
    }
}

impl Header for StoredCopy {
    fn status(&self) -> StatusCode {
        self.0.kept.status()
    }
}

impl fmt::Debug for StoredCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredCopy")
            .field("info", &self.0.kept.info())
            .field("body_len", &self.0.body.len())
            .finish()
    }
}
