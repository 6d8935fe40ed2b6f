//! Places, turns and outages, with time and room passed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy(requests_max: u32, pending_max: u32) -> BreakerPolicy {
    BreakerPolicy {
        requests_max: NonZeroU32::new(requests_max).unwrap(),
        pending_max,
        pending_timeout: 5 * SECOND,
        ramp: 10 * SECOND,
    }
}

fn breaker(requests_max: u32, pending_max: u32) -> Breaker {
    let breaker = Breaker::new(policy(requests_max, pending_max));
    breaker.rotated(1, &unlimited);
    breaker
}

fn unlimited() -> Option<u64> {
    None
}

#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether there is a place at once; it has a backend then.
fn admitted(breaker: &Breaker, room: Room<'_>, now: Instant) -> bool {
    let admitted = breaker.ask("new", room, now) == Asked::Admitted;
    if admitted {
        breaker.chosen(room);
    }
    admitted
}

fn waits(breaker: &Breaker, route: &str, now: Instant) -> Ticket {
    waits_for(breaker, route, &unlimited, now).expect("it is full")
}

fn waits_for(breaker: &Breaker, route: &str, room: Room<'_>, now: Instant) -> Option<Ticket> {
    match breaker.ask(route, room, now) {
        Asked::Waits(ticket, _) => Some(ticket),
        Asked::Admitted | Asked::Shed => None,
    }
}

/// Whose turn has come, in the order of their numbers.
fn called(breaker: &Breaker) -> Vec<Ticket> {
    breaker.0.lock().called.iter().copied().collect()
}

fn pending(breaker: &Breaker, now: Instant) -> usize {
    breaker.view(now).pending
}

#[test]
fn so_many_are_admitted_so_many_wait_and_the_rest_is_shed() {
    let (breaker, now) = (breaker(2, 2), Instant::now());
    assert!(!breaker.is_busy(&unlimited));
    assert!(admitted(&breaker, &unlimited, now) && admitted(&breaker, &unlimited, now));
    assert!(breaker.is_busy(&unlimited));
    waits(&breaker, "a", now);
    waits(&breaker, "b", now);
    assert_eq!(breaker.ask("c", &unlimited, now), Asked::Shed);
    let expected = BreakerView { state: BreakerState::Limiting, under_way: 2, places: 2, pending: 2 };
    assert_eq!(breaker.view(now), expected);
}

