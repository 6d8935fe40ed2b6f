//! What makes two requests the same for a route: which of the query counts, and which fields and cookies besides.
//!
//! Leaving something out of the key that the backend heeds lets whoever comes first decide what everybody gets. So a
//! query that some program might read otherwise than this one counts as it was sent.

use std::borrow::Cow;

use http::header::{self, HeaderName};

use crate::cookies::Cookie;
use crate::sent::{self, SentRequest};
use crate::{Address, Key, NamePattern};

/// A line of a request field, and the name of the field.
pub type KeyedLine = (HeaderName, Vec<u8>);

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
    /// The key of a request. `forwarded` are the lines that reach the backend only because a proxy is trusted, or because
    /// the route passes them: each of them may change the response.
    pub fn key(&self, address: Address<'_>, sent: &dyn SentRequest, forwarded: &[KeyedLine]) -> Key {
        let Address { scheme, authority, target } = address;
        let has_no_more = self.headers.is_empty() && self.cookies.is_empty() && forwarded.is_empty();
        if has_no_more && matches!(self.query, Query::All) {
            return Key::new(scheme, authority, target.as_bytes());
        }
        let mut bytes = self.target(target).into_bytes();
        for name in &self.headers {
            push_lines(&mut bytes, b'h', name.as_str(), sent);
        }
        self.push_cookies(&mut bytes, sent);
        push_forwarded(&mut bytes, forwarded);
        Key::new(scheme, authority, &bytes)
    }

    /// The cookies that count. Where a program might read one of them otherwise, all cookies count as they were sent.
    fn push_cookies(&self, bytes: &mut Vec<u8>, sent: &dyn SentRequest) {
        if self.cookies.is_empty() {
            return;
        }
        let lines = sent::lines(sent, header::COOKIE.as_str());
        let cookies = || lines.iter().flat_map(|line| Cookie::of_line(line));
        if cookies().any(|cookie| self.cookies.iter().any(|name| cookie.may_be_read_as(name))) {
            return push(bytes, b'C', "", lines.iter().map(Vec::as_slice));
        }
        for name in &self.cookies {
            push(
                bytes,
                b'c',
                name,
                cookies().filter(|cookie| cookie.is_named(name)).map(|cookie| cookie.value),
            );
        }
    }

    /// The key of a CORS preflight: what it asks about, and for whom. No other request has such a key.
    pub fn preflight_key(
        &self,
        address: Address<'_>,
        sent: &dyn SentRequest,
        forwarded: &[KeyedLine],
    ) -> Key {
        let mut bytes = self.target(address.target).into_bytes();
        for name in PREFLIGHT {
            push_lines(&mut bytes, b'p', name.as_str(), sent);
        }
        push_forwarded(&mut bytes, forwarded);
        Key::new(address.scheme, address.authority, &bytes)
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
const PREFLIGHT: [HeaderName; 4] = [
    header::ORIGIN,
    header::ACCESS_CONTROL_REQUEST_METHOD,
    header::ACCESS_CONTROL_REQUEST_HEADERS,
    HeaderName::from_static("access-control-request-private-network"),
];

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

fn push_forwarded(bytes: &mut Vec<u8>, lines: &[KeyedLine]) {
    for (name, line) in lines {
        push(bytes, b'f', name.as_str(), std::iter::once(line.as_slice()));
    }
}

fn push_lines(bytes: &mut Vec<u8>, kind: u8, name: &str, sent: &dyn SentRequest) {
    sent.each_line(name, &mut |line| push(bytes, kind, name, std::iter::once(line.trim_ascii())));
}

impl Query {
    fn of<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let parameters = || query.split('&').filter(|parameter| !parameter.is_empty());
        match self {
            Self::All => query.into(),
            Self::None => "".into(),
            Self::Sorted if has_alike_names(query) => query.into(),
            Self::Sorted => sorted(parameters().collect()).into(),
            Self::Only(_) | Self::Without(_) if self.is_ambiguous(query) => query.into(),
            Self::Only(_) => {
                sorted(parameters().filter(|parameter| self.is_listed(name(parameter))).collect()).into()
            }
            Self::Without(_) => {
                let is_left = |parameter: &&str| !self.is_listed(name(parameter));
                parameters().filter(is_left).collect::<Vec<_>>().join("&").into()
            }
        }
    }

    /// Whether a parameter is one of those that the setting names. Of those that count case does not matter.
    fn is_listed(&self, name: &str) -> bool {
        match self {
            Self::All | Self::None | Self::Sorted => false,
            Self::Only(names) => {
                let name = name.to_ascii_lowercase();
                names.iter().any(|pattern| pattern.matches_lower(&name))
            }
            Self::Without(names) => names.iter().any(|pattern| pattern.matches(name)),
        }
    }

    /// Whether programs differ about which parameters a query has: `;` separates for some, `.` is `_` for some, and names
    /// with escapes, brackets or signs become other names.
    fn is_ambiguous(&self, query: &str) -> bool {
        let has_other_name =
            |name: &str| name.contains('.') && self.is_listed(name) != self.is_listed(&renamed(name));
        !is_plain(query) || query.split('&').map(name).any(has_other_name)
    }
}

