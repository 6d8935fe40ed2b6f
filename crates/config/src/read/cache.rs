//! `caches`, and `cache` of a route.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use goodgate_cache::{
    CachePolicy, DiskSpec, Forbids, KeyPolicy, Mode, NamePattern, PersonalCookies, Query, ServeAnonymous,
    StoreSpec,
};
use goodgate_failure::{Word, Words};
use http::HeaderName;

use super::check_name;
use super::networks::networks;
use crate::kind::{
    boolean, duration, failure_word, not_among, one_of, percent, size, stale_word, text, text_as, wrong,
};
use crate::quantity::parse_status;
use crate::tree::{Kind, Node};
use crate::view::{Map, View};
use crate::{defaults, keys};

/// The largest memory that can be given to a store: finite, and more than a machine has.
const MEMORY_BYTES_MAX: u64 = 1 << 44;
/// The same of a disk.
const DISK_BYTES_MAX: u64 = 1 << 50;
/// A copy may be kept, or a lifetime last, at most a year (RFC 9111 section 1.2.2 asks for no more).
const AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(365 * 24);
/// How long a copy on disk may be older than the one in memory.
const REFRESH: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

/// The stores as configured, or the one that is there if a route asks for it.
pub(super) struct Stores {
    specs: Vec<StoreSpec>,
    names: Vec<String>,
    is_given: bool,
}

impl Stores {
    /// The names, also of stores that could not be read.
    pub(super) fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The stores to be made.
    pub(super) fn used(self, a_route_caches: bool) -> Vec<StoreSpec> {
        if self.is_given || a_route_caches { self.specs } else { Vec::new() }
    }
}

pub(super) fn stores(top: &Map<'_>, folder: &Path) -> Stores {
    let Some(view) = top.get("caches") else {
        let main = StoreSpec {
            name: defaults::STORE.to_owned(),
            memory_bytes: defaults::MEMORY_BYTES,
            object_bytes_max: defaults::OBJECT_BYTES_MAX,
            last_good_percent: defaults::LAST_GOOD_PERCENT,
            disk: None,
        };
        return Stores { specs: vec![main], names: vec![defaults::STORE.to_owned()], is_given: false };
    };
    let Some(map) = view.entries() else {
        return Stores { specs: Vec::new(), names: vec![defaults::STORE.to_owned()], is_given: true };
    };
    let names = map.each().map(|(name, _)| name.to_owned()).collect();
    let mut paths = Vec::new();
    let specs = map.each().filter_map(|(name, view)| store(name, &view, folder, &mut paths)).collect();
    Stores { specs, names, is_given: true }
}

fn store(name: &str, view: &View<'_>, folder: &Path, paths: &mut Vec<PathBuf>) -> Option<StoreSpec> {
    if let Err(allowed) = check_name(name, "") {
        view.key_problem(format!("the name of a cache; allowed: {allowed}"));
    }
    let map = view.map(&keys::STORE)?;
    let memory = size(defaults::MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX);
    let memory_bytes = map.read("memory", memory).unwrap_or(defaults::MEMORY_BYTES);
    let object = map.read("max_object", size(1..=MEMORY_BYTES_MAX));
    if let Some(view) = map.get("max_object").filter(|_| object.is_some_and(|bytes| bytes > memory_bytes)) {
        view.problem(wrong(view.node(), "at most the `memory` of the cache"));
    }
    let object_bytes_max = object.unwrap_or(defaults::OBJECT_BYTES_MAX.min(memory_bytes));
    let share = map.read("last_good_share", percent);
    if let Some(view) = map.get("last_good_share").filter(|_| share > Some(defaults::LAST_GOOD_PERCENT_MAX)) {
        let most = defaults::LAST_GOOD_PERCENT_MAX;
        view.problem(wrong(
            view.node(),
            &format!("at most `{most}%`: what is new needs room to be asked for again"),
        ));
    }
    let last_good_percent = share.unwrap_or(defaults::LAST_GOOD_PERCENT);
    let disk = map.get("disk").and_then(|view| disk(&view, folder, last_good_percent, paths));
    Some(StoreSpec { name: name.to_owned(), memory_bytes, object_bytes_max, last_good_percent, disk })
}

/// The directories are kept, so that no two stores write to one.
fn disk(view: &View<'_>, folder: &Path, last_good_percent: u8, paths: &mut Vec<PathBuf>) -> Option<DiskSpec> {
    let map = view.map(&keys::DISK)?;
    let path = map.required("path").and_then(|view| {
        let path = folder.join(view.read(text)?);
        if paths.contains(&path) {
            view.problem("another cache has this directory".to_owned());
        }
        paths.push(path.clone());
        Some(path)
    });
    let size = size(defaults::DISK_BYTES_MIN..=DISK_BYTES_MAX);
    let bytes = map.required("size").and_then(|view| view.read(size));
    let object = map.read("max_object", crate::kind::size(1..=DISK_BYTES_MAX));
    let is_too_large = object.zip(bytes).is_some_and(|(object, bytes)| object > bytes / 2);
    if let Some(view) = map.get("max_object").filter(|_| is_too_large) {
        view.problem(wrong(view.node(), "at most half of `size`"));
    }
    let refresh = map.read("refresh", duration(REFRESH)).unwrap_or(defaults::DISK_REFRESH);
    let (path, bytes) = (path?, bytes?);
    let object_bytes_max = object.unwrap_or(bytes / defaults::DISK_OBJECT_SHARE);
    Some(DiskSpec { path, bytes, object_bytes_max, last_good_percent, refresh })
}

