//! A value under its path, with the value that `defaults` puts under it. Reading through a view reports what
//! is wrong and answers `None`, so that the reader goes on to the next key.
//!
//! `defaults` are looked up, not copied: many upstreams over large defaults cost no memory.

use crate::keys::Keys;
use crate::kind::wrong;
use crate::nearest::nearest;
use crate::problem::{Mark, Report, join};
use crate::tree::{Entry, Kind, Node};

/// A value to be read.
#[derive(Clone)]
pub(crate) struct View<'a> {
    report: &'a Report,
    node: &'a Node,
    under: Option<&'a Node>,
    /// Where its key stands, if it has one.
    key: Option<Mark>,
    path: String,
}

impl<'a> View<'a> {
    /// The whole document.
    pub(crate) fn root(node: &'a Node, report: &'a Report) -> Self {
        Self { report, node, under: None, key: None, path: String::new() }
    }

    /// The same value with another under it: maps are merged key by key, anything else stands alone.
    pub(crate) fn over(self, under: Option<&'a Node>) -> Self {
        Self { under, ..self }
    }

    /// The value itself.
    pub(crate) fn node(&self) -> &'a Node {
        self.node
    }

    /// The value under it.
    pub(crate) fn under(&self) -> Option<&'a Node> {
        self.under
    }

    /// Its path.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Reports a problem of this value.
    pub(crate) fn problem(&self, message: impl Into<String>) {
        if !self.node.is_broken {
            self.report.add(self.node.at, &self.path, message);
        }
    }

    /// Notes what is valid here and does not do what it seems to do.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.report.warn(self.key.unwrap_or(self.node.at), &self.path, message);
    }

    /// Reports a problem that the key shows best: a name that is wrong, or something missing.
    pub(crate) fn key_problem(&self, message: impl Into<String>) {
        self.report.add(self.key.unwrap_or(self.node.at), &self.path, message);
    }

    /// Reads it as one value.
    pub(crate) fn read<T>(&self, kind: impl Fn(&Node) -> Result<T, String>) -> Option<T> {
        kind(self.node).map_err(|message| self.problem(message)).ok()
    }

    /// Its items, if it is a list.
    pub(crate) fn items(&self) -> Option<Vec<View<'a>>> {
        let Kind::List(items) = &self.node.kind else { return None };
        let item = |(index, node)| View {
            report: self.report,
            node,
            under: None,
            key: None,
            path: format!("{}[{index}]", self.path),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Its items; reported if it is no list.
    pub(crate) fn list(&self) -> Option<Vec<View<'a>>> {
        let items = self.items();
        if items.is_none() {
            self.problem(wrong(self.node, "a list"));
        }
        items
    }

    /// Its items read one by one; wrong ones are reported and left out.
    pub(crate) fn list_of<T>(&self, kind: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<T>> {
        Some(self.list()?.iter().filter_map(|item| item.read(&kind)).collect())
    }

    /// Nothing of its own, only what stands under it.
    pub(crate) fn only_under(&self) -> Map<'a> {
        Map { under: self.entries_under(), ..Map::nothing(self.clone()) }
    }

    /// A map with known keys; unknown ones are reported.
    pub(crate) fn map(&self, keys: &Keys) -> Option<Map<'a>> {
        let map = self.entries()?;
        let mut misspelt = Vec::new();
        for entry in map.own {
            if let Some(message) = refusal(&entry.key, keys) {
                self.report.add(entry.at, &join(&self.path, &entry.key), message);
                misspelt.extend(meant(entry, map.own, keys));
            }
        }
        Some(Map { misspelt, ..map })
    }

    /// A map whose keys are names; reported if it is none.
    pub(crate) fn entries(&self) -> Option<Map<'a>> {
        let Kind::Map(own) = &self.node.kind else {
            self.problem(wrong(self.node, "a map"));
            return None;
        };
        Some(Map { own, under: self.entries_under(), ..Map::nothing(self.clone()) })
    }

    /// The entries under it. More of them than there are keys for were reported where they stand, and are not
    /// searched once more for each upstream and route.
    fn entries_under(&self) -> &'a [Entry] {
        const ENTRIES_MAX: usize = 512;
        if let Some(Node { kind: Kind::Map(under), .. }) = self.under
            && under.len() <= ENTRIES_MAX
        {
            return under;
        }
        &[]
    }
}

