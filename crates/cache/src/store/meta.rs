//! Meta data in Pingora's form. Pingora's [`CacheMeta`] cannot be cloned, so a second one is built from the first.

use http::header;
use pingora_cache::CacheMeta;

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
