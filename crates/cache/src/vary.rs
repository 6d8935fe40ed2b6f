//! Which of several answers under one key a request is for (RFC 9111 section 4.1).
//!
//! The fields that `Vary` names are taken from the request in a fixed order and hashed with a cryptographic hash: a
//! client chooses these values, and must not be able to meet somebody else's. Values are normalised only where
//! their syntax says that it changes nothing: white space in lists, and case and order of `Accept-Encoding`.
//!
//! The first half of the hash is of fields that a request must match exactly, the second half of those by which a client
//! says what it accepts. In an outage a request may get another variant that it accepts (see [`crate::variant`]): one
//! with the same first half.
//!
//! `Cookie` and `Authorization` are no part of it: such a response is stored for requests without them only.

use std::collections::BTreeSet;

use http::header::{self, HeaderMap, HeaderName};
use pingora_cache::VarianceBuilder;
use pingora_cache::key::HashBinary;

use crate::directives::Elements;
use crate::fields::Fields;
use crate::sent::{self, SentRequest};

/// The names in an answer's `Vary`: in lower case, each once, in alphabetical order, with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VaryBy(Option<Box<str>>);

impl VaryBy {
    /// No names.
    pub(crate) const NOTHING: Self = Self(None);

    pub(crate) fn of(response: &impl Fields) -> Self {
        let lower_case = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
        let mut names: Vec<String> =
            response.all("vary").flat_map(Elements::of_bytes).map(lower_case).collect();
        names.retain(|name| name != "cookie" && name != "authorization");
        names.sort_unstable();
        names.dedup();
        Self((!names.is_empty()).then(|| names.join(",").into()))
    }

    /// The hash of the request's fields of these names; none if there are none.
    pub(crate) fn variance(&self, request: &dyn SentRequest) -> Option<HashBinary> {
        let names = self.0.as_ref()?;
        let hash = |is_negotiated: bool| {
            let mut builder = VarianceBuilder::new();
            for name in names.split(',').filter(|name| NEGOTIATED.contains(name) == is_negotiated) {
                builder.add_owned_value(name, value(name, request));
            }
            half(builder.finalize())
        };
        let (exact, accepted) = (hash(false), hash(true));
        let mut both = exact.into_iter().chain(accepted);
        Some(std::array::from_fn(|_| both.next().unwrap_or_default()))
    }

    /// Whether a name, in lower case, is among them.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|names| names.split(',').any(|held| held == name))
    }

    /// All of them.
    pub(crate) fn names(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// Fields by which a client says what it accepts, where the response says what it is.
const NEGOTIATED: [&str; 3] = ["accept", "accept-encoding", "accept-language"];

/// The first half of a hash; zeros for none.
pub(crate) fn half(hash: Option<HashBinary>) -> [u8; 8] {
    hash.unwrap_or_default().first_chunk().copied().unwrap_or_default()
}

/// The hash of the fields that the stored response's `Vary` names, as the backend receives them; none without `Vary`.
pub fn variance(stored_response: &HeaderMap, request: &dyn SentRequest) -> Option<HashBinary> {
    VaryBy::of(stored_response).variance(request)
}

/// The request's value of a field: `-` if absent, else `=` and its lines, joined as RFC 9110 section 5.3 allows.
fn value(name: &str, request: &dyn SentRequest) -> Vec<u8> {
    let lines = sent::lines(request, name);
    if lines.is_empty() {
        return b"-".to_vec();
    }
    let separator: &[u8] = if is_list(name) || name == header::ACCEPT_ENCODING { b"," } else { b", " };
    let elements: Vec<Vec<u8>> = if name == header::ACCEPT_ENCODING {
        let elements: BTreeSet<_> =
            lines.iter().flat_map(|line| Elements::of_bytes(line)).map(compact_lower).collect();
        elements.into_iter().collect()
    } else if is_list(name) {
        lines.iter().flat_map(|line| Elements::of_bytes(line)).map(compact_lower).collect()
    } else {
        lines.iter().map(|line| line.trim_ascii().to_vec()).collect()
    };
    [b"=".to_vec(), elements.join(separator)].concat()
}

/// Fields that are lists of case-insensitive elements in which white space means nothing.
fn is_list(name: &str) -> bool {
    const LISTS: [HeaderName; 2] = [header::ACCEPT_LANGUAGE, header::ACCEPT_CHARSET];
    LISTS.iter().any(|list| list == name)
}

/// White space around `;` means nothing (RFC 9110 section 12.4.2); anywhere else it makes another element.
fn compact_lower(element: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).collect();
    parts.join(&b';').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::headers;

    fn of(vary: &[&str], request: &[(&str, &str)]) -> Option<HashBinary> {
        let response: Vec<_> = vary.iter().map(|line| ("vary", *line)).collect();
        variance(&headers(&response), &headers(request))
    }

    #[test]
    fn without_vary_there_is_no_variance() {
        assert_eq!(of(&[], &[("accept", "x")]), None);
        assert_eq!(of(&[""], &[("accept", "x")]), None);
    }

    /// RFC 9111 section 4.1: white space, order and case may be normalised where they mean nothing.
    #[test]
    fn section_4_1_equal_requests_meet() {
        let one = of(&["Accept-Encoding"], &[("accept-encoding", "gzip, br;q=0.5")]);
        for same in ["gzip,br;q=0.5", "BR ; q=0.5 ,gzip", " br;q=0.5,, gzip"] {
            assert_eq!(one, of(&["accept-encoding"], &[("accept-encoding", same)]), "{same}");
        }
        assert_eq!(
            of(&["accept, origin"], &[("accept", "x"), ("origin", "y")]),
            of(&["Origin", "Accept"], &[("origin", "y"), ("accept", "x")]),
        );
        assert_eq!(
            of(&["accept-language"], &[("accept-language", "de, en;q=0.5")]),
            of(&["accept-language"], &[("accept-language", "de"), ("accept-language", "EN; q=0.5")]),
        );
    }

    /// RFC 9111 section 4.1: all nominated fields must match, and absence matches only absence.
    #[test]
    fn section_4_1_different_requests_do_not_meet() {
        let vary = ["accept-language, x-a"];
        let all = [
            of(&vary, &[]),
            of(&vary, &[("accept-language", "")]),
            of(&vary, &[("accept-language", "de")]),
            of(&vary, &[("accept-language", "de, en")]),
            of(&vary, &[("accept-language", "en, de")]),
            of(&vary, &[("x-a", "de")]),
            of(&vary, &[("x-a", "DE")]),
            of(&vary, &[("x-a", "d e")]),
            of(&vary, &[("x-a", "-")]),
            of(&vary, &[("accept-language", "d e")]),
            of(&vary, &[("accept-language", "de;q=0.9")]),
            of(&vary, &[("accept-language", "de;q=0. 9")]),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn the_same_fields_are_recognised_in_any_order() {
        let by = |fields: &[(&str, &str)]| VaryBy::of(&headers(fields));
        assert!(by(&[("vary", "A, b")]) == by(&[("vary", "B"), ("vary", "a")]));
        assert!(by(&[("vary", "a")]) != by(&[]));
        assert!(by(&[]) == by(&[]));
    }
}
