//! A chunked request body as raw bytes: where it ends, and whether it is chunked by the letter (RFC 9112
//! section 7.1).
//!
//! Seen before Pingora's parser, which takes any byte in an extension, an empty size and trailers of any
//! form. What passes here has one reading, and its end is known, so that the next request of the connection
//! is never taken for a part of this one. Data is skipped by its length: only the lines between are looked at.

use crate::head::is_token;

/// All extensions and trailers of one body together; there is no use for either here.
const EXTRA_BYTES_MAX: u16 = 8 << 10;
/// Digits of a size: more could overflow.
const DIGITS_MAX: u8 = 16;

/// How far a body has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    state: State,
    /// What is left of the head or of the chunk's data; the chunk's size while that is being read.
    left: u64,
    extra: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The head of the request, which has been checked.
    Head,
    /// In a size, behind so many digits.
    Size(u8),
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// Where in an extension (RFC 9112 section 7.1.1). By the letter too: a CR within quotes would end the line for
/// some readers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// Behind a semicolon and white space.
    BeforeName,
    Name,
    /// In white space behind a name: a value or the next extension follows.
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    Closed,
    /// In white space behind a size or a value: another extension must follow.
    Space,
}

/// The body is not chunked as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Chunks {
    /// Before a body that follows a head of this length.
    pub(crate) fn behind(head: usize) -> Self {
        Self { state: State::Head, left: head as u64, extra: 0 }
    }

    /// Whether the body has ended.
    pub(crate) fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Reads on; how many of the bytes belong to the body. What is before a mistake is good still: the
    /// error comes when that is taken and the mistake is at the front.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut taken = 0;
        while let (Some(byte), false) = (bytes.get(taken), self.is_end()) {
            if self.state == State::Head {
                taken += self.skip(bytes.len() - taken, State::Size(0));
            } else if self.state == State::Data {
                taken += self.skip(bytes.len() - taken, State::DataCr);
            } else {
                match self.step(self.state, *byte) {
                    Ok(next) => self.state = next,
                    Err(Broken) if taken > 0 => break,
                    Err(Broken) => return Err(Broken),
                }
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn skip(&mut self, available: usize, next: State) -> usize {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
        self.left -= count as u64;
        if self.left == 0 {
            self.state = next;
        }
        count
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Broken> {
        Ok(match (state, byte) {
            (State::Size(digits), _) => self.size(digits, byte)?,
            (State::Extension(Extension::Name | Extension::Value | Extension::Closed), b'\r') => {
                State::SizeLf
            }
            (State::Extension(at), _) => self.count(State::Extension(extension(at, byte)?))?,
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::Trailer, b'\r') => State::EndLf,
            (State::Trailer | State::TrailerName, byte) if is_token(byte) => {
                self.count(State::TrailerName)?
            }
            (State::TrailerName, b':') => self.count(State::TrailerValue)?,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, byte) if is_text(byte) => self.count(State::TrailerValue)?,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(Broken),
        })
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, Broken> {
        if let Some(digit) = char::from(byte).to_digit(16).filter(|_| digits < DIGITS_MAX) {
            let before = if digits == 0 { 0 } else { self.left };
            self.left = before << 4 | u64::from(digit);
            return Ok(State::Size(digits + 1));
        }
        match byte {
            _ if digits == 0 => Err(Broken),
            b'\r' => Ok(State::SizeLf),
            b' ' | b'\t' => self.count(State::Extension(Extension::Space)),
            b';' => self.count(State::Extension(Extension::BeforeName)),
            _ => Err(Broken),
        }
    }

    fn count(&mut self, next: State) -> Result<State, Broken> {
        self.extra += 1;
        if self.extra > EXTRA_BYTES_MAX { Err(Broken) } else { Ok(next) }
    }
}

fn extension(at: Extension, byte: u8) -> Result<Extension, Broken> {
    Ok(match (at, byte) {
        (Extension::Quoted, b'"') => Extension::Closed,
        (Extension::Quoted, b'\\') => Extension::Escaped,
        (Extension::Quoted | Extension::Escaped, byte) if is_text(byte) => Extension::Quoted,
        (Extension::BeforeName | Extension::Name, byte) if is_token(byte) => Extension::Name,
        (Extension::BeforeValue | Extension::Value, byte) if is_token(byte) => Extension::Value,
        (Extension::BeforeValue, b'"') => Extension::Quoted,
        (Extension::Name | Extension::AfterName, b'=') => Extension::BeforeValue,
        (
            Extension::BeforeName | Extension::BeforeValue | Extension::AfterName | Extension::Space,
            b' ' | b'\t',
        ) => at,
        (Extension::Name, b' ' | b'\t') => Extension::AfterName,
        (Extension::Value | Extension::Closed, b' ' | b'\t') => Extension::Space,
        (
            Extension::Name | Extension::AfterName | Extension::Value | Extension::Closed | Extension::Space,
            b';',
        ) => Extension::BeforeName,
        _ => return Err(Broken),
    })
}

/// A byte of a field's value (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Chunks {
        Chunks { state: State::Size(0), ..Chunks::behind(0) }
    }

    /// What of it belongs to the body, if that ends.
    fn read(bytes: &str) -> Result<Option<usize>, Broken> {
        let mut chunks = begun();
        let taken = chunks.take(bytes.as_bytes())?;
        if taken < bytes.len() && !chunks.is_end() {
            chunks.take(&bytes.as_bytes()[taken..])?;
        }
        Ok(chunks.is_end().then_some(taken))
    }

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_cut() {
        let body = "5\r\nhello\r\n00a ; x = \"q\\\"\"\t;y=z ; w\r\n0123456789\r\nF ;y\r\n0123456789abcde\r\n0;z\r\nA: b\r\nC:\r\n\r\n";
        let bytes = format!("{body}GET / HTTP/1.1\r\n");
        assert_eq!(read(&bytes), Ok(Some(body.len())));
        for cut in 0..body.len() {
            let mut chunks = begun();
            assert_eq!(chunks.take(&bytes.as_bytes()[..cut]), Ok(cut), "{cut}");
            assert!(!chunks.is_end(), "{cut}");
            assert_eq!(chunks.take(&bytes.as_bytes()[cut..]), Ok(body.len() - cut), "{cut}");
            assert!(chunks.is_end(), "{cut}");
        }
    }

    #[test]
    fn what_has_a_second_reading_is_broken() {
        for broken in [
            "\r\n",
            "0x5\r\n",
            "+5\r\n",
            "-5\r\n",
            " 5\r\n",
            "5 \r\n",
            "5_0\r\n",
            "5 5\r\n",
            "5\n",
            "5\rx",
            "5\0\r\n",
            "00000000000000005\r\n",
            "5;a\n",
            "5;a\rb",
            "5;a\0",
            "5;\r\n",
            "5; \r\n",
            "5;;a\r\n",
            "5;=a\r\n",
            "5;a=\r\n",
            "5;a=b=c\r\n",
            "5;a b\r\n",
            "5;a \r\n",
            "5;a=b \r\n",
            "5;a=\"b\"c\r\n",
            "5;\"a\"\r\n",
            "5;a=b,c\r\n",
            "5;a=\"\r\n",
            "5;a=\"\\\"\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "0\r\nGET / HTTP/1.1\r\n",
            "0\r\n a: b\r\n",
            "0\r\n:\r\n",
            "0\r\na : b\r\n",
            "0\r\na: b\n",
            "0\r\n\n",
            "0\r\n\rx",
        ] {
            assert_eq!(read(broken), Err(Broken), "{broken:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_have_a_bound_in_common() {
        let max = usize::from(EXTRA_BYTES_MAX);
        assert!(read(&format!("1;{}\r\na\r\n", "x".repeat(max - 1))).is_ok());
        assert_eq!(read(&format!("1;{}", "x".repeat(max))), Err(Broken));
        assert_eq!(read(&format!("0\r\na:{}", "x".repeat(max))), Err(Broken));
        assert_eq!(read(&"1;abcdefg\r\nx\r\n".repeat(max / 8 + 1)), Err(Broken));
    }

    #[test]
    fn the_head_before_it_is_passed_over() {
        let mut chunks = Chunks::behind(4);
        assert_eq!(chunks.take(b"xx"), Ok(2));
        assert_eq!(chunks.take(b"xx0\r\n\r\nxx"), Ok(7));
        assert!(chunks.is_end());
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        let mut chunks = begun();
        assert_eq!(chunks.take(b"ffffffffffffffff\r\nabc"), Ok(21));
        assert_eq!(chunks.left, u64::MAX - 3);
    }
}
