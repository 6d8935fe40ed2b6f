//! Selection, ejection and membership, with time passed in.

mod balancing;
mod model;
mod naming;
mod ordering;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use goodgate_failure::{Word, Words};

use super::*;
use crate::{
    BackendAddress, BackendSpec, Balance, DnsPolicy, EjectionPolicy, Family, How, Lease, ProbeKind,
    ProbePolicy, State, Timeouts, Transition,
};

const TEN: Duration = Duration::from_secs(10);
const FIRST: Wish = Wish { is_retry: false, may_be_trial: true };

fn socket(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn address(port: u16) -> Address {
    socket(port).into()
}

fn entry(port: u16) -> BackendSpec {
    BackendSpec {
        address: BackendAddress::Ip(socket(port)),
        weight: NonZeroU16::new(1).unwrap(),
        backup: false,
        in_flight_max: 0,
        tls_name: None,
        ejection: ejection(),
    }
}

fn ejection() -> EjectionPolicy {
    EjectionPolicy {
        max_fails: 2,
        fail_timeout: TEN,
        fail_timeout_max: TEN,
        fail_on: Words::of(&[Word::Error, Word::Timeout]),
        min_fail_share: 0.2,
    }
}

/// Two failures in a row take out, two passes put back.
fn probe() -> ProbePolicy {
    let two = NonZeroU32::new(2).unwrap();
    ProbePolicy {
        kind: ProbeKind::Tcp,
        port: None,
        tls: crate::ProbeTls::AsBackend,
        interval: TEN,
        interval_down: TEN,
        timeout: TEN,
        rise: two,
        fall: two,
        starts_checking: false,
    }
}

fn spec(backends: Vec<BackendSpec>) -> UpstreamSpec {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts {
        connect: second,
        first_byte: second,
        read: second,
        write: second,
        idle: second,
        tunnel: second,
    };
    let dns = DnsPolicy { keep: TEN, ..DnsPolicy::DEFAULT };
    UpstreamSpec { backends, dns, ..UpstreamSpec::plain("web", timeouts) }
}

fn pick(upstream: &Arc<Upstream>, now: Instant) -> Option<u16> {
    let lease = upstream.select(|_| false, FIRST, now)?;
    match lease.backend().address {
        Address::Ip(address) => Some(address.port()),
        Address::Unix(_) => None,
    }
}

fn fail(upstream: &Arc<Upstream>, port: u16, cause: Cause, now: Instant) -> Option<Transition> {
    let mut lease = upstream.select(|other| other != address(port), FIRST, now).expect("it is in rotation");
    lease.failed(cause, now)
}

#[test]
fn weights_are_exact_over_a_round_and_ports_take_turns() {
    let now = Instant::now();
    let heavy = BackendSpec { weight: NonZeroU16::new(5).unwrap(), ..entry(1) };
    let upstream = Upstream::new(spec(vec![heavy, entry(2), entry(3)]), None, now);
    let mut counts = HashMap::new();
    let mut run = 0;
    for _ in 0..700 {
        let port = pick(&upstream, now).unwrap();
        run = if port == 1 { run + 1 } else { 0 };
        assert!(run < 5, "five in a row");
        *counts.entry(port).or_insert(0) += 1;
    }
    assert_eq!(counts, HashMap::from([(1, 500), (2, 100), (3, 100)]));
}

#[test]
fn failures_within_the_window_eject_and_one_trial_decides() {
    let now = Instant::now();
    let upstream = Upstream::new(spec(vec![entry(1), entry(2)]), None, now);
    assert_eq!(fail(&upstream, 1, Cause::ConnectionRefused, now), None, "one is not enough");
    let change = fail(&upstream, 1, Cause::ConnectionRefused, now).expect("two are");
    assert_eq!((change.from, change.to), (State::Up, State::Ejected));
    assert!((0..10).all(|_| pick(&upstream, now) == Some(2)));
    let later = now + TEN;
    let mut trial = upstream.select(|_| false, FIRST, later).unwrap();
    assert_eq!((trial.how(), trial.backend().address), (How::Trial, address(1)));
    assert!((0..10).all(|_| pick(&upstream, later) == Some(2)), "one trial at a time");
    assert_eq!(trial.succeeded(later).map(|change| change.to), Some(State::Up));
    assert!((0..2).any(|_| pick(&upstream, later) == Some(1)));
}

#[test]
fn failures_spread_over_more_than_the_window_do_not_eject() {
    let now = Instant::now();
    let upstream = Upstream::new(spec(vec![entry(1), entry(2)]), None, now);
    for round in 0..20 {
        let at = now + Duration::from_secs(12 * round);
        assert_eq!(fail(&upstream, 1, Cause::ConnectionRefused, at), None);
    }
}

#[test]
fn a_trial_is_not_taken_by_a_request_that_may_not_be_repeated_while_others_are_in_rotation() {
    let now = Instant::now();
    let upstream = Upstream::new(spec(vec![entry(1), entry(2)]), None, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    let lease = upstream.select(|_| false, Wish { may_be_trial: false, ..FIRST }, now + TEN).unwrap();
    assert_eq!((lease.how(), lease.backend().address), (How::Rotation, address(2)));
}

#[test]
fn a_trial_that_is_dropped_can_be_had_again() {
    let now = Instant::now();
    let upstream = Upstream::new(spec(vec![entry(1)]), None, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    let later = now + TEN;
    drop(upstream.select(|_| false, FIRST, later).unwrap());
    assert_eq!(upstream.select(|_| false, FIRST, later).unwrap().how(), How::Trial);
}

#[test]
fn few_failures_among_many_attempts_do_not_eject() {
    let now = Instant::now();
    let upstream = Upstream::new(spec(vec![entry(1)]), None, now);
    for _ in 0..97 {
        upstream.select(|_| false, FIRST, now).unwrap().succeeded(now);
    }
    for _ in 0..3 {
        assert_eq!(fail(&upstream, 1, Cause::HttpResponseTimeout, now), None, "3 of 100 is below the share");
    }
    assert_eq!(fail(&upstream, 1, Cause::ConnectionRefused, now), None);
    assert!(fail(&upstream, 1, Cause::ConnectionRefused, now).is_some(), "failed connects always count");
}

#[test]
fn what_fail_on_does_not_name_never_ejects_and_zero_never_does() {
    let now = Instant::now();
    let mut never = entry(2);
    never.ejection.max_fails = 0;
    let upstream = Upstream::new(spec(vec![entry(1), never]), None, now);
    for _ in 0..10 {
        assert_eq!(fail(&upstream, 1, Cause::HttpProtocolError, now), None);
        assert_eq!(fail(&upstream, 2, Cause::ConnectionRefused, now), None);
    }
}

#[test]
fn nothing_in_rotation_leaves_the_one_that_failed_the_longest_ago() {
    let now = Instant::now();
    let upstream = Upstream::new(spec(vec![entry(1), entry(2)]), None, now);
    for (port, seconds) in [(2, 1), (2, 2), (1, 3), (1, 4)] {
        fail(&upstream, port, Cause::ConnectionRefused, now + Duration::from_secs(seconds));
    }
    let at = now + Duration::from_secs(5);
    assert!(upstream.is_out() && upstream.select(|_| false, FIRST, at).is_none());
    let mut lease = upstream.select_fail_open(|_| false).unwrap();
    assert_eq!((lease.how(), lease.backend().address), (How::FailOpen, address(2)));
    assert_eq!(lease.succeeded(at).map(|change| change.to), Some(State::Up), "it has proven itself");
    let other = upstream.select_fail_open(|tried| tried == address(2)).unwrap();
    assert_eq!(other.backend().address, address(1));
    assert!(upstream.select_fail_open(|_| true).is_none());
}

#[test]
fn backups_are_used_only_when_no_other_is_in_rotation() {
    let now = Instant::now();
    let backup = BackendSpec { backup: true, ..entry(9) };
    let upstream = Upstream::new(spec(vec![entry(1), backup]), None, now);
    assert!((0..10).all(|_| pick(&upstream, now) == Some(1)));
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    assert!((0..10).all(|_| pick(&upstream, now) == Some(9)));
}

#[test]
fn a_reload_keeps_what_was_seen_of_an_address() {
    let now = Instant::now();
    let old = Upstream::new(spec(vec![entry(1), entry(2)]), None, now);
    fail(&old, 1, Cause::ConnectionRefused, now);
    fail(&old, 1, Cause::ConnectionRefused, now);
    let new = Upstream::new(spec(vec![entry(3), entry(1)]), Some(&old), now);
    assert!((0..10).all(|_| pick(&new, now) == Some(3)));
    assert_eq!(pick(&new, now + TEN), Some(1), "and its trial is due when it was");
}

#[test]
fn probes_take_a_backend_out_and_put_it_back() {
    let now = Instant::now();
    let watched = UpstreamSpec { probe: Some(probe()), ..spec(vec![entry(1), entry(2)]) };
    let upstream = Upstream::new(watched, None, now);
    let failure = Cause::ConnectionRefused;
    assert_eq!(upstream.probed(address(1), Probed::Failed(failure), now), None);
    assert_eq!(
        upstream.probed(address(1), Probed::Failed(failure), now).map(|change| change.to),
        Some(State::Down)
    );
    assert!((0..10).all(|_| pick(&upstream, now) == Some(2)));
    assert_eq!(upstream.probed(address(1), Probed::Passed, now), None);
    assert_eq!(upstream.probed(address(1), Probed::Passed, now).map(|change| change.to), Some(State::Up));
    assert!((0..2).any(|_| pick(&upstream, now) == Some(1)));
}

#[test]
fn retries_do_not_make_a_bad_backend_everybodys_first() {
    let now = Instant::now();
    let upstream = Upstream::new(spec(vec![entry(1), entry(2)]), None, now);
    let retry = Wish { is_retry: true, ..FIRST };
    let mut bad_first = 0;
    for _ in 0..100 {
        if pick(&upstream, now) == Some(1) {
            bad_first += 1;
            let second = upstream.select(|other| other == address(1), retry, now).unwrap();
            assert_eq!(second.backend().address, address(2));
        }
    }
    assert_eq!(bad_first, 50);
}

#[test]
fn an_attempt_is_counted_once_as_what_it_was_in_the_end() {
    let now = Instant::now();
    let upstream = Upstream::new(spec(vec![entry(1)]), None, now);
    let mut lease = upstream.select(|_| false, FIRST, now).unwrap();
    lease.succeeded(now);
    lease.failed(Cause::HttpResponseIncomplete, now);
    drop(lease);
    upstream.select(|_| false, FIRST, now).unwrap().succeeded(now);
    upstream.select(|_| false, FIRST, now).unwrap().abandoned(now);
    let view = upstream.views().pop().unwrap();
    assert_eq!((view.ok, view.failed, view.in_flight), (1, 1, 0));
}