/// Whether all programs find the same parameters in a query, but for those that read `.` as `_`.
fn is_plain(query: &str) -> bool {
    let is_plain =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    !query.contains(';') && query.split('&').map(name).all(is_plain)
}

/// Whether the order of the parameters may matter: two names are one for some program.
fn has_alike_names(query: &str) -> bool {
    if !is_plain(query) {
        return true;
    }
    let mut names: Vec<&str> = query.split('&').map(name).collect();
    names.sort_unstable();
    names.dedup();
    let mut folded: Vec<String> = names.iter().map(|name| renamed(name).to_ascii_lowercase()).collect();
    folded.sort_unstable();
    folded.dedup();
    folded.len() < names.len()
}

/// A name as programs read it that take `.` for `_`.
fn renamed(name: &str) -> String {
    name.chars().map(|letter| if letter == '.' { '_' } else { letter }).collect()
}

fn name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// By name; the values of one name stay in their order.
fn sorted(mut parameters: Vec<&str>) -> String {
    parameters.sort_by_key(|parameter| name(parameter));
    parameters.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;
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

    const ADDRESS: Address<'_> = Address { scheme: "http", authority: b"h", target: "/" };

    /// PHP reads `page.id` as `page_id`.
    #[test]
    fn a_dot_that_may_be_an_underscore_counts_as_it_is() {
        let only = Query::Only(patterns(&["page_id", "dotted.name"]));
        for (sent, kept) in [
            ("page.id=evil", "page.id=evil"),
            ("page_id=1&x.y=2", "page_id=1"),
            ("dotted.name=1&x=2", "dotted.name=1&x=2"),
        ] {
            assert_eq!(only.of(sent), kept);
        }
        let without = Query::Without(patterns(&["utm.source", "ref_*"]));
        assert_eq!(
            without.of("utm.source=1"),
            "utm.source=1",
            "a backend may read utm_source, which is not left out"
        );
        assert_eq!(without.of("ref_a.b=1&x=2"), "x=2");
    }

    #[test]
    fn a_query_whose_order_may_matter_is_not_sorted() {
        for query in ["page_id=1&page.id=0", "b=1&%61=2", "b=1&a[x]=2", "b=1;a=2", "b=1&B=0"] {
            assert_eq!(Query::Sorted.of(query), query);
        }
    }

    #[test]
    fn a_cookie_that_may_be_read_as_a_keyed_one_counts_as_it_was_sent() {
        let policy = KeyPolicy { cookies: vec!["lang".to_owned()], ..KeyPolicy::default() };
        let key = |line: &str| policy.key(ADDRESS, &headers(&[("cookie", line)]), &[]);
        let plain = policy.key(ADDRESS, &headers(&[]), &[]);
        assert_eq!(key("other=1"), plain);
        for evil in ["lang =evil", "LANG=evil", "a=1,lang=evil", "a=\"x; lang=evil", "l%61ng=evil", "lang"] {
            assert_ne!(key(evil), plain, "{evil}");
            assert_ne!(key(&format!("lang=de; {evil}")), key("lang=de"), "{evil}");
        }
    }

    #[test]
    fn forwarded_fields_are_part_of_the_key() {
        let policy = KeyPolicy::default();
        let line = |host: &str| (HeaderName::from_static("x-forwarded-host"), host.as_bytes().to_vec());
        let key = |lines: &[KeyedLine]| policy.key(ADDRESS, &headers(&[]), lines);
        assert_ne!(key(&[line("a")]), key(&[line("b")]));
        assert_eq!(key(&[line("a")]), key(&[line("a")]));
        assert!(key::is_plain(key(&[]).bytes()) && !key::is_plain(key(&[line("a")]).bytes()));
    }

    #[test]
    fn fields_and_cookies_count_by_name_and_value() {
        let policy = KeyPolicy {
            query: Query::All,
            headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
            cookies: vec!["lang".to_owned()],
        };
        let key = |fields: &[(&str, &str)]| policy.key(ADDRESS, &headers(fields), &[]);
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
