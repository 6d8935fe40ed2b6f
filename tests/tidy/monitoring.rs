//! What a tool can check about alerts and recording rules: that they lead somewhere, and that all are tested.
//! That the metrics they name exist is checked with the docs.

use std::collections::BTreeSet;

use serde_yaml::Value;

use super::{none, read, root};

const RULES: &str = "deploy/prometheus/rules";
/// Where runbook links lead, before the path within the repository.
const HOME: &str = "https://github.com/goodgate/goodgate/blob/main/";

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(&root().join(path))).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All rules of one of the rule files.
fn rules(file: &str) -> Vec<Value> {
    let groups = yaml(&format!("{RULES}/{file}"))["groups"].clone();
    let rules = |group: &Value| group["rules"].as_sequence().unwrap().clone();
    groups.as_sequence().unwrap().iter().flat_map(rules).collect()
}

fn names(file: &str, kind: &str) -> BTreeSet<String> {
    rules(file).iter().map(|rule| rule[kind].as_str().unwrap().to_owned()).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(path: &str) -> BTreeSet<String> {
    let headings = read(&root().join(path));
    let slug = |heading: &str| {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || ['-', '_', ' '].contains(letter));
        kept.collect::<String>().replace(' ', "-")
    };
    headings
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| slug(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn every_alert_says_how_bad_it_is_what_is_going_on_and_what_to_do() {
    let mut wrong = Vec::new();
    let operations = anchors("docs/operations.md");
    for rule in rules("goodgate.alerts.yml") {
        let name = rule["alert"].as_str().unwrap();
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        let texts = ["summary", "description", "runbook_url"]
            .map(|key| rule["annotations"][key].as_str().unwrap_or_default().to_owned());
        if !["critical", "warning"].contains(&severity) || texts.iter().any(String::is_empty) {
            wrong.push(format!("{name}: no severity, summary, description or runbook"));
        }
        if !operations.contains(&name.to_lowercase()) {
            wrong.push(format!("{name} has no paragraph in docs/operations.md"));
        }
        let [_, _, runbook] = texts;
        if !leads_somewhere(&runbook, rule["expr"].as_str().unwrap()) {
            wrong.push(format!("{name}: {runbook} leads nowhere"));
        }
    }
    none(wrong, "alerts");
}

/// Whether a runbook link is to a heading of our docs. A link by cause is good if the alert has the cause:
/// every cause has its heading.
fn leads_somewhere(link: &str, expression: &str) -> bool {
    let Some((page, anchor)) = link.strip_prefix(HOME).and_then(|rest| rest.split_once('#')) else {
        return false;
    };
    if anchor == "{{ $labels.cause }}" {
        return page == "docs/failures.md" && expression.contains("goodgate:gateway_errors:rate5m");
    }
    root().join(page).exists() && anchors(page).contains(anchor)
}

#[test]
fn every_alert_and_every_recording_rule_is_tested() {
    let tests = yaml(&format!("{RULES}/goodgate.tests.yml"))["tests"].clone();
    let (mut fires, mut stops, mut values) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for test in tests.as_sequence().unwrap() {
        let mut has_fired = false;
        for moment in test["alert_rule_test"].as_sequence().into_iter().flatten() {
            let name = moment["alertname"].as_str().unwrap().to_owned();
            let is_firing = moment["exp_alerts"].as_sequence().is_some_and(|alerts| !alerts.is_empty());
            if is_firing {
                fires.insert(name);
            } else if has_fired {
                stops.insert(name);
            }
            has_fired |= is_firing;
        }
        let expressions = test["promql_expr_test"].as_sequence().into_iter().flatten();
        values.extend(expressions.flat_map(|test| recorded_names(test["expr"].as_str().unwrap())));
    }
    let alerts = names("goodgate.alerts.yml", "alert");
    assert!(alerts.len() > 10, "{alerts:?}");
    none(alerts.difference(&fires).cloned().collect(), "alerts that no test sees firing");
    none(alerts.difference(&stops).cloned().collect(), "alerts that no test sees stopping");
    let records = names("goodgate.recording.yml", "record");
    none(records.difference(&values).cloned().collect(), "recording rules without a tested value");
}

#[test]
fn what_is_used_as_recorded_is_recorded() {
    let records = names("goodgate.recording.yml", "record");
    let mut wrong = Vec::new();
    for file in super::prose() {
        let used = recorded_names(&read(&file)).into_iter().filter(|name| !records.contains(name));
        wrong.extend(used.map(|name| format!("{}: {name}", super::shown(&file))));
    }
    none(wrong, "recorded names that no rule records");
}

/// The names of recording rules in a text: `goodgate:errors:ratio_rate5m`.
fn recorded_names(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':');
    let is_name = |word: &&str| word.starts_with("goodgate:") && word.matches(':').count() == 2;
    words.filter(is_name).map(str::to_owned).collect()
}

#[test]
fn prometheus_loads_the_rules_that_are_there() {
    let config = yaml("deploy/prometheus/prometheus.yml");
    let loaded = config["rule_files"].as_sequence().unwrap().iter().map(|file| file.as_str().unwrap());
    assert_eq!(
        loaded.collect::<Vec<_>>(),
        ["rules/goodgate.recording.yml", "rules/goodgate.alerts.yml"],
        "both, and not their tests"
    );
}
