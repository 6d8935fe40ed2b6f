//! Dictionaries of structured fields (RFC 8941 section 3.2), for `CDN-Cache-Control` (RFC 9213).
//!
//! A field that breaks the syntax anywhere is as if it were not there, so every byte is read, though of the values
//! only whole numbers, booleans and strings matter.

/// The value of a member, its parameters left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Integer(i64),
    Boolean(bool),
    Text(Vec<u8>),
    /// A decimal, a token, bytes, or an inner list.
    Other,
}

/// The members in order; the same key may come again, and then the last one counts. None if it is no dictionary.
pub(crate) fn dictionary(text: &[u8]) -> Option<Vec<(Vec<u8>, Value)>> {
    let mut input = Input(text.trim_ascii());
    let mut members = Vec::new();
    while !input.0.is_empty() {
        let key = input.key()?;
        let value = if input.takes(b'=') { input.value()? } else { Value::Boolean(true) };
        input.parameters()?;
        members.push((key, value));
        input.white_space();
        if input.0.is_empty() {
            break;
        }
        (input.takes(b',')).then_some(())?;
        input.white_space();
        // A comma is followed by a member.
        (!input.0.is_empty()).then_some(())?;
    }
    Some(members)
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn takes(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take_while(&mut self, is_taken: impl Fn(u8) -> bool) -> &[u8] {
        let end = self.0.iter().position(|byte| !is_taken(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn white_space(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn key(&mut self) -> Option<Vec<u8>> {
        let first = *self.0.first()?;
        (first.is_ascii_lowercase() || first == b'*').then_some(())?;
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
        Some(self.take_while(is_key).to_vec())
    }

    fn value(&mut self) -> Option<Value> {
        if !self.takes(b'(') {
            return self.bare();
        }
        loop {
            self.take_while(|byte| byte == b' ');
            if self.takes(b')') {
                return Some(Value::Other);
            }
            self.bare()?;
            self.parameters()?;
            matches!(self.0.first(), Some(b' ' | b')')).then_some(())?;
        }
    }

    fn bare(&mut self) -> Option<Value> {
        match *self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.text(),
            b'?' => self.boolean(),
            b':' => self.bytes(),
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                self.take_while(is_token);
                Some(Value::Other)
            }
            _ => None,
        }
    }

    /// At most 15 digits, of a decimal 12 and three behind the point.
    fn number(&mut self) -> Option<Value> {
        let is_negative = self.takes(b'-');
        let digits = self.take_while(|byte| byte.is_ascii_digit()).to_vec();
        (1..=15).contains(&digits.len()).then_some(())?;
        if self.takes(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit()).len();
            return (digits.len() <= 12 && (1..=3).contains(&fraction)).then_some(Value::Other);
        }
        let number: i64 = std::str::from_utf8(&digits).ok()?.parse().ok()?;
        Some(Value::Integer(if is_negative { -number } else { number }))
    }

    fn text(&mut self) -> Option<Value> {
        self.next()?;
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(Value::Text(text)),
                b'\\' => text.push(self.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
                byte @ 0x20..=0x7e => text.push(byte),
                _ => return None,
            }
        }
    }

    fn boolean(&mut self) -> Option<Value> {
        self.next()?;
        match self.next()? {
            b'0' => Some(Value::Boolean(false)),
            b'1' => Some(Value::Boolean(true)),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<Value> {
        self.next()?;
        self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        self.takes(b':').then_some(Value::Other)
    }

    fn parameters(&mut self) -> Option<()> {
        while self.takes(b';') {
            self.take_while(|byte| byte == b' ');
            self.key()?;
            if self.takes(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(String, Value)>> {
        let members = dictionary(text.as_bytes())?;
        Some(members.into_iter().map(|(key, value)| (String::from_utf8(key).unwrap(), value)).collect())
    }

    /// RFC 8941 section 3.2.
    #[test]
    fn section_3_2_members_of_every_kind_are_read() {
        let text =
            r#" a=1, b;x=1;y ,	c="x\"y", d=?0, e=1.5, f=tok/en, g=:aGk=:, h=(1 "2";q  x), i=-5, *k=?1 "#;
        let members = read(text).unwrap();
        let of = |key: &str| members.iter().find(|(name, _)| name == key).unwrap().1.clone();
        assert_eq!(of("a"), Value::Integer(1));
        assert_eq!(of("b"), Value::Boolean(true));
        assert_eq!(of("c"), Value::Text(b"x\"y".to_vec()));
        assert_eq!(of("d"), Value::Boolean(false));
        assert_eq!(of("i"), Value::Integer(-5));
        assert_eq!(of("*k"), Value::Boolean(true));
        for key in ["e", "f", "g", "h"] {
            assert_eq!(of(key), Value::Other, "{key}");
        }
        assert_eq!(read(""), Some(Vec::new()));
    }

    /// RFC 8941 section 4.2: anything else fails as a whole.
    #[test]
    fn section_4_2_any_error_is_an_error_of_the_field() {
        for text in [
            ",",
            "a,",
            "a,,b",
            "A=1",
            "a=",
            "a =1",
            "a= 1",
            "a='1'",
            "a=\"1",
            "a=?2",
            "a=1 b=2",
            "a;B",
            "a; ,",
            "a=1234567890123456",
            "a=1.",
            "a=1.2345",
            "a=(1",
            "a=(1,2)",
            "a=:x",
            "1=a",
            "a=--1",
            "a=\u{e4}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