const MODES: [(&str, Mode); 2] = [("standard", Mode::Standard), ("fallback", Mode::Fallback)];
/// The short forms: a mode, or nothing at all (against what `defaults` say).
const SHORT: [(&str, Option<Mode>); 3] =
    [("standard", Some(Mode::Standard)), ("fallback", Some(Mode::Fallback)), ("off", None)];

pub(super) fn policy(view: &View<'_>, stores: &[&str]) -> Option<CachePolicy> {
    if let Kind::Text(_) = view.node().kind {
        let mode = view.read(one_of(&SHORT))??;
        return policy_of(&view.clone().over(None).only_under(), mode, stores);
    }
    let map = view.map(&keys::CACHE)?;
    // A short form under a map is the map `{ mode: … }`.
    let under = view.under().and_then(|node| one_of(&MODES)(node).ok());
    let mode = map.read("mode", one_of(&MODES)).or(under).unwrap_or(defaults::MODE);
    policy_of(&map, mode, stores)
}

fn policy_of(map: &Map<'_>, mode: Mode, stores: &[&str]) -> Option<CachePolicy> {
    let cookies = map.section("cookies", &keys::COOKIES);
    let bypass = map.section("bypass", &keys::BYPASS);
    let bypass_headers = bypass.get("headers").and_then(|view| view.list_of(text_as(header)));
    let policy = CachePolicy {
        store: 0,
        mode,
        last_good: map.read("last_good", boolean).unwrap_or(mode == Mode::Fallback),
        use_stale: use_stale(map, mode),
        stale_for: map.read("stale_for", duration(AGE)).unwrap_or(defaults::STALE_FOR),
        ttl: map.get("ttl").map(|view| ttl(&view)).unwrap_or_default(),
        heuristic: map.read("heuristic", heuristic).flatten(),
        key: key(map),
        personal_cookies: personal_cookies(&cookies),
        serve_anonymous: cookies.read("serve_anonymous", serve_anonymous).unwrap_or(ServeAnonymous::Never),
        drops_set_cookie: cookies.read("drop_set", boolean).unwrap_or_default(),
        bypass_headers: bypass_headers.unwrap_or_default(),
        overrides: overrides(map),
        purge_allow: networks(&map.section("purge", &keys::PURGE), "allow"),
        status_header: map.read("status_header", boolean).unwrap_or(defaults::STATUS_HEADER),
    };
    Some(CachePolicy { store: store_index(map, stores)?, ..policy })
}

/// One of the two lists, the harmless ones or the personal ones.
fn personal_cookies(cookies: &Map<'_>) -> PersonalCookies {
    let names = |key: &str| cookies.get(key).and_then(|view| view.list_of(text_as(listed_cookie)));
    let Some(view) = cookies.get("personal") else {
        return PersonalCookies::AllBut(names("ignore").unwrap_or_default());
    };
    if cookies.get("ignore").and_then(|view| view.items()).is_some_and(|items| !items.is_empty()) {
        view.key_problem("one of `ignore` and `personal`: with `personal` all other cookies are ignored");
    }
    if view.items().is_some_and(|items| items.is_empty()) {
        view.problem("found an empty list; allowed: at least one cookie, or `ignore: [\"*\"]` for a site without sessions");
    }
    PersonalCookies::Only(names("personal").unwrap_or_default())
}

/// `true`, `false` or `outage`.
fn serve_anonymous(node: &Node) -> Result<ServeAnonymous, String> {
    if text(node).is_ok_and(|text| text == "outage") {
        return Ok(ServeAnonymous::Outage);
    }
    let always = boolean(node).map_err(|_| wrong(node, "`true`, `false` or `outage`"))?;
    Ok(if always { ServeAnonymous::Always } else { ServeAnonymous::Never })
}

/// `must_revalidate` covers what `s-maxage` implies.
const OVERRIDES: [(&str, Forbids); 4] = [
    ("no_cache", Forbids::NO_CACHE),
    ("must_revalidate", Forbids::MUST_REVALIDATE.and(Forbids::S_MAXAGE)),
    ("s_maxage", Forbids::S_MAXAGE),
    ("private", Forbids::PRIVATE),
];

fn overrides(map: &Map<'_>) -> Forbids {
    let named = map.get("override").and_then(|view| view.list_of(one_of(&OVERRIDES)));
    named.unwrap_or_default().into_iter().fold(Forbids::NOTHING, Forbids::and)
}

