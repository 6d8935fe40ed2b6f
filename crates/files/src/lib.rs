//! Safe opening of files. Two kinds, two rules.
//!
//! Files that the gateway creates (cache, state, logs, request bodies) are opened relative to a folder handle. A
//! symbolic link, a second hard link, another file type, a foreign owner and a folder that others may write to are
//! refused, and nothing that is not ours is changed. Files that an operator names (configuration, certificates,
//! pages) may be reached through links, as Kubernetes mounts them, but must be regular files of a bounded size.
//! No open call here waits: a named pipe is refused before anything is read.

mod facts;
mod folder;
mod input;
mod log;
mod unnamed;

pub use folder::Folder;
pub use input::{Unreadable, read_bounded, read_bounded_or_pipe};
pub use log::append_to;
pub use unnamed::unnamed;