/// Why a key is not read, if it is not.
fn refusal(key: &str, keys: &Keys) -> Option<String> {
    if keys.built.contains(&key) {
        return None;
    }
    if keys.later.contains(&key) {
        return Some("not supported by this build yet".to_owned());
    }
    if let Some(hint) = crate::foreign::key(key) {
        return Some(format!("unknown key: {hint}; allowed: {}", keys.built.join(", ")));
    }
    if let Some(near) = nearest(key, keys.built.iter().copied()) {
        return Some(format!("unknown key, did you mean `{near}`?"));
    }
    let allowed = if keys.built.is_empty() { "none".to_owned() } else { keys.built.join(", ") };
    Some(format!("unknown key; allowed: {allowed}"))
}

/// The known key that a misspelt one stands for, so that what is below it is read all the same. Not if the known key is
/// there too.
fn meant<'a>(entry: &'a Entry, own: &[Entry], keys: &Keys) -> Option<(&'static str, &'a Entry)> {
    let near = nearest(&entry.key, keys.built.iter().copied())?;
    let is_free = crate::foreign::key(&entry.key).is_none() && own.iter().all(|other| other.key != near);
    is_free.then_some((near, entry))
}

/// A map to be read key by key.
pub(crate) struct Map<'a> {
    own: &'a [Entry],
    under: &'a [Entry],
    /// Keys that an entry with a misspelt one stands for.
    misspelt: Vec<(&'static str, &'a Entry)>,
    /// Whether it stands for a value that was reported: nothing is missing in there.
    is_broken: bool,
    view: View<'a>,
}

impl<'a> Map<'a> {
    fn nothing(view: View<'a>) -> Self {
        Self { own: &[], under: &[], misspelt: Vec::new(), is_broken: false, view }
    }

    /// The map as a value.
    pub(crate) fn view(&self) -> &View<'a> {
        &self.view
    }

    /// The value of a key, its own or else the one under it. A key without a value is reported.
    pub(crate) fn get(&self, key: &str) -> Option<View<'a>> {
        let find = |entries: &'a [Entry]| entries.iter().find(|entry| entry.key == key);
        let misspelt = || self.misspelt.iter().find(|(meant, _)| *meant == key).map(|(_, entry)| *entry);
        let (own, under) = (find(self.own).or_else(misspelt), find(self.under));
        let view = self.child(own.or(under)?);
        view.is_present().then(|| view.over(own.and(under).map(|entry| &entry.value)))
    }

    /// The map under a key; an empty one if it is absent or wrong, so that the defaults of its keys hold.
    pub(crate) fn section(&self, key: &str, keys: &Keys) -> Map<'a> {
        match self.get(key) {
            Some(view) => {
                view.map(keys).unwrap_or_else(|| Map { is_broken: true, ..Map::nothing(view.clone()) })
            }
            None => Map { is_broken: self.has(key), ..Map::nothing(self.view.clone()) },
        }
    }

    /// The value of a key that must be there.
    pub(crate) fn required(&self, key: &str) -> Option<View<'a>> {
        if !self.has(key) && !self.is_broken {
            self.view.key_problem(format!("`{key}` is missing"));
        }
        self.get(key)
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.own.iter().chain(self.under).any(|entry| entry.key == key) || self.is_misspelt(key)
    }

    /// Whether the key is there, and not only under it.
    pub(crate) fn has_own(&self, key: &str) -> bool {
        self.own.iter().any(|entry| entry.key == key) || self.is_misspelt(key)
    }

    fn is_misspelt(&self, key: &str) -> bool {
        self.misspelt.iter().any(|(meant, _)| *meant == key)
    }

    /// The key's value, read; none if it is absent or wrong.
    pub(crate) fn read<T>(&self, key: &str, kind: impl Fn(&Node) -> Result<T, String>) -> Option<T> {
        self.get(key)?.read(kind)
    }

    /// All entries that have a value, in the order of the file: its own, then those under it.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'a str, View<'a>)> {
        let is_own = |key: &str| self.own.iter().any(|entry| entry.key == key);
        let under = self.under.iter().filter(move |entry| !is_own(&entry.key));
        self.own
            .iter()
            .chain(under)
            .map(|entry| (entry.key.as_str(), self.child(entry)))
            .filter(|(_, view)| view.is_present())
    }

    fn child(&self, entry: &'a Entry) -> View<'a> {
        View {
            report: self.view.report,
            node: &entry.value,
            under: None,
            key: Some(entry.at),
            path: join(&self.view.path, &entry.key),
        }
    }
}

impl View<'_> {
    /// Whether there is a value at all; reported if there is only a key.
    fn is_present(&self) -> bool {
        let is_null = matches!(self.node.kind, Kind::Null);
        if is_null {
            self.key_problem("has no value; give it one or leave the key out");
        }
        !is_null
    }
}
