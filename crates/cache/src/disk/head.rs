//! What precedes a body in a record: the whole key, the response's header, its times, and who may see it.
//!
//! The form is our own and carries a number, so that a later one is told apart. Times are nanoseconds of the
//! wall clock: a copy's age goes on over a restart.

use std::time::{Duration, SystemTime};

use http::Version;
use pingora_cache::CacheMeta;
use pingora_http::{HeaderNameVariant, ResponseHeader};

use super::bytes::{Take, put_framed};
use crate::{Audience, CopyInfo, CopyKind, Forbids, Generation};

/// The number of this form.
const FORM: u8 = 1;

const LAST_GOOD: u8 = 1;
const FOR_EVERYONE: u8 = 2;
const MUST_REVALIDATE: u8 = 4;
const VARIES: u8 = 8;
const HAS_WINDOW: u8 = 16;
const HTTP_10: u8 = 32;
const NO_CACHE: u8 = 64;
const IS_ERROR: u8 = 128;

/// The key and meta data of one copy.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) key: Vec<u8>,
    pub(super) meta: CacheMeta,
}

/// Writes the head of a record.
pub(super) fn encode(key: &[u8], meta: &CacheMeta) -> Vec<u8> {
    let info = CopyInfo::of(meta);
    let mut to = Vec::with_capacity(512 + key.len());
    to.push(FORM);
    to.push(flags(meta, &info));
    put_framed(&mut to, key);
    for time in [meta.fresh_until(), meta.provenance(), meta.epoch(), info.stored] {
        to.extend(nanos(time).to_le_bytes());
    }
    to.extend(meta.stale_while_revalidate_sec().to_le_bytes());
    to.extend(meta.stale_if_error_sec().to_le_bytes());
    to.extend(meta.variance().unwrap_or_default());
    to.extend(info.stale_window.unwrap_or_default().as_secs().to_le_bytes());
    to.extend(Generation::of(meta).number().to_le_bytes());
    put_header(&mut to, meta.response_header());
    to
}

/// Reads it again; none if it is not what [`encode`] writes.
pub(super) fn decode(bytes: &[u8]) -> Option<Head> {
    let mut take = Take::new(bytes);
    if take.u8()? != FORM {
        return None;
    }
    let flags = take.u8()?;
    let key = take.framed()?.to_vec();
    let [fresh_until, provenance, epoch, stored] =
        [time(&mut take)?, time(&mut take)?, time(&mut take)?, time(&mut take)?];
    let (while_revalidate, if_error) = (take.u32()?, take.u32()?);
    let variance = take.array()?;
    let window = Duration::from_secs(take.u64()?);
    let generation = Generation::from_number(take.u64()?);
    let header = header(&mut take, flags)?;
    if !take.is_empty() {
        return None;
    }
    let mut meta = CacheMeta::new(fresh_until, provenance, while_revalidate, if_error, header);
    meta.set_epoch_override(epoch);
    if flags & VARIES != 0 {
        meta.set_variance(variance);
    }
    generation.stamp(&mut meta);
    meta.extensions_mut().insert(CopyInfo {
        kind: if flags & LAST_GOOD == 0 { CopyKind::Standard } else { CopyKind::LastGood },
        audience: if flags & FOR_EVERYONE == 0 { Audience::Anonymous } else { Audience::Everyone },
        forbids: forbids(flags),
        stored,
        stale_window: (flags & HAS_WINDOW != 0).then_some(window),
    });
    Some(Head { key, meta })
}

/// The key alone.
pub(super) fn key_of(bytes: &[u8]) -> Option<&[u8]> {
    let mut take = Take::new(bytes);
    take.bytes(2)?;
    take.framed()
}

fn flags(meta: &CacheMeta, info: &CopyInfo) -> u8 {
    [
        (LAST_GOOD, info.kind == CopyKind::LastGood),
        (FOR_EVERYONE, info.audience == Audience::Everyone),
        (MUST_REVALIDATE, info.forbids.has(Forbids::MUST_REVALIDATE)),
        (NO_CACHE, info.forbids.has(Forbids::NO_CACHE)),
        (IS_ERROR, info.forbids.has(Forbids::ERROR)),
        (VARIES, meta.variance().is_some()),
        (HAS_WINDOW, info.stale_window.is_some()),
        (HTTP_10, meta.response_header().version == Version::HTTP_10),
    ]
    .into_iter()
    .filter_map(|(flag, is_set)| is_set.then_some(flag))
    .sum()
}

