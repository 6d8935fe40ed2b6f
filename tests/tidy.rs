//! What a tool can check about the shape of the project: arrows between rooms, sizes, heads of files, and that
//! the docs name what exists and all of it. An exception stands in a table here, with its reason.

#![allow(
    clippy::pedantic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]
#![allow(missing_docs, reason = "the names of tests are claims")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/dashboard.rs"]
mod dashboard;
#[path = "tidy/monitoring.rs"]
mod monitoring;
#[path = "tidy/state.rs"]
mod state;
#[path = "tidy/surface.rs"]
mod surface;

/// Rooms by layer, from the bottom. A room may name those of lower layers.
const LAYERS: [&[&str]; 5] = [
    &["goodgate-failure", "goodgate-files"],
    &["goodgate-upstream", "goodgate-cache"],
    &["goodgate-config", "goodgate-telemetry"],
    &["goodgate-proxy", "goodgate-watch", "goodgate-admin"],
    &["goodgate"],
];

/// What may lie at the top, besides dotfiles.
const TOP_LEVEL: [&str; 19] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "benches",
    "clippy.toml",
    "conf",
    "crates",
    "deny.toml",
    "deploy",
    "docs",
    "fuzz",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 60;

/// Files that may be longer, tests not counted, up to this many lines, and why.
const LONG_FILES: &[(&str, usize, &str)] = &[];

#[test]
fn rooms_name_only_rooms_of_lower_layers() {
    let layer = |room: &str| LAYERS.iter().position(|layer| layer.contains(&room));
    let mut wrong = Vec::new();
    for manifest in files("crates", "toml") {
        let text = read(&manifest);
        let name =
            text.lines().find_map(|line| line.strip_prefix("name = \"")).unwrap().trim_end_matches('"');
        let Some(own) = layer(name) else {
            wrong.push(format!("{name} has no layer"));
            continue;
        };
        for other in rooms_named(&text).filter(|other| *other != name) {
            if layer(other).is_none_or(|other| other >= own) {
                wrong.push(format!("{name} -> {other}"));
            }
        }
    }
    none(wrong, "arrows that the map in crates/README.md does not have");
}

/// The rooms that a manifest depends on, in whatever form and section it says so.
fn rooms_named(manifest: &str) -> impl Iterator<Item = &str> {
    manifest.lines().filter_map(|line| {
        let start = line.find("dependencies.goodgate-").map_or(0, |at| at + "dependencies.".len());
        let line = line[start..].trim_start();
        let end =
            line.find(|letter: char| !letter.is_ascii_lowercase() && letter != '-').unwrap_or(line.len());
        line.starts_with("goodgate-").then_some(&line[..end])
    })
}

#[test]
fn files_are_short_without_their_tests() {
    let mut wrong = Vec::new();
    for file in sources() {
        let lines = without_tests(&read(&file)).len();
        let allowed =
            LONG_FILES.iter().find(|(long, ..)| *long == shown(&file)).map_or(FILE_LINES_MAX, |long| long.1);
        if lines > allowed {
            wrong.push(format!("{} has {lines} lines", shown(&file)));
        }
    }
    none(wrong, &format!("files of more than {FILE_LINES_MAX} lines"));
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    for file in sources() {
        let text = read(&file);
        for (name, length) in functions(&without_tests(&text)) {
            if length > FUNCTION_LINES_MAX {
                wrong.push(format!("{}: {name} has {length} lines", shown(&file)));
            }
        }
    }
    none(wrong, &format!("functions of more than {FUNCTION_LINES_MAX} lines"));
}

/// Each function with its lines. rustfmt closes it on a line of its own, as far in as it began.
fn functions(lines: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, after)) = code.split_once("fn ") else {
            continue;
        };
        let is_start = before
            .split_whitespace()
            .all(|word| word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(&word));
        if !is_start || code.starts_with("//") || code.ends_with([';', '}']) {
            continue;
        }
        let close = format!("{}}}", " ".repeat(line.len() - code.len()));
        let length = lines[at..].iter().position(|line| *line == close).map_or(0, |length| length + 1);
        let end = after.find(['(', '<']).unwrap_or(after.len());
        found.push((after[..end].to_owned(), length));
    }
    found
}

#[test]
fn every_source_file_says_what_it_is_about() {
    let all = ["crates", "tests", "benches"].into_iter().flat_map(|folder| files(folder, "rs"));
    let wrong = all.filter(|file| !read(file).starts_with("//! ")).map(|file| shown(&file)).collect();
    none(wrong, "files without a `//!` head");
}

#[test]
fn nothing_unexpected_lies_at_the_top() {
    let wrong = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !name.starts_with("target"))
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    none(wrong, "top-level entries beyond the agreed ones");
}

