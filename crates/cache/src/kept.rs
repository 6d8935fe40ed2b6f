//! What is kept of an answer besides its body, in the one form that memory and disk share: its times, who may see it,
//! and its head as the text that goes out.
//!
//! A header as a map of fields is several times as large as its text, and most copies are served without a look at
//! more than one of its fields. Times are nanoseconds of the wall clock: a copy's age goes on over a restart.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_cache::CacheMeta;
use pingora_cache::key::HashBinary;
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::ResponseHeader;

use crate::copy;
use crate::fields::{Fields, Header};
use crate::purge::{self, Mark};
use crate::vary::VaryBy;
use crate::{Audience, CopyInfo, CopyKind, Forbids, Generation, Standing};

// The flags: above those bits that say why it is kept, and for whom.
const VARIES: u16 = 1 << copy::INFO_BITS;
const HAS_WINDOW: u16 = VARIES << 1;
const HTTP_10: u16 = VARIES << 2;
const HAS_LENGTH: u16 = VARIES << 3;
const HAS_DATE: u16 = VARIES << 4;

/// The meta data of one copy.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) facts: Facts,
    /// None for an answer that neither varies nor has tags.
    extra: Option<Box<Extra>>,
    /// The status line and the fields, each with its line's end, as they go out. The line's end of the head is not there.
    head: Box<[u8]>,
}

/// What few answers have.
#[derive(Clone, Debug)]
struct Extra {
    vary_by: VaryBy,
    variance: Option<HashBinary>,
    tags: Box<[Mark]>,
}

/// The numbers among them: nanoseconds since 1970, and seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) fresh_until: u64,
    pub(crate) created: u64,
    pub(crate) epoch: u64,
    pub(crate) stored: u64,
    pub(crate) generation: u64,
    pub(crate) while_revalidate: u32,
    pub(crate) if_error: u32,
    /// `stale-if-error` of the response; of no meaning unless the flag says so.
    pub(crate) window: u32,
    pub(crate) flags: u16,
    pub(crate) status: u16,
}

impl Kept {
    /// What is to be kept of an answer.
    pub(crate) fn of(meta: &CacheMeta) -> Self {
        let info = CopyInfo::of(meta);
        let header = meta.response_header();
        let facts = Facts {
            fresh_until: nanos(meta.fresh_until()),
            created: nanos(meta.provenance()),
            epoch: nanos(meta.epoch()),
            stored: nanos(info.stored),
            generation: Generation::of(meta).number(),
            while_revalidate: meta.stale_while_revalidate_sec(),
            if_error: meta.stale_if_error_sec(),
            window: info.stale_window.map_or(0, |window| u32::try_from(window.as_secs()).unwrap_or(u32::MAX)),
            flags: flags(meta, &info),
            status: header.status.as_u16(),
        };
        Self { facts, extra: extra(header, meta.variance()), head: text_of(header) }
    }

    /// From what was written down; none if that is no such head.
    pub(crate) fn restored(facts: Facts, variance: HashBinary, head: &[u8]) -> Option<Self> {
        let is_head = head.starts_with(b"HTTP/1.1 ") && head.ends_with(b"\r\n") && lines(head).all(is_field);
        if !is_head || StatusCode::from_u16(facts.status).is_err() {
            return None;
        }
        let mut kept = Self { facts, extra: None, head: head.into() };
        let variance = (facts.flags & VARIES != 0).then_some(variance);
        kept.extra = extra(&kept, variance);
        Some(kept)
    }

    /// Status line and fields, each with its line's end.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The same as Pingora wants it.
    pub(crate) fn meta(&self) -> Result<CacheMeta> {
        let facts = &self.facts;
        let mut meta = CacheMeta::new(
            time(facts.fresh_until),
            time(facts.created),
            facts.while_revalidate,
            facts.if_error,
            self.header()?,
        );
        // Of the three times that Pingora keeps, provenance is set from `created` and from nothing else, and the time
        // of the last confirmation lives on in the epoch.
        meta.set_epoch_override(time(facts.epoch));
        if let Some(variance) = self.variance() {
            meta.set_variance(variance);
        }
        Generation::from_number(facts.generation).stamp(&mut meta);
        meta.extensions_mut().insert(self.info());
        Ok(meta)
    }

    /// The header as a map. It fails for no text that was made of a header.
    pub(crate) fn header(&self) -> Result<ResponseHeader> {
        let text = Bytes::copy_from_slice(&self.head);
        let mut header = ResponseHeader::build(self.status(), Some(lines(&text).count()))?;
        header.set_reason_phrase(Some(self.reason()))?;
        header.set_version(if self.is(HTTP_10) { Version::HTTP_10 } else { Version::HTTP_11 });
        for (name, value) in lines(&text).filter_map(split) {
            let value = HeaderValue::from_maybe_shared(text.slice_ref(value))
                .explain_err(ErrorType::InvalidHTTPHeader, |_| "a copy's head is damaged")?;
            header.append_header(text.slice_ref(name), value)?;
        }
        Ok(header)
    }

    fn reason(&self) -> &str {
        let line = self.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        line.get(STATUS_END..).and_then(|reason| std::str::from_utf8(reason).ok()).unwrap_or_default()
    }

