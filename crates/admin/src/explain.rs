//! The story of one request, for somebody who has only its identifier: what was asked, each attempt and the
//! rule behind the next step, what saved the client or why nothing could, and one piece of advice per cause.
//!
//! Pure functions over a record and what is measured. Every text of a client's or a backend's choosing goes
//! through [`text::shown`].

mod advice;
mod attempts;
pub(crate) mod measured;
mod refusals;
mod rescue;
pub(crate) mod text;

use goodgate_failure::Cause;
use goodgate_telemetry::{AccessRecord, Origin};

use measured::Measured;
use text::{shown, span, wrapped};

/// The whole story.
pub(crate) fn story(record: &AccessRecord<'_>, measured: &Measured) -> String {
    let mut story = head(record);
    story += &wrapped("", &outcome(record));
    if let Some(queued) = record.queued {
        let queued = span(queued);
        let waited = format!("It waited {queued} for its turn: the upstream had as many requests as it may.");
        story += &wrapped("", &waited);
    }
    story += "\nAttempts\n";
    story += &attempts::attempts(record);
    story += &rescue::section(record);
    story += &removed(record);
    for cause in record.causes() {
        story += &about(cause, record, measured);
    }
    story
}

/// The fields that the backend did not get.
fn removed(record: &AccessRecord<'_>) -> String {
    if record.removed_fields.is_empty() {
        return String::new();
    }
    let names: Vec<_> = record.removed_fields.iter().map(|name| shown(name.as_str())).collect();
    let why = "Clients must not send them: they override the request line or speak for a proxy. `pass_headers` of the \
               route lets a field through.";
    format!("\nRequest fields that were removed\n{}{}", wrapped("  ", &names.join(", ")), wrapped("  ", why))
}

/// What is said when there is no story.
pub(crate) fn unknown(request_id: &str, skipped: u64) -> String {
    let restarted = match skipped {
        0 => "or the gateway was restarted since".to_owned(),
        many => format!(
            "the gateway was restarted since, or it was one of {many} that came too fast to be kept one by one"
        ),
    };
    let why = format!(
        "It is not among the last failures and rescues that are kept in memory: it went well, it is too long \
         ago, {restarted}. The access log, if it is on, has every request:"
    );
    format!(
        "There is no record of request {request_id}.\n{}    jq 'select(.request_id == \"{request_id}\")' access.log\n",
        wrapped("", &why)
    )
}

fn head(record: &AccessRecord<'_>) -> String {
    let mut head = format!("Request {}\n", shown(&record.request_id));
    let client = record.client.map_or("somebody".to_owned(), |client| client.to_string());
    let time = humantime::format_rfc3339_millis(record.time);
    let what = if record.method.is_empty() {
        "sent what could not be read as a request".to_owned()
    } else {
        let query = record.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("{}{query}", record.path);
        let (method, host, path) = (shown(&record.method), shown(&record.host), shown(&target));
        format!("asked for {method} {host}{path} (HTTP/{})", record.version)
    };
    let agent = record.user_agent.as_ref().map_or(String::new(), |agent| format!(" with {}", shown(agent)));
    head += &wrapped("", &format!("At {time} {client} {what}{agent}."));
    if record.route == "none" {
        head += "No route takes it.\n";
    } else {
        let (route, upstream) = (shown(&record.route), shown(&record.upstream));
        head += &wrapped("", &format!("The route is `{route}`, its upstream `{upstream}`."));
    }
    head
}

/// What came of it, in a sentence or two.
fn outcome(record: &AccessRecord<'_>) -> String {
    let after = span(record.duration);
    let status = record.status;
    if let Some((by, cause)) = record.rescue {
        let from = rescue::source(record, by);
        return format!(
            "The client was answered {status} {from} after {after}, and saw nothing of {}.",
            cause.name()
        );
    }
    // An error of a backend that was passed on as it is.
    let is_passed_on =
        |cause: &Cause| matches!(cause, Cause::Received(_)) && record.origin == Origin::Backend;
    let Some(cause) = record.cause.filter(|cause| !is_passed_on(cause)) else {
        let whose = match record.origin {
            Origin::Backend => "the backend's own answer, passed on as it is",
            Origin::Cache => "from a copy",
            Origin::Goodgate => "by goodgate",
        };
        return format!("The client was answered {status} after {after}: {whose}.");
    };
    let name = cause.name();
    match (cause, record.origin) {
        (Cause::ClientDisconnected, _) if status == 499 => {
            format!("The client went away after {after}, before it was answered.")
        }
        (Cause::ClientDisconnected, _) => {
            format!("The client went away after {after}, in the middle of an answer with status {status}.")
        }
        (_, Origin::Goodgate) => {
            let said = record.detail.unwrap_or(cause.sentence());
            format!("The client was answered {status} by goodgate after {after}, because of {name}: {said}")
        }
        (_, Origin::Backend | Origin::Cache) => format!(
            "The client was answered {status}, but after {after} and {} the answer broke off, because of {name}.",
            text::count(record.bytes_sent, "byte", "bytes")
        ),
    }
}

/// What is to be known of a cause, and what to do.
fn about(cause: Cause, record: &AccessRecord<'_>, measured: &Measured) -> String {
    let guide = cause.guide();
    let mut about = format!("\n{}\n", cause.name());
    about += &wrapped("  Meaning: ", guide.meaning);
    for (at, said) in guide.nginx.iter().enumerate() {
        about += &wrapped(if at == 0 { "  nginx says: " } else { "          or: " }, said);
    }
    about += &wrapped("  Advice: ", &advice::advice(cause, record, measured));
    about
}

#[cfg(test)]
mod tests;
