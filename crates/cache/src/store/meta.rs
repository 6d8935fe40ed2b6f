//! Copying and weighing meta data. Pingora's [`CacheMeta`] cannot be cloned, so a second one is built from the first.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use pingora_cache::CacheMeta;
use pingora_http::{HeaderNameVariant, ResponseHeader};

/// Which copy a meta data belongs to, so that a confirmation by 304 never lands on a body that has come since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopyId(pub(super) u64);

/// The same meta data once more. Of the three times that Pingora keeps, provenance becomes `created` (it is set
/// from it and from nothing else), and the time of the last confirmation lives on in the epoch.
pub(super) fn duplicate(meta: &CacheMeta) -> CacheMeta {
    let mut copy = CacheMeta::new(
        meta.fresh_until(),
        meta.provenance(),
        meta.stale_while_revalidate_sec(),
        meta.stale_if_error_sec(),
        meta.response_header_copy(),
    );
    copy.set_epoch_override(meta.epoch());
    if let Some(variance) = meta.variance() {
        copy.set_variance(variance);
    }
    *copy.extensions_mut() = meta.extensions().clone();
    copy
}

/// Meta data to be kept: its `Age` is dropped, because the epoch already counts it.
pub(super) fn without_age(mut meta: CacheMeta) -> CacheMeta {
    meta.response_header_mut().remove_header(&header::AGE);
    meta
}

/// The same header in memory of its own, just as large as it has to be: what a connection has read is in one large
/// buffer, which a single field of it would keep from being freed.
pub(super) fn compact(header: &ResponseHeader) -> Option<ResponseHeader> {
    let mut text = BytesMut::new();
    let mut fields = Vec::with_capacity(header.headers.len());
    let mut put = |bytes: &[u8]| {
        text.extend_from_slice(bytes);
        text.len()
    };
    // The closure cannot fail, so neither does the walk.
    let _infallible = header.map(|name, value| {
        let name_end = match name {
            HeaderNameVariant::Case(name) => put(name.as_slice()),
            HeaderNameVariant::Titled(name) => put(name.as_bytes()),
        };
        fields.push((name_end, put(value.as_bytes())));
        Ok(())
    });
    let text = Bytes::copy_from_slice(&text);
    let mut own = ResponseHeader::build(header.status, Some(fields.len())).ok()?;
    own.set_version(header.version);
    own.set_reason_phrase(header.get_reason_phrase()).ok()?;
    let mut start = 0;
    for (name_end, value_end) in fields {
        let value = HeaderValue::from_maybe_shared(text.slice(name_end..value_end)).ok()?;
        own.append_header(text.slice(start..name_end), value).ok()?;
        start = value_end;
    }
    // A clone has no room to grow.
    Some(own.clone())
}

/// Bytes that a header occupies, with the map's own bookkeeping for each field.
pub(super) fn header_weight(response: &ResponseHeader) -> u64 {
    let fields = response.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    fields.sum::<usize>() as u64
}

/// Meta data that a soft purge has made stale as of `now`.
pub(super) fn expired(meta: &CacheMeta, now: SystemTime) -> CacheMeta {
    let mut expired = duplicate(meta);
    expired.expire_at(now.checked_sub(Duration::from_millis(1)).unwrap_or(now));
    expired
}

/// A field's place in the header map and in the map of original spellings.
const FIELD_BYTES: usize = 208;
