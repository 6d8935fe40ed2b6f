//! `Cache-Control`, of requests and responses (RFC 9111 section 5.2), and `CDN-Cache-Control` (RFC 9213).
//!
//! Where a field can be read in two ways the careful one wins: of duplicates the shortest time, of a time that is
//! no number zero, and `private` counts as the bare one whatever fields it names.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::structured::{self, Value};

/// A directive without a time.
#[derive(Clone, Copy)]
pub(crate) enum Flag {
    NoStore,
    NoCache,
    /// `no-cache` that names fields: only those are not to be used.
    NoCacheFields,
    Private,
    Public,
    MustRevalidate,
    ProxyRevalidate,
    MustUnderstand,
    OnlyIfCached,
}

/// All lines of a `Cache-Control`, read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Directives {
    flags: u16,
    /// It is the field for caches like this one, and `Expires` means nothing.
    pub(crate) is_targeted: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    /// Without a value: any.
    pub(crate) max_stale: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

const TARGETED: HeaderName = HeaderName::from_static("cdn-cache-control");

impl Directives {
    /// Those of `Cache-Control`.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            for directive in Elements::of(line) {
                directives.read(directive);
            }
        }
        directives
    }

    /// Those of a response: of `CDN-Cache-Control` alone if that is there and can be read (RFC 9213 section 2.2).
    pub(crate) fn of_response(headers: &HeaderMap) -> Self {
        Self::targeted(headers).unwrap_or_else(|| Self::of(headers))
    }

    fn targeted(headers: &HeaderMap) -> Option<Self> {
        let mut members = targeted_members(headers)?;
        members.reverse();
        let mut directives = Self { is_targeted: true, ..Self::default() };
        for (at, (name, value)) in members.iter().enumerate() {
            let is_last = !members.iter().take(at).any(|(other, _)| other == name);
            if is_last {
                directives.read_member(name, value);
            }
        }
        Some(directives)
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags & 1 << flag as u16 != 0
    }

    fn set(&mut self, flag: Flag) {
        self.flags |= 1 << flag as u16;
    }

    fn read(&mut self, directive: &[u8]) {
        let (name, argument) = split(directive);
        if let Some(flag) = flag_named(name.trim_ascii()) {
            self.set(if is_qualified(flag, argument) { Flag::NoCacheFields } else { flag });
        } else if let Some(time) = self.time_named(name.trim_ascii()) {
            // White space beside the equals sign is none of the grammar's.
            let is_clean = name.len() == name.trim_ascii().len();
            let seconds = argument.filter(|_| is_clean).and_then(seconds);
            let seconds = seconds.unwrap_or(Duration::ZERO);
            *time = Some(time.map_or(seconds, |earlier| earlier.min(seconds)));
            if argument.is_none() && name.eq_ignore_ascii_case(b"max-stale") {
                self.max_stale = Some(Duration::MAX);
            }
        }
    }

    fn read_member(&mut self, name: &[u8], value: &Value) {
        if let Some(flag) = flag_named(name) {
            let argument = if let Value::Text(text) = value { Some(text.as_slice()) } else { None };
            if *value != Value::Boolean(false) {
                self.set(if is_qualified(flag, argument) { Flag::NoCacheFields } else { flag });
            }
        } else if let Some(time) = self.time_named(name) {
            let seconds =
                if let Value::Integer(seconds) = value { u64::try_from(*seconds).ok() } else { None };
            *time = Some(Duration::from_secs(seconds.unwrap_or_default().min(SECONDS_MAX)));
        }
    }

    fn time_named(&mut self, name: &[u8]) -> Option<&mut Option<Duration>> {
        Some(match name {
            _ if name.eq_ignore_ascii_case(b"max-age") => &mut self.max_age,
            _ if name.eq_ignore_ascii_case(b"s-maxage") => &mut self.s_maxage,
            _ if name.eq_ignore_ascii_case(b"min-fresh") => &mut self.min_fresh,
            _ if name.eq_ignore_ascii_case(b"max-stale") => &mut self.max_stale,
            _ if name.eq_ignore_ascii_case(b"stale-while-revalidate") => &mut self.stale_while_revalidate,
            _ if name.eq_ignore_ascii_case(b"stale-if-error") => &mut self.stale_if_error,
            _ => return None,
        })
    }
}

