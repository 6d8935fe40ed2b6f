//! What a route does with header fields, and which of them it leaves alone.

use http::{HeaderName, header};

use crate::FieldValue;

/// What becomes of header fields: some are removed, then some are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Fields and their values; each replaces all fields of its name. No name twice.
    pub set: Vec<(HeaderName, FieldValue)>,
    /// Fields that are removed.
    pub remove: Vec<HeaderName>,
    /// How the names of further fields begin that are removed, in lower case.
    pub remove_prefixes: Vec<String>,
}

impl HeaderRules {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty() && self.remove_prefixes.is_empty()
    }

    /// Whether a field is removed for how its name begins.
    pub fn has_prefix_of(&self, name: &HeaderName) -> bool {
        let begins = |prefix: &String| name.as_str().starts_with(prefix.as_str());
        self.remove_prefixes.iter().any(begins) && *name != header::HOST && !Self::is_untouchable(name)
    }

    /// Whether no route may change it: it frames a message, belongs to one connection, or tells of loops.
    pub fn is_untouchable(name: &HeaderName) -> bool {
        matches!(
            name.as_str(),
            "connection"
                | "content-length"
                | "transfer-encoding"
                | "te"
                | "trailer"
                | "upgrade"
                | "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "expect"
                | "cdn-loop"
        )
    }
}
