//! `goodgate survival`: who would notice if an upstream died now, as a table.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::Whom;
use crate::control::{ask_whom, tame};

/// Asks the running gateway and prints what it says.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(crate) fn survival(whom: &Whom, json: bool) -> Result<ExitCode> {
    let answer = ask_whom(whom, "/api/v1/cache/survival")?;
    if json {
        print!("{}", tame(&answer.body));
    } else {
        let routes: Value = serde_json::from_str(&answer.body).context("the answer cannot be read")?;
        print!("{}", tame(&table(routes.as_array().map_or(&[], Vec::as_slice))));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(routes: &[Value]) -> String {
    if routes.is_empty() {
        return "No GET request has been looked at in the last 15 minutes.\n".to_owned();
    }
    let mut text = "If its upstream died now, so much of each route's GET traffic would get a good answer, by how long it stays dead:\n\n".to_owned();
    let width =
        routes.iter().filter_map(|route| route["route"].as_str()).map(str::len).max().unwrap_or(0).max(5);
    let outages = routes.first().map(|route| list(&route["survives"])).unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(text, "{:width$}  looked at", "route");
    for outage in outages {
        let _ = write!(text, "  {:>6}", length(outage["outage_s"].as_u64().unwrap_or(0)));
    }
    text.push('\n');
    for route in routes {
        let name = route["route"].as_str().unwrap_or_default();
        let _ = write!(text, "{name:width$}  {:>9}", route["samples"].as_u64().unwrap_or(0));
        for outage in list(&route["survives"]) {
            let _ = write!(text, "  {:>6}", percent(&outage["share"]));
        }
        text.push('\n');
        for lost in list(&route["in_the_way"]) {
            let reason = lost["reason"].as_str().unwrap_or_default();
            let _ = writeln!(text, "{:width$}  {:>9}  {reason}", "", percent(&lost["share"]));
        }
    }
    text
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn length(seconds: u64) -> String {
    match seconds {
        0 => "now".to_owned(),
        1..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn percent(share: &Value) -> String {
    format!("{:.1}%", share.as_f64().unwrap_or(0.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_route_and_each_reason() {
        let routes = serde_json::json!([{
            "route": "shop", "samples": 8,
            "survives": [{"outage_s": 0, "share": 0.625}, {"outage_s": 60, "share": 0.5}, {"outage_s": 86400, "share": 0}],
            "in_the_way": [{"reason": "Set-Cookie", "share": 0.375}],
        }]);
        let text = table(routes.as_array().unwrap());
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "route  looked at     now   1 min    24 h",
                "shop           8   62.5%   50.0%    0.0%",
                "           37.5%  Set-Cookie",
            ]
        );
        assert!(table(&[]).starts_with("No GET request"));
    }
}
