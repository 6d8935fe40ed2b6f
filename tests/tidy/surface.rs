//! What an operator can type: commands, options, pages of the admin listener, settings that need a restart. The docs name
//! all of them, and nothing else.

use std::collections::BTreeSet;
use std::process::Command;

use super::{files, none, prose, read, root, shown};

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_goodgate")).args(arguments).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The commands of the binary.
fn commands() -> Vec<String> {
    let help = help(&[]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    let names =
        lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The long options of a command.
fn options(command: &str) -> BTreeSet<String> {
    let help = help(&[command]);
    let words = help.split(|letter: char| letter.is_whitespace() || letter == ',');
    let words = words.filter(|word| word.starts_with("--") && word.len() > 3);
    words.map(|word| word.trim_end_matches(['.', ';']).to_owned()).filter(|word| word != "--help").collect()
}

#[test]
fn every_command_and_option_is_documented() {
    let text = read(&root().join("docs/operations.md"));
    let mut wrong = Vec::new();
    for command in commands() {
        let row = text.lines().find(|line| line.starts_with(&format!("| `goodgate {command}")));
        let Some(row) = row else {
            wrong.push(format!("`goodgate {command}` is missing"));
            continue;
        };
        wrong.extend(options(&command).iter().filter(|option| !row.contains(option.as_str())).map(
            |option| format!("`goodgate {command}` has {option}, which its row in docs/operations.md lacks"),
        ));
    }
    none(wrong, "commands and options that are not documented");
}

#[test]
fn every_command_and_option_in_the_docs_exists() {
    let commands = commands();
    let mut wrong = Vec::new();
    for file in prose() {
        for rest in read(&file).split("`goodgate ").skip(1) {
            let line = rest.split(['`', '\n']).next().unwrap_or_default();
            let command = line.split(' ').next().unwrap_or_default();
            if command.starts_with('-') || !command.starts_with(|letter: char| letter.is_ascii_lowercase()) {
                continue;
            }
            if !commands.iter().any(|known| known == command) {
                wrong.push(format!("{}: goodgate {command}", shown(&file)));
                continue;
            }
            let known = options(command);
            let named = line.split([' ', '[', ']']).filter(|word| word.starts_with("--"));
            wrong.extend(
                named
                    .filter(|option| {
                        !known.contains(*option) && *option != "--help" && *option != "--version"
                    })
                    .map(|option| format!("{}: goodgate {command} {option}", shown(&file))),
            );
        }
    }
    none(wrong, "commands and options that do not exist");
}

/// Paths of pages in a text: `/api/v1/…`, `/livez` and the like.
fn pages(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"/_".contains(letter));
    let is_page =
        |word: &&str| word.starts_with("/api/v1/") || ["/livez", "/readyz", "/metrics"].contains(word);
    words.filter(is_page).map(|word| word.trim_end_matches('/').to_owned()).collect()
}

#[test]
fn every_page_is_documented_and_every_page_in_the_docs_exists() {
    let exist = pages(&read(&root().join("crates/admin/src/pages.rs")));
    assert!(exist.len() >= 10, "{exist:?}");
    let documented = pages(&read(&root().join("docs/operations.md")));
    none(exist.difference(&documented).cloned().collect(), "pages missing in docs/operations.md");
    let mut wrong = Vec::new();
    for file in files("docs", "md").into_iter().chain(files("deploy", "md")) {
        let text = read(&file);
        // Decisions speak of what was not built, too.
        if !shown(&file).contains("decisions/") {
            wrong.extend(pages(&text).difference(&exist).map(|page| format!("{}: {page}", shown(&file))));
        }
    }
    none(wrong, "pages that do not exist");
}

#[test]
fn the_settings_that_need_a_restart_are_those_of_the_docs() {
    let code = read(&root().join("crates/goodgate/src/reload.rs"));
    let list = code.split("const RESTART_ONLY").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    let built: BTreeSet<&str> = list.split('"').skip(1).step_by(2).collect();
    let docs = read(&root().join("docs/operations.md"));
    let text = docs.split("These take effect only after a restart").nth(1).unwrap();
    let text = text.split("\n\n").next().unwrap();
    let named: BTreeSet<&str> = text.split('`').skip(1).step_by(2).collect();
    assert_eq!(built, named);
}
