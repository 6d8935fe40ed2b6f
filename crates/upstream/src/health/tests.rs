//! Single steps, told as stories. `model.rs` walks all of them at random.

use std::num::NonZeroU32;

use goodgate_failure::{ReceivedStatus, Word, Words};

use super::*;
use crate::ProbeKind;

const TEN: Duration = Duration::from_secs(10);

pub(super) fn ejection() -> EjectionPolicy {
    EjectionPolicy {
        max_fails: 3,
        fail_timeout: TEN,
        fail_timeout_max: TEN,
        fail_on: Words::of(&[Word::Error]),
        min_fail_share: 0.0,
    }
}

pub(super) fn probe() -> ProbePolicy {
    ProbePolicy {
        kind: ProbeKind::Tcp,
        port: None,
        tls: crate::ProbeTls::AsBackend,
        interval: Duration::from_secs(5),
        interval_down: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        rise: NonZeroU32::new(2).unwrap(),
        fall: NonZeroU32::new(3).unwrap(),
        starts_checking: false,
    }
}

const REFUSED: Why = Why::Failure(Cause::ConnectionRefused);

fn fails(health: Health, times: u32, now: Instant) -> Health {
    (0..times).fold(health, |health, _| health.probe_failed(Cause::ConnectionRefused, &probe(), now))
}

#[test]
fn an_ejection_ends_in_one_trial_that_decides() {
    let now = Instant::now();
    let ejected = Health::up(now).ejected(REFUSED, &ejection(), now);
    assert_eq!(ejected.trial(now + Duration::from_secs(9)), None);
    let later = now + TEN;
    let trial = ejected.trial(later).unwrap();
    assert_eq!(trial.trial(later), None, "one trial at a time");
    assert_eq!((trial.proven(later).state(), trial.proven(later).since()), (State::Up, later));
    let again = trial.ejected(REFUSED, &ejection(), later);
    assert_eq!(again.trial(later + Duration::from_secs(9)), None);
    assert!(again.trial(later + TEN).is_some());
}

#[test]
fn ejections_double_up_to_the_longest_and_are_forgiven_one_by_one() {
    let policy = EjectionPolicy { fail_timeout_max: Duration::from_secs(50), ..ejection() };
    let mut now = Instant::now();
    let mut health = Health::up(now);
    for seconds in [10, 20, 40, 50, 50] {
        health = health.ejected(REFUSED, &policy, now);
        assert_eq!(health.trial_due(), Some(now + Duration::from_secs(seconds)));
        now += Duration::from_secs(seconds);
        health = health.trial(now).unwrap();
    }
    health = health.proven(now);
    now += Duration::from_secs(39);
    // Five, less three that were forgiven, and this one.
    health = health.ejected(REFUSED, &policy, now);
    assert_eq!(health.trial_due(), Some(now + Duration::from_secs(40)));
    now += Duration::from_secs(40);
    health = health.trial(now).unwrap().proven(now);
    now += Duration::from_secs(30);
    assert_eq!(health.ejected(REFUSED, &policy, now).trial_due(), Some(now + TEN));
}

#[test]
fn a_trial_that_told_nothing_is_due_again_at_once() {
    let now = Instant::now();
    let trial = Health::up(now).ejected(REFUSED, &ejection(), now);
    let trial = trial.trial(now + TEN).unwrap().trial_abandoned(now);
    assert!(trial.trial(now).is_some());
}

#[test]
fn probes_take_out_after_fall_and_put_back_after_rise() {
    let (policy, now) = (probe(), Instant::now());
    let two = fails(Health::up(now), 2, now);
    assert_eq!(two.state(), State::Up);
    let passed = two.probe_passed(&policy, now);
    assert_eq!(passed, Health::up(now), "a pass in between starts the count anew");
    let down = fails(two, 1, now);
    assert_eq!((down.state(), down.why()), (State::Down, Some(REFUSED)));
    assert_eq!(down.proven(now).state(), State::Down, "live traffic has no say while probes say down");
    let once = down.probe_passed(&policy, now);
    assert_eq!(once.state(), State::Down);
    assert_eq!(fails(once, 1, now).probe_passed(&policy, now).state(), State::Down);
    assert_eq!(once.probe_passed(&policy, now), Health::up(now));
}

#[test]
fn probes_can_take_down_what_live_traffic_ejected() {
    let now = Instant::now();
    let ejected = Health::up(now).ejected(REFUSED, &ejection(), now);
    assert_eq!(fails(ejected, 3, now).state(), State::Down);
}

#[test]
fn a_pass_or_a_connection_brings_the_trial_forward_only_for_what_could_not_be_reached() {
    let (policy, now) = (probe(), Instant::now());
    let refused = Health::up(now).ejected(REFUSED, &ejection(), now);
    assert!(refused.trial(now).is_none());
    assert!(refused.probe_passed(&policy, now).trial(now).is_some());
    assert!(refused.reachable(now).trial(now).is_some());
    let broken = Health::up(now).ejected(Why::Failure(Cause::HttpProtocolError), &ejection(), now);
    assert!(broken.probe_passed(&policy, now).trial(now).is_none());
    assert!(broken.reachable(now).trial(now).is_none());
}

#[test]
fn the_first_probe_of_a_new_backend_decides() {
    let (policy, now) = (probe(), Instant::now());
    let new = Health::checking(now);
    assert_eq!(new.ejected(REFUSED, &ejection(), now), new, "it is out already");
    assert_eq!(new.probe_passed(&policy, now).state(), State::Up);
    assert_eq!(fails(new, 1, now).state(), State::Down);
}

#[test]
fn who_announces_that_it_drains_is_asked_again_by_a_trial() {
    let now = Instant::now();
    let draining = Health::up(now).announced(&ejection(), now);
    assert_eq!((draining.state(), draining.trial_due()), (State::Draining, Some(now + TEN)));
    assert_eq!(draining.probe_passed(&probe(), now), draining, "its health was never in doubt");
    let later = now + TEN;
    let trial = draining.trial(later).unwrap();
    assert_eq!(trial.proven(later).state(), State::Up);
    assert_eq!(trial.announced(&ejection(), later).trial_due(), Some(later + TEN));
    assert_eq!(trial.trial_abandoned(later).state(), State::Draining);
    assert_eq!(draining.ejected(REFUSED, &ejection(), now).state(), State::Ejected, "it has gone");
}

#[test]
fn who_tells_a_probe_that_it_drains_is_back_when_a_probe_passes() {
    let now = Instant::now();
    let draining = Health::up(now).probe_announced(now);
    assert_eq!((draining.state(), draining.trial_due()), (State::Draining, None));
    assert_eq!(draining.probe_passed(&probe(), now).state(), State::Up);
    assert_eq!(fails(draining, 3, now).state(), State::Down);
    assert_eq!(fails(Health::up(now), 3, now).probe_announced(now).state(), State::Draining);
}

#[test]
fn only_who_answers_is_out_softly() {
    let status = ReceivedStatus::from_code(500).unwrap();
    assert!(Why::Failure(Cause::Received(status)).is_soft());
    assert!(Why::SuccessRate.is_soft() && Why::FirstByte.is_soft());
    assert!(!REFUSED.is_soft() && !Why::Failure(Cause::HttpResponseTimeout).is_soft());
    assert!(!Why::Announced.is_soft());
}