/// The fields that the response's `no-cache` names (RFC 9111 section 5.2.2.4).
pub(crate) fn no_cache_fields(headers: &HeaderMap) -> Vec<HeaderName> {
    let targeted = targeted_members(headers).map(|members| {
        let texts = members.into_iter().filter(|(name, _)| name == b"no-cache").map(|(_, value)| value);
        texts
            .filter_map(|value| if let Value::Text(text) = value { field_names(&text) } else { None })
            .flatten()
            .collect()
    });
    targeted.unwrap_or_else(|| {
        let lines = headers.get_all(header::CACHE_CONTROL).iter();
        let directives = lines.flat_map(Elements::of).map(split);
        directives
            .filter(|(name, _)| name.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
            .filter_map(|(_, argument)| field_names(argument?))
            .flatten()
            .collect()
    })
}

/// The members of `CDN-Cache-Control`; none if it is absent, empty, or no dictionary (RFC 9213 section 2.1).
fn targeted_members(headers: &HeaderMap) -> Option<Vec<(Vec<u8>, Value)>> {
    let mut lines = headers.get_all(TARGETED).iter();
    let first = lines.next()?;
    let joined = lines.fold(first.as_bytes().to_vec(), |mut joined, line| {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.as_bytes());
        joined
    });
    structured::dictionary(&joined).filter(|members| !members.is_empty())
}

/// The name of a directive, and what is behind its equals sign.
fn split(directive: &[u8]) -> (&[u8], Option<&[u8]>) {
    let equals = directive.iter().position(|byte| *byte == b'=').unwrap_or(directive.len());
    let (name, rest) = directive.split_at(equals);
    (name, rest.get(1..))
}

/// Whether it is a `no-cache` with the names of fields. Names that cannot be read make it the bare one.
fn is_qualified(flag: Flag, argument: Option<&[u8]>) -> bool {
    matches!(flag, Flag::NoCache) && argument.and_then(field_names).is_some()
}

fn field_names(argument: &[u8]) -> Option<Vec<HeaderName>> {
    let names = bare(argument).split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let names: Vec<_> = names.filter(|name| !name.is_empty()).map(HeaderName::from_bytes).collect();
    names.into_iter().collect::<Result<Vec<_>, _>>().ok().filter(|names| !names.is_empty())
}

fn flag_named(name: &[u8]) -> Option<Flag> {
    [
        ("no-store", Flag::NoStore),
        ("no-cache", Flag::NoCache),
        ("private", Flag::Private),
        ("public", Flag::Public),
        ("must-revalidate", Flag::MustRevalidate),
        ("proxy-revalidate", Flag::ProxyRevalidate),
        ("must-understand", Flag::MustUnderstand),
        ("only-if-cached", Flag::OnlyIfCached),
    ]
    .into_iter()
    .find_map(|(text, flag)| name.eq_ignore_ascii_case(text.as_bytes()).then_some(flag))
}

/// The greatest time that is told apart (RFC 9111 section 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// Reads the argument of a directive as delta-seconds, in quotes or not.
fn seconds(argument: &[u8]) -> Option<Duration> {
    delta_seconds(bare(argument))
}

/// What is between the quotes, if there are two.
fn bare(argument: &[u8]) -> &[u8] {
    argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(argument)
}

/// Reads delta-seconds (RFC 9111 section 1.2.2). Too large is the maximum; anything but digits is none.
pub(crate) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = std::str::from_utf8(digits).ok()?.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
    Some(Duration::from_secs(seconds))
}

