//! What is wrong with a configuration, and where. Problems are collected, never thrown: a reader goes on
//! with the next key, so that one run names everything that must be mended.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named by the caller.
    pub file: String,
    /// The line, from 1; 0 if the problem is the file as a whole.
    pub line: usize,
    /// The column in characters, from 1; 0 if the problem is the file as a whole.
    pub column: usize,
    /// The setting, like `upstreams.app.backends[2].weight`; empty if it is the file as a whole.
    pub path: String,
    /// What was found and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything that is wrong with a configuration: at least one problem, in the order of the lines.
/// Displayed as one line each, `file:line:column: path: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, in the order of the lines.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    pub(crate) fn one(file: &str, message: String) -> Self {
        Self(vec![Problem { file: file.to_owned(), line: 0, column: 0, path: String::new(), message }])
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A place in the file: line and column from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Mark {
    /// The file as a whole.
    pub(crate) const FILE: Self = Self { line: 0, column: 0 };
}

/// Collects the problems of one file. Shared by reference: every reader may add to it.
#[derive(Debug)]
pub(crate) struct Report {
    file: String,
    found: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Report {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: RefCell::default(), warnings: RefCell::default() }
    }

    pub(crate) fn add(&self, at: Mark, path: &str, message: impl Into<String>) {
        self.found.borrow_mut().push(self.problem(at, path, message.into()));
    }

    /// Notes what is valid and does not do what it seems to do.
    pub(crate) fn warn(&self, at: Mark, path: &str, message: impl Into<String>) {
        let message = format!("warning: {}", message.into());
        self.warnings.borrow_mut().push(self.problem(at, path, message));
    }

    fn problem(&self, at: Mark, path: &str, message: String) -> Problem {
        Problem { file: self.file.clone(), line: at.line, column: at.column, path: path.to_owned(), message }
    }

    /// The value and the warnings if nothing was wrong. What is written once and used often (an alias, `defaults`) is
    /// reported once, under the first path that met it.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<(T, Vec<Problem>), Problems> {
        let found = in_order(self.found.into_inner());
        match value {
            Some(value) if found.is_empty() => Ok((value, in_order(self.warnings.into_inner()))),
            None if found.is_empty() => Err(Problems::one(&self.file, "cannot be understood".to_owned())),
            Some(_) | None => Err(Problems(found)),
        }
    }
}

fn in_order(mut found: Vec<Problem>) -> Vec<Problem> {
    let mut seen = HashSet::new();
    found.retain(|problem| {
        problem.line == 0 || seen.insert((problem.line, problem.column, problem.message.clone()))
    });
    found.sort_by_key(|problem| (problem.line, problem.column));
    found
}

/// Found text as it is shown in a message: shortened, control characters made visible.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        // Quotes and backslashes are readable as they are.
        if matches!(c, '\'' | '"' | '\\') { shown.push(c) } else { shown.extend(c.escape_debug()) }
    }
    shown
}

/// The path of `key` under `parent`. A key that is not a plain word stands in quotes.
pub(crate) fn join(parent: &str, key: &str) -> String {
    let is_plain = !key.is_empty()
        && key.len() <= 60
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if is_plain { key.to_owned() } else { format!("\"{}\"", shown(key)) };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stand_in_the_order_of_the_lines_and_are_told_once() {
        let report = Report::new("c.yaml");
        report.add(Mark { line: 3, column: 1 }, "b", "second");
        report.add(Mark { line: 1, column: 2 }, "a", "first");
        report.add(Mark { line: 3, column: 1 }, "c", "second");
        let problems = report.finish(Some(())).unwrap_err();
        assert_eq!(problems.to_string(), "c.yaml:1:2: a: first\nc.yaml:3:1: b: second");
    }

    #[test]
    fn odd_keys_are_quoted_and_made_visible() {
        assert_eq!(join("", "routes"), "routes");
        assert_eq!(join("upstreams", "a.b"), "upstreams.\"a.b\"");
        assert_eq!(join("upstreams", "a\u{1b}[2J"), "upstreams.\"a\\u{1b}[2J\"");
        assert_eq!(shown(&"x".repeat(101)).chars().count(), 101);
    }
}
