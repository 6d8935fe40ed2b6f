//! The state machine against a model of it, over random events: one word for each thing that may be true of a backend,
//! and the state read off them, where the machine has one state with what belongs to it.

#[path = "../../tests/simulation/dice.rs"]
mod dice;

pub(crate) use dice::Dice;

use super::tests::{ejection, probe};
use super::*;

const STEPS: usize = 100_000;
const CAUSES: [Cause; 3] = [Cause::ConnectionRefused, Cause::HttpResponseTimeout, Cause::HttpProtocolError];

#[derive(Clone, Copy, Debug)]
enum Event {
    Time(Duration),
    Ejected(Cause),
    Announced,
    Proven,
    Trial,
    Abandoned,
    Reachable,
    Passed,
    Failed,
    ProbeAnnounced,
}

/// What is true of a backend, in the order of what it is said to be then.
const ORDER: [State; 5] = [State::Checking, State::Down, State::Trial, State::Draining, State::Ejected];

#[derive(Debug)]
struct Model {
    truths: Vec<State>,
    why: Option<Why>,
    due: Option<Instant>,
    passes: u32,
    failures: u32,
    strikes: u32,
    up_since: Instant,
}

impl Model {
    fn new(truths: Vec<State>, now: Instant) -> Self {
        Self { truths, why: None, due: None, passes: 0, failures: 0, strikes: 0, up_since: now }
    }

    fn state(&self) -> State {
        ORDER.into_iter().find(|state| self.truths.contains(state)).unwrap_or(State::Up)
    }

    fn only(&mut self, truth: State, why: Why, due: Option<Instant>) {
        self.truths = vec![truth];
        (self.why, self.due) = (Some(why), due);
    }

    fn back(&mut self, now: Instant) {
        self.truths.clear();
        (self.why, self.due, self.failures, self.up_since) = (None, None, 0, now);
    }

    fn step(&mut self, event: Event, policy: &EjectionPolicy, probe: &ProbePolicy, now: Instant) {
        match event {
            Event::Ejected(cause) => self.eject(cause, policy, now),
            Event::Announced => {
                let by_probe = self.state() == State::Draining && self.due.is_none();
                if !matches!(self.state(), State::Checking | State::Down) && !by_probe {
                    self.only(State::Draining, Why::Announced, Some(now + policy.fail_timeout));
                }
            }
            Event::Proven if matches!(self.state(), State::Ejected | State::Trial) => self.back(now),
            Event::Trial if self.due.is_some_and(|due| due <= now) => {
                self.truths.push(State::Trial);
                self.due = None;
            }
            Event::Abandoned if self.state() == State::Trial => {
                self.truths.retain(|truth| *truth != State::Trial);
                self.due = Some(now);
            }
            Event::Reachable => self.reached(now),
            Event::Passed => self.pass(probe, now),
            Event::Failed => self.fail(probe),
            Event::ProbeAnnounced => {
                self.failures = 0;
                self.only(State::Draining, Why::Announced, None);
            }
            Event::Time(_) | Event::Proven | Event::Trial | Event::Abandoned => {}
        }
    }

    fn eject(&mut self, cause: Cause, policy: &EjectionPolicy, now: Instant) {
        if !matches!(self.state(), State::Up | State::Trial | State::Draining) {
            return;
        }
        let mut good = now - self.up_since;
        while self.state() == State::Up && good >= policy.fail_timeout && self.strikes > 0 {
            good -= policy.fail_timeout;
            self.strikes -= 1;
        }
        self.strikes = (self.strikes + 1).min(STRIKES_MAX);
        let mut length = policy.fail_timeout;
        for _ in 1..self.strikes {
            length = (length * 2).min(policy.fail_timeout_max);
        }
        self.only(State::Ejected, Why::Failure(cause), Some(now + length));
    }

    fn pass(&mut self, probe: &ProbePolicy, now: Instant) {
        self.failures = 0;
        self.passes += 1;
        let is_back = match self.state() {
            State::Down => self.passes >= probe.rise.get(),
            State::Draining => self.due.is_none(),
            State::Checking => true,
            State::Up | State::Trial | State::Ejected | State::Disabled => false,
        };
        if is_back {
            self.back(now);
        } else {
            self.reached(now);
        }
    }

