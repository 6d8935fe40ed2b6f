//! What makes two requests the same for a route: which of the query counts, and which fields and cookies besides.
//!
//! Leaving something out of the key that the backend heeds lets whoever comes first decide what everybody gets. So a
//! query that some program might read otherwise than this one counts as it was sent.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName};

use crate::{Key, NamePattern};

/// A route's `cache.key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Which of the query counts.
    pub query: Query,
    /// Request fields that count.
    pub headers: Vec<HeaderName>,
    /// Cookies that count. They make no request personal.
    pub cookies: Vec<String>,
}

/// Which of a query counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Query {
    /// All of it, as sent.
    #[default]
    All,
    /// Nothing.
    None,
    /// All of it, the parameters in order.
    Sorted,
    /// These parameters, in order. Case does not matter.
    Only(Vec<NamePattern>),
    /// All but these, as sent.
    Without(Vec<NamePattern>),
}

impl KeyPolicy {
    /// The key of a request. `authority` is its `Host`, `target` its path and query.
    pub fn key(&self, scheme: &str, authority: &[u8], target: &str, headers: &HeaderMap) -> Key {
        let is_plain = matches!(self.query, Query::All) && self.headers.is_empty() && self.cookies.is_empty();
        if is_plain {
            return Key::new(scheme, authority, target.as_bytes());
        }
        let mut bytes = self.target(target).into_bytes();
        for name in &self.headers {
            push(
                &mut bytes,
                b'h',
                name.as_str(),
                headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()),
            );
        }
        for name in &self.cookies {
            push(&mut bytes, b'c', name, cookies(headers, name));
        }
        Key::new(scheme, authority, &bytes)
    }
}

impl KeyPolicy {
    /// The key of a CORS preflight: what it asks about, and for whom. No other request has such a key.
    pub fn preflight_key(&self, scheme: &str, authority: &[u8], target: &str, headers: &HeaderMap) -> Key {
        let mut bytes = self.target(target).into_bytes();
        for name in PREFLIGHT {
            let lines = headers.get_all(&name).iter().map(|line| line.as_bytes().trim_ascii());
            push(&mut bytes, b'p', name.as_str(), lines);
        }
        Key::new(scheme, authority, &bytes)
    }

    /// Path and query as far as they count.
    pub fn target(&self, target: &str) -> String {
        if self.query == Query::All {
            return target.to_owned();
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = self.query.of(query);
        if query.is_empty() { path.to_owned() } else { [path, "?", &query].concat() }
    }
}

/// What a preflight says beyond its address (Fetch standard, CORS protocol).
const PREFLIGHT: [HeaderName; 3] =
    [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS];

/// Values of a field or a cookie, behind a byte that no target has; nothing if there are none.
fn push<'a>(bytes: &mut Vec<u8>, kind: u8, name: &str, values: impl Iterator<Item = &'a [u8]>) {
    for value in values {
        bytes.extend_from_slice(&[0, kind]);
        for part in [name.as_bytes(), value] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
    }
}

/// The values of a cookie.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.filter_map(move |pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

impl Query {
    fn of<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let parameters = || query.split('&').filter(|parameter| !parameter.is_empty());
        match self {
            Self::All => query.into(),
            Self::None => "".into(),
            Self::Sorted => sorted(parameters().collect()).into(),
            Self::Only(_) | Self::Without(_) if is_ambiguous(query) => query.into(),
            Self::Only(names) => {
                let is_meant = |parameter: &&str| {
                    let name = name(parameter).to_ascii_lowercase();
                    names.iter().any(|pattern| pattern.matches_lower(&name))
                };
                sorted(parameters().filter(is_meant).collect()).into()
            }
            Self::Without(names) => {
                let is_left =
                    |parameter: &&str| !names.iter().any(|pattern| pattern.matches(name(parameter)));
                parameters().filter(is_left).collect::<Vec<_>>().join("&").into()
            }
        }
    }
}

fn name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// By name; the values of one name stay in their order.
fn sorted(mut parameters: Vec<&str>) -> String {
    parameters.sort_by_key(|parameter| name(parameter));
    parameters.join("&")
}

/// Whether programs differ about which parameters a query has: `;` separates for some, and names with escapes,
/// brackets or signs become other names.
fn is_ambiguous(query: &str) -> bool {
    let is_plain =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    query.contains(';') || query.split('&').any(|parameter| !is_plain(name(parameter)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::headers;

    fn patterns(names: &[&str]) -> Vec<NamePattern> {
        names.iter().map(|name| NamePattern::parse(name)).collect()
    }

    #[test]
    fn only_what_counts_of_a_query_is_kept() {
        let only = Query::Only(patterns(&["page", "f_*"]));
        let without = Query::Without(patterns(&["utm_*", "ref"]));
        for (query, sent, kept) in [
            (&Query::All, "b=1&a=2&", "b=1&a=2&"),
            (&Query::None, "b=1", ""),
            (&Query::Sorted, "b=2&a=1&b=1&&a", "a=1&a&b=2&b=1"),
            (&only, "x=1&page=2&f_b=1&f_a=2", "f_a=2&f_b=1&page=2"),
            (&only, "Page=2", "Page=2"),
            (&only, "x=1", ""),
            (&without, "b=1&utm_source=x&a=2&ref=3", "b=1&a=2"),
            (&without, "UTM_source=x", "UTM_source=x"),
        ] {
            assert_eq!(query.of(sent), kept, "{query:?} {sent}");
        }
    }

    /// Whoever can make the backend see a parameter that the key has not can choose what others get.
    #[test]
    fn what_may_be_read_in_two_ways_counts_as_it_is() {
        let only = Query::Only(patterns(&["page"]));
        let without = Query::Without(patterns(&["x"]));
        for query in ["p%61ge=2", "x=1;page=2", "x=1&page[]=2", "+page=2", "x%00=1", " page=1"] {
            assert_eq!(only.of(query), query);
            assert_eq!(without.of(query), query);
        }
    }

    #[test]
    fn fields_and_cookies_count_by_name_and_value() {
        let policy = KeyPolicy {
            query: Query::All,
            headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
            cookies: vec!["lang".to_owned()],
        };
        let key = |fields: &[(&str, &str)]| policy.key("http", b"h", "/", &headers(fields));
        assert_eq!(key(&[("x-a", "1"), ("x-c", "2")]), key(&[("x-a", " 1 ")]));
        assert_eq!(key(&[("cookie", "a=1; lang=de")]), key(&[("cookie", "lang=de"), ("cookie", "b=2")]));
        let all = [
            key(&[]),
            key(&[("x-a", "")]),
            key(&[("x-a", "1")]),
            key(&[("x-b", "1")]),
            key(&[("x-a", "1"), ("x-a", "2")]),
            key(&[("x-a", "1"), ("x-b", "2")]),
            key(&[("cookie", "lang=1")]),
            key(&[("cookie", "lang=")]),
        ];
        for (left_at, left) in all.iter().enumerate() {
            for (right_at, right) in all.iter().enumerate() {
                assert_eq!(left == right, left_at == right_at, "{left:?} {right:?}");
            }
        }
    }
}
