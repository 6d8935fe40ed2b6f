//! Where everything stands: one pass over the YAML events, before any value is read.
//!
//! It also refuses what must not reach the second reader: broken syntax, duplicate keys, several
//! documents, tags, keys that are not text, nesting and alias expansion without measure. Places are
//! numbered in the order of the file; an alias shares the place of its anchor, since that is where the
//! text is. Iterative: hostile nesting costs no stack.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, Span, Tag};

use crate::problem::{Mark, Report, join, shown};

/// The deepest nesting, aliases expanded.
const DEPTH_MAX: usize = 32;
/// The most values in a file, aliases expanded.
const NODES_MAX: usize = 100_000;

/// The places of a document's values. The root is number 0.
pub(crate) struct Places(Vec<Place>);

impl Places {
    /// The number of the root.
    pub(crate) const ROOT: usize = 0;

    /// Where the value stands.
    pub(crate) fn mark(&self, id: usize) -> Mark {
        self.0.get(id).map_or(Mark::FILE, |place| place.at)
    }

    /// The number of the child at `index`.
    pub(crate) fn child(&self, id: usize, index: usize) -> Option<usize> {
        self.0.get(id)?.children.get(index).copied()
    }

    /// Where the key of the child at `index` stands.
    pub(crate) fn key(&self, id: usize, index: usize) -> Option<Mark> {
        self.0.get(id)?.keys.get(index).copied()
    }
}

#[derive(Default)]
struct Place {
    at: Mark,
    keys: Vec<Mark>,
    children: Vec<usize>,
    /// Values in it, itself included, aliases expanded.
    nodes: usize,
    /// Levels below it, aliases expanded.
    height: usize,
}

/// Notes all places; none if the text cannot be read on. Problems go to the report either way.
pub(crate) fn scan(text: &str, report: &Report) -> Option<Places> {
    let mut pass =
        Scan { places: Vec::new(), open: Vec::new(), anchors: HashMap::new(), documents: 0, report };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => pass.event(event, mark(&span)),
            Err(error) => {
                let at = Mark { line: error.marker().line(), column: error.marker().col() + 1 };
                let remedy = pass.remedy(text, at, error.info()).map(|remedy| format!("; {remedy}"));
                Err((at, format!("not valid YAML: {}{}", shown(error.info()), remedy.unwrap_or_default())))
            }
        };
        if let Err((at, message)) = step {
            report.add(at, &pass.path(), message);
            return None;
        }
    }
    if pass.places.is_empty() {
        report.add(Mark::FILE, "", "the file is empty; `upstreams` and `routes` are needed");
        return None;
    }
    Some(Places(pass.places))
}

/// The text from a place on.
fn from(text: &str, at: Mark) -> &str {
    let lines = text.split_inclusive('\n').take(at.line.saturating_sub(1)).map(str::len);
    let line = text.get(lines.sum::<usize>()..).unwrap_or_default();
    let column = line.char_indices().nth(at.column.saturating_sub(1));
    column.and_then(|(start, _)| line.get(start..)).unwrap_or_default()
}

fn from_char(text: &str, at: Mark) -> Option<char> {
    from(text, at).chars().next()
}

fn mark(span: &Span) -> Mark {
    Mark { line: span.start.line(), column: span.start.col() + 1 }
}

struct Scan<'r> {
    places: Vec<Place>,
    open: Vec<Open>,
    anchors: HashMap<usize, usize>,
    documents: usize,
    report: &'r Report,
}

/// A list or map whose end is yet to come.
struct Open {
    id: usize,
    is_map: bool,
    seen: HashSet<String>,
    /// In a map: the key whose value comes next.
    key: Option<String>,
}

/// A problem that ends the pass.
type Stop = (Mark, String);

