//! Whole stories, word by word.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use goodgate_failure::{Allowance, Attempt, Cause, ConnectionAge, Phase, ReceivedStatus, Refusal};
use goodgate_telemetry::{AccessRecord, By, CacheResult, Origin, Quantile, Spread};
use goodgate_upstream::{BackendView, IdleCloseView, State, Timeouts, Why};

use super::measured::{Files, Measured, MeasuredBackend, MeasuredUpstream};
use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn address(host: u8) -> goodgate_upstream::Address {
    SocketAddr::from(([10, 0, 0, host], 80)).into()
}

fn record(attempts: &[Attempt], cause: Cause) -> AccessRecord<'_> {
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let nothing = AccessRecord::of_no_request(time, "4f2a", client, cause.status(), cause);
    AccessRecord {
        method: "GET".into(),
        host: "www.example.com".into(),
        path: "/cart".into(),
        version: "1.1",
        route: "shop".into(),
        upstream: "app".into(),
        duration: ms(312),
        attempts: attempts.into(),
        ..nothing
    }
}

fn attempt(host: u8, phase: Phase, cause: Cause) -> Attempt {
    let connect = (phase != Phase::Connect).then_some(ms(1));
    Attempt { phase, connect, total: Some(ms(5)), cause: Some(cause), ..Attempt::new(address(host), false) }
}

fn backend(host: u8, state: State, ok: u64, failed: u64) -> MeasuredBackend {
    let why = (state == State::Ejected).then_some(Why::Failure(Cause::ConnectionRefused));
    let written = address(host).to_string().into();
    let view = BackendView {
        address: address(host),
        written,
        state,
        why,
        weight: 1,
        backup: false,
        in_flight: 4,
        ok,
        failed,
        certificate_expires: None,
    };
    let (idle_close, idle_limit) = (IdleCloseView::default(), Duration::from_mins(1));
    MeasuredBackend { view, idle_close, idle_limit, last_probe: None }
}

fn measured(backends: Vec<MeasuredBackend>) -> Measured {
    let minute = Duration::from_mins(1);
    let timeouts = Timeouts {
        connect: ms(1000),
        first_byte: ms(15_000),
        read: minute,
        write: minute,
        idle: minute,
        tunnel: minute,
    };
    let in_rotation = backends.iter().filter(|backend| backend.view.state == State::Up).count();
    let upstream = MeasuredUpstream {
        timeouts,
        in_rotation,
        backends,
        has_probe: false,
        names: Vec::new(),
        is_unresolved: false,
        is_dns_stale: false,
        first_byte: None,
        connect: None,
        culprits: Vec::new(),
    };
    Measured { upstream: Some(upstream), response_header_bytes_max: 65536, ..Measured::default() }
}

