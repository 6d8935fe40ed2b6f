//! Purges: what an operator has declared out of date, by address, prefix, host, tag, or all of it.
//!
//! Nothing is walked. A purge is a record with a number, and each copy knows the number of the last purge that was
//! made before its answer was asked for: a lookup compares the two, and looks for records only if purges have come
//! since. So a purge costs the same for one copy and for a million, and every later lookup sees it.

mod table;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use blake2::digest::consts::U8;
use blake2::{Blake2b, Digest};
use http::HeaderMap;
use parking_lot::RwLock;
use pingora_cache::CacheMeta;

use crate::fields::Fields;
use crate::key;
use table::Table;

/// What becomes of the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeMode {
    /// They are stale at once, and answer only in place of a failure.
    Soft,
    /// They are gone.
    Hard,
}

impl PurgeMode {
    /// The word for it, in settings, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }
}

/// Which copies a purge is about. Hosts are in lower case, without a default port; paths are in their normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeScope {
    /// All.
    Everything,
    /// Those of one host.
    Host(String),
    /// Those whose path begins with this one: `/a` covers `/a` and `/a/b`, not `/ab`; `/a/` what is below it.
    Prefix {
        /// The host.
        host: String,
        /// The path.
        path: String,
    },
    /// Those of one address, with any scheme and in all variants.
    Url {
        /// The host.
        host: String,
        /// Path and query.
        target: String,
    },
    /// Those whose answer named the tag in `Cache-Tag`, `Surrogate-Key` or `xkey`.
    Tag(String),
}

/// When a response was asked for, in the order of everything that puts responses out of date: purges and changes that
/// have a greater number came later. Numbers are nanoseconds since 1970 by a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// Notes on an answer's meta data at which moment the answer was asked for.
    pub fn stamp(self, meta: &mut CacheMeta) {
        meta.extensions_mut().insert(self);
    }

    /// That of an answer; without a note before all purges.
    pub(crate) fn of(meta: &CacheMeta) -> Self {
        meta.extensions().get().copied().unwrap_or_default()
    }

    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// How many tags of one answer count.
const TAGS_MAX: usize = 1024;

/// All purges of one store, and the changes of addresses.
#[derive(Debug)]
pub(crate) struct Purges {
    newest: AtomicU64,
    count: AtomicU64,
    table: RwLock<Table>,
    newest_change: AtomicU64,
    /// Addresses that an unsafe request has changed. They have a table of their own, so that clients who change many
    /// addresses cannot push an operator's purge out.
    changes: RwLock<Table>,
    /// An instant, and the number that stands for it.
    origin: (Instant, u64),
    /// What is added to numbers, because processes before this one have given greater ones.
    ahead: AtomicU64,
    /// The smallest number that no process before this one can have given.
    began: AtomicU64,
}

/// A purge as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PurgeEntry {
    pub(crate) reach: Reach,
    pub(crate) mode: PurgeMode,
    pub(crate) number: u64,
    pub(crate) mark: Mark,
}

/// How a purge is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It counts for all copies.
    Everything,
    /// Under the beginnings of a path.
    Prefix,
    /// Under what a copy is.
    Other,
    /// It is a change of one address.
    Change,
}

/// The hash of a scope.
pub(crate) type Mark = u64;

impl Default for Purges {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let number = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Self {
            newest: AtomicU64::default(),
            count: AtomicU64::default(),
            table: RwLock::default(),
            newest_change: AtomicU64::default(),
            changes: RwLock::default(),
            origin: (Instant::now(), number),
            ahead: AtomicU64::default(),
            began: AtomicU64::new(number),
        }
    }
}

impl Purges {
    pub(crate) fn newest(&self) -> Generation {
        Generation(self.newest.load(Ordering::Acquire))
    }

    pub(crate) fn newest_change(&self) -> Generation {
        Generation(self.newest_change.load(Ordering::Acquire))
    }

    /// That of a request which was received at `started` and has not been sent to a backend yet.
    pub(crate) fn generation(&self, started: Instant) -> Generation {
        Generation(self.number_of(started)).max(self.newest()).max(self.newest_change())
    }

    /// Whether a response of this generation was asked for by this process.
    pub(crate) fn is_of_this_process(&self, generation: Generation) -> bool {
        (self.began.load(Ordering::Acquire)..=self.number()).contains(&generation.0)
    }