impl Scan<'_> {
    fn event(&mut self, event: Event<'_>, at: Mark) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(at),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Scalar(text, _, anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                let id = self.place(at, anchor);
                if self.wants_key() {
                    self.key(&text, at);
                    Ok(())
                } else {
                    self.attach(id, at)
                }
            }
            Event::SequenceStart(anchor, tag) => self.start(false, anchor, tag.as_deref(), at),
            Event::MappingStart(anchor, tag) => self.start(true, anchor, tag.as_deref(), at),
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
        }
    }

    /// What to do about broken syntax, where its usual cause can be told.
    fn remedy(&self, text: &str, at: Mark, problem: &str) -> Option<String> {
        if problem.contains("tab") {
            return Some("indent with spaces".to_owned());
        }
        if problem.contains("quoted scalar") {
            return Some("close the quote that begins here".to_owned());
        }
        let from = from(text, at);
        let word = from.split([' ', ',', ']', '}', '\n']).next().unwrap_or_default();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if word.strip_prefix('*').is_some_and(|name| name.is_empty() || !name.bytes().all(is_name)) {
            let word = shown(word);
            return Some(format!("quote what begins with `*`: `\"{word}\"`"));
        }
        let line = text.lines().nth(at.line.checked_sub(1)?).unwrap_or_default();
        if line.contains("]:") {
            return Some("quote an IPv6 address: `\"[::]:8080\"`".to_owned());
        }
        if let Some(key) = line.split(": ").nth(1).filter(|value| value.starts_with(['%', '@', '`'])) {
            return Some(format!("quote what begins with `{}`", key.chars().next()?));
        }
        let open = self.open.iter().rev().filter_map(|open| self.places.get(open.id));
        let (open, bracket) = open
            .map(|open| (open.at, from_char(text, open.at)))
            .find(|(_, bracket)| matches!(bracket, Some('[' | '{')))?;
        Some(format!("is the `{}` of line {}, column {} closed?", bracket?, open.line, open.column))
    }

    fn document(&mut self, at: Mark) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents > 1 {
            return Err((at, "a second document begins here; allowed: one document in a file".to_owned()));
        }
        Ok(())
    }

    fn place(&mut self, at: Mark, anchor: usize) -> usize {
        let id = self.places.len();
        self.places.push(Place { at, nodes: 1, ..Place::default() });
        if anchor > 0 {
            self.anchors.insert(anchor, id);
        }
        id
    }

    fn start(&mut self, is_map: bool, anchor: usize, tag: Option<&Tag>, at: Mark) -> Result<(), Stop> {
        refuse_tag(tag, at)?;
        if self.wants_key() {
            return Err((at, "a list or map as a key; allowed: text as a key".to_owned()));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err((at, format!("nested too deeply; allowed: {DEPTH_MAX} levels")));
        }
        let id = self.place(at, anchor);
        self.open.push(Open { id, is_map, seen: HashSet::new(), key: None });
        Ok(())
    }

    fn end(&mut self, at: Mark) -> Result<(), Stop> {
        match self.open.pop() {
            Some(ended) => self.attach(ended.id, at),
            None => Ok(()),
        }
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<(), Stop> {
        if self.wants_key() {
            return Err((at, "an alias as a key; allowed: text as a key".to_owned()));
        }
        let target = self.anchors.get(&anchor).copied();
        let Some(id) = target.filter(|id| self.open.iter().all(|open| open.id != *id)) else {
            return Err((at, "the alias refers to a value that it is itself a part of".to_owned()));
        };
        if self.open.len() + self.places.get(id).map_or(0, |place| place.height) >= DEPTH_MAX {
            return Err((at, format!("aliases nest too deeply; allowed: {DEPTH_MAX} levels")));
        }
        self.attach(id, at)
    }

    /// Whether the next value is a key.
    fn wants_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.is_map && open.key.is_none())
    }

    fn key(&mut self, text: &str, at: Mark) {
        let parent = self.path();
        if let Some(open) = self.open.last_mut() {
            if !open.seen.insert(text.to_owned()) {
                self.report.add(at, &join(&parent, text), "the key is there twice");
            }
            open.key = Some(text.to_owned());
            if let Some(place) = self.places.get_mut(open.id) {
                place.keys.push(at);
            }
        }
    }

    /// Makes a finished value the next child of the list or map around it.
    fn attach(&mut self, id: usize, at: Mark) -> Result<(), Stop> {
        let Some((nodes, height)) = self.places.get(id).map(|place| (place.nodes, place.height)) else {
            return Ok(());
        };
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        open.key = None;
        let Some(parent) = self.places.get_mut(open.id) else { return Ok(()) };
        parent.children.push(id);
        parent.nodes = parent.nodes.saturating_add(nodes);
        parent.height = parent.height.max(height + 1);
        if parent.nodes > NODES_MAX {
            return Err((at, format!("too many values; allowed: {NODES_MAX}, aliases expanded")));
        }
        Ok(())
    }

    /// The path of the value that comes next, or of the map whose next key comes.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match &open.key {
            Some(key) => join(&path, key),
            None if open.is_map => path,
            None => format!("{path}[{}]", self.places.get(open.id).map_or(0, |place| place.children.len())),
        })
    }
}

fn refuse_tag(tag: Option<&Tag>, at: Mark) -> Result<(), Stop> {
    match tag {
        Some(tag) => Err((at, format!("the tag `{}` is not supported", shown(&tag.to_string())))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn problem(text: &str) -> String {
        let report = Report::new("c");
        let places = scan(text, &report);
        report.finish(places.map(|_| ())).unwrap_err().to_string()
    }

    #[test]
    fn values_and_keys_are_found_where_they_stand() {
        let report = Report::new("c");
        let places = scan("a: 1\nb:\n  - x\n  - {c: d}\n", &report).unwrap();
        let list = places.child(Places::ROOT, 1).unwrap();
        assert_eq!(places.key(Places::ROOT, 1), Some(Mark { line: 2, column: 1 }));
        let map = places.child(list, 1).unwrap();
        assert_eq!(places.mark(map), Mark { line: 4, column: 5 });
        assert_eq!(places.key(map, 0), Some(Mark { line: 4, column: 6 }));
        assert_eq!(places.mark(places.child(map, 0).unwrap()), Mark { line: 4, column: 9 });
    }

    #[test]
    fn an_alias_stands_where_its_anchor_does() {
        let report = Report::new("c");
        let places = scan("a: &x 1\nb: *x\n", &report).unwrap();
        let alias = places.child(Places::ROOT, 1).unwrap();
        assert_eq!(places.mark(alias).line, 1);
    }

    #[test]
    fn alias_bombs_end_early() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            let ten = [below.as_str(); 10].join(", ");
            writeln!(text, "a{level}: &a{level} [{ten}]").unwrap();
        }
        assert!(problem(&text).contains("too many values"), "{}", problem(&text));
    }

    #[test]
    fn nesting_has_an_end_with_and_without_aliases() {
        assert!(problem(&"[".repeat(33)).contains("nested too deeply"));
        assert!(problem(&"- ".repeat(40_000)).contains("nested too deeply"));
        let mut text = "a0: &a0 [x]\n".to_owned();
        for level in 1..40 {
            writeln!(text, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
        }
        assert!(problem(&text).contains("aliases nest too deeply"));
    }

    #[test]
    fn an_alias_inside_its_own_anchor_is_refused() {
        assert!(problem("a: &a [*a]\n").contains("itself a part of"));
    }
}
