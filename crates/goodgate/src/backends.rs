//! `goodgate backends`: the backends of a running gateway, as a table.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::Whom;
use crate::control::{ask_whom, tame};
use crate::explain::encoded;

const HEAD: [&str; 12] = [
    "upstream",
    "backend",
    "state",
    "for",
    "why",
    "weight",
    "in flight",
    "ok",
    "failed",
    "p50",
    "p99",
    "probe in",
];

/// Asks the running gateway and prints what it says.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(crate) fn backends(whom: &Whom, json: bool, upstream: Option<&str>) -> Result<ExitCode> {
    let only = upstream.map(|name| format!("?upstream={}", encoded(name))).unwrap_or_default();
    let rows = ask_whom(whom, &format!("/api/v1/backends{only}"))?.body;
    let upstreams = ask_whom(whom, &format!("/api/v1/upstreams{only}"))?.body;
    let read = |text: &str| -> Result<Vec<Value>> {
        serde_json::from_str(text).context("the answer cannot be read")
    };
    let (rows, upstreams) = (read(&rows)?, read(&upstreams)?);
    if json {
        print!("{}", tame(&(serde_json::to_string_pretty(&rows)? + "\n")));
    } else {
        print!("{}", tame(&(table(&rows) + &notes(&rows, &upstreams))));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Value]) -> String {
    let cells: Vec<[String; HEAD.len()]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(line)).collect();
    let mut widths = [0; HEAD.len()];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &cells {
        let padded: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn line(row: &Value) -> [String; HEAD.len()] {
    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let count = |key: &str| row[key].as_u64().map_or_else(|| "-".to_owned(), |count| count.to_string());
    let (backend, address) = (text("backend"), text("address"));
    let place = if backend == address { backend } else { format!("{backend} ({address})") };
    let backup = if row["backup"] == true { " (backup)" } else { "" };
    [
        text("upstream"),
        place + backup,
        text("state"),
        row["for_s"].as_f64().map_or_else(|| "-".to_owned(), length),
        text("cause"),
        count("weight"),
        count("in_flight"),
        count("ok"),
        count("failed"),
        millis(&row["first_byte_p50_ms"]),
        millis(&row["first_byte_p99_ms"]),
        row["next_probe_s"].as_f64().map_or_else(|| "-".to_owned(), length),
    ]
}

/// What does not fit into the columns.
fn notes(rows: &[Value], upstreams: &[Value]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for row in rows {
        let place = format!("{} {}", string(&row["upstream"]), string(&row["address"]));
        if let Some(seconds) = row["next_trial_s"].as_f64() {
            let _ = writeln!(text, "{place}: one request is tried on it in {}", length(seconds));
        }
        if let Some(last) = last_probe(row) {
            let _ = writeln!(text, "{place}: {last}");
        }
        let failures = row["failures"].as_object().into_iter().flatten();
        let causes: Vec<String> = failures.map(|(cause, count)| format!("{cause} {count}")).collect();
        if !causes.is_empty() {
            let _ = writeln!(text, "{place}: failed for {}", causes.join(", "));
        }
        let ordered = &row["ordered"];
        if ordered["added"] == true {
            let _ = writeln!(text, "{place}: added by an operator");
        }
        if let Some(mode) = ordered["mode"].as_str() {
            let _ = writeln!(text, "{place}: {mode} was ordered by an operator");
        }
        if let Some(weight) = ordered["weight_in_file"].as_u64() {
            let _ = writeln!(text, "{place}: weight ordered by an operator; the file says {weight}");
        }
    }
    for upstream in upstreams {
        let name = string(&upstream["upstream"]);
        for removed in upstream["removed"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "{name} {}: removed by an operator", string(removed));
        }
        if let Some(seconds) = upstream["failing_open_s"].as_f64() {
            let since = length(seconds);
            let _ =
                writeln!(text, "{name}: nothing in rotation, requests are tried all the same, for {since}");
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// The last health check, if it has not passed, or the backend is out all the same.
fn last_probe(row: &Value) -> Option<String> {
    let last = &row["last_probe"];
    let result = last["result"].as_str()?;
    if result == "ok" && row["state"] == "up" {
        return None;
    }
    let status = last["status"].as_u64().map(|status| format!(" (status {status})")).unwrap_or_default();
    let ago = length(last["ago_s"].as_f64()?);
    Some(format!("last health check {ago} ago: {result}{status} after {}", millis(&last["took_ms"])))
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn length(seconds: f64) -> String {
    match seconds {
        ..60.0 => format!("{seconds:.1} s"),
        ..3600.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}

fn millis(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.2} ms"),
        Some(millis) => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_backend_and_the_rest_below() {
        let rows = serde_json::json!([
            {"upstream": "app", "backend": "app.test:80", "address": "10.0.0.1:80", "state": "ejected",
             "for_s": 12.34, "cause": "connection_refused", "weight": 2, "backup": false, "in_flight": 1,
             "ok": 5, "failed": 3, "failures": {"connection_refused": 3}, "first_byte_p50_ms": 1.536,
             "first_byte_p99_ms": 98.3, "next_trial_s": 4.0, "next_probe_s": 0.7,
             "last_probe": {"ago_s": 0.31, "took_ms": 1.234, "result": "received_503", "status": 503},
             "ordered": {"added": false, "mode": null, "weight_in_file": 1}},
            {"upstream": "app", "backend": "10.0.0.2:80", "address": "10.0.0.2:80", "state": "up",
             "for_s": 7200, "cause": null, "weight": 1, "backup": true, "in_flight": 0, "ok": 0, "failed": 0,
             "failures": {}, "first_byte_p50_ms": null, "first_byte_p99_ms": null, "ordered": null},
        ]);
        let upstreams =
            serde_json::json!([{"upstream": "app", "removed": ["10.0.0.3:80"], "failing_open_s": null}]);
        let rows = rows.as_array().unwrap();
        let text = table(rows) + &notes(rows, upstreams.as_array().unwrap());
        let expected = "\
upstream  backend                    state    for     why                 weight  in flight  ok  failed  p50      p99    probe in
app       app.test:80 (10.0.0.1:80)  ejected  12.3 s  connection_refused  2       1          5   3       1.54 ms  98 ms  0.7 s
app       10.0.0.2:80 (backup)       up       2.0 h   -                   1       0          0   0       -        -      -

app 10.0.0.1:80: one request is tried on it in 4.0 s
app 10.0.0.1:80: last health check 0.3 s ago: received_503 (status 503) after 1.23 ms
app 10.0.0.1:80: failed for connection_refused 3
app 10.0.0.1:80: weight ordered by an operator; the file says 1
app 10.0.0.3:80: removed by an operator
";
        assert_eq!(text, expected);
    }
}
