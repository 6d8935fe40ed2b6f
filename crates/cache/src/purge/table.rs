//! The records of one kind, bounded: the oldest give way to one that is about everything.

use std::collections::HashMap;

use super::{Generation, Mark, PurgeEntry, PurgeMode, Reach};

/// How many records are kept. Beyond that the oldest quarter becomes one that is about everything: more is purged
/// than was asked for, never less.
pub(super) const RECORDS_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) records: HashMap<Mark, Record, ahash::RandomState>,
    pub(super) has_prefixes: bool,
    /// What stands for forgotten records, and for purges of everything.
    pub(super) floor: Record,
}

/// The numbers of the last purges of one scope; zero: none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    soft: u64,
    hard: u64,
}

impl Table {
    pub(super) fn add(&mut self, entry: &PurgeEntry) {
        if entry.reach == Reach::Everything || entry.reach == Reach::Change && entry.mark == 0 {
            return self.floor.set(entry.mode, entry.number);
        }
        self.has_prefixes |= entry.reach == Reach::Prefix;
        self.records.entry(entry.mark).or_default().set(entry.mode, entry.number);
        if self.records.len() > RECORDS_MAX {
            self.forget_quarter(entry.reach == Reach::Change);
        }
    }

    /// What clients have removed must not cost an outage all that was stored before: such records are about a change
    /// once they are about everything.
    fn forget_quarter(&mut self, is_of_changes: bool) {
        let mut numbers: Vec<u64> = self.records.values().map(Record::last).collect();
        let (_, limit, _) = numbers.select_nth_unstable(RECORDS_MAX / 4);
        let limit = *limit;
        let floor = &mut self.floor;
        self.records.retain(|_, record| {
            let is_kept = record.last() > limit;
            if !is_kept {
                if is_of_changes {
                    floor.soft = floor.soft.max(record.last());
                } else {
                    floor.soft = floor.soft.max(record.soft);
                    floor.hard = floor.hard.max(record.hard);
                }
            }
            is_kept
        });
    }
}

impl Record {
    fn set(&mut self, mode: PurgeMode, number: u64) {
        let last = match mode {
            PurgeMode::Soft => &mut self.soft,
            PurgeMode::Hard => &mut self.hard,
        };
        *last = number.max(*last);
    }

    pub(super) fn entries(self, reach: Reach, mark: Mark) -> impl Iterator<Item = PurgeEntry> {
        let both = [(PurgeMode::Soft, self.soft), (PurgeMode::Hard, self.hard)].into_iter();
        let made = both.filter(|(_, number)| *number > 0);
        made.map(move |(mode, number)| PurgeEntry { reach, mode, number, mark })
    }

    fn last(&self) -> u64 {
        self.soft.max(self.hard)
    }

    pub(super) fn since(&self, generation: Generation) -> Option<PurgeMode> {
        if self.hard > generation.0 {
            Some(PurgeMode::Hard)
        } else {
            (self.soft > generation.0).then_some(PurgeMode::Soft)
        }
    }
}