    /// By what it is judged.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            info: self.info(),
            fresh_until: time(self.facts.fresh_until),
            epoch: time(self.facts.epoch),
        }
    }

    pub(crate) fn info(&self) -> CopyInfo {
        let (kind, audience, forbids) = self.bits();
        CopyInfo {
            kind,
            audience,
            forbids,
            stored: time(self.facts.stored),
            stale_window: self.is(HAS_WINDOW).then(|| Duration::from_secs(u64::from(self.facts.window))),
        }
    }

    fn bits(&self) -> (CopyKind, Audience, Forbids) {
        let [bits, _] = self.facts.flags.to_le_bytes();
        copy::of_bits(bits)
    }

    /// For which request it is among several.
    pub(crate) fn variance(&self) -> Option<HashBinary> {
        self.extra.as_ref()?.variance
    }

    /// The fields by which the answer varies.
    pub(crate) fn vary_by(&self) -> &VaryBy {
        self.extra.as_ref().map_or(&VaryBy::NOTHING, |extra| &extra.vary_by)
    }

    /// The tags that the answer names.
    pub(crate) fn tags(&self) -> &[Mark] {
        self.extra.as_ref().map_or(&[], |extra| &extra.tags)
    }

    pub(crate) fn is_standard(&self) -> bool {
        self.bits().0 == CopyKind::Standard
    }

    pub(crate) fn has_length(&self) -> bool {
        self.is(HAS_LENGTH)
    }

    pub(crate) fn has_date(&self) -> bool {
        self.is(HAS_DATE)
    }

    /// Ceases to be fresh just before `now`, if it has not before.
    pub(crate) fn expire(&mut self, now: SystemTime) {
        self.facts.fresh_until = self.facts.fresh_until.min(nanos(now).saturating_sub(MILLISECOND));
    }

    /// A copy that was stored later than now, by a clock that was ahead, is as old as one that ceases to be fresh now.
    pub(crate) fn limit_to(&mut self, now: SystemTime) {
        let now = nanos(now);
        if self.facts.stored > now {
            self.facts.stored = now;
            self.facts.epoch = self.facts.epoch.min(now);
            self.facts.fresh_until = self.facts.fresh_until.min(now.saturating_sub(MILLISECOND));
        }
    }

    fn is(&self, flag: u16) -> bool {
        self.facts.flags & flag != 0
    }
}

impl Fields for Kept {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let is_it = move |(held, _): &(&[u8], &[u8])| held.eq_ignore_ascii_case(name.as_bytes());
        lines(&self.head).filter_map(split).filter(is_it).map(|(_, value)| value)
    }
}

impl Header for Kept {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.facts.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

fn extra(response: &impl Fields, variance: Option<HashBinary>) -> Option<Box<Extra>> {
    let extra = Extra { vary_by: VaryBy::of(response), variance, tags: purge::tags(response) };
    let is_any = variance.is_some() || extra.vary_by != VaryBy::NOTHING || !extra.tags.is_empty();
    is_any.then(|| Box::new(extra))
}

/// Bytes that a header takes as text.
pub(crate) fn text_len(header: &ResponseHeader) -> u64 {
    let fields = header.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    (STATUS_END + 4 + fields.sum::<usize>()) as u64
}

/// Where the reason begins in a status line.
const STATUS_END: usize = "HTTP/1.1 200 ".len();

fn text_of(header: &ResponseHeader) -> Box<[u8]> {
    let mut text = Vec::with_capacity(1024);
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(header.status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(header.get_reason_phrase().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    header.header_to_h1_wire(&mut text);
    text.as_slice().into()
}

/// The lines of the fields. No name or value contains a line's end.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    let lines = std::iter::from_fn(move || {
        let end = memchr::memchr(b'\r', rest)?;
        let (line, behind) = rest.split_at_checked(end)?;
        rest = behind.get(2..).unwrap_or_default();
        Some(line)
    });
    lines.skip(1)
}

/// Name and value; no name contains a colon.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((line.get(..colon)?, line.get(colon + 2..)?))
}

fn is_field(line: &[u8]) -> bool {
    let is_sound = |(name, value): (&[u8], &[u8])| {
        HeaderName::from_bytes(name).is_ok() && HeaderValue::from_bytes(value).is_ok()
    };
    split(line).is_some_and(is_sound)
}

fn flags(meta: &CacheMeta, info: &CopyInfo) -> u16 {
    let headers = meta.headers();
    [
        (VARIES, meta.variance().is_some()),
        (HAS_WINDOW, info.stale_window.is_some()),
        (HTTP_10, meta.response_header().version == Version::HTTP_10),
        (HAS_LENGTH, headers.contains_key(header::CONTENT_LENGTH)),
        (HAS_DATE, headers.contains_key(header::DATE)),
    ]
    .into_iter()
    .filter_map(|(flag, is_set)| is_set.then_some(flag))
    .sum::<u16>()
        | u16::from(copy::bits(info.kind, info.audience, info.forbids))
}

/// In nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// Nanoseconds since 1970; what lies outside of 64 bits becomes the nearest that does not.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanos)).unwrap_or(SystemTime::UNIX_EPOCH)
}
