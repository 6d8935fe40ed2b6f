//! What precedes a body in a record: the whole key, the response's header, its times, and who may see it.
//!
//! The form is our own and carries a number, so that a later one is told apart.

use super::bytes::{Take, put_framed};
use crate::kept::{Facts, Kept};

/// The number of this form.
const FORM: u8 = 3;

/// The key and meta data of one copy.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) key: Vec<u8>,
    pub(super) kept: Kept,
}

/// Writes the head of a record.
pub(super) fn encode(key: &[u8], kept: &Kept) -> Vec<u8> {
    let Facts {
        fresh_until,
        created,
        epoch,
        stored,
        generation,
        while_revalidate,
        if_error,
        window,
        flags,
        status,
    } = kept.facts;
    let mut to = Vec::with_capacity(128 + key.len() + kept.head().len());
    to.push(FORM);
    put_framed(&mut to, key);
    for number in [fresh_until, created, epoch, stored, generation] {
        to.extend(number.to_le_bytes());
    }
    for seconds in [while_revalidate, if_error, window] {
        to.extend(seconds.to_le_bytes());
    }
    to.extend(flags.to_le_bytes());
    to.extend(status.to_le_bytes());
    to.extend(kept.variance().unwrap_or_default());
    put_framed(&mut to, kept.head());
    to
}

/// Reads it again; none if it is not what [`encode`] writes.
pub(super) fn decode(bytes: &[u8]) -> Option<Head> {
    let mut take = Take::new(bytes);
    if take.u8()? != FORM {
        return None;
    }
    let key = take.framed()?.to_vec();
    let facts = Facts {
        fresh_until: take.u64()?,
        created: take.u64()?,
        epoch: take.u64()?,
        stored: take.u64()?,
        generation: take.u64()?,
        while_revalidate: take.u32()?,
        if_error: take.u32()?,
        window: take.u32()?,
        flags: take.u16()?,
        status: take.u16()?,
    };
    let kept = Kept::restored(facts, take.array()?, take.framed()?)?;
    take.is_empty().then_some(Head { key, kept })
}

/// The key alone.
pub(super) fn key_of(bytes: &[u8]) -> Option<&[u8]> {
    let mut take = Take::new(bytes);
    if take.u8()? != FORM {
        return None;
    }
    take.framed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{fallback, now, policy, request, response};
    use crate::{Admission, CachePolicy, CopyInfo, admit};
    use pingora_cache::CacheMeta;

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
            let Head { key, kept } = decode(&encode(b"key", &Kept::of(&before))).unwrap();
            assert_eq!(key, b"key");
            let after = kept.meta().unwrap();
            assert_eq!(kept.standing(), crate::Standing::of(&before));
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
        let whole = encode(b"key", &Kept::of(&meta(&policy(), &[("cache-control", "max-age=60")])));
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_none(), "{end}");
        }
        assert!(decode(&[whole.as_slice(), b"x"].concat()).is_none());
        assert!(decode(&[&[FORM + 1], &whole[1..]].concat()).is_none());
    }

    /// No byte may make it panic, or ask for memory that is not there.
    #[test]
    fn any_bytes_are_survived() {
        let meta = meta(&policy(), &[("cache-control", "max-age=60"), ("vary", "accept")]);
        let whole = encode(b"key", &Kept::of(&meta));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                if let Some(any) = decode(&bytes) {
                    any.kept.header().unwrap();
                }
            }
        }
    }
}
