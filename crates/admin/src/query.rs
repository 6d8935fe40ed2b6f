//! The parameters of an address of the API: a closed list, each at most once, percent-decoded. What is
//! empty counts as absent. A plus is a plus: identifiers may have one.

use crate::explain::text::shown;

/// The longest value, in bytes before it is decoded.
const VALUE_BYTES_MAX: usize = 1024;
/// What is shown of a parameter that does not exist.
const NAME_CHARS_MAX: usize = 40;

/// Parameters that were given, and nothing else.
#[derive(Debug)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads the part behind the question mark. The error is a sentence for the one who asked.
    pub(crate) fn read(text: Option<&str>, allowed: &[&'static str]) -> Result<Self, String> {
        let query = Self::read_repeated(text.unwrap_or_default(), allowed)?;
        let times = |name| query.0.iter().filter(|(other, _)| *other == name).count();
        match allowed.iter().find(|name| times(**name) > 1) {
            Some(name) => Err(format!("{name} is given twice")),
            None => Ok(query),
        }
    }

    /// The same where parameters may be repeated.
    pub(crate) fn read_repeated(text: &str, allowed: &[&'static str]) -> Result<Self, String> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = allowed.iter().find(|known| **known == name) else {
                let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                return Err(format!(
                    "there is no parameter {}; known are {}",
                    shown(&name),
                    allowed.join(", ")
                ));
            };
            if value.len() > VALUE_BYTES_MAX {
                return Err(format!("{name} is longer than {VALUE_BYTES_MAX} bytes"));
            }
            let value = decoded(value).ok_or_else(|| format!("{name} is not percent-encoded UTF-8"))?;
            given.push((name, value));
        }
        Ok(Self(given))
    }

    /// A parameter that is not empty.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, value)| *known == name && !value.is_empty())?;
        Some(value)
    }

    /// All that are not empty, in their order.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, value.as_str()))
    }

    /// The parameter `request_id`; an error if it cannot be one.
    pub(crate) fn request_id(&self) -> Result<Option<&str>, String> {
        match self.value("request_id") {
            Some(id) if !is_request_id(id) => Err(NO_REQUEST_ID.to_owned()),
            id => Ok(id),
        }
    }
}

const NO_REQUEST_ID: &str =
    "request_id is the value of X-Request-Id: at most 128 letters, digits and signs of -_.:=+/";

/// Whether it has the form of an identifier: what the gateway makes, or takes over from a trusted proxy.
fn is_request_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:=+/".contains(&byte);
    !id.is_empty() && id.len() <= 128 && id.bytes().all(is_plain)
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [&str; 2] = ["route", "request_id"];

    fn read(text: &str) -> Result<Query, String> {
        Query::read(Some(text), &ALLOWED)
    }

    #[test]
    fn values_are_decoded_and_a_plus_stays() {
        let query = read("route=%2Fa%20b+c&&request_id=").unwrap();
        assert_eq!(query.value("route"), Some("/a b+c"));
        assert_eq!(query.value("request_id"), None);
        assert_eq!(Query::read(None, &ALLOWED).unwrap().value("route"), None);
    }

    #[test]
    fn what_is_hostile_is_an_error_and_never_shown_raw() {
        assert_eq!(read("r%1b=1").unwrap_err(), "there is no parameter r%1b; known are route, request_id");
        let long = "x".repeat(100_000);
        assert!(read(&long).unwrap_err().len() < 200);
        assert!(read("\u{1b}[31m").unwrap_err().starts_with("there is no parameter \\u{1b}[31m;"));
        for wrong in ["route=%", "route=%4", "route=%zz", "route=%ff", "route=%+1", "route=a&route=b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("route={long}")).is_err());
    }

    #[test]
    fn no_query_of_a_few_signs_panics() {
        let signs = ["%", "&", "=", "4", "g", "+", "é", "\u{1b}", "route"];
        let mut queries = vec![String::new()];
        for _ in 0..4 {
            let longer = queries.iter().flat_map(|query| signs.map(|sign| format!("{query}{sign}")));
            queries = longer.collect();
            for query in &queries {
                let read = read(query).and_then(|given| given.request_id().map(|_| ()));
                assert!(read.err().is_none_or(|why| !why.contains('\u{1b}')), "{query:?}");
            }
        }
        assert_eq!(queries.len(), 9 * 9 * 9 * 9);
    }

    #[test]
    fn an_identifier_is_short_and_plain() {
        let is_good = |id: &str| read(&format!("request_id={id}")).unwrap().request_id().is_ok();
        assert!(is_good("0af3-x_.:=+/"));
        for wrong in ["a%20b", "%1b%5b31m", "a%0d%0aX", &"x".repeat(129), "%22"] {
            assert!(!is_good(wrong), "{wrong}");
        }
    }
}