    /// From now on numbers are greater than this one, which a process before has given, perhaps by a clock that was ahead
    /// of ours: otherwise a purge would pass for older than what it is about.
    pub(crate) fn go_on_behind(&self, number: u64) {
        let floor = number.saturating_add(1);
        let behind = floor.saturating_sub(self.number());
        if behind > 0 {
            self.ahead.fetch_add(behind, Ordering::AcqRel);
            self.began.store(floor, Ordering::Release);
        }
    }

    /// The present number.
    pub(crate) fn number(&self) -> u64 {
        self.number_of(Instant::now())
    }

    /// Records that an address has changed (soft), or that there is nothing under it any more (hard). When this returns no
    /// response that was asked for before is stored as fresh, or at all.
    pub(crate) fn add_change(&self, host: &[u8], target: &[u8], mode: PurgeMode) -> PurgeEntry {
        let mut table = self.changes.write();
        let number = self.next_number();
        let entry = PurgeEntry { reach: Reach::Change, mode, number, mark: mark(CHANGE, host, target) };
        table.add(&entry);
        self.newest_change.fetch_max(number, Ordering::AcqRel);
        entry
    }

    /// What has become of the address of a key since.
    pub(crate) fn change_since(&self, generation: Generation, key: &[u8]) -> Option<PurgeMode> {
        if generation >= self.newest_change() {
            return None;
        }
        let (host, target) = key::host_and_target(key);
        let table = self.changes.read();
        let of_address = table.records.get(&mark(CHANGE, host, target));
        harder(of_address.and_then(|record| record.since(generation)), table.floor.since(generation))
    }

    /// Records a purge. When this returns every lookup that begins sees it.
    pub(crate) fn add(&self, scope: &PurgeScope, mode: PurgeMode) -> PurgeEntry {
        let (reach, mark) = mark_of(scope);
        let mut table = self.table.write();
        let entry = PurgeEntry { reach, mode, number: self.next_number(), mark };
        table.add(&entry);
        self.newest.store(entry.number, Ordering::Release);
        self.count.fetch_add(1, Ordering::Relaxed);
        entry
    }

    /// Records that there was a purge of which nothing more is known: everything is gone.
    pub(crate) fn add_unknown(&self) {
        self.add(&PurgeScope::Everything, PurgeMode::Hard);
    }

    /// Takes up a purge of a process before this one.
    pub(crate) fn restore(&self, entry: &PurgeEntry) {
        if entry.reach == Reach::Change {
            self.changes.write().add(entry);
            self.newest_change.fetch_max(entry.number, Ordering::AcqRel);
            return;
        }
        self.table.write().add(entry);
        self.newest.fetch_max(entry.number, Ordering::AcqRel);
    }

    /// All that is recorded.
    pub(crate) fn entries(&self) -> Vec<PurgeEntry> {
        let table = self.table.read();
        let reach = if table.has_prefixes { Reach::Prefix } else { Reach::Other };
        let records = table.records.iter().flat_map(|(mark, record)| record.entries(reach, *mark));
        let purges = records.chain(table.floor.entries(Reach::Everything, 0));
        // A change that is not remembered one by one concerns all: its mark is nought.
        let changes = self.changes.read();
        let forgotten = changes.floor.entries(Reach::Change, 0);
        let of_addresses =
            changes.records.iter().flat_map(|(mark, record)| record.entries(Reach::Change, *mark));
        purges.chain(forgotten).chain(of_addresses).collect()
    }

    /// How many there have been since the start.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Greater than all before it, those of processes before this one included.
    fn next_number(&self) -> u64 {
        let newest = self.newest().max(self.newest_change());
        self.number().max(newest.0.saturating_add(1))
    }

