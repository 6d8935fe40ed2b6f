//! One form for every path, so that a route, a rule, the cache and the backend all read the same thing in it.
//!
//! RFC 3986 section 6.2.2: escapes of what needs none are undone, the others are in upper case, what a path
//! may not hold is escaped, dot segments are gone (RFC 3986 section 5.2.4). An escaped slash or backslash is no
//! separator. What has no one reading is refused; a target that is normal costs one look at its bytes.
//!
//! Runs of slashes stay as they are: for image proxies, archives and object stores they are part of a name. Routes and
//! rules compare the path with each run made one slash (see [`merged_path`]), since many servers read it so.

use std::borrow::Cow;

/// The longest target in bytes: `http::Uri` holds no longer one.
pub const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;

/// Why a target has no normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// A `%` without two hexadecimal digits behind it, or NUL, escaped or not.
    Escape,
    /// A `..` that leads out of the root.
    AboveRoot,
    /// A dot segment with parameters (`..;x`): some servers take it for `..`.
    DotParameters,
    /// Its normal form is longer than `TARGET_BYTES_MAX`.
    TooLong,
}

impl BadTarget {
    /// What is wrong, in one plain sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Escape => "The path holds an escape that is not valid.",
            Self::AboveRoot => "The path leads out of the site.",
            Self::DotParameters => "The path holds a dot segment with parameters.",
            Self::TooLong => "The path is too long in its normal form.",
        }
    }
}

/// The normal form of a target in origin form: a path that begins with `/`, and a query if there is one. None
/// if it is in that form already. The query stays as it is, but for bytes that are not ASCII: they are escaped.
pub fn normal_target(target: &[u8]) -> Result<Option<String>, BadTarget> {
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(mark) => target.split_at(mark),
        None => (target, [].as_slice()),
    };
    if is_normal(path) && query.is_ascii() {
        return Ok(None);
    }
    let mut normal = without_dots(&with_few_escapes(path)?)?;
    for byte in query {
        if byte.is_ascii() { normal.push(char::from(*byte)) } else { escape(*byte, &mut normal) }
    }
    if normal.len() > TARGET_BYTES_MAX { Err(BadTarget::TooLong) } else { Ok(Some(normal)) }
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in a path as it is, slashes included (RFC 3986 section 3.3).
const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
        || matches!(byte, b':' | b'@' | b'/')
}

fn is_normal(path: &[u8]) -> bool {
    let mut rest = path;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'/', after) if begins_an_odd_segment(after) => return false,
            (b'%', [high @ (b'0'..=b'9' | b'A'..=b'F'), low @ (b'0'..=b'9' | b'A'..=b'F'), after @ ..]) => {
                match value(*high, *low) {
                    Some(byte) if byte != 0 && !is_unreserved(byte) => after,
                    Some(_) | None => return false,
                }
            }
            (byte, after) if is_plain(*byte) => after,
            _ => return false,
        };
    }
    path.starts_with(b"/")
}

/// Whether what follows a slash begins with a segment that is made of dots.
fn begins_an_odd_segment(after: &[u8]) -> bool {
    matches!(after, [b'.'] | [b'.', b'/' | b';', ..] | [b'.', b'.'] | [b'.', b'.', b'/' | b';', ..])
}

/// A path with each run of slashes made one.
pub fn merged_path(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let has_run = bytes.iter().zip(bytes.iter().skip(1)).any(|pair| pair == (&b'/', &b'/'));
    if !has_run {
        return Cow::Borrowed(path);
    }
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    Cow::Owned(merged)
}

