//! The cookies of a request, read in one way for the key, the personal-cookie rules, affinity and hashing.
//!
//! RFC 6265 section 4.2.1 says how a `Cookie` field is written; programs differ in how they read what deviates from it:
//! some trim names, some read names without case, some take `.` for `_`, some split at commas, some heed quotes. A cookie
//! that one of them may read as another one than this parser does is *ambiguous*, and never counts as harmless.

use http::header::{self, HeaderMap};
use memchr::memchr;

/// One cookie of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie<'a> {
    /// Without white space around it; empty if there is no `=`.
    pub name: &'a [u8],
    /// Without white space around it.
    pub value: &'a [u8],
    /// The whole of it as it was sent, without white space around it.
    pub text: &'a [u8],
}

impl<'a> Cookie<'a> {
    /// All cookies of a request, in order.
    pub fn all(headers: &'a HeaderMap) -> impl Iterator<Item = Self> {
        headers.get_all(header::COOKIE).iter().flat_map(|line| Self::of_line(line.as_bytes()))
    }

    /// The cookies of one line.
    pub fn of_line(line: &'a [u8]) -> impl Iterator<Item = Self> {
        let parts = line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        parts.filter(|text| !text.is_empty()).map(Self::of)
    }

    fn of(text: &'a [u8]) -> Self {
        let (name, value) = memchr(b'=', text)
            .and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?)))
            .unwrap_or((b"", text));
        Self { name: name.trim_ascii(), value: value.trim_ascii(), text }
    }

    /// Whether it has this name.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// Whether every program reads this name and value out of it.
    pub(crate) fn is_well_formed(&self) -> bool {
        !self.name.is_empty() && self.name.iter().all(|byte| is_plain(*byte)) && is_plain_value(self.value)
    }

    /// Whether some program reads it as the cookie of this name although it has another one, or reads more cookies out of it.
    pub(crate) fn may_be_read_as(&self, name: &str) -> bool {
        !self.is_named(name) && (!self.is_well_formed() || same_folded(self.name, name.as_bytes()))
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Quotes come in pairs around the whole value, and behind a comma no other cookie begins.
fn is_plain_value(value: &[u8]) -> bool {
    let inner = match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    };
    let behind_comma = memchr(b',', inner).and_then(|at| inner.get(at..)).unwrap_or_default();
    memchr(b'"', inner).is_none() && memchr(b'=', behind_comma).is_none()
}

/// Whether two names are one for programs that ignore case, or take `.` for `_`.
pub(crate) fn same_folded(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| folded(*one) == folded(*other))
}

/// A byte of a name as the most lenient program reads it.
fn folded(byte: u8) -> u8 {
    if byte == b'.' { b'_' } else { byte.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::headers;

    fn read(lines: &[&str]) -> Vec<(String, String)> {
        let fields: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Cookie::all(&headers(&fields)).map(|cookie| (text(cookie.name), text(cookie.value))).collect()
    }

    #[test]
    fn names_and_values_have_no_white_space_around_them() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read(&["a=1; b = 2 ;;c"]), [pair("a", "1"), pair("b", "2"), pair("", "c")]);
        assert_eq!(read(&["a=1", "\ta\t=x=y"]), [pair("a", "1"), pair("a", "x=y")]);
        assert!(read(&[" ; "]).is_empty());
    }

    #[test]
    fn a_cookie_that_programs_read_differently_is_not_well_formed() {
        let is_well_formed = |text: &str| Cookie::of(text.as_bytes()).is_well_formed();
        for sound in ["a=1", "_ga_X-1=GS1.1.2", "a=", "a=\"x\"", "a=1,2", "a=b=c", "wp.id=1"] {
            assert!(is_well_formed(sound), "{sound}");
        }
        for odd in [
            "a",
            "=a",
            "a%62=1",
            "a[b]=1",
            "$Version=1",
            "a b=1",
            "a=\"x",
            "a=x\"y\"",
            "a=1, b=2",
            "\u{e9}=1",
        ] {
            assert!(!is_well_formed(odd), "{odd}");
        }
    }

    #[test]
    fn a_name_that_folds_to_another_may_be_read_as_it() {
        let may_be_read = |text: &str| Cookie::of(text.as_bytes()).may_be_read_as("my_lang");
        for other in ["MY_LANG=1", "my.lang=1", "x=\"a", "x=1,my_lang=2", "my_lang"] {
            assert!(may_be_read(other), "{other}");
        }
        for not in ["my_lang=1", "my_lang =1", "mylang=1", "x=my_lang"] {
            assert!(!may_be_read(not), "{not}");
        }
    }
}
