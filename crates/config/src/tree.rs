//! The values: `serde_yaml` reads the text, every value is given the place that the scan noted for it.
//!
//! Both passes see the same events in the same order, so a child's number is enough to find its place.
//! Should the two parsers ever disagree, a value merely gets its parent's place.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::problem::{Mark, Report, shown};
use crate::scan::Places;

/// A value with its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) kind: Kind,
    /// The text as written, if `${…}` in it was replaced: such a text may also be read as a number or a bool.
    pub(crate) written: Option<String>,
    /// Whether it has been reported already: what is made of it does not matter any more.
    pub(crate) is_broken: bool,
}

/// What a value is.
#[derive(Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    /// Saturated: no setting is that large.
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its place, and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// What it is, for a message.
    pub(crate) fn found(&self) -> String {
        let written = self.written.as_deref().map(|text| format!(" (from `{}`)", shown(text)));
        let found = match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(value) => value.to_string(),
            Kind::Int(value) => value.to_string(),
            Kind::Float(value) => value.to_string(),
            Kind::Text(text) => format!("\"{}\"", shown(text)),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        };
        found + &written.unwrap_or_default()
    }
}

/// Reads the text that was scanned into `places`.
pub(crate) fn read(text: &str, places: &Places, report: &Report) -> Option<Node> {
    let seed = Seed { places, id: Some(Places::ROOT), at: places.mark(Places::ROOT) };
    match seed.deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(node) => Some(node),
        Err(error) => {
            let at = error.location().map_or(Mark::FILE, |at| Mark { line: at.line(), column: at.column() });
            report.add(at, "", format!("not valid YAML: {}", shown(&error.to_string())));
            None
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'p> {
    places: &'p Places,
    id: Option<usize>,
    at: Mark,
}

impl Seed<'_> {
    fn child(self, index: usize) -> Self {
        let id = self.id.and_then(|id| self.places.child(id, index));
        Self { id, at: id.map_or(self.at, |id| self.places.mark(id)), ..self }
    }

    fn key(self, index: usize) -> Mark {
        self.id.and_then(|id| self.places.key(id, index)).unwrap_or(self.at)
    }

    fn node(self, kind: Kind) -> Node {
        Node { at: self.at, kind, written: None, is_broken: false }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(self.node(Kind::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(self.node(Kind::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(self.node(Kind::Int(value.into())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(self.node(Kind::Int(value.into())))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        Ok(self.node(Kind::Int(value)))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        Ok(self.node(Kind::Int(i128::try_from(value).unwrap_or(i128::MAX))))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(self.node(Kind::Float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(self.node(Kind::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.child(list.len()))? {
            list.push(item);
        }
        Ok(self.node(Kind::List(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self.child(map.len()))?;
            map.push(Entry { key, at: self.key(map.len()), value });
        }
        Ok(self.node(Kind::Map(map)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::scan;

    fn tree(text: &str) -> Node {
        let report = Report::new("c");
        let places = scan(text, &report).unwrap();
        read(text, &places, &report).unwrap()
    }

    #[test]
    fn scalars_have_the_types_of_yaml() {
        let Kind::List(items) = tree("[1, -1, 1.5, true, yes, 08, 0x10, ~, '1', .nan, 1e400]").kind else {
            panic!("a list is expected");
        };
        let found: Vec<_> = items.iter().map(Node::found).collect();
        let expected =
            ["1", "-1", "1.5", "true", "\"yes\"", "\"08\"", "16", "nothing", "\"1\"", "NaN", "\"1e400\""];
        assert_eq!(found, expected);
    }

    #[test]
    fn places_follow_the_values_into_aliases() {
        let Kind::Map(entries) = tree("a: &x {k: 1}\nb: *x\n200: c\n").kind else {
            panic!("a map is expected");
        };
        assert_eq!(entries[1].at, Mark { line: 2, column: 1 });
        assert_eq!(entries[1].value.at.line, 1);
        assert_eq!(entries[2].key, "200");
    }
}