fn value(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn escape(byte: u8, to: &mut String) {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase();
    to.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

/// The path with escapes where they are needed and nowhere else. All of it is ASCII.
fn with_few_escapes(path: &[u8]) -> Result<String, BadTarget> {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let byte = value(*high, *low).filter(|byte| *byte != 0).ok_or(BadTarget::Escape)?;
                if !is_unreserved(byte) {
                    escape(byte, &mut text);
                    rest = after;
                    continue;
                }
                (byte, after)
            }
            (b'%' | 0, _) => return Err(BadTarget::Escape),
            (byte, after) => (*byte, after),
        };
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            escape(byte, &mut text);
        }
        rest = after;
    }
    Ok(text)
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> Result<String, BadTarget> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(usize::from(path.starts_with('/'))).peekable();
    while let Some(segment) = segments.next() {
        let is_dots = matches!(segment, "." | "..");
        if segment == ".." {
            kept.pop().ok_or(BadTarget::AboveRoot)?;
        }
        if segment.starts_with(".;") || segment.starts_with("..;") {
            return Err(BadTarget::DotParameters);
        }
        if !is_dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push("");
        }
    }
    Ok(format!("/{}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The normal form, whatever it was before.
    fn normal(target: &str) -> Result<String, BadTarget> {
        normal_target(target.as_bytes()).map(|changed| changed.unwrap_or_else(|| target.to_owned()))
    }

    #[test]
    fn what_is_normal_is_left_alone() {
        for target in [
            "/",
            "/a",
            "/a/",
            "/a/b.html",
            "/a/.b/..c/...",
            "/.well-known/x",
            "/a;b=c/d;e",
            "/a%20b%2Fc%5Cd%25",
            "//",
            "//a///b//",
            "/s3://bucket/a.png",
            "/~u/-_.!$&'()*+,;=:@",
            "/?",
            "/a?x=//../%zz%7e\\\"",
            "/%C3%A9",
            "/a%0A",
        ] {
            assert_eq!(normal_target(target.as_bytes()), Ok(None), "{target}");
        }
    }

    #[test]
    fn other_ways_to_write_a_path_have_its_one_form() {
        for (written, expected) in [
            ("/%7Euser/%61%2d%2E%5F", "/~user/a-._"),
            ("/%2f%5c%c3%a9", "/%2F%5C%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/a\"b<c>d\\e^f`g{h|i}j[k]", "/a%22b%3Cc%3Ed%5Ce%5Ef%60g%7Bh%7Ci%7Dj%5Bk%5D"),
            ("/a//./b", "/a//b"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/.", "/"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a//../b", "/a/b"),
            ("//../x", "/x"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b/%2e/c", "/b/c"),
            ("/a/%252e%252e/b", "/a/%252e%252e/b"),
            ("/a/..%2fb", "/a/..%2Fb"),
            ("/a/..%5cb", "/a/..%5Cb"),
            ("/a;x=1/../b", "/b"),
            ("/a/../b?c/../d//%7e", "/b?c/../d//%7e"),
            ("/x?\u{e9}=%e9", "/x?%C3%A9=%e9"),
        ] {
            assert_eq!(normal(written).as_deref(), Ok(expected), "{written}");
        }
        assert_eq!(normal_target(b"/\xff?\xfe"), Ok(Some("/%FF?%FE".to_owned())), "no two are taken for one");
        let longest = [b"/".as_slice(), &b"<".repeat(TARGET_BYTES_MAX / 3)].concat();
        assert!(normal_target(&longest).is_ok());
        assert_eq!(normal_target(&[&longest, b"<".as_slice()].concat()), Err(BadTarget::TooLong));
    }

    #[test]
    fn what_has_no_one_reading_is_refused() {
        for (written, why) in [
            ("/%", BadTarget::Escape),
            ("/%4", BadTarget::Escape),
            ("/%zz", BadTarget::Escape),
            ("/%4g", BadTarget::Escape),
            ("/a%00", BadTarget::Escape),
            ("/%+1", BadTarget::Escape),
            ("/..", BadTarget::AboveRoot),
            ("/a/../..", BadTarget::AboveRoot),
            ("/%2e%2e/x", BadTarget::AboveRoot),
            ("/./../x", BadTarget::AboveRoot),
            ("/a/..;/b", BadTarget::DotParameters),
            ("/a/%2e%2e;x/b", BadTarget::DotParameters),
            ("/a/.;/b", BadTarget::DotParameters),
        ] {
            assert_eq!(normal(written), Err(why), "{written}");
        }
    }

    #[test]
    fn runs_of_slashes_are_one_for_whoever_compares() {
        for (path, merged) in [("/", "/"), ("//", "/"), ("/a//b///c/", "/a/b/c/"), ("/a/b", "/a/b")] {
            assert_eq!(merged_path(path), merged);
        }
    }

    /// Any bytes: the form is stable and has no dot segments, and the check without allocation agrees with it.
    #[test]
    fn a_normal_form_is_stable() {
        const PIECES: [&[u8]; 18] = [
            b"/",
            b"/",
            b".",
            b"..",
            b"a",
            b"%2e",
            b"%2F",
            b"%",
            b"%7",
            b";",
            b"?",
            b"\\",
            b"\xff",
            b"%zz",
            b"%41",
            b"%0a",
            b"\xc3\xa9",
            b"\"",
        ];
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut next = |below: usize| {
            // xorshift64: the same cases in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let mut good = 0;
        for _ in 0..100_000 {
            let mut target = b"/".to_vec();
            for _ in 0..next(9) {
                if next(8) == 0 {
                    target.push(u8::try_from(next(256)).unwrap());
                } else {
                    target.extend_from_slice(PIECES[next(PIECES.len())]);
                }
            }
            let Ok(changed) = normal_target(&target) else { continue };
            good += 1;
            let shown = String::from_utf8_lossy(&target);
            let normal = changed.unwrap_or_else(|| String::from_utf8(target.clone()).expect("ASCII"));
            assert_eq!(normal_target(normal.as_bytes()), Ok(None), "{shown:?} -> {normal:?}");
            let path = normal.split('?').next().unwrap_or_default();
            assert!(normal.is_ascii() && path.starts_with('/'), "{shown:?} -> {normal:?}");
            let segments: Vec<&str> = path.split('/').skip(1).collect();
            assert!(!segments.contains(&".") && !segments.contains(&".."), "{normal:?}");
        }
        assert!(good > 10_000, "{good} good ones");
    }
}