/// The story without its line breaks.
fn flat(record: &AccessRecord<'_>, measured: &Measured) -> String {
    story(record, measured).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has(text: &str, wanted: &str) {
    assert!(text.contains(wanted), "{wanted:?} is not in {text:?}");
}

#[test]
fn a_wait_is_told() {
    let refused = record(&[], Cause::ConnectionLimitReached);
    let waited = AccessRecord { queued: Some(ms(5004)), ..refused.clone() };
    let said = "It waited 5 s for its turn: the upstream had as many requests as it may.";
    has(&flat(&waited, &Measured::default()), said);
    assert!(!flat(&refused, &Measured::default()).contains("It waited"));
}

#[test]
fn a_refused_connection_is_told_in_full() {
    let mut first = attempt(1, Phase::Connect, Cause::ConnectionRefused);
    first.next = Some(Ok(Allowance::NothingSent));
    let mut second = attempt(2, Phase::Connect, Cause::ConnectionRefused);
    second.next = Some(Err(Refusal::NoBackendLeft));
    second.detail = Some("Connection refused (os error 111)".into());
    let attempts = [first, second];
    let measured = measured(vec![backend(1, State::Ejected, 0, 3), backend(2, State::Up, 12, 1)]);
    let expected = "\
Request 4f2a
At 2023-11-14T22:13:20.000Z 192.0.2.7 asked for GET www.example.com/cart (HTTP/1.1).
The route is `shop`, its upstream `app`.
The client was answered 502 by goodgate after 312 ms, because of connection_refused: The service
refused the connection.

Attempts
  1. 10.0.0.1:80: no connection was made.
     Failed after 5 ms: connection_refused.
     Tried again (nothing_sent): Nothing of the request had been sent, so another backend may have
     it, whatever its method.
  2. 10.0.0.2:80: no connection was made.
     Failed after 5 ms: connection_refused (Connection refused (os error 111)).
     Not tried again (no_backend_left): Every backend has been tried. The setting is
     `upstreams.*.backends`.

Why nothing saved the client
  No other attempt: Every backend has been tried. No copy: the route keeps none. With `cache:
  fallback` it would have served the last good one.

connection_refused
  Meaning: The backend's machine answered that nobody listens at this port.
  nginx says: connect() failed (111: Connection refused) while connecting to upstream
  Advice: 1 of 2 backends of `app` is in rotation (10.0.0.1:80 is ejected for connection_refused).
          12 attempts at 10.0.0.2:80 went well since the start, 1 failed. See on the backend's
          machine whether it runs and where it listens (`ss -ltnp`). If it is only restarting,
          another backend bridges the time.
";
    assert_eq!(story(&record(&attempts, Cause::ConnectionRefused), &measured), expected);
}

#[test]
fn a_lost_race_has_both_idle_limits() {
    let mut lost = attempt(1, Phase::Request, Cause::ConnectionTerminated);
    lost.reused = true;
    lost.age = Some(ConnectionAge { since_connect: ms(9000), idle: Some(ms(4950)) });
    lost.next = Some(Ok(Allowance::ConnectionRace));
    let good = Attempt {
        cause: None,
        status: Some(200),
        first_byte: Some(ms(20)),
        ..attempt(1, Phase::Response, Cause::DnsError)
    };
    let attempts = [lost, good];
    let mut measured = measured(vec![backend(1, State::Up, 12, 1)]);
    let backend = &mut measured.upstream.as_mut().unwrap().backends[0];
    backend.idle_close =
        IdleCloseView { hint: None, seen: Some((ms(4800), ms(5100))), believed: Some(ms(4800)) };
    backend.idle_limit = ms(4320);
    let rescue = Some((By::ConnectionRace, Cause::ConnectionTerminated));
    let record = AccessRecord {
        status: 200,
        origin: Origin::Backend,
        cause: None,
        rescue,
        ..record(&attempts, Cause::ConnectionTerminated)
    };
    let told = flat(&record, &measured);
    has(&told, "answered 200 over a new connection after 312 ms, and saw nothing of connection_terminated.");
    has(&told, "over a kept connection that had stood for 9 s and lain idle for 5 s; the request went out");
    has(&told, "(connection_race): A kept connection had died before it brought a byte");
    has(&told, "2. 10.0.0.1:80: over a new connection, made in 1 ms; it answered 200 after 20 ms. Went well");
    has(
        &told,
        "10.0.0.1:80 closes idle connections after 4.8 s to 5.1 s (seen); `timeouts.idle` is 60 s, but \
         connections to it are retired before 4.3 s. This one had been idle for 5 s.",
    );
}

#[test]
fn a_request_that_must_not_be_repeated_says_what_would_allow_it_and_the_danger() {
    let mut cut = attempt(1, Phase::Request, Cause::ConnectionTerminated);
    cut.next = Some(Err(Refusal::NotReplayable));
    cut.bytes_out = 5;
    let attempts = [cut];
    let record = AccessRecord { method: "POST".into(), ..record(&attempts, Cause::ConnectionTerminated) };
    let told = flat(&record, &measured(vec![backend(1, State::Up, 0, 2)]));
    has(&told, "5 bytes of the request's body were sent.");
    has(
        &told,
        "Not tried again (not_replayable): The request may have been acted on, and its method must not be repeated.",
    );
    has(
        &told,
        "`retry.replay: all` would allow it for POST; then what the backend had done already is done twice",
    );
    has(&told, "No copy: copies answer GET and HEAD, and this was POST.");
    has(&told, "No attempt at 10.0.0.1:80 has gone well since the start and 2 failed");
    has(&told, "The connection was new, so it is no idle limit");
}

#[test]
fn a_timeout_is_compared_with_what_is_usual() {
    let late = Attempt { total: Some(ms(15_002)), ..attempt(1, Phase::Request, Cause::HttpResponseTimeout) };
    let attempts = [late];
    let mut measured = measured(vec![backend(1, State::Up, 9, 1)]);
    let p99 = Quantile::About(ms(14_200), ms(5000), ms(15_000));
    measured.upstream.as_mut().unwrap().first_byte =
        Some(Spread { count: 120, p50: Quantile::Below(ms(250)), p99 });
    let told = flat(&record(&attempts, Cause::HttpResponseTimeout), &measured);
    has(
        &told,
        "`timeouts.first_byte` is 15 s; what was answered took below 250 ms in the median, about 14 s (between \
         5 s and 15 s) at p99 (120 measurements since the start). 4 requests are under way at 10.0.0.1:80 now.",
    );
    let attempts = [attempt(1, Phase::Request, Cause::HttpResponseTimeout)];
    let told = flat(&record(&attempts, Cause::HttpResponseTimeout), &measured);
    has(&told, "This attempt ended before, after 5 ms: `timeout` of the route was over.");
}

#[test]
fn a_copy_is_told_with_its_age_and_no_attempt_with_why() {
    let rescue = Some((By::Stale, Cause::DestinationUnavailable));
    let record = AccessRecord {
        status: 200,
        origin: Origin::Cache,
        cause: None,
        rescue,
        cache: Some(CacheResult::Stale),
        age: Some(Duration::from_secs(42)),
        ..record(&[], Cause::DestinationUnavailable)
    };
    let told = flat(&record, &measured(vec![backend(1, State::Ejected, 1, 3)]));
    has(
        &told,
        "answered 200 from a copy that was 42 s old after 312 ms, and saw nothing of destination_unavailable",
    );
    has(&told, "Attempts None: no backend was asked.");
    has(&told, "What saved the client A stale copy");
    has(&told, "0 of 1 backend of `app` is in rotation (10.0.0.1:80 is ejected for connection_refused).");
}

#[test]
fn an_error_that_was_passed_on_names_who_sends_it() {
    let passed = Attempt {
        cause: None,
        status: Some(500),
        first_byte: Some(ms(3)),
        ..attempt(1, Phase::Response, Cause::DnsError)
    };
    let attempts = [passed];
    let cause = Cause::Received(ReceivedStatus::S500);
    let record = AccessRecord { cause: None, origin: Origin::Backend, ..record(&attempts, cause) };
    let mut measured = measured(vec![backend(1, State::Up, 9, 1), backend(2, State::Up, 9, 1)]);
    measured.upstream.as_mut().unwrap().culprits = vec![(cause, address(1), 7), (cause, address(2), 1)];
    let told = flat(&record, &measured);
    has(&told, "The client was answered 500 after 312 ms: the backend's own answer, passed on as it is.");
    has(&told, "for `retry.on` and `fail_on` do not name it");
    has(&told, "it came from 10.0.0.1:80 7 times, 10.0.0.2:80 1 time; the upstream has 2 backends.");
}

#[test]
fn every_cause_has_a_story_with_and_without_figures() {
    for cause in Cause::ALL {
        let attempts = [attempt(1, Phase::Request, cause)];
        let mut measured = measured(vec![backend(1, State::Up, 9, 1)]);
        measured.files = Some(Files { open: 60, limit: 64 });
        measured.upstream.as_mut().unwrap().names = vec!["app.test:80".to_owned()];
        for measured in [measured, Measured::default()] {
            let told = story(&record(&attempts, cause), &measured);
            assert!(told.contains(&format!("\n{}\n  Meaning: ", cause.name())), "{told}");
            assert!(told.contains("\n  Advice: "), "{told}");
            assert!(!told.contains(". ."), "{told}");
        }
    }
}

#[test]
fn nothing_of_a_clients_choosing_acts_on_the_terminal() {
    let evil = "\u{1b}]0;x\u{7}\r\n\u{9b}31m\u{202e}";
    let mut bad = attempt(1, Phase::Request, Cause::HttpProtocolError);
    bad.detail = Some(evil.into());
    let attempts = [bad];
    let record = AccessRecord {
        request_id: evil.into(),
        method: evil.into(),
        host: evil.into(),
        path: evil.into(),
        user_agent: Some(evil.into()),
        route: evil.into(),
        upstream: evil.into(),
        ..record(&attempts, Cause::HttpProtocolError)
    };
    let told = story(&record, &measured(Vec::new()));
    let acts = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
    assert!(!told.chars().any(acts), "{told:?}");
}