fn forbids(flags: u8) -> Forbids {
    [(MUST_REVALIDATE, Forbids::MUST_REVALIDATE), (NO_CACHE, Forbids::NO_CACHE), (IS_ERROR, Forbids::ERROR)]
        .into_iter()
        .filter_map(|(flag, one)| (flags & flag != 0).then_some(one))
        .fold(Forbids::NOTHING, Forbids::and)
}

/// Nanoseconds since 1970; what lies outside of 64 bits becomes the nearest that does not.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn time(take: &mut Take<'_>) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(take.u64()?))
}

fn put_header(to: &mut Vec<u8>, header: &ResponseHeader) {
    to.extend(header.status.as_u16().to_le_bytes());
    put_framed(to, header.get_reason_phrase().unwrap_or_default().as_bytes());
    to.extend(u16::try_from(header.headers.len()).unwrap_or(u16::MAX).to_le_bytes());
    // The closure cannot fail, so neither does the walk.
    let _infallible = header.map(|name, value| {
        match name {
            HeaderNameVariant::Case(name) => put_framed(to, name.as_slice()),
            HeaderNameVariant::Titled(name) => put_framed(to, name.as_bytes()),
        }
        put_framed(to, value.as_bytes());
        Ok(())
    });
}

fn header(take: &mut Take<'_>, flags: u8) -> Option<ResponseHeader> {
    let status = take.u16()?;
    let reason = std::str::from_utf8(take.framed()?).ok()?;
    let fields = take.u16()?;
    let mut header = ResponseHeader::build(status, Some(usize::from(fields).min(FIELDS_FORESEEN))).ok()?;
    if Some(reason) != header.get_reason_phrase() {
        header.set_reason_phrase(Some(reason)).ok()?;
    }
    header.set_version(if flags & HTTP_10 == 0 { Version::HTTP_11 } else { Version::HTTP_10 });
    for _ in 0..fields {
        let name = std::str::from_utf8(take.framed()?).ok()?.to_owned();
        header.append_header(name, take.framed()?).ok()?;
    }
    Some(header)
}

/// For so many fields room is made at once, whatever their number claims to be.
const FIELDS_FORESEEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{fallback, now, policy, request, response};
    use crate::{Admission, CachePolicy, admit};

    fn meta(policy: &CachePolicy, fields: &[(&str, &str)]) -> CacheMeta {
        match admit(policy, &request(&[]), &response(200, fields), now()) {
            Admission::Store(meta) | Admission::KeepLastGood(meta) => meta,
            Admission::Refuse(why) => panic!("{why}"),
        }
    }

    #[test]
    fn everything_that_a_copy_knows_comes_back() {
        let fields: [&[(&str, &str)]; 3] = [
            &[("cache-control", "max-age=60, stale-if-error=7, public"), ("age", "9"), ("etag", "\"x\"")],
            &[
                ("Cache-Control", "max-age=60, must-revalidate"),
                ("Vary", "accept"),
                ("X-A", "1"),
                ("X-A", "2"),
            ],
            &[("Expires", "0"), ("x-bytes", "\t~")],
        ];
        for (policy, fields) in [(policy(), fields[0]), (policy(), fields[1]), (fallback(), fields[2])] {
            let mut before = meta(&policy, fields);
            if before.headers().contains_key("vary") {
                before.set_variance([7; 16]);
            }
            let Head { key, meta: after } = decode(&encode(b"key", &before)).unwrap();
            assert_eq!(key, b"key");
            assert_eq!(CopyInfo::of(&after), CopyInfo::of(&before));
            assert_eq!(after.headers(), before.headers());
            assert_eq!(after.response_header().status, 200);
            assert_eq!(
                (after.fresh_until(), after.epoch(), after.provenance(), after.variance()),
                (before.fresh_until(), before.epoch(), before.provenance(), before.variance())
            );
            assert_eq!(after.stale_while_revalidate_sec(), before.stale_while_revalidate_sec());
            let wire = |meta: &CacheMeta| {
                let mut wire = Vec::new();
                meta.response_header().header_to_h1_wire(&mut wire);
                wire
            };
            assert_eq!(wire(&after), wire(&before), "the spelling of names too");
        }
    }

    #[test]
    fn what_is_cut_off_or_foreign_is_none() {
        let whole = encode(b"key", &meta(&policy(), &[("cache-control", "max-age=60")]));
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_none(), "{end}");
        }
        assert!(decode(&[whole.as_slice(), b"x"].concat()).is_none());
        assert!(decode(&[&[FORM + 1], &whole[1..]].concat()).is_none());
    }

    /// No byte may make it panic, or ask for memory that is not there.
    #[test]
    fn any_bytes_are_survived() {
        let whole = encode(b"key", &meta(&policy(), &[("cache-control", "max-age=60"), ("vary", "accept")]));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let _any = decode(&bytes);
            }
        }
    }
}
