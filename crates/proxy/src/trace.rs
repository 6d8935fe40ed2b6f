//! A request's trace: what the client says of it, and what the backend of each attempt is told. Without
//! traces all of it passes untouched.

use goodgate_telemetry::TraceContext;
use http::HeaderMap;
use pingora_error::Result;
use pingora_http::RequestHeader;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The client's trace, continued; a new one if it has none or says so wrongly. `share` is how much of the new
/// ones is sampled; the client decides about its own.
pub(crate) fn begin(headers: &HeaderMap, share: f64) -> TraceContext {
    let span = fastrand::u64(1..);
    continued(headers, span).unwrap_or_else(|| {
        let is_sampled = share > 0.0 && fastrand::f64() < share;
        TraceContext::new(fastrand::u128(1..), span, is_sampled)
    })
}

/// The trace of a request that nobody waits for. It is told to no collector.
pub(crate) fn unsampled() -> TraceContext {
    TraceContext::new(fastrand::u128(1..), fastrand::u64(1..), false)
}

/// Tells the backend of an attempt (0 is the first) its place. The `tracestate` belongs to the client's trace and
/// goes with it or not at all.
pub(crate) fn pass_on(request: &mut RequestHeader, context: &TraceContext, attempt: usize) -> Result<()> {
    if continued(&request.headers, 1).is_none_or(|client| client.trace_id() != context.trace_id()) {
        request.remove_header(TRACESTATE);
    }
    request.insert_header(TRACEPARENT, context.traceparent(attempt))
}

/// Two parents are none.
fn continued(headers: &HeaderMap, span: u64) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next().filter(|_| parents.next().is_none())?;
    TraceContext::continued(parent.as_bytes(), span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    /// What the backend gets of what the client sent: the parent and the states.
    fn passed(fields: &[(&'static str, &str)], share: f64) -> (String, Vec<String>) {
        let mut request = request(fields);
        let context = begin(&request.headers, share);
        pass_on(&mut request, &context, 0).unwrap();
        let all = |name| -> Vec<String> {
            request.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        let [parent] = &all(TRACEPARENT)[..] else { panic!("one parent: {:?}", all(TRACEPARENT)) };
        (parent.clone(), all(TRACESTATE))
    }

    #[test]
    fn a_clients_trace_is_continued_with_its_state_and_decision() {
        let (parent, states) =
            passed(&[("traceparent", VALID), ("tracestate", "a=1"), ("tracestate", "b=2")], 0.0);
        assert!(parent.starts_with(&VALID[..36]) && parent.ends_with("-01"), "{parent}");
        assert_ne!(parent, VALID, "the parent is another");
        assert_eq!(states, ["a=1", "b=2"]);
        let (parent, _) = passed(&[("traceparent", &VALID.replace("-01", "-00"))], 1.0);
        assert!(parent.ends_with("-00"), "{parent}");
    }

    #[test]
    fn what_is_not_valid_begins_a_new_trace_without_state() {
        for fields in [
            &[("tracestate", "a=1")][..],
            &[("traceparent", "rubbish"), ("tracestate", "a=1")],
            &[("traceparent", VALID), ("traceparent", VALID), ("tracestate", "a=1")],
        ] {
            for (share, flags) in [(0.0, "-00"), (1.0, "-01")] {
                let (parent, states) = passed(fields, share);
                assert!(!parent.starts_with(&VALID[..36]) && parent.ends_with(flags), "{parent}");
                assert!(states.is_empty());
                assert!(TraceContext::continued(parent.as_bytes(), 1).is_some(), "{parent}");
            }
        }
    }
}
