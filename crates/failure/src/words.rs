//! The words of `retry.on`, `use_stale` and `fail_on`: nginx's own, as a set in two bytes.

/// One word of a list of failure conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// A connection could not be made, or broke.
    Error,
    /// Something did not happen in time.
    Timeout,
    /// The answer is not valid HTTP.
    InvalidHeader,
    /// An old copy may be served while it is refreshed (`use_stale` only).
    Updating,
    /// The backend answered 500.
    Http500,
    /// The backend answered 502.
    Http502,
    /// The backend answered 503.
    Http503,
    /// The backend answered 504.
    Http504,
    /// The backend answered 429.
    Http429,
    /// The backend answered 403.
    Http403,
    /// The backend answered 404.
    Http404,
}

impl Word {
    /// Every word, in the order in which they are documented.
    pub const ALL: [Self; 11] = [
        Self::Error,
        Self::Timeout,
        Self::InvalidHeader,
        Self::Updating,
        Self::Http500,
        Self::Http502,
        Self::Http503,
        Self::Http504,
        Self::Http429,
        Self::Http403,
        Self::Http404,
    ];

    /// As written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::InvalidHeader => "invalid_header",
            Self::Updating => "updating",
            Self::Http500 => "http_500",
            Self::Http502 => "http_502",
            Self::Http503 => "http_503",
            Self::Http504 => "http_504",
            Self::Http429 => "http_429",
            Self::Http403 => "http_403",
            Self::Http404 => "http_404",
        }
    }

    /// The word with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.name() == name)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of [`Word`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words(u16);

impl Words {
    /// No word at all.
    pub const NONE: Self = Self(0);

    /// The set of the given words.
    pub const fn of(words: &[Word]) -> Self {
        let mut bits = 0;
        let mut rest = words;
        while let [first, tail @ ..] = rest {
            bits |= first.bit();
            rest = tail;
        }
        Self(bits)
    }

    /// Whether the word is in the set.
    pub const fn contains(self, word: Word) -> bool {
        self.0 & word.bit() != 0
    }

    /// Whether the set has the word that covers this cause.
    pub const fn covers(self, cause: crate::Cause) -> bool {
        match cause.word() {
            Some(word) => self.contains(word),
            None => false,
        }
    }
}

impl FromIterator<Word> for Words {
    fn from_iter<I: IntoIterator<Item = Word>>(words: I) -> Self {
        Self(words.into_iter().fold(0, |bits, word| bits | word.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        for word in Word::ALL {
            let set = Words::of(&[word]);
            for other in Word::ALL {
                assert_eq!(set.contains(other), other == word);
            }
            assert_eq!(Word::from_name(word.name()), Some(word));
        }
        assert_eq!(Word::from_name("http_418"), None);
    }
}