#[test]
fn a_free_place_goes_to_the_next_in_line_which_alone_is_woken() {
    let (breaker, now) = (breaker(1, 9), Instant::now());
    assert!(admitted(&breaker, &unlimited, now));
    let [first, other, second] = ["a", "b", "a"].map(|route| waits(&breaker, route, now));
    let woken: Vec<_> = (0..3).map(|_| Arc::new(Woken::default())).collect();
    for ((route, ticket), woken) in [("a", first), ("b", other), ("a", second)].into_iter().zip(&woken) {
        let waker = Waker::from(Arc::clone(woken));
        assert!(breaker.poll_turn(route, ticket, &waker).is_pending());
    }
    let count = || woken.iter().map(|woken| woken.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let calls = [(first, "a", [1, 0, 0]), (other, "b", [1, 1, 0]), (second, "a", [1, 1, 1])];
    for (ticket, route, expected) in calls {
        breaker.give_back(false, &unlimited);
        assert_eq!((called(&breaker), count()), (vec![ticket], expected.to_vec()));
        assert!(!admitted(&breaker, &unlimited, now), "nobody overtakes");
        assert!(breaker.poll_turn(route, ticket, Waker::noop()).is_ready());
        breaker.chosen(&unlimited);
    }
}

#[test]
fn a_place_that_its_waiter_does_not_take_goes_on_to_the_next() {
    let (breaker, now) = (breaker(1, 9), Instant::now());
    assert!(admitted(&breaker, &unlimited, now));
    let [gone, left, last] = ["a"; 3].map(|route| waits(&breaker, route, now));
    breaker.leave("a", left, &unlimited);
    breaker.give_back(false, &unlimited);
    assert_eq!(called(&breaker), [gone]);
    breaker.leave("a", gone, &unlimited);
    assert_eq!(called(&breaker), [last]);
    breaker.leave("a", last, &unlimited);
    let view = breaker.view(now);
    assert_eq!((view.under_way, view.pending, view.state), (0, 0, BreakerState::Closed));
    assert_eq!(breaker.0.lock().choosing, 0);
}

#[test]
fn full_backends_are_waited_for_and_a_place_without_a_backend_is_counted() {
    let (breaker, now) = (breaker(9, 9), Instant::now());
    let one = || Some(1);
    let none = || Some(0);
    assert_eq!(breaker.ask("a", &one, now), Asked::Admitted);
    let second = waits_for(&breaker, "a", &one, now).expect("the first one has not taken its backend yet");
    breaker.chosen(&none);
    breaker.room_made(&none);
    assert_eq!(called(&breaker), [], "the first one has it now");
    breaker.room_made(&one);
    assert_eq!(called(&breaker), [second]);
    let two = || Some(2);
    assert_eq!(breaker.ask("a", &two, now), Asked::Admitted);
    assert!(waits_for(&breaker, "a", &two, now).is_some());
}

#[test]
fn after_an_outage_places_come_with_good_answers_and_with_time() {
    let (breaker, now) = (breaker(104, 500), Instant::now());
    breaker.rotated(0, &unlimited);
    assert_eq!(breaker.view(now).state, BreakerState::Ramping);
    assert_eq!((0..50).filter(|_| admitted(&breaker, &unlimited, now)).count(), 4);
    assert_eq!(pending(&breaker, now), 46);
    breaker.rotated(1, &unlimited);
    assert_eq!(breaker.view(now).places, 4);
    for _ in 0..30 {
        breaker.answered(&unlimited, now);
    }
    assert_eq!(called(&breaker).len(), 0, "all in the same moment");
    assert!(breaker.claims_clock(now) && !breaker.claims_clock(now), "one is enough");
    let later = |tenths: u32| now + SECOND * tenths / 10;
    assert_eq!(breaker.tick(&unlimited, later(10)), Some(later(11)));
    assert_eq!(called(&breaker).len(), 10);
    assert_eq!(
        breaker.tick(&unlimited, later(40)),
        None,
        "more answers are needed, and bring their own time"
    );
    assert_eq!(called(&breaker).len(), 30);
    for _ in 0..70 {
        breaker.answered(&unlimited, later(100));
    }
    assert_eq!(breaker.view(later(100)).places, 104);
    assert_eq!(breaker.view(later(100)).state, BreakerState::Closed);
}

#[test]
fn each_backend_in_rotation_brings_first_places() {
    let (breaker, now) = (breaker(104, 0), Instant::now());
    breaker.rotated(0, &unlimited);
    breaker.rotated(3, &unlimited);
    assert_eq!(breaker.view(now).places, 12);
}

#[test]
fn who_waited_in_vain_while_nothing_ended_has_met_an_outage() {
    let (breaker, now) = (breaker(10, 9), Instant::now());
    for _ in 0..10 {
        assert!(admitted(&breaker, &unlimited, now));
    }
    let Asked::Waits(_, before) = breaker.ask("a", &unlimited, now) else { panic!("it is full") };
    breaker.give_back(false, &unlimited);
    breaker.waited_in_vain(before);
    assert_eq!(breaker.view(now).state, BreakerState::Limiting, "slow, but it moves");
    let Asked::Waits(_, before) = breaker.ask("a", &unlimited, now) else { panic!("it is full") };
    breaker.waited_in_vain(before);
    let view = breaker.view(now);
    assert_eq!((view.state, view.under_way, view.places), (BreakerState::Ramping, 10, 4));
    for _ in 0..6 {
        breaker.give_back(false, &unlimited);
    }
    assert_eq!(called(&breaker).len(), 1, "only the one from before: the others are within the first places");
}

#[test]
fn a_new_policy_holds_for_those_who_wait() {
    let (breaker, now) = (breaker(1, 9), Instant::now());
    assert!(admitted(&breaker, &unlimited, now));
    let all: Vec<_> = (0..3).map(|_| waits(&breaker, "a", now)).collect();
    breaker.change(policy(3, 0), &unlimited, now);
    assert_eq!(called(&breaker), all[..2]);
    assert_eq!(breaker.ask("a", &unlimited, now), Asked::Shed);
    breaker.change(policy(1, 9), &unlimited, now);
    breaker.give_back(false, &unlimited);
    breaker.give_back(true, &unlimited);
    assert_eq!(called(&breaker).len(), 2, "there is still one too many under way");
    breaker.give_back(true, &unlimited);
    assert_eq!(called(&breaker), all);
}

#[test]
fn without_a_ramp_all_places_are_there_at_once() {
    let (breaker, now) = (breaker(10, 9), Instant::now());
    breaker.rotated(0, &unlimited);
    assert_eq!(breaker.view(now).places, 4);
    breaker.change(BreakerPolicy { ramp: Duration::ZERO, ..policy(10, 9) }, &unlimited, now);
    assert_eq!(breaker.view(now).places, 10);
    breaker.rotated(0, &unlimited);
    assert_eq!(breaker.view(now).state, BreakerState::Closed);
}
