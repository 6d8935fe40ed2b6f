//! `docs/failures.md`: its parts between `<!-- generated: … -->` and `<!-- end -->` are made from the causes
//! and refusals, so that none is missing there and none says something else than the code.

#![allow(
    clippy::pedantic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]
#![allow(missing_docs, reason = "the names of tests are claims")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use goodgate_failure::{Blame, Cause, Chapter, Guide, Refusal};

/// How long a line of the page may be.
const LINE_MAX: usize = 130;
const WRITE: &str = "GOODGATE_WRITE_DOCS";
const END: &str = "<!-- end -->";

#[test]
fn the_page_of_failures_is_up_to_date() {
    let is_writing = std::env::var_os(WRITE).is_some();
    let file = docs("failures.md");
    let before = fs::read_to_string(&file).unwrap();
    let mut page = before.clone();
    for chapter in Chapter::ALL {
        let causes = Cause::ALL.into_iter().filter(|cause| cause.guide().chapter == chapter);
        page = replaced(&page, chapter.name(), &causes.map(section).collect::<Vec<_>>().join("\n"));
    }
    page = replaced(&page, "refusals", &refusals());
    page = replaced(&page, "nginx", &nginx());
    if is_writing {
        fs::write(&file, &page).unwrap();
    }
    assert!(
        is_writing || page == before,
        "docs/failures.md is out of date: {WRITE}=1 cargo test -p goodgate-failure"
    );
}

#[test]
fn every_setting_in_the_advice_is_a_key() {
    let reference = fs::read_to_string(docs("configuration.md")).unwrap();
    let is_key = |word: &&str| word.contains('.') && !word.contains(['/', '=', ' ']);
    let mut wrong = Vec::new();
    for cause in Cause::ALL {
        let keys = cause.guide().setting.split('`').skip(1).step_by(2).filter(is_key);
        wrong.extend(keys.filter(|key| !has_key(&reference, key)).map(|key| (cause.name(), key)));
    }
    let keys = Refusal::ALL.into_iter().filter_map(|refusal| Some((refusal.name(), refusal.setting()?)));
    wrong.extend(keys.filter(|(_, key)| !has_key(&reference, key)));
    assert!(wrong.is_empty(), "not in docs/configuration.md: {wrong:?}");
}

/// Whether the reference has a row for the key, written in full or from any of its parts on.
fn has_key(reference: &str, key: &str) -> bool {
    reference.contains(&format!("| `{key}` |")) || reference.contains(&format!(".{key}` |"))
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// The page with the text between the marker of this name and the next end.
fn replaced(page: &str, name: &str, text: &str) -> String {
    let marker = format!("<!-- generated: {name} -->\n");
    let (before, rest) = page.split_once(&marker).unwrap_or_else(|| panic!("no {marker:?} in the page"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("no {END:?} after {marker:?}"));
    assert!(!after.contains(&marker), "{marker:?} twice");
    format!("{before}{marker}{text}{END}{after}")
}

fn section(cause: Cause) -> String {
    let guide = cause.guide();
    let mut text = format!("### `{}`\n{}\n\n", cause.name(), facts(cause));
    if !guide.is_raised {
        text += "*This build does not raise it yet; its series exist at zero.*\n\n";
    }
    let Guide { meaning, seen, usual, advice, setting, .. } = guide;
    for (lead, said) in [
        ("Meaning", meaning),
        ("Seen as", seen),
        ("Usual causes", usual),
        ("What to do", advice),
        ("Setting", setting),
    ] {
        text += &wrapped(&format!("- **{lead}:** {said}"));
    }
    if !guide.nginx.is_empty() {
        let said: Vec<String> = guide.nginx.iter().map(|said| format!("`{said}`")).collect();
        text += &wrapped(&format!("- **nginx says:** {}.", said.join(", ")));
    }
    text
}

/// What follows from the cause alone, in one line.
fn facts(cause: Cause) -> String {
    let chapter = cause.guide().chapter;
    let status = match chapter {
        Chapter::Body => {
            format!("Status {} if nothing has gone out, else the answer breaks off", cause.status())
        }
        Chapter::Received => format!("Status {} passed on", cause.status()),
        Chapter::Reaching | Chapter::Answer | Chapter::Elsewhere if cause == Cause::ClientDisconnected => {
            format!("Logged as {}", cause.status())
        }
        Chapter::Reaching | Chapter::Answer | Chapter::Elsewhere => format!("Status {}", cause.status()),
    };
    let word = cause.word().map_or("no word".to_owned(), |word| format!("word `{}`", word.name()));
    let elsewhere = match cause.word() {
        None => "never tried elsewhere".to_owned(),
        Some(_) if is_without_attempt(cause) => "nobody else to ask".to_owned(),
        Some(_) if cause.is_before_sending() => "tried elsewhere always".to_owned(),
        Some(word) if chapter == Chapter::Received => {
            format!("tried elsewhere if `retry.on` has `{}` and `replay` allows", word.name())
        }
        Some(_) if chapter == Chapter::Body => {
            "tried elsewhere if `replay` allows and nothing has gone out".to_owned()
        }
        Some(_) => "tried elsewhere if `replay` allows".to_owned(),
    };
    let counts = match cause.blame() {
        Blame::Nobody => "does not count to `max_fails`",
        _ if chapter == Chapter::Received => "counts to `max_fails` if `fail_on` has it",
        Blame::BackendUnreachable | Blame::BackendMisbehaved => "counts to `max_fails`",
    };
    [status, word, elsewhere, counts.to_owned()].join(" · ")
}

/// Whether it says that there was nobody to try.
fn is_without_attempt(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::DnsTimeout | Cause::DnsError | Cause::DestinationUnavailable | Cause::ConnectionLimitReached
    )
}

fn refusals() -> String {
    let mut table = "| word | what it means | the setting |\n|---|---|---|\n".to_owned();
    for refusal in Refusal::ALL {
        let setting = refusal.setting().map_or(String::new(), |key| format!("`{key}` "));
        writeln!(table, "| `{}` | {} | {setting}|", refusal.name(), refusal.meaning()).unwrap();
    }
    table
}

fn nginx() -> String {
    let mut table = "| nginx says | here it is |\n|---|---|\n".to_owned();
    for cause in Cause::ALL.into_iter().filter(|cause| cause.guide().is_raised) {
        for said in cause.guide().nginx {
            writeln!(table, "| {said} | [`{0}`](#{0}) |", cause.name()).unwrap();
        }
    }
    table
}

/// One item of a list, broken at spaces.
fn wrapped(item: &str) -> String {
    let mut lines = vec![String::new()];
    for word in item.split(' ') {
        let last = lines.last_mut().unwrap();
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= LINE_MAX {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines.join("\n") + "\n"
}
