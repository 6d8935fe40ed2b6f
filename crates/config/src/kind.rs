//! One value at a time: from a node to a typed value, or to what was found and what is allowed.

use std::ops::RangeInclusive;
use std::time::Duration;

use goodgate_failure::Word;

use crate::nearest::nearest;
use crate::quantity::{parse_duration, parse_percent, parse_size, show_duration, show_size};
use crate::tree::{Kind, Node};

/// Text that is not empty.
pub(crate) fn text(node: &Node) -> Result<String, String> {
    match &node.kind {
        Kind::Text(text) if !text.is_empty() => Ok(text.clone()),
        Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {
            Err(format!("found {}; allowed: text, so quote it", node.found()))
        }
        Kind::Null | Kind::Text(_) | Kind::List(_) | Kind::Map(_) => {
            Err(wrong(node, "text that is not empty"))
        }
    }
}

/// Text in a form of its own; the parser says what is allowed.
pub(crate) fn text_as<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&Node) -> Result<T, String> {
    move |node| match text(node) {
        Ok(text) => parse(&text).map_err(|allowed| wrong(node, &allowed)),
        // The parser knows better than "text" what is allowed, unless it would take the number.
        Err(message) => match parse(&node.found()) {
            Ok(_) => Err(message),
            Err(allowed) => Err(wrong(node, &allowed)),
        },
    }
}

/// `true` or `false`.
pub(crate) fn boolean(node: &Node) -> Result<bool, String> {
    let value = match &node.kind {
        Kind::Bool(value) => Some(*value),
        Kind::Text(text) if node.written.is_some() => text.parse().ok(),
        Kind::Text(_) | Kind::Null | Kind::Int(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
    };
    value.ok_or_else(|| wrong(node, "true, false"))
}

/// A whole number in a range.
pub(crate) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + std::fmt::Display,
{
    move |node| {
        let number = whole(node).and_then(|number| T::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| wrong(node, &format!("a whole number from {} to {}", range.start(), range.end())))
    }
}

fn whole(node: &Node) -> Option<i128> {
    match &node.kind {
        Kind::Int(number) => Some(*number),
        Kind::Text(text) if node.written.is_some() => text.parse().ok(),
        Kind::Text(_) | Kind::Null | Kind::Bool(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
    }
}

/// A duration in a range.
pub(crate) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Result<Duration, String> {
    move |node| {
        let read = match &node.kind {
            Kind::Text(text) => parse_duration(text),
            Kind::Int(0) => Some(Duration::ZERO),
            Kind::Int(_) | Kind::Null | Kind::Bool(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
        };
        match (read, whole(node)) {
            (Some(read), _) if range.contains(&read) => Ok(read),
            (Some(_), _) => {
                let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
                Err(wrong(node, &format!("{least} to {most}")))
            }
            (None, Some(number)) => Err(wrong(node, &format!("a duration with a unit, like `{number}s`"))),
            (None, None) => Err(wrong(node, "a duration, like `500ms`, `30s` or `1h30m`")),
        }
    }
}

/// A size in bytes in a range.
pub(crate) fn size(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Result<u64, String> {
    move |node| {
        let read = match &node.kind {
            Kind::Text(text) => parse_size(text),
            Kind::Int(bytes) => u64::try_from(*bytes).ok(),
            Kind::Null | Kind::Bool(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
        };
        match read {
            Some(bytes) if range.contains(&bytes) => Ok(bytes),
            Some(_) => {
                Err(wrong(node, &format!("{} to {}", show_size(*range.start()), show_size(*range.end()))))
            }
            None => Err(wrong(node, "a size, like `64KiB` or `10MB`")),
        }
    }
}

/// A percentage, 0 to 100.
pub(crate) fn percent(node: &Node) -> Result<u8, String> {
    let read = match &node.kind {
        Kind::Text(text) => parse_percent(text),
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
    };
    read.ok_or_else(|| wrong(node, "a percentage from `0%` to `100%`"))
}

/// Any number, if it is one.
#[expect(clippy::cast_precision_loss, reason = "nobody writes integers beyond 2^52 for what is a factor")]
pub(crate) fn number(node: &Node) -> Option<f64> {
    match &node.kind {
        Kind::Float(number) => Some(*number),
        Kind::Int(number) => Some(*number as f64),
        Kind::Text(text) if node.written.is_some() => text.parse().ok(),
        Kind::Text(_) | Kind::Null | Kind::Bool(_) | Kind::List(_) | Kind::Map(_) => None,
    }
}

/// A number from 0 to 1.
pub(crate) fn fraction(node: &Node) -> Result<f64, String> {
    let read = match &node.kind {
        Kind::Float(number) => Some(*number),
        Kind::Int(0) => Some(0.0),
        Kind::Int(1) => Some(1.0),
        Kind::Text(text) if node.written.is_some() => text.parse().ok(),
        Kind::Text(_) | Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::List(_) | Kind::Map(_) => None,
    };
    read.filter(|number| (0.0..=1.0).contains(number))
        .ok_or_else(|| wrong(node, "a number from 0.0 to 1.0, like `0.01`"))
}

/// One of a few words.
pub(crate) fn one_of<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let found = text(node).unwrap_or_default();
        let known = words.iter().find(|(word, _)| *word == found);
        known.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            not_among(node, &found, &names)
        })
    }
}

/// A word of a list of failures, `updating` left out.
pub(crate) fn failure_word(node: &Node) -> Result<Word, String> {
    let words: Vec<_> = stale_words().into_iter().filter(|(_, word)| *word != Word::Updating).collect();
    one_of(&words)(node)
}

/// A word of `use_stale`.
pub(crate) fn stale_word(node: &Node) -> Result<Word, String> {
    one_of(&stale_words())(node)
}

fn stale_words() -> Vec<(&'static str, Word)> {
    Word::ALL.into_iter().map(|word| (word.name(), word)).collect()
}

/// The message for a value that is not allowed.
pub(crate) fn wrong(node: &Node, allowed: &str) -> String {
    let line = match &node.kind {
        Kind::Text(text) => crate::foreign::line(text).map(|hint| format!(" ({hint})")),
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
    };
    format!("found {}; allowed: {allowed}{}", node.found(), line.unwrap_or_default())
}

/// The message for a word that is none of those allowed; the nearest is suggested.
pub(crate) fn not_among(node: &Node, word: &str, allowed: &[&str]) -> String {
    let hint = nearest(word, allowed.iter().copied()).map(|near| format!(" (did you mean `{near}`?)"));
    format!("found {}{}; allowed: {}", node.found(), hint.unwrap_or_default(), allowed.join(", "))
}
