//! The tree as it is meant: `x-…` keys dropped, `<<` merged, variables replaced.
//!
//! A merge moves what the alias had copied, it never copies itself, so the measure taken by the scan still
//! holds. Recursion is as deep as the scan allows.

use crate::expand::expand;
use crate::problem::{Report, join};
use crate::tree::{Entry, Kind, Node};

const MERGE: &str = "<<";

type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Resolves the whole document in place.
pub(crate) fn resolve(root: &mut Node, env: Env<'_>, report: &Report) {
    if let Kind::Map(entries) = &mut root.kind {
        entries.retain(|entry| !entry.key.starts_with("x-"));
    }
    walk(root, "", env, report);
}

fn walk(node: &mut Node, path: &str, env: Env<'_>, report: &Report) {
    if let Kind::Text(text) = &mut node.kind {
        match expand(text, env) {
            Some(Ok(expanded)) => node.written = Some(std::mem::replace(text, expanded)),
            Some(Err(message)) => {
                report.add(node.at, path, message);
                node.is_broken = true;
            }
            None => {}
        }
    } else if let Kind::List(items) = &mut node.kind {
        for (index, item) in items.iter_mut().enumerate() {
            walk(item, &format!("{path}[{index}]"), env, report);
        }
    } else if let Kind::Map(entries) = &mut node.kind {
        for entry in entries.iter_mut() {
            walk(&mut entry.value, &join(path, &entry.key), env, report);
        }
        merge(entries, path, report);
    }
}

/// Puts the entries of `<<` behind those of the map itself: the first of a name wins.
fn merge(entries: &mut Vec<Entry>, path: &str, report: &Report) {
    let Some(at) = entries.iter().position(|entry| entry.key == MERGE) else { return };
    let from = entries.remove(at);
    let sources = match from.value.kind {
        Kind::List(items) => items,
        Kind::Map(_) | Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Text(_) => {
            vec![from.value]
        }
    };
    let mut known: std::collections::HashSet<String> =
        entries.iter().map(|entry| entry.key.clone()).collect();
    for source in sources {
        if let Kind::Map(merged) = source.kind {
            entries.extend(merged.into_iter().filter(|entry| known.insert(entry.key.clone())));
        } else {
            let message = format!("found {}; allowed: a map or a list of maps", source.found());
            report.add(source.at, &join(path, MERGE), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scan, tree};

    fn resolved(text: &str) -> String {
        let report = Report::new("c");
        let places = scan::scan(text, &report).unwrap();
        let mut root = tree::read(text, &places, &report).unwrap();
        resolve(&mut root, &|_| None, &report);
        report.finish(Some(())).map_or_else(|problems| problems.to_string(), |_| flat(&root))
    }

    fn flat(node: &Node) -> String {
        if let Kind::Map(entries) = &node.kind {
            let inner: Vec<_> = entries.iter().map(|e| format!("{}={}", e.key, flat(&e.value))).collect();
            return format!("{{{}}}", inner.join(" "));
        }
        node.found()
    }

    #[test]
    fn own_keys_win_then_the_earlier_source() {
        let text = "x-a: &a {p: 1, q: 1}\nx-b: &b {q: 2, r: 2}\nc: {<<: [*a, *b], p: 3}\n";
        assert_eq!(resolved(text), "{c={p=3 q=1 r=2}}");
        assert_eq!(resolved("x-a: &a {p: 1}\nx-b: &b {<<: *a, q: 2}\nc: {<<: *b}\n"), "{c={q=2 p=1}}");
    }

    #[test]
    fn a_merge_of_something_else_is_refused() {
        assert_eq!(resolved("c: {<<: 3}\n"), "c:1:9: c.\"<<\": found 3; allowed: a map or a list of maps");
    }
}
