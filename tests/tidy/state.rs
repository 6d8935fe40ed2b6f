//! Running state behind a snapshot. A snapshot is built anew at each reload, so an atomic or a lock that is made with it
//! forgets what it counted. Each one that a snapshot can reach is listed here with what keeps it over a reload.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, none, read, without_tests};

/// Types that change behind a shared reference.
const CELLS: [&str; 9] =
    ["Atomic", "Mutex<", "RwLock<", "OnceLock<", "OnceCell<", "RefCell<", "Cell<", "ArcSwap", "Semaphore"];

/// The fields, and why a reload loses nothing. `Type.field`.
const KEPT: &[(&str, &str)] = &[
    ("Upstream.members", "made from the file, the orders and the names of the previous upstream"),
    ("Upstream.membership", "compared within one upstream only"),
    ("Upstream.has_names", "derived from the members"),
    ("Upstream.rotation", "derived from the health of the members"),
    ("Upstream.orders", "taken over from the previous upstream"),
    ("Upstream.failing_open", "taken over from the previous upstream"),
    ("Course.cursor", "taken over from the previous upstream"),
    ("Course.retry_cursor", "taken over from the previous upstream"),
    ("Course.ejecting", "taken over from the previous upstream"),
    ("Course.compared", "taken over from the previous upstream"),
    ("Alarm.0", "taken over from the previous upstream"),
    ("Lookups.are_awaited", "taken over from the previous upstream"),
    ("Lookups.waiting", "taken over from the previous upstream"),
    ("Breaker.0", "taken over from the previous upstream"),
    ("Ranking.0", "derived from the requests in flight of the members"),
    ("Counts.table", "taken over with the limit"),
    ("Table.shards", "taken over with the limit"),
    ("RouteState.split_requests", "by the name of the route, for as long as something uses it"),
    ("RouteState.mirror_requests", "by the name of the route, for as long as something uses it"),
    ("RouteState.mirrored_in_flight", "by the name of the route, for as long as something uses it"),
];

/// Types that outlive snapshots as a whole, and who holds them.
const LASTING: &[(&str, &str)] = &[
    ("Vitals", "by the address of the backend"),
    ("Budget", "taken over from the previous upstream"),
    ("OfAll", "taken over from the previous upstream"),
    ("Verifier", "one for the process"),
    ("StoreRoom", "one for each name of a cache"),
    ("Metrics", "one for the process"),
];

#[test]
fn state_that_a_reload_would_forget_is_taken_over() {
    let types = types();
    let mut seen = BTreeSet::new();
    let mut next = vec!["Snapshot".to_owned()];
    let mut cells = BTreeSet::new();
    while let Some(name) = next.pop() {
        if LASTING.iter().any(|(lasting, _)| *lasting == name) || !seen.insert(name.clone()) {
            continue;
        }
        for (field, kind) in types.get(&name).into_iter().flatten() {
            if CELLS.iter().any(|cell| kind.contains(cell)) {
                cells.insert(format!("{name}.{field}"));
            }
            let words = kind.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            next.extend(words.filter(|word| types.contains_key(*word)).map(str::to_owned));
        }
    }
    assert!(seen.contains("RouteState") && seen.contains("Course") && seen.contains("Counts"), "{seen:?}");
    let is_kept = |cell: &&String| KEPT.iter().any(|(kept, _)| kept == *cell);
    let wrong = cells.iter().filter(|cell| !is_kept(cell)).cloned().collect();
    none(wrong, "state that is made with a snapshot: take it over from the previous one and list it in KEPT");
}

/// The structs of the rooms that build snapshots: each with its fields and their types. Of several with one name all fields.
fn types() -> BTreeMap<String, Vec<(String, String)>> {
    let mut types: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for file in ["crates/proxy/src", "crates/upstream/src"].into_iter().flat_map(|folder| files(folder, "rs"))
    {
        if file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let text = read(&file);
        let lines = without_tests(&text);
        for (at, line) in lines.iter().enumerate() {
            let Some((before, after)) = line.split_once("struct ") else { continue };
            if !(before.is_empty() || before.starts_with("pub")) {
                continue;
            }
            let end = after.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(after.len());
            let fields = types.entry(after[..end].to_owned()).or_default();
            if let Some((_, tuple)) = after.split_once('(').filter(|_| line.ends_with(");")) {
                fields.push(("0".to_owned(), tuple.to_owned()));
            }
            let body = lines[at + 1..].iter().take_while(|line| !line.starts_with('}'));
            for line in body.filter(|_| line.ends_with('{')) {
                let code = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
                let code = code.trim_start_matches("pub ");
                if let Some((name, kind)) = code.split_once(": ").filter(|_| !code.starts_with("//")) {
                    fields.push((name.to_owned(), kind.to_owned()));
                }
            }
        }
    }
    types
}