fn store_index(map: &Map<'_>, stores: &[&str]) -> Option<usize> {
    let index = |name: &str| stores.iter().position(|store| *store == name);
    let Some(view) = map.get("store") else {
        let main = index(defaults::STORE);
        if main.is_none() {
            map.view().key_problem(format!(
                "`store` is missing, and no cache is called `{}`; allowed: {}",
                defaults::STORE,
                stores.join(", ")
            ));
        }
        return main;
    };
    view.read(|node| {
        let name = text(node)?;
        index(&name).ok_or_else(|| not_among(node, &name, stores))
    })
}

/// `off`, or a share.
fn heuristic(node: &Node) -> Result<Option<u8>, String> {
    let allowed = || wrong(node, "off, or a share from 1% to 100%");
    if text(node).is_ok_and(|text| text == "off") {
        return Ok(None);
    }
    percent(node).ok().filter(|share| *share > 0).map(Some).ok_or_else(allowed)
}

fn key(map: &Map<'_>) -> KeyPolicy {
    let map = map.section("key", &keys::KEY);
    let headers = map.get("headers").and_then(|view| view.list_of(text_as(header)));
    let cookies = map.get("cookies").and_then(|view| view.list_of(text_as(whole_cookie)));
    KeyPolicy {
        query: map.get("query").and_then(|view| query(&view)).unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        cookies: cookies.unwrap_or_default(),
    }
}

fn query(view: &View<'_>) -> Option<Query> {
    if !matches!(view.node().kind, Kind::Map(_)) {
        return view.read(|node| {
            let word = text(node)?;
            match word.as_str() {
                "all" => Ok(Query::All),
                "none" => Ok(Query::None),
                "sorted" => Ok(Query::Sorted),
                _ => Err(not_among(node, &word, &["all", "none", "sorted"])),
            }
        });
    }
    let map = view.map(&keys::QUERY)?;
    let names = |key| map.get(key).and_then(|view| view.list_of(text_as(parameter)));
    match (map.has("only"), map.has("without")) {
        (true, false) => Some(Query::Only(names("only")?)),
        (false, true) => Some(Query::Without(names("without")?)),
        _ => {
            view.problem("has one of `only` and `without`");
            None
        }
    }
}

/// In fallback mode every copy is only for failures, and `updating` is none.
fn use_stale(map: &Map<'_>, mode: Mode) -> Words {
    let Some(view) = map.get("use_stale") else {
        return defaults::USE_STALE.iter().copied().collect();
    };
    let words = match mode {
        Mode::Standard => view.list_of(stale_word),
        Mode::Fallback => view.list_of(|node| {
            if text(node).is_ok_and(|word| word == Word::Updating.name()) {
                return Err("`updating` has no meaning in `mode: fallback`: leave it out".to_owned());
            }
            failure_word(node)
        }),
    };
    words.unwrap_or_default().into_iter().collect()
}

fn ttl(view: &View<'_>) -> Vec<(u16, Duration)> {
    let Some(map) = view.entries() else { return Vec::new() };
    let entry = |(key, view): (&str, View<'_>)| {
        let status = parse_status(key).filter(|status| *status >= 200);
        if status.is_none() {
            view.key_problem("the key is no status; allowed: a status from 200 to 599");
        }
        Some((status?, view.read(duration(AGE))?))
    };
    map.each().filter_map(entry).collect()
}

fn parameter(text: &str) -> Result<NamePattern, String> {
    let name = text.strip_suffix('*').unwrap_or(text);
    let is_good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if is_good && !text.is_empty() {
        Ok(NamePattern::parse(text))
    } else {
        Err("the name of a parameter, or how names begin, like `utm_*`".to_owned())
    }
}

pub(super) fn whole_cookie(text: &str) -> Result<String, String> {
    match cookie(text) {
        Ok(NamePattern::Exact(name)) if !name.is_empty() => Ok(name),
        _ => Err("a cookie's name, like `lang`".to_owned()),
    }
}

/// Names that every program reads in the same way: a cookie with another one is personal whatever a list says.
fn listed_cookie(text: &str) -> Result<NamePattern, String> {
    let name = text.strip_suffix('*').unwrap_or(text);
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return cookie(text);
    }
    Err("a cookie's name of letters, digits, `-`, `.` and `_`, or how names begin, like `_ga*`".to_owned())
}

fn cookie(text: &str) -> Result<NamePattern, String> {
    // The characters of a token, RFC 6265 section 4.1.1; `*` only as the wildcard at the end.
    let name = text.strip_suffix('*').unwrap_or(text);
    let is_good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte));
    if is_good {
        Ok(NamePattern::parse(text))
    } else {
        Err("a cookie's name, or how names begin, like `_ga*`".to_owned())
    }
}

fn header(text: &str) -> Result<HeaderName, String> {
    super::headers::any_name(text, "x-preview")
}
