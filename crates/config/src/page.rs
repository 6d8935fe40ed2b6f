//! An error page of the operator's: text with places that are filled per request.

/// What can stand in a page, written in braces: `{status}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The status, like `502`.
    Status,
    /// Its name, like `Bad Gateway`.
    Title,
    /// What happened, in one plain sentence.
    Details,
    /// The cause, like `connection_refused`.
    Cause,
    /// The request's identifier.
    RequestId,
    /// `errors.contact`.
    Contact,
    /// When to try again, in seconds.
    RetryAfter,
}

impl Place {
    const ALL: [Self; 7] = [
        Self::Status,
        Self::Title,
        Self::Details,
        Self::Cause,
        Self::RequestId,
        Self::Contact,
        Self::RetryAfter,
    ];

    const fn written(self) -> &'static str {
        match self {
            Self::Status => "{status}",
            Self::Title => "{title}",
            Self::Details => "{details}",
            Self::Cause => "{cause}",
            Self::RequestId => "{request_id}",
            Self::Contact => "{contact}",
            Self::RetryAfter => "{retry_after}",
        }
    }
}

/// A page, cut at its places. Braces around anything else are text: style sheets are full of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// Text, and the place behind it if there is one.
    parts: Vec<(String, Option<Place>)>,
}

impl ErrorPage {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let found = Place::ALL.into_iter().filter_map(|place| Some((rest.find(place.written())?, place)));
            let Some((at, place)) = found.min_by_key(|(at, _)| *at) else {
                parts.push((rest.to_owned(), None));
                return Self { parts };
            };
            let (before, after) = rest.split_at(at);
            parts.push((before.to_owned(), Some(place)));
            rest = after.strip_prefix(place.written()).unwrap_or_default();
        }
    }

    /// The page with its places filled; `value` gives text that needs no escaping.
    pub fn fill<'a>(&self, value: impl Fn(Place) -> &'a str) -> String {
        let mut page = String::new();
        for (text, place) in &self.parts {
            page.push_str(text);
            page.push_str(place.map_or("", &value));
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_other_braces_stay() {
        let page = ErrorPage::parse("body{margin:0} {status}{request_id}: {details} {unknown} {status");
        let filled = page.fill(|place| match place {
            Place::Status => "502",
            Place::RequestId => "abc",
            Place::Title | Place::Details | Place::Cause | Place::Contact | Place::RetryAfter => "x",
        });
        assert_eq!(filled, "body{margin:0} 502abc: x {unknown} {status");
        assert_eq!(ErrorPage::parse("").fill(|_| "x"), "");
    }
}