    fn number_of(&self, instant: Instant) -> u64 {
        let (began, number) = self.origin;
        let since = instant.saturating_duration_since(began).as_nanos();
        let ahead = self.ahead.load(Ordering::Acquire);
        number.saturating_add(ahead).saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// What the purges since `generation` say of a copy. Changes are applied to plain keys when they are made; under other
    /// keys nobody knows what there is, so that they are looked for here.
    pub(crate) fn verdict(&self, generation: Generation, key: &[u8], tags: &[Mark]) -> Option<PurgeMode> {
        let change = if key::is_plain(key) { None } else { self.change_since(generation, key) };
        harder(self.purge_verdict(generation, key, tags), change)
    }

    fn purge_verdict(&self, generation: Generation, key: &[u8], tags: &[Mark]) -> Option<PurgeMode> {
        let table = self.table.read();
        let mut worst = table.floor.since(generation);
        for mark in marks(key, table.has_prefixes).chain(tags.iter().copied()) {
            match table.records.get(&mark).and_then(|record| record.since(generation)) {
                Some(PurgeMode::Hard) => return Some(PurgeMode::Hard),
                soft => worst = worst.or(soft),
            }
        }
        worst
    }
}

fn harder(one: Option<PurgeMode>, other: Option<PurgeMode>) -> Option<PurgeMode> {
    if other == Some(PurgeMode::Hard) { other } else { one.or(other) }
}

fn mark_of(scope: &PurgeScope) -> (Reach, Mark) {
    match scope {
        PurgeScope::Everything => (Reach::Everything, 0),
        PurgeScope::Host(host) => (Reach::Other, mark(HOST, host.as_bytes(), b"")),
        PurgeScope::Prefix { host, path } => (Reach::Prefix, mark(PREFIX, host.as_bytes(), path.as_bytes())),
        PurgeScope::Url { host, target } => (Reach::Other, mark(URL, host.as_bytes(), target.as_bytes())),
        PurgeScope::Tag(tag) => (Reach::Other, mark(TAG, tag.as_bytes(), b"")),
    }
}

const HOST: u8 = 0;
const PREFIX: u8 = 1;
const URL: u8 = 2;
const TAG: u8 = 3;
const CHANGE: u8 = 4;

/// The same in every process, since it is written to disk, and nobody's to choose. Two scopes with one hash would be
/// purged together: more than was asked for, never less.
fn mark(kind: u8, first: &[u8], second: &[u8]) -> Mark {
    let hash = Blake2b::<U8>::new().chain_update([kind]).chain_update((first.len() as u64).to_le_bytes());
    u64::from_le_bytes(hash.chain_update(first).chain_update(second).finalize().into())
}

/// The marks of all scopes that a key is in, but for its tags.
fn marks(key: &[u8], with_prefixes: bool) -> impl Iterator<Item = Mark> {
    let (host, target) = key::host_and_target(key);
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let of_prefix = move |end: usize| mark(PREFIX, host, path.get(..end).unwrap_or_default());
    let looked_at = if with_prefixes { path } else { b"" };
    let slashes = looked_at.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    // Before each slash a segment ends; with it, what is below begins.
    let inner = slashes.flat_map(move |at| [at, at + 1]).filter(move |end| *end > 0 && *end < path.len());
    let whole = with_prefixes.then_some(path.len());
    [mark(HOST, host, b""), mark(URL, host, target)].into_iter().chain(inner.chain(whole).map(of_prefix))
}

/// The tags that an answer names, as marks.
pub(crate) fn tags(headers: &impl Fields) -> Box<[Mark]> {
    words(headers).map(|word| mark(TAG, word, b"")).collect()
}

/// The tags that a message names in `Cache-Tag`, `Surrogate-Key` or `xkey`. What is no UTF-8 is left out.
pub fn tag_names(headers: &HeaderMap) -> Vec<String> {
    words(headers).filter_map(|word| String::from_utf8(word.to_vec()).ok()).collect()
}

/// Separated by commas in `Cache-Tag`, by spaces too elsewhere.
fn words(headers: &impl Fields) -> impl Iterator<Item = &[u8]> {
    let words = ["cache-tag", "surrogate-key", "xkey"].into_iter().flat_map(|name| {
        let is_separator = move |byte: &u8| *byte == b',' || (name != "cache-tag" && *byte == b' ');
        headers.all(name).flat_map(move |value| value.split(is_separator))
    });
    words.map(<[u8]>::trim_ascii).filter(|word| !word.is_empty()).take(TAGS_MAX)
}

impl fmt::Display for PurgeScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Host(host) => write!(f, "host {host}"),
            Self::Prefix { host, path } => write!(f, "prefix {host}{path}"),
            Self::Url { host, target } => write!(f, "url {host}{target}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::table::RECORDS_MAX;
    use super::*;
    use crate::Key;
    use crate::tests::headers;

    fn key(url: &str) -> Key {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap());
        Key::new(scheme, host.as_bytes(), path.as_bytes())
    }

    fn prefix(path: &str) -> PurgeScope {
        PurgeScope::Prefix { host: "a.example".to_owned(), path: path.to_owned() }
    }

    fn url(target: &str) -> PurgeScope {
        PurgeScope::Url { host: "a.example".to_owned(), target: target.to_owned() }
    }

    fn is_hit(scope: &PurgeScope, address: &str) -> bool {
        let purges = Purges::default();
        let before = purges.newest();
        purges.add(scope, PurgeMode::Soft);
        let key = key(address);
        assert_eq!(purges.verdict(purges.newest(), key.bytes(), &[]), None, "what comes afterwards stays");
        purges.verdict(before, key.bytes(), &[]).is_some()
    }

