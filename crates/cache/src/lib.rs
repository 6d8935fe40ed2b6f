//! May this answer be kept, is it fresh, may an old one be served; the key, `Vary`, and the store.

mod policy;

pub use policy::{CachePolicy, CookiePattern, Mode, StoreSpec};
