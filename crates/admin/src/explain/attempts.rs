//! Each attempt in order: how far it came, what happened, which rule decided what came next.

use std::fmt::Write;

use goodgate_failure::{Attempt, Cause, Phase, Refusal};
use goodgate_telemetry::AccessRecord;

use super::text::{count, shown, span, wrapped};

/// A paragraph for each attempt.
pub(super) fn attempts(record: &AccessRecord<'_>) -> String {
    if record.attempts.is_empty() {
        return "  None: no backend was asked.\n".to_owned();
    }
    let mut text = String::new();
    for (at, attempt) in record.attempts.iter().enumerate() {
        text += &wrapped(&format!("  {}. ", at + 1), &course(attempt));
        text += &wrapped("     ", &result(attempt, record));
        if let Some(next) = attempt.next {
            let step = match next {
                Ok(allowance) => {
                    format!("Tried again ({}): {}", allowance.name(), allowance.meaning())
                }
                Err(refusal) => format!("Not tried again ({}): {}", refusal.name(), refused(refusal, record)),
            };
            text += &wrapped("     ", &step);
        }
    }
    text
}

/// Where it went and how far it came.
fn course(attempt: &Attempt) -> String {
    let mut course = attempt.backend.to_string();
    if attempt.fail_open {
        course += ", which was out of rotation and was asked because no backend was in it";
    }
    if attempt.phase == Phase::Connect {
        return course + ": no connection was made.";
    }
    if attempt.reused {
        course += ": over a kept connection";
        if let Some(age) = attempt.age {
            let made = span(age.since_connect);
            // Writing to a string cannot fail.
            let _ = write!(course, " that had stood for {made}");
            if let Some(idle) = age.idle {
                let _ = write!(course, " and lain idle for {}", span(idle));
            }
        }
    } else {
        course += ": over a new connection";
        if let Some(connect) = attempt.connect {
            let _ = write!(course, ", made in {}", span(connect));
        }
        if let Some(tls) = attempt.tls {
            let _ = write!(course, " (TLS {})", span(tls));
        }
    }
    match (attempt.status, attempt.first_byte) {
        (Some(status), Some(after)) => {
            let _ = write!(course, "; it answered {status} after {}.", span(after));
        }
        (Some(status), None) => {
            let _ = write!(course, "; it answered {status}.");
        }
        (None, _) => course += "; the request went out, and no usable response header came.",
    }
    course
}

/// What became of it.
fn result(attempt: &Attempt, record: &AccessRecord<'_>) -> String {
    let total = attempt.total.map_or(String::new(), |total| format!(" after {}", span(total)));
    let mut result = match attempt.cause {
        Some(cause) => format!("Failed{total}: {}", cause.name()),
        None if record.cause == Some(Cause::ClientDisconnected) => {
            format!("Ended{total}, because the client was gone")
        }
        None if attempt.status.is_some_and(|status| status >= 500) => {
            format!(
                "Ended{total}; such a status counts as an answer, for `retry.on` and `fail_on` do not name it"
            )
        }
        None => format!("Went well{total}"),
    };
    if let Some(detail) = &attempt.detail {
        let _ = write!(result, " ({})", shown(detail));
    }
    if attempt.bytes_out > 0 {
        let _ =
            write!(result, "; {} of the request's body were sent", count(attempt.bytes_out, "byte", "bytes"));
    }
    if attempt.bytes_in > 0 {
        let _ = write!(result, "; {} of the answer's body came", count(attempt.bytes_in, "byte", "bytes"));
    }
    result + "."
}

/// Why not, with the setting that decides it.
fn refused(refusal: Refusal, record: &AccessRecord<'_>) -> String {
    let mut why = refusal.meaning().to_owned();
    if refusal == Refusal::NotReplayable {
        let _ = write!(
            why,
            " `retry.replay: all` would allow it for {}; then what the backend had done already is done twice, \
             an order for instance.",
            shown(&record.method)
        );
    } else if let Some(setting) = refusal.setting() {
        let _ = write!(why, " The setting is `{setting}`.");
    }
    why
}