    #[test]
    fn a_scope_covers_what_it_says_and_nothing_else() {
        let host = PurgeScope::Host("a.example".to_owned());
        for (scope, address, expected) in [
            (&PurgeScope::Everything, "http://b.example/x", true),
            (&host, "http://a.example/x?y", true),
            (&host, "https://A.example:443/", true),
            (&host, "http://a.example:81/", false),
            (&host, "http://b.example/a.example", false),
            (&url("/x?y"), "http://a.example/x?y", true),
            (&url("/x?y"), "https://a.example/x?y", true),
            (&url("/x?y"), "http://a.example/x", false),
            (&url("/x"), "http://b.example/x", false),
            (&prefix("/"), "http://a.example/", true),
            (&prefix("/"), "http://a.example/x/y", true),
            (&prefix("/"), "http://b.example/", false),
            (&prefix("/x"), "http://a.example/x", true),
            (&prefix("/x"), "http://a.example/x?q=/y", true),
            (&prefix("/x"), "http://a.example/x/", true),
            (&prefix("/x"), "http://a.example/x/y/z", true),
            (&prefix("/x"), "http://a.example/xy", false),
            (&prefix("/x/"), "http://a.example/x", false),
            (&prefix("/x/"), "http://a.example/x/", true),
            (&prefix("/x/"), "http://a.example/x/y", true),
            (&prefix("/x/y"), "http://a.example/x/y/z", true),
            (&prefix("/x/y"), "http://a.example/x?/y", false),
        ] {
            assert_eq!(is_hit(scope, address), expected, "{scope:?} {address}");
        }
    }

    #[test]
    fn a_purge_is_newer_than_what_a_process_with_its_clock_ahead_has_stored() {
        let purges = Purges::default();
        let stored = Generation(purges.number() + 7_200_000_000_000);
        assert!(!purges.is_of_this_process(stored));
        purges.go_on_behind(stored.0);
        let key = key("http://a.example/x");
        purges.add(&url("/x"), PurgeMode::Hard);
        assert_eq!(purges.verdict(stored, key.bytes(), &[]), Some(PurgeMode::Hard));
        assert!(!purges.is_of_this_process(stored));
        assert!(purges.is_of_this_process(purges.generation(Instant::now())));
        let newest = purges.newest();
        purges.go_on_behind(0);
        assert!(purges.generation(Instant::now()) >= newest);
    }

    #[test]
    fn tags_are_read_from_three_fields_and_purged_by_name() {
        let named = tags(&headers(&[("cache-tag", "a, b c,,"), ("surrogate-key", "d  e"), ("xkey", "f,g")]));
        let purges = Purges::default();
        let key = key("http://a.example/");
        for (tag, expected) in
            [("a", true), ("b c", true), ("d", true), ("e", true), ("f", true), ("g", true)]
                .into_iter()
                .chain([("b", false), ("c", false), ("A", false), ("", false), ("/", false)])
        {
            let before = purges.newest();
            purges.add(&PurgeScope::Tag(tag.to_owned()), PurgeMode::Hard);
            assert_eq!(purges.verdict(before, key.bytes(), &named).is_some(), expected, "{tag:?}");
        }
        assert_eq!(tags(&headers(&[("cache-tag", &"x,".repeat(5000))])).len(), TAGS_MAX);
    }

    #[test]
    fn the_harder_purge_wins_in_whatever_order() {
        let key = key("http://a.example/x");
        for modes in [[PurgeMode::Soft, PurgeMode::Hard], [PurgeMode::Hard, PurgeMode::Soft]] {
            let purges = Purges::default();
            let before = purges.newest();
            purges.add(&url("/x"), modes[0]);
            purges.add(&prefix("/"), modes[1]);
            assert_eq!(purges.verdict(before, key.bytes(), &[]), Some(PurgeMode::Hard));
        }
    }

    #[test]
    fn what_is_forgotten_counts_for_everything_that_is_older() {
        let purges = Purges::default();
        let old = purges.newest();
        for number in 0..=RECORDS_MAX {
            purges.add(&PurgeScope::Tag(number.to_string()), PurgeMode::Soft);
        }
        let after = purges.newest();
        assert!(purges.table.read().records.len() < RECORDS_MAX);
        let other = key("http://other.example/");
        assert_eq!(purges.verdict(old, other.bytes(), &[]), Some(PurgeMode::Soft));
        assert_eq!(purges.verdict(after, other.bytes(), &[]), None);
    }
}
