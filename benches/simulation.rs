//! A day of 100 backends in trouble, on a clock that jumps: how many requests end in an error with and without each
//! mechanism, and what the retries cost. `cargo bench -p goodgate-upstream --bench simulation`

#[path = "../crates/upstream/tests/simulation/dice.rs"]
mod dice;
#[path = "../crates/upstream/tests/simulation/run.rs"]
mod run;
#[path = "../crates/upstream/tests/simulation/world.rs"]
mod world;

use std::time::{Duration, Instant};

use run::{ALL, Mechanism, Run};
use world::World;

const BACKENDS: u16 = 100;
const LENGTH: Duration = Duration::from_hours(24);
const PER_SECOND: u32 = 20;

#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a table for people")]
fn main() {
    use Mechanism::{Alarm, Ejection, Probes, Retries, Revival};
    let ways: [(&str, &[Mechanism]); 9] = [
        ("all mechanisms", ALL),
        ("without retries", &[Ejection, Probes, Alarm, Revival]),
        ("without ejection", &[Retries, Probes, Alarm]),
        ("without health checks", &[Retries, Ejection, Revival]),
        ("without probes on failure", &[Retries, Ejection, Probes, Revival]),
        ("only retries", &[Retries]),
        ("only ejection", &[Ejection, Revival]),
        ("only health checks", &[Probes, Alarm]),
        ("nothing", &[]),
    ];
    let world = World::new(usize::from(BACKENDS), LENGTH, 1);
    println!(
        "{:40} {:>9} {:>8} {:>11} {:>8} {:>8} {:>9} {:>10} {:>6}",
        "", "requests", "errors", "per million", "outage", "slow", "attempts", "repeated", "over"
    );
    for (name, mechanisms) in ways {
        let begun = Instant::now();
        let outcome = Run::new(&world, BACKENDS, mechanisms).through(LENGTH, PER_SECOND);
        let requests = outcome.requests as f64;
        println!(
            "{name:40} {:>9} {:>8} {:>11.1} {:>8} {:>8} {:>9.4} {:>10.5} {:>6}   ({:.1} s)",
            outcome.requests,
            outcome.errors,
            outcome.errors as f64 / requests * 1e6,
            outcome.errors_in_outages,
            outcome.slow,
            outcome.attempts as f64 / requests,
            outcome.repeated as f64 / requests,
            outcome.over_budget,
            begun.elapsed().as_secs_f64()
        );
    }
    println!(
        "\nerrors: what clients saw; outage: the same in the four minutes in which all backends are broken; slow: answered after more than a second; attempts, repeated: for each request,\n\
         repeated those after something had been sent; over: the most by which they passed the retry budget in any 10 s."
    );
}
