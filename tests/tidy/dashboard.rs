//! What a tool can check about the dashboard: that Grafana can lay it out, and Prometheus read its questions. That
//! the metrics they name exist is checked with the docs; that each has an answer, in a scenario.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{none, read, root};

/// The columns of Grafana's grid.
const COLUMNS: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(&read(&root().join("deploy/grafana/goodgate.json"))).unwrap()
}

fn panels() -> Vec<Value> {
    dashboard()["panels"].as_array().unwrap().clone()
}

fn title(panel: &Value) -> &str {
    panel["title"].as_str().unwrap_or("without a title")
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    let panels = panels();
    assert!(panels.len() > 30);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    let mut taken = BTreeSet::new();
    let mut wrong = Vec::new();
    for panel in &panels {
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        let mut cells = (x..x + width).flat_map(|column| (y..y + height).map(move |row| (column, row)));
        let is_free = cells.all(|cell| taken.insert(cell));
        if !is_free || width * height == 0 || x + width > COLUMNS {
            wrong.push(format!("{} at {x},{y}", title(panel)));
        }
    }
    none(wrong, "panels that overlap or stand out");
}

#[test]
fn every_panel_asks_the_chosen_data_source() {
    let mut wrong = Vec::new();
    for panel in panels().iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        let sources = targets.iter().chain([panel]).map(|place| place["datasource"]["uid"].as_str());
        if targets.is_empty() || !sources.into_iter().all(|source| source == Some("${datasource}")) {
            wrong.push(title(panel).to_owned());
        }
    }
    none(wrong, "panels with another data source, or without a question");
}

/// Each question as a recording rule, for promtool to read: it has no other way to check one.
#[test]
fn prometheus_can_read_every_question() {
    let questions: Vec<String> = panels().iter().flat_map(questions).collect();
    assert!(questions.len() > 40, "{}", questions.len());
    let rule = |(at, question): (usize, &String)| serde_json::json!({ "record": format!("panel:{at}"), "expr": question });
    let rules: Vec<Value> = questions.iter().enumerate().map(rule).collect();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard.json");
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(&file).output();
    let output = output.unwrap_or_else(|error| panic!("promtool ({error}): apt-get install prometheus"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// The questions of a panel, with what Grafana puts in for its variables.
fn questions(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    let filled = |question: &str| {
        let question = question.replace("$__rate_interval", "5m");
        ["$route", "$upstream"].iter().fold(question, |question, variable| question.replace(variable, ".*"))
    };
    let questions: Vec<String> = targets.map(|target| filled(target["expr"].as_str().unwrap())).collect();
    assert!(!questions.iter().any(|question| question.contains("$")), "{questions:?}");
    questions
}
