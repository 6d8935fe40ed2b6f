//! The secret that the admin API asks for. It comes from a file, is compared in constant time and is
//! never shown: not by `Debug`, not in a problem.

use std::fmt;
use std::hint::black_box;
use std::path::Path;

use crate::file::read_bounded;

/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// A secret of the operator. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Whether the candidate is the token. Takes the same time wherever the two differ; only the
    /// candidate's length can be told from it.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let same_length = u8::from(secret.len() != candidate.len());
        let difference = candidate
            .iter()
            .zip(secret.iter().cycle())
            .fold(same_length, |difference, (a, b)| black_box(difference | (a ^ b)));
        difference == 0
    }

    /// The field value that carries it, for a command of the operator's own.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Reads a token file: the token is its text without the white space around it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let named = path.display();
        let bytes = read_bounded(path, TOKEN_BYTES_MAX, "a token is one short line")?;
        let token = bytes.trim_ascii();
        if token.is_empty() {
            return Err(format!("{named} is empty, a token is expected in it"));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(format!("{named} holds more than one word of visible ASCII characters"));
        }
        Ok(Self(token.iter().copied().map(char::from).collect()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_matches() {
        let token = Token("s3cret".to_owned());
        assert!(token.matches(b"s3cret"));
        for other in [&b""[..], b"s3cre", b"s3crets", b"s3creT", b"s3crets3cret"] {
            assert!(!token.matches(other), "{other:?}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Token("s3cret".to_owned())), "Token(…)");
    }
}
