//! May this answer be kept, is it fresh, may an old one be served; the key, `Vary`, and the store.
//!
//! The decisions are pure: time is an argument. Only the store keeps anything, in memory and on disk, and only it meets
//! Pingora's trait.

mod admission;
mod copy;
mod directives;
mod disk;
mod freshness;
mod hop_by_hop;
mod key;
mod policy;
mod request;
mod revalidation;
mod serving;
mod store;
#[cfg(test)]
mod tests;
mod vary;

pub use admission::{Admission, admit};
pub use copy::{Audience, CopyInfo, CopyKind};
pub use disk::{DiskEvent, DiskState, DiskUsage, Operation, Report};
pub use key::Key;
pub use policy::{CachePolicy, CookiePattern, DiskSpec, Mode, StoreSpec};
pub use request::RequestFacts;
pub use revalidation::refresh_header;
pub use serving::{Stale, may_serve_fresh, may_serve_stale, may_share};
pub use store::{BodyReader, CopyWriter, REFRESH_BACKOFF, Store, StoredCopy, Usage};
pub use vary::variance;
