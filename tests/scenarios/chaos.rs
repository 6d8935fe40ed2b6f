//! Backends die and come back at random; clients must not notice as long as one is alive.

use std::time::{Duration, Instant};

use crate::harness::{Act, Backend, Gateway, Load, backends};
use crate::site;

const CLIENTS: usize = 64;

/// How long the chaos lasts: `GOODGATE_CHAOS_SECONDS`, else a minute.
pub fn length() -> Duration {
    let seconds = std::env::var("GOODGATE_CHAOS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// The seed: `GOODGATE_CHAOS_SEED`, else a new one.
fn seed() -> u64 {
    let given = std::env::var("GOODGATE_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_get_fails_while_one_backend_is_alive() {
    let seed = seed();
    eprintln!("repeat with GOODGATE_CHAOS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // Slow enough that a kill meets requests under way, in one piece so that it cuts no body.
    let act = Act::Slow(Duration::from_millis(3), Box::new(Act::Answer(200)));
    let mut three = backends([act.clone(), act.clone(), act]).await;
    let gateway =
        Gateway::start(&site(&[&three[0], &three[1], &three[2]], "    fail_timeout: 500ms\n", "")).await;
    let is_good = |path: &str, answer: &crate::harness::Answer| {
        answer.status == 200 && answer.text().ends_with(&format!(" for {path}\n"))
    };
    let load = Load::start(gateway.address, CLIENTS, |client, at| format!("/{client}/{at}"), is_good);
    let start = Instant::now();
    let mut kills = 0;
    while start.elapsed() < length() {
        kills += round(&mut three, &mut random).await;
    }
    let report = load.stop().await;
    eprintln!("{} requests, {kills} kills", report.answers);
    for record in gateway.records().iter().filter(|record| record["status"] != 200) {
        eprintln!("failed: {record}");
    }
    report.assert_good();
    assert!(kills > 0 && report.answers > 100, "there was chaos");
    let rescues = gateway.metric("goodgate_rescues_total").await;
    assert!(rescues >= 1.0, "kills met requests under way: {rescues}");
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
}

/// One or two die for a while at moments of their own. How many died.
async fn round(three: &mut [Backend; 3], random: &mut fastrand::Rng) -> u32 {
    let spared = random.usize(0..3);
    let both = random.bool();
    let mut victims: Vec<usize> = (0..3).filter(|at| *at != spared).collect();
    random.shuffle(&mut victims);
    victims.truncate(if both { 2 } else { 1 });
    for at in &victims {
        three[*at].kill();
        pause(random, 30).await;
    }
    pause(random, 700).await;
    for at in &victims {
        three[*at].revive().await;
        pause(random, 30).await;
    }
    pause(random, 300).await;
    u32::try_from(victims.len()).unwrap()
}

async fn pause(random: &mut fastrand::Rng, limit: u64) {
    tokio::time::sleep(Duration::from_millis(random.u64(0..=limit))).await;
}
