//! One piece of advice for a cause: first the figures that were measured, then what to do.

use std::time::Duration;

use goodgate_failure::{Attempt, Cause};
use goodgate_telemetry::{AccessRecord, Quantile, Spread};
use goodgate_upstream::State;

use super::measured::{Measured, MeasuredBackend, MeasuredUpstream};
use super::refusals;
use super::text::{count, shown, span};
use crate::probes::ProbeRow;

/// The advice.
pub(super) fn advice(cause: Cause, record: &AccessRecord<'_>, measured: &Measured) -> String {
    let guide = cause.guide();
    let whole = Case {
        cause,
        record,
        measured,
        upstream: measured.upstream.as_ref(),
        attempt: record.attempts.iter().rev().find(|attempt| attempt.cause == Some(cause)),
    };
    match whole.figures() {
        Some(figures) => format!("{figures} {}", whole.step().unwrap_or(guide.advice)),
        None => guide.advice.to_owned(),
    }
}

/// All that a piece of advice may draw on.
struct Case<'a> {
    cause: Cause,
    record: &'a AccessRecord<'a>,
    measured: &'a Measured,
    upstream: Option<&'a MeasuredUpstream>,
    /// The last attempt that failed so.
    attempt: Option<&'a Attempt>,
}

impl Case<'_> {
    /// What was measured, in sentences; none if nothing was.
    fn figures(&self) -> Option<String> {
        match self.cause {
            Cause::DnsTimeout | Cause::DnsError => self.names(),
            Cause::DestinationUnavailable | Cause::ConnectionLimitReached => self.rotation(),
            Cause::ConnectionRefused | Cause::DestinationIpUnroutable => {
                joined([self.rotation(), self.history()])
            }
            Cause::ConnectionTimeout => joined([self.connect_limit(), self.rotation()]),
            Cause::TlsCertificateError | Cause::TlsProtocolError | Cause::TlsAlertReceived => self.history(),
            Cause::ConnectionTerminated if self.is_reused() => self.idle_close(),
            Cause::ConnectionTerminated | Cause::HttpProtocolError | Cause::HttpUpgradeFailed => {
                self.history()
            }
            Cause::ConnectionWriteTimeout => self.write_limit(),
            Cause::HttpResponseTimeout => joined([self.first_byte_limit(), self.in_flight()]),
            Cause::HttpResponseHeaderSectionSize => Some(format!(
                "`limits.max_response_header_bytes` is {} bytes.",
                self.measured.response_header_bytes_max
            )),
            Cause::ConnectionReadTimeout => joined([self.read_limit(), self.came()]),
            Cause::HttpResponseIncomplete
            | Cause::HttpResponseTransferCoding
            | Cause::HttpResponseBodySize => joined([self.came(), self.history()]),
            Cause::Received(_) => self.culprits(),
            Cause::ResourceExhausted => self.files(),
            Cause::ClientDisconnected => self.patience(),
            Cause::HttpRequestError | Cause::HttpRequestDenied => self.refusal(),
            Cause::ProxyLoopDetected | Cause::ProxyConfigurationError | Cause::ProxyInternalError => {
                self.refusal().filter(|_| self.record.status == 404)
            }
        }
    }

    /// What to do where the figures allow more than the general advice.
    fn step(&self) -> Option<&'static str> {
        if self.cause == Cause::ConnectionTerminated {
            return Some(if self.is_reused() {
                "Let the backend keep idle connections longer than `timeouts.idle`, or make that shorter than \
                 what the backend allows."
            } else {
                "The connection was new, so it is no idle limit: look into the backend's log at that second for \
                 a crash, a restart or a request that it cuts."
            });
        }
        None
    }

    fn refusal(&self) -> Option<String> {
        let limits = self.measured.limits.as_deref()?;
        refusals::refusal(self.record, &self.measured.routes, limits)
    }

    fn is_reused(&self) -> bool {
        self.attempt.is_some_and(|attempt| attempt.reused)
    }

    fn backend(&self) -> Option<&MeasuredBackend> {
        let wanted = self.attempt?.backend;
        self.upstream?.backends.iter().find(|backend| backend.view.address == wanted)
    }

    fn names(&self) -> Option<String> {
        let upstream = self.upstream.filter(|upstream| !upstream.names.is_empty())?;
        let names: Vec<String> = upstream.names.iter().map(|name| format!("`{}`", shown(name))).collect();
        let (subject, verb) = (names.join(", "), if names.len() == 1 { "has" } else { "have" });
        Some(if upstream.is_unresolved {
            format!("Of {subject}, a name has no address even now, and none is known that could be used on.")
        } else if upstream.is_dns_stale {
            format!("{subject} {verb} addresses again, but lookups fail: the last good ones are used on.")
        } else {
            let backends = count(upstream.backends.len() as u64, "address", "addresses");
            format!("{subject} {verb} {backends} by now.")
        })
    }

    /// How many backends take turns, and what the others are.
    fn rotation(&self) -> Option<String> {
        let upstream = self.upstream?;
        let of = count(upstream.backends.len() as u64, "backend", "backends");
        let name = shown(&self.record.upstream);
        let is = if upstream.in_rotation == 1 || upstream.backends.len() == 1 { "is" } else { "are" };
        let mut text = format!("{} of {of} of `{name}` {is} in rotation", upstream.in_rotation);
        let out: Vec<String> = upstream.backends.iter().filter_map(|one| why_out(one, upstream)).collect();
        if !out.is_empty() {
            text = format!("{text} ({})", some(out));
        }
        Some(text + ".")
    }

    /// Whether the backend has ever worked.
    fn history(&self) -> Option<String> {
        let view = &self.backend()?.view;
        let (well, failed) = (count(view.ok, "attempt", "attempts"), view.failed);
        let address = view.address;
        Some(match view.ok {
            0 => format!(
                "No attempt at {address} has gone well since the start and {failed} failed: it may never have \
                 worked as it is configured."
            ),
            _ => format!("{well} at {address} went well since the start, {failed} failed."),
        })
    }

    fn connect_limit(&self) -> Option<String> {
        let upstream = self.upstream?;
        let limit = span(upstream.timeouts.connect);
        Some(match upstream.connect {
            None => {
                format!("`timeouts.connect` is {limit}, and no connection to the upstream has ever stood.")
            }
            Some(times) => {
                format!("`timeouts.connect` is {limit}; connections that stood took {}.", said(&times))
            }
        })
    }

    fn write_limit(&self) -> Option<String> {
        let limit = span(self.upstream?.timeouts.write);
        let sent = count(self.attempt?.bytes_out, "byte", "bytes");
        Some(format!("`timeouts.write` is {limit}; {sent} of the request's body had gone out."))
    }

    fn first_byte_limit(&self) -> Option<String> {
        let upstream = self.upstream?;
        let limit = upstream.timeouts.first_byte;
        let cut = self.attempt?.total.filter(|total| *total < limit).map_or(String::new(), |total| {
            format!(" This attempt ended before, after {}: `timeout` of the route was over.", span(total))
        });
        let limit = span(limit);
        Some(match upstream.first_byte {
            None => {
                format!(
                    "`timeouts.first_byte` is {limit}, and the upstream has answered nothing so far.{cut}"
                )
            }
            Some(times) => {
                let times = said(&times);
                format!("`timeouts.first_byte` is {limit}; what was answered took {times}.{cut}")
            }
        })
    }

    fn in_flight(&self) -> Option<String> {
        let view = &self.backend()?.view;
        let requests = count(view.in_flight, "request is", "requests are");
        Some(format!("{requests} under way at {} now.", view.address))
    }

    fn read_limit(&self) -> Option<String> {
        let timeouts = self.upstream?.timeouts;
        let limit = span(timeouts.read.max(timeouts.first_byte));
        Some(format!("Between two pieces of an answer {limit} may pass (`timeouts.read`)."))
    }

    fn came(&self) -> Option<String> {
        let attempt = self.attempt?;
        let (bytes, total) = (count(attempt.bytes_in, "byte", "bytes"), attempt.total?);
        Some(format!(
            "{bytes} of the body had come from {} when it ended after {}.",
            attempt.backend,
            span(total)
        ))
    }

    /// What is known of how long the backend keeps idle connections.
    fn idle_close(&self) -> Option<String> {
        let (upstream, backend) = (self.upstream?, self.backend()?);
        let (address, configured) = (backend.view.address, span(upstream.timeouts.idle));
        let limit = match (backend.idle_close.seen, backend.idle_close.hint) {
            (Some((low, high)), _) if span(low) == span(high) => {
                format!("{address} closes idle connections after {} (seen)", span(low))
            }
            (Some((low, high)), _) => {
                format!("{address} closes idle connections after {} to {} (seen)", span(low), span(high))
            }
            (None, Some(hint)) => {
                format!("{address} says that it keeps idle connections for {} (`Keep-Alive`)", span(hint))
            }
            (None, None) => format!("How long {address} keeps idle connections is not known yet"),
        };
        let idle = self
            .attempt?
            .age
            .and_then(|age| age.idle)
            .map_or(String::new(), |idle| format!(" This one had been idle for {}.", span(idle)));
        let retired = if backend.idle_close.believed.is_some() {
            format!("but connections to it are retired before {}", span(backend.idle_limit))
        } else {
            "and it takes two closes that agree until connections are retired sooner".to_owned()
        };
        Some(format!("{limit}; `timeouts.idle` is {configured}, {retired}.{idle}"))
    }

    /// Which backends fail so.
    fn culprits(&self) -> Option<String> {
        let upstream = self.upstream?;
        let of_cause = upstream.culprits.iter().filter(|(cause, ..)| *cause == self.cause);
        let counts: Vec<String> = of_cause
            .map(|(_, backend, times)| format!("{backend} {}", count(*times, "time", "times")))
            .collect();
        let backends = count(upstream.backends.len() as u64, "backend", "backends");
        (!counts.is_empty()).then(|| {
            format!("Among the requests kept, it came from {}; the upstream has {backends}.", some(counts))
        })
    }

    fn files(&self) -> Option<String> {
        let files = self.measured.files?;
        Some(format!("{} of {} files are open now.", files.open, files.limit))
    }

    fn patience(&self) -> Option<String> {
        let times = self.upstream?.first_byte?;
        let left = span(self.record.duration);
        Some(format!("It left after {left}; answers of the upstream took {} to begin.", said(&times)))
    }
}

