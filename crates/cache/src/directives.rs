//! `Cache-Control`, of requests and responses (RFC 9111 section 5.2).
//!
//! Where a field can be read in two ways the careful one wins: of duplicates the shortest time, of a time that is
//! no number zero, and a directive that names fields (`private="a"`) counts as the bare one.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

/// A directive without a time.
#[derive(Clone, Copy)]
pub(crate) enum Flag {
    NoStore,
    NoCache,
    Private,
    Public,
    MustRevalidate,
    ProxyRevalidate,
    OnlyIfCached,
}

/// All lines of a `Cache-Control`, read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Directives {
    flags: u8,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl Directives {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            for directive in Elements::of(line) {
                directives.read(directive);
            }
        }
        directives
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags & 1 << flag as u8 != 0
    }

    fn read(&mut self, directive: &[u8]) {
        let equals = directive.iter().position(|byte| *byte == b'=').unwrap_or(directive.len());
        let (name, rest) = directive.split_at(equals);
        let name = name.trim_ascii();
        if let Some(flag) = flag_named(name) {
            self.flags |= 1 << flag as u8;
        } else if let Some(time) = self.time_named(name) {
            let seconds = seconds(rest.get(1..).unwrap_or_default()).unwrap_or(Duration::ZERO);
            *time = Some(time.map_or(seconds, |earlier| earlier.min(seconds)));
        }
    }

    fn time_named(&mut self, name: &[u8]) -> Option<&mut Option<Duration>> {
        Some(match name {
            _ if name.eq_ignore_ascii_case(b"max-age") => &mut self.max_age,
            _ if name.eq_ignore_ascii_case(b"s-maxage") => &mut self.s_maxage,
            _ if name.eq_ignore_ascii_case(b"min-fresh") => &mut self.min_fresh,
            _ if name.eq_ignore_ascii_case(b"stale-while-revalidate") => &mut self.stale_while_revalidate,
            _ if name.eq_ignore_ascii_case(b"stale-if-error") => &mut self.stale_if_error,
            _ => return None,
        })
    }
}

fn flag_named(name: &[u8]) -> Option<Flag> {
    [
        ("no-store", Flag::NoStore),
        ("no-cache", Flag::NoCache),
        ("private", Flag::Private),
        ("public", Flag::Public),
        ("must-revalidate", Flag::MustRevalidate),
        ("proxy-revalidate", Flag::ProxyRevalidate),
        ("only-if-cached", Flag::OnlyIfCached),
    ]
    .into_iter()
    .find_map(|(text, flag)| name.eq_ignore_ascii_case(text.as_bytes()).then_some(flag))
}

/// The greatest time that is told apart (RFC 9111 section 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// Reads delta-seconds, in quotes or not. Too large is the maximum; anything but digits is none.
pub(crate) fn seconds(text: &[u8]) -> Option<Duration> {
    let text = text.trim_ascii();
    let bare = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(text);
    if bare.is_empty() || !bare.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::str::from_utf8(bare).ok()?;
    let seconds = digits.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
    Some(Duration::from_secs(seconds))
}

/// The elements of a comma-separated list, trimmed; commas in quotes do not separate (RFC 9110 section 5.6.1).
pub(crate) struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    pub(crate) fn of(line: &'a HeaderValue) -> Self {
        Self(line.as_bytes())
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
