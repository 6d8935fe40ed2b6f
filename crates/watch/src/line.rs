//! A bounded number of places for which members of groups wait, none at the cost of the others.
//!
//! A group may take a place as long as it has fewer than there are free ones. So one alone may have half of them, of
//! two each may have a third, and whoever comes next finds one: a group whose members never leave holds up nobody else.
//! Groups take turns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Who has a place, and who waits for one.
#[derive(Debug)]
pub(crate) struct Line<T> {
    free: usize,
    groups: HashMap<Arc<str>, Group<T>>,
    /// Groups with somebody waiting, each once.
    turns: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Group<T> {
    taken: usize,
    waiting: VecDeque<T>,
}

impl<T> Line<T> {
    pub(crate) fn new(places: usize) -> Self {
        Self { free: places, groups: HashMap::new(), turns: VecDeque::new() }
    }

    /// From now on this one waits for a place.
    pub(crate) fn push(&mut self, group: &Arc<str>, one: T) {
        let new = || Group { taken: 0, waiting: VecDeque::new() };
        let known = self.groups.entry(Arc::clone(group)).or_insert_with(new);
        if known.waiting.is_empty() {
            self.turns.push_back(Arc::clone(group));
        }
        known.waiting.push_back(one);
    }

    /// The next one that gets a place, if one may.
    pub(crate) fn next(&mut self) -> Option<(Arc<str>, T)> {
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(group) = self.groups.get_mut(&name) else { continue };
            if group.taken >= self.free {
                self.turns.push_back(name);
                continue;
            }
            let Some(one) = group.waiting.pop_front() else { continue };
            group.taken += 1;
            self.free -= 1;
            if !group.waiting.is_empty() {
                self.turns.push_back(Arc::clone(&name));
            }
            return Some((name, one));
        }
        None
    }

    /// One of this group gives its place back.
    pub(crate) fn left(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        group.taken -= 1;
        self.free += 1;
        if group.taken == 0 && group.waiting.is_empty() {
            self.groups.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(line: &mut Line<u32>) -> Vec<(String, u32)> {
        std::iter::from_fn(|| line.next()).map(|(group, one)| (group.to_string(), one)).collect()
    }

    #[test]
    fn who_hangs_has_half_of_the_places_and_others_find_one_at_once() {
        let mut line = Line::new(8);
        let [hanging, other, third] = ["hanging", "other", "third"].map(Arc::from);
        (0..100).for_each(|one| line.push(&hanging, one));
        assert_eq!(taken(&mut line).len(), 4);
        (0..100).for_each(|one| line.push(&other, one));
        let found = taken(&mut line);
        assert_eq!(found, [("other".to_owned(), 0), ("other".to_owned(), 1)]);
        line.push(&third, 7);
        assert_eq!(taken(&mut line), [("third".to_owned(), 7)]);
        // What is given back goes to whose turn it is and who has fewest.
        line.left("other");
        assert_eq!(taken(&mut line), [("other".to_owned(), 2)]);
        line.left("third");
        line.left("other");
        line.left("other");
        assert_eq!(taken(&mut line).len(), 2);
    }

    #[test]
    fn groups_take_turns_and_leave_nothing_behind() {
        let mut line = Line::new(100);
        let [a, b] = ["a", "b"].map(Arc::from);
        for one in 0..3 {
            line.push(&a, one);
            line.push(&b, one);
        }
        let found: Vec<String> = taken(&mut line).into_iter().map(|(group, _)| group).collect();
        assert_eq!(found, ["a", "b", "a", "b", "a", "b"]);
        for group in found {
            line.left(&group);
        }
        assert!(line.groups.is_empty() && line.turns.is_empty() && line.free == 100);
    }
}
