//! May this answer be kept, is it fresh, may an old one be served; the key, `Vary`, and the store.
//!
//! The decisions are pure: time is an argument. Only the store keeps anything, in memory and on disk, and only it meets
//! Pingora's trait.

mod admission;
pub mod clock;
mod conditional;
mod cookies;
mod copy;
mod date;
mod deception;
mod directives;
mod disk;
mod fields;
mod freshness;
mod hop_by_hop;
mod kept;
mod key;
mod key_policy;
mod parts;
mod policy;
mod purge;
mod request;
mod revalidation;
mod sent;
mod serving;
mod store;
mod structured;
mod survival;
#[cfg(test)]
mod tests;
mod variant;
mod vary;

pub use admission::{Admission, admit, admit_preflight, may_displace};
pub use clock::Moment;
pub use conditional::is_not_modified;
pub use cookies::Cookie;
pub use copy::{Audience, CopyInfo, CopyKind, Forbids, Standing};
pub use deception::is_deceptive;
pub use disk::{DiskEvent, DiskState, DiskUsage, Operation, Patience, Report};
pub use fields::{Fields, Header};
pub use key::{Address, Key, canonical_host};
pub use key_policy::{KeyPolicy, KeyedLine, Query};
pub use parts::{Part, part};
pub use policy::{CachePolicy, DiskSpec, Mode, NamePattern, PersonalCookies, ServeAnonymous, StoreSpec};
pub use purge::{Generation, PurgeMode, PurgeScope, tag_names};
pub use request::RequestFacts;
pub use revalidation::{HeadVerdict, is_of_another, judge_head, objection_to_304, refresh_header};
pub use sent::SentRequest;
pub use serving::{Stale, may_serve_fresh, may_serve_stale, may_serve_updating, may_share};
pub use store::{BodyReader, CopyWriter, FILL_WAIT, REFRESH_BACKOFF, Store, StoredCopy, Usage};
pub use survival::survives;
pub use vary::variance;