/// The elements of a comma-separated list, trimmed; commas in quotes do not separate (RFC 9110 section 5.6.1).
pub(crate) struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    pub(crate) fn of(line: &'a HeaderValue) -> Self {
        Self::of_bytes(line.as_bytes())
    }

    pub(crate) fn of_bytes(line: &'a [u8]) -> Self {
        Self(line)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.0.is_empty() {
            let (element, rest) = self.0.split_at(end_of_element(self.0));
            self.0 = rest.get(1..).unwrap_or_default();
            let element = element.trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

fn end_of_element(list: &[u8]) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    list.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Directives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        Directives::of(&headers)
    }

    fn max_age(line: &str) -> Option<u64> {
        read(&[line]).max_age.map(|age| age.as_secs())
    }

    /// RFC 9111 section 5.2: names are case-insensitive, both forms of an argument are read.
    #[test]
    fn section_5_2_case_and_quotes_do_not_matter() {
        assert_eq!(max_age("MAX-AGE=60"), Some(60));
        assert_eq!(max_age("max-age=\"60\""), Some(60));
        assert!(read(&["No-Store"]).has(Flag::NoStore));
    }

    /// RFC 9111 section 4.2.1: with conflicting values the most restrictive is used.
    #[test]
    fn section_4_2_1_of_duplicates_the_shortest_wins() {
        assert_eq!(max_age("max-age=60, max-age=5, max-age=70"), Some(5));
        assert_eq!(read(&["max-age=60", "max-age=5"]).max_age, Some(Duration::from_secs(5)));
    }

    /// RFC 9111 section 4.2.1: invalid freshness information makes the response stale.
    #[test]
    fn section_4_2_1_what_is_no_number_is_zero() {
        for line in
            ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=1h", "max-age='5'", "max-age=+5"]
        {
            assert_eq!(max_age(line), Some(0), "{line}");
        }
        assert_eq!(max_age("max-age=60, max-age=x"), Some(0));
    }

    /// RFC 9111 section 5.2: no white space belongs to the equals sign, but what restricts is understood.
    #[test]
    fn section_5_2_white_space_around_the_equals_sign_is_invalid() {
        assert_eq!(max_age("max-age =60"), Some(0));
        assert_eq!(max_age("max-age= 60"), Some(0));
        assert!(read(&["no-store =1"]).has(Flag::NoStore));
    }

    /// RFC 9111 section 5.2.2.4: with names only those fields are meant; what cannot be read means all.
    #[test]
    fn section_5_2_2_4_no_cache_may_name_fields() {
        let names = |line: &'static str| {
            let headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(line))]);
            let directives = Directives::of_response(&headers);
            assert_ne!(directives.has(Flag::NoCache), directives.has(Flag::NoCacheFields), "{line}");
            no_cache_fields(&headers).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("no-cache=\"X-A, x-b\""), ["x-a", "x-b"]);
        assert_eq!(names("no-cache=X-A"), ["x-a"]);
        assert!(names("no-cache").is_empty());
        assert!(names("no-cache=\"\"").is_empty());
        assert!(names("no-cache=\"a b\"").is_empty());
    }

    /// RFC 9111 section 5.2.1.2: without a value any staleness will do.
    #[test]
    fn section_5_2_1_2_max_stale_may_have_no_value() {
        assert_eq!(read(&["max-stale"]).max_stale, Some(Duration::MAX));
        assert_eq!(read(&["max-stale=5"]).max_stale, Some(Duration::from_secs(5)));
        assert_eq!(read(&["max-stale=x"]).max_stale, Some(Duration::ZERO));
    }

    /// RFC 9213 sections 2.1 and 2.2: the targeted field alone counts if it can be read and is not empty.
    #[test]
    fn rfc_9213_the_targeted_field_takes_the_place_of_the_other() {
        let read = |targeted: &'static str| {
            let mut headers = HeaderMap::from_iter([(TARGETED, HeaderValue::from_static(targeted))]);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, s-maxage=7"));
            Directives::of_response(&headers)
        };
        let it = read("max-age=60, max-age=5;x, private=?0");
        assert!(it.is_targeted && !it.has(Flag::NoStore) && !it.has(Flag::Private));
        assert_eq!((it.max_age, it.s_maxage), (Some(Duration::from_secs(5)), None));
        for ignored in ["", "max-age=60,", "Max-Age=60", "max-age='60'"] {
            let it = read(ignored);
            assert!(!it.is_targeted && it.has(Flag::NoStore), "{ignored}");
        }
        assert_eq!(read("max-age=\"60\"").max_age, Some(Duration::ZERO));
    }

    /// RFC 9111 section 1.2.2: overflow is a very long time, never a short one.
    #[test]
    fn section_1_2_2_overflow_is_the_maximum() {
        assert_eq!(max_age("max-age=99999999999999999999999"), Some(SECONDS_MAX));
        assert_eq!(max_age("max-age=4294967296"), Some(SECONDS_MAX));
    }

    #[test]
    fn a_comma_in_quotes_does_not_separate() {
        let directives = read(&[r#"ext="a, max-age=1, \", no-store", private="set-cookie", max-age=9"#]);
        assert_eq!(directives.max_age, Some(Duration::from_secs(9)));
        assert!(!directives.has(Flag::NoStore));
        assert!(directives.has(Flag::Private));
    }

    #[test]
    fn empty_elements_and_unknown_names_are_passed_over() {
        let directives = read(&[", ,public,,x-max-age=1,nopublic", ""]);
        assert!(directives.has(Flag::Public));
        assert_eq!(directives.max_age, None);
    }
}
