//! The names among the backends, and how it stands with their addresses.

use std::time::Instant;

use goodgate_failure::Cause;
use goodgate_upstream::{NameView, Standing};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct NameRow<'a> {
    upstream: &'a str,
    name: String,
    /// `resolved`, `kept` or `unresolved`.
    state: &'static str,
    /// Why lookups fail, if they do.
    cause: Option<&'static str>,
    /// For how long the last addresses have been used on.
    kept_s: Option<u64>,
    addresses: Vec<String>,
}

impl<'a> NameRow<'a> {
    pub(crate) fn new(upstream: &'a str, view: &NameView, now: Instant) -> Self {
        let (state, cause, since) = match view.standing {
            Standing::Known => ("resolved", None, None),
            Standing::Kept { since, cause } => ("kept", Some(cause), Some(since)),
            Standing::Unresolved(cause) => ("unresolved", Some(cause), None),
        };
        Self {
            upstream,
            name: view.name.to_string(),
            state,
            cause: cause.map(Cause::name),
            kept_s: since.map(|since| now.saturating_duration_since(since).as_secs()),
            addresses: view.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}
