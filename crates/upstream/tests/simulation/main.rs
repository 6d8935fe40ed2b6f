//! An hour of a world in trouble, without sockets and without waiting. The whole day, with its table, is
//! `cargo bench -p goodgate-upstream --bench simulation`.

#[path = "dice.rs"]
mod dice;
#[path = "run.rs"]
mod run;
#[path = "world.rs"]
mod world;

use std::time::Duration;

use run::{ALL, Mechanism, Outcome, Run};
use world::World;

const BACKENDS: u16 = 100;
const LENGTH: Duration = Duration::from_hours(1);
const PER_SECOND: u32 = 20;

fn run(world: &World, mechanisms: &[Mechanism]) -> Outcome {
    Run::new(world, BACKENDS, mechanisms).through(LENGTH, PER_SECOND)
}

fn without(left_out: &[Mechanism]) -> Vec<Mechanism> {
    ALL.iter().copied().filter(|mechanism| !left_out.contains(mechanism)).collect()
}

#[test]
fn each_mechanism_spares_errors_and_retries_stay_within_their_budget() {
    let world = World::new(usize::from(BACKENDS), LENGTH, 1);
    let errors = |mechanisms: &[Mechanism]| {
        let outcome = run(&world, mechanisms);
        assert!(outcome.requests > 50_000, "{outcome:?}");
        assert_eq!(outcome.over_budget, 0, "{mechanisms:?}: {outcome:?}");
        outcome.errors
    };
    let all = errors(ALL);
    let no_retries = errors(&without(&[Mechanism::Retries]));
    let no_probes = errors(&without(&[Mechanism::Probes, Mechanism::Alarm]));
    let only_retries = errors(&[Mechanism::Retries]);
    let nothing = errors(&[]);
    let shown = format!(
        "all {all}, without retries {no_retries}, without probes {no_probes}, only retries {only_retries}, nothing {nothing}"
    );
    assert!(all < no_retries && all < no_probes, "{shown}");
    assert!(no_probes < nothing && only_retries < nothing, "{shown}");
    assert!(all * 20 < nothing, "{shown}");
}

#[test]
fn a_run_is_the_same_every_time() {
    let world = World::new(usize::from(BACKENDS), LENGTH, 3);
    let [a, b] = [(), ()].map(|()| run(&world, ALL));
    assert_eq!((a.errors, a.attempts, a.repeated), (b.errors, b.attempts, b.repeated));
}
