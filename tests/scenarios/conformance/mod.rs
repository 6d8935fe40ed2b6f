//! The cache by the letter: cases written from the sentences of RFC 9111 and its neighbours, played against the
//! real binary in standard mode. What is done otherwise on purpose is a case, too, in `guards`.

mod asking;
mod case;
mod changing;
mod fields;
mod freshness;
mod guards;
mod keys;
mod parsing;
mod parts;
mod play;
mod stale;
mod status;
mod storing;
mod targeted;
mod validating;
mod varying;

use case::Case;

type Topic = fn() -> Vec<Case>;

const TOPICS: [Topic; 14] = [
    asking::cases,
    changing::cases,
    fields::cases,
    freshness::cases,
    guards::cases,
    keys::cases,
    parsing::cases,
    parts::cases,
    stale::cases,
    status::cases,
    storing::cases,
    targeted::cases,
    validating::cases,
    varying::cases,
];

fn all() -> Vec<Case> {
    TOPICS.iter().flat_map(|topic| topic()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_mode_keeps_to_the_letter_of_the_caching_rfcs() {
    assert!(all().len() >= 200);
    play::play(all(), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_through_the_fast_lane_keeps_to_the_letter_too() {
    play::play(all(), "Connection: close\r\n").await;
}