/// What the backend is if it is not in rotation.
fn why_out(backend: &MeasuredBackend, upstream: &MeasuredUpstream) -> Option<String> {
    let (address, state) = (backend.view.address, backend.view.state);
    let cause = backend.view.why.map_or(String::new(), |why| format!(" for {}", why.name()));
    match state {
        State::Up => None,
        State::Down if upstream.has_probe => {
            let last = backend.last_probe.map(|last| format!(" ({})", told(&last))).unwrap_or_default();
            Some(format!("{address} is down by its health check{last}"))
        }
        State::Checking => Some(format!("{address} has not passed a health check yet")),
        State::Draining | State::Disabled => Some(format!("{address} is {}", state.name())),
        State::Down | State::Ejected | State::Trial => Some(format!("{address} is {}{cause}", state.name())),
    }
}

/// What a health check found, and when.
fn told(probe: &ProbeRow) -> String {
    let ago = span(Duration::try_from_secs_f64(probe.ago_s).unwrap_or_default());
    let took = span(Duration::try_from_secs_f64(probe.took_ms / 1000.0).unwrap_or_default());
    format!("the last one, {ago} ago: {} after {took}", probe.result)
}

/// The first few of a list.
fn some(list: Vec<String>) -> String {
    const SHOWN_MAX: usize = 5;
    let more = list.len().saturating_sub(SHOWN_MAX);
    let mut text = list.into_iter().take(SHOWN_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text = format!("{text} and {more} more");
    }
    text
}

fn said(times: &Spread) -> String {
    let of = count(times.count, "measurement", "measurements");
    format!("{} in the median, {} at p99 ({of} since the start)", place(times.p50), place(times.p99))
}

fn place(quantile: Quantile) -> String {
    match quantile {
        Quantile::Below(bound) => format!("below {}", span(bound)),
        Quantile::About(about, low, high) => {
            format!("about {} (between {} and {})", span(about), span(low), span(high))
        }
        Quantile::Above(bound) => format!("more than {}", span(bound)),
    }
}

/// The sentences that there are.
fn joined<const N: usize>(sentences: [Option<String>; N]) -> Option<String> {
    let all: Vec<String> = sentences.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(" "))
}