    fn fail(&mut self, probe: &ProbePolicy) {
        self.failures += 1;
        self.passes = 0;
        let is_lost = self.failures >= probe.fall.get();
        if is_lost || matches!(self.state(), State::Down | State::Checking) {
            self.failures = 0;
            self.only(State::Down, Why::Failure(Cause::HttpResponseTimeout), None);
        }
    }

    fn reached(&mut self, now: Instant) {
        if self.state() == State::Ejected && self.why.is_some_and(Why::is_unreachable) {
            self.due = self.due.map(|due| due.min(now));
        }
    }
}

fn machine(
    health: Health,
    event: Event,
    policy: &EjectionPolicy,
    probe: &ProbePolicy,
    now: Instant,
) -> Health {
    match event {
        Event::Time(_) => health,
        Event::Ejected(cause) => health.ejected(Why::Failure(cause), policy, now),
        Event::Announced => health.announced(policy, now),
        Event::Proven => health.proven(now),
        Event::Trial => health.trial(now).unwrap_or(health),
        Event::Abandoned => health.trial_abandoned(now),
        Event::Reachable => health.reachable(now),
        Event::Passed => health.probe_passed(probe, now),
        Event::Failed => health.probe_failed(Cause::HttpResponseTimeout, probe, now),
        Event::ProbeAnnounced => health.probe_announced(now),
    }
}

fn event(dice: &mut Dice) -> Event {
    match dice.below(20) {
        0..=5 => Event::Time(Duration::from_millis(1 + dice.below(8_000))),
        6..=8 => Event::Ejected(CAUSES[usize::try_from(dice.below(3)).unwrap()]),
        9 => Event::Announced,
        10..=11 => Event::Proven,
        12..=13 => Event::Trial,
        14 => Event::Abandoned,
        15 => Event::Reachable,
        16..=17 => Event::Passed,
        18 => Event::Failed,
        _ => Event::ProbeAnnounced,
    }
}

#[test]
fn it_does_what_the_model_does_over_random_events() {
    let policy = EjectionPolicy { fail_timeout_max: Duration::from_secs(65), ..ejection() };
    let probe = probe();
    let mut visits = std::collections::HashMap::new();
    for seed in 0..4 {
        let mut dice = Dice::new(seed);
        let mut now = Instant::now();
        let is_new = seed % 2 == 1;
        let mut health = if is_new { Health::checking(now) } else { Health::up(now) };
        let mut model = Model::new(if is_new { vec![State::Checking] } else { Vec::new() }, now);
        for at in 0..STEPS / 4 {
            let event = event(&mut dice);
            if let Event::Time(passed) = event {
                now += passed;
            }
            let before = health;
            health = machine(health, event, &policy, &probe, now);
            model.step(event, &policy, &probe, now);
            let place = || format!("seed {seed}, step {at}: {event:?} on {before:?} gave {health:?}");
            assert_eq!(health.state(), model.state(), "{}", place());
            assert_eq!(health.why(), model.why, "{}", place());
            assert_eq!(health.trial_due(), model.due, "{}", place());
            hold(before, event, health, now, &place);
            *visits.entry(health.state()).or_insert(0) += 1;
        }
    }
    let often = |state: &State| visits.get(state).copied().unwrap_or_default() > 50;
    assert!(
        State::ALL.iter().filter(|state| **state != State::Disabled && **state != State::Checking).all(often)
    );
}

/// What must hold whatever the model says.
fn hold(before: Health, event: Event, after: Health, now: Instant, place: &dyn Fn() -> String) {
    let (from, to) = (before.state(), after.state());
    let by_probe = matches!(event, Event::Passed | Event::Failed | Event::ProbeAnnounced);
    if from != to && from == State::Down {
        assert!(by_probe, "only probes take back what they said: {}", place());
    }
    if to == State::Trial && from != State::Trial {
        let due = before.trial_due();
        assert!(due.is_some_and(|due| due <= now), "a trial before its time: {}", place());
    }
    if from == State::Trial && matches!(event, Event::Trial) {
        assert_eq!(before, after, "a second trial: {}", place());
    }
    if let Condition::Ejected { until, .. } = after.condition() {
        assert!(until <= now + Duration::from_secs(65), "out for too long: {}", place());
    }
    let waits_for_live =
        matches!(to, State::Ejected) || matches!(after.condition(), Condition::Draining { until: Some(_) });
    assert!(!waits_for_live || after.trial_due().is_some(), "no way back: {}", place());
    let since = if from == to { before.since() } else { now };
    assert_eq!(after.since(), since, "{}", place());
}