#[test]
fn every_metric_is_documented_and_every_metric_in_the_docs_exists() {
    let mut declared = vec![root().join("crates/telemetry/src/metrics.rs")];
    declared.extend(files("crates/telemetry/src/metrics", "rs"));
    let exist: BTreeSet<String> =
        declared.iter().flat_map(|file| words(&read(file), "goodgate_").collect::<Vec<_>>()).collect();
    assert!(exist.len() > 20, "{exist:?}");
    let documented: BTreeSet<String> = words(&read(&root().join("docs/metrics.md")), "goodgate_").collect();
    none(exist.difference(&documented).cloned().collect(), "metrics missing in docs/metrics.md");

    let mut wrong = Vec::new();
    for file in prose() {
        for name in words(&read(&file), "goodgate_").filter(|name| !exist.contains(series(name))) {
            wrong.push(format!("{}: {name}", shown(&file)));
        }
    }
    none(wrong, "metrics that do not exist");
}

/// The family of a histogram's series.
fn series(name: &str) -> &str {
    let suffix = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
    suffix.unwrap_or(name)
}

#[test]
fn every_field_of_the_access_log_is_documented() {
    let text = read(&root().join("crates/telemetry/src/record.rs"));
    let mut fields = Vec::new();
    let mut renamed = None;
    for line in text.lines().take_while(|line| !line.starts_with("impl")) {
        let code = line.trim().trim_start_matches("pub ");
        if let Some((_, rest)) = code.split_once("rename = \"") {
            renamed = rest.split('"').next();
        }
        let name = code.split_once(": ").map(|(name, _)| name).filter(|name| words(name, "").eq([*name]));
        if let Some(name) = name.filter(|_| line.starts_with("    ") && code.ends_with(',')) {
            fields.push(renamed.take().unwrap_or(name));
        }
    }
    let named = text.split("serialize_field(\"").skip(1).filter_map(|rest| rest.split('"').next());
    fields.extend(named);
    assert!(fields.len() >= 35, "{fields:?}");
    let docs = read(&root().join("docs/operations.md"));
    let wrong =
        fields.into_iter().filter(|name| !docs.contains(&format!("`{name}`"))).map(str::to_owned).collect();
    none(wrong, "fields of the access log missing in docs/operations.md");
}

#[test]
fn every_shipped_configuration_is_good() {
    let mut shipped = files("conf", "yaml");
    shipped.push(root().join("deploy/container/goodgate.yaml"));
    shipped.push(root().join("deploy/compose/goodgate.yaml"));
    let wrong = shipped.iter().filter_map(|file| check(file).err()).collect();
    none(wrong, "configurations that are not good");
}

#[test]
fn every_whole_configuration_in_the_docs_is_good() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in prose().into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "md")) {
        let text = read(&file);
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|block| block.contains("upstreams:") && block.contains("routes:")) {
            seen += 1;
            let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("docs-{seen}.yaml"));
            fs::write(&copy, block).unwrap();
            wrong.extend(check(&copy).err().map(|problems| format!("{}: {problems}", shown(&file))));
        }
    }
    assert!(seen >= 2, "the README shows a configuration");
    none(wrong, "configurations that are not good");
}

/// `goodgate check`; the problems if it is not good.
fn check(file: &Path) -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_goodgate")).arg("check").arg(file).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn shipped_configurations_have_no_warnings() {
    let mut shipped = files("conf", "yaml");
    shipped.push(root().join("deploy/container/goodgate.yaml"));
    shipped.push(root().join("deploy/compose/goodgate.yaml"));
    let warned = |file: &PathBuf| {
        let output = Command::new(env!("CARGO_BIN_EXE_goodgate")).arg("check").arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // The limit of open files is a matter of this machine.
        let lines = said.lines().filter(|line| !line.starts_with("limits.max_connections"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    none(shipped.iter().flat_map(warned).collect(), "warnings of shipped configurations");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// All files below a folder whose names end so, sorted.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The source files of the rooms, but for those that hold nothing but tests.
fn sources() -> Vec<PathBuf> {
    let is_test = |file: &PathBuf| {
        file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
    };
    files("crates", "rs").into_iter().filter(|file| !is_test(file)).collect()
}

/// The lines before the tests within the file.
fn without_tests(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    lines[..end].to_vec()
}

/// What people and monitoring read.
fn prose() -> Vec<PathBuf> {
    let mut all = files("docs", "md");
    for extension in ["md", "yml", "yaml", "json"] {
        all.extend(files("deploy", extension));
    }
    all.extend(["README.md", "CHANGELOG.md", "crates/README.md"].map(|file| root().join(file)));
    all
}

/// The words of letters, digits and underscores that begin so and do not end in an underscore (`goodgate_…`).
fn words(text: &str, prefix: &str) -> impl Iterator<Item = String> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(move |word| word.starts_with(prefix) && !word.ends_with('_') && !word.is_empty())
        .map(str::to_owned)
}

fn none(wrong: Vec<String>, what: &str) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}
