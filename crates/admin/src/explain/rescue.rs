//! What saved the client, or why nothing could.

use goodgate_failure::{Cause, Refusal};
use goodgate_telemetry::{AccessRecord, By, CacheResult, Origin};

use super::text::{shown, span, wrapped};

/// A section with its title.
pub(super) fn section(record: &AccessRecord<'_>) -> String {
    if let Some((by, _)) = record.rescue {
        return "\nWhat saved the client\n".to_owned() + &wrapped("  ", saved(by));
    }
    if record.cause == Some(Cause::ClientDisconnected) {
        return String::new();
    }
    "\nWhy nothing saved the client\n".to_owned() + &wrapped("  ", &lost(record))
}

/// From where the answer came, as a part of a sentence.
pub(super) fn source(record: &AccessRecord<'_>, by: By) -> String {
    match by {
        By::Stale => match record.age {
            Some(age) => format!("from a copy that was {} old", span(age)),
            None => "from a copy".to_owned(),
        },
        By::Retry => match record.attempts.last() {
            Some(last) => format!("by another attempt, at {},", last.backend),
            None => "by another attempt".to_owned(),
        },
        By::ConnectionRace => "over a new connection".to_owned(),
    }
}

const fn saved(by: By) -> &'static str {
    match by {
        By::Stale => {
            "A stale copy: the cache had an old answer to this request, and `cache.use_stale` allows it for this \
             cause."
        }
        By::Retry => "A retry: another backend had the answer.",
        By::ConnectionRace => "The connection was replaced: the backend itself was well.",
    }
}

fn lost(record: &AccessRecord<'_>) -> String {
    if matches!(record.cause, Some(Cause::HttpRequestError | Cause::HttpRequestDenied)) {
        return "It is a matter of the request itself: no backend and no copy can help.".to_owned();
    }
    if record.route == "none" {
        return "Without a route there is neither a backend nor a copy.".to_owned();
    }
    let is_passed_on = matches!(record.cause, Some(Cause::Received(_)));
    let is_cut = record.cause.is_some() && record.origin != Origin::Goodgate && !is_passed_on;
    let last = record.attempts.last().and_then(goodgate_failure::Attempt::refusal);
    if is_cut || last == Some(Refusal::BytesOut) {
        return "The client had the beginning of the answer already: all that is honest then is to close its \
                connection short of the end."
            .to_owned();
    }
    let retry = match last {
        Some(refusal) => format!("No other attempt: {}", refusal.meaning()),
        None if record.attempts.is_empty() => "No attempt: there was no backend to ask.".to_owned(),
        None => "No other attempt was called for.".to_owned(),
    };
    format!("{retry} {}", no_copy(record))
}

fn no_copy(record: &AccessRecord<'_>) -> String {
    if !matches!(&*record.method, "GET" | "HEAD") {
        return format!("No copy: copies answer GET and HEAD, and this was {}.", shown(&record.method));
    }
    match record.cache {
        None => "No copy: the route keeps none. With `cache: fallback` it would have served the last good one."
            .to_owned(),
        Some(CacheResult::Bypass) => {
            "No copy: the request may not be answered from the cache (a credential, a cookie, or `cache.bypass`)."
                .to_owned()
        }
        Some(_) if record.cache_detail.is_some() => {
            let reason = record.cache_detail.unwrap_or_default();
            format!("No stored response may answer: {reason}.")
        }
        Some(CacheResult::Uncacheable) => "No copy: answers to this request may not be kept.".to_owned(),
        Some(
            CacheResult::Miss
            | CacheResult::Hit
            | CacheResult::Stale
            | CacheResult::Updating
            | CacheResult::Revalidated,
        ) => "No copy: the cache has none of this page that `cache.use_stale` and `cache.stale_for` let it serve."
            .to_owned(),
    }
}
