//! The ways of balancing on real upstreams: limits, slow starts, cookies, reloads and outages.

use super::*;
use crate::{BalanceFactor, StickyKey, StickyPolicy};

fn ways() -> [Balance; 6] {
    [
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::RandomTwo,
        Balance::LeastTime,
        Balance::ConsistentHash { factor: None },
        Balance::ConsistentHash { factor: BalanceFactor::from_percent(125) },
    ]
}

fn of(balance: Balance, ports: std::ops::RangeInclusive<u16>) -> UpstreamSpec {
    UpstreamSpec { balance, ..spec(ports.map(entry).collect()) }
}

fn limited(balance: Balance, limit: u32, ports: std::ops::RangeInclusive<u16>) -> UpstreamSpec {
    let limited = |port| BackendSpec { in_flight_max: limit, ..entry(port) };
    UpstreamSpec { balance, ..spec(ports.map(limited).collect()) }
}

fn port(lease: &Lease) -> u16 {
    match lease.backend().address {
        Address::Ip(address) => address.port(),
        Address::Unix(_) => 0,
    }
}

fn in_flight(upstream: &Upstream) -> Vec<u64> {
    upstream.views().iter().map(|view| view.in_flight).collect()
}

#[test]
fn whatever_the_way_a_tried_backend_is_not_had_again_and_one_that_is_out_is_not_had() {
    let now = Instant::now();
    for balance in ways() {
        let upstream = Upstream::new(of(balance, 1..=4), None, now);
        fail(&upstream, 2, Cause::ConnectionRefused, now);
        fail(&upstream, 2, Cause::ConnectionRefused, now);
        for hash in 0..50 {
            let ties = Ties { hash: Some(hash), bound: None };
            let mut tried = Vec::new();
            while let Some(lease) = upstream.select_tied(|other| tried.contains(&other), FIRST, ties, now) {
                tried.push(lease.backend().address);
            }
            tried.sort_unstable();
            assert_eq!(tried, [address(1), address(3), address(4)], "{balance:?}");
        }
        assert_eq!(in_flight(&upstream), [0; 4], "{balance:?}: what was taken is given back");
    }
}

#[test]
fn whatever_the_way_no_backend_has_more_than_its_limit_and_backups_take_the_rest() {
    let now = Instant::now();
    for balance in ways() {
        let mut spec = limited(balance, 3, 1..=4);
        spec.backends.push(BackendSpec { backup: true, in_flight_max: 2, ..entry(9) });
        let upstream = Upstream::new(spec, None, now);
        let mut leases: Vec<_> = (0..12).map(|_| upstream.select(|_| false, FIRST, now).unwrap()).collect();
        assert_eq!(in_flight(&upstream), [3, 3, 3, 3, 0], "{balance:?}");
        assert!(!upstream.is_full(), "the backup has room");
        leases.extend((0..2).filter_map(|_| upstream.select(|_| false, FIRST, now)));
        assert_eq!(in_flight(&upstream), [3, 3, 3, 3, 2], "{balance:?}");
        assert!(upstream.is_full() && upstream.select(|_| false, FIRST, now).is_none());
        assert!(upstream.select_fail_open(|_| false).is_none(), "they are full, not failing");
        assert_eq!(upstream.why_none(), Cause::ConnectionLimitReached);
        leases.retain(|lease| port(lease) != 2);
        assert!(!upstream.is_full());
        assert_eq!(port(&upstream.select(|_| false, FIRST, now).unwrap()), 2, "{balance:?}");
    }
}

#[test]
fn a_trial_and_a_last_resort_keep_to_the_limit_as_well() {
    let now = Instant::now();
    let upstream = Upstream::new(limited(Balance::RoundRobin, 1, 1..=1), None, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    let held = upstream.select_fail_open(|_| false).unwrap();
    assert!(upstream.select_fail_open(|_| false).is_none());
    assert!(upstream.select(|_| false, FIRST, now + TEN).is_none(), "the trial has to wait");
    drop(held);
    assert_eq!(upstream.select(|_| false, FIRST, now + TEN).unwrap().how(), How::Trial);
}

#[test]
fn least_conn_stays_exact_through_ejections_reloads_and_what_began_before_them() {
    let now = Instant::now();
    let old = Upstream::new(of(Balance::LeastConn, 1..=3), None, now);
    let mut leases: Vec<_> = (0..9).map(|_| old.select(|_| false, FIRST, now).unwrap()).collect();
    assert_eq!(in_flight(&old), [3, 3, 3]);
    fail(&old, 2, Cause::ConnectionRefused, now);
    fail(&old, 2, Cause::ConnectionRefused, now);
    let new = Upstream::new(of(Balance::LeastConn, 1..=4), Some(&old), now);
    assert_eq!((port(&new.select(|_| false, FIRST, now).unwrap()), in_flight(&new)[0]), (4, 3));
    leases.retain(|lease| port(lease) != 1);
    let next: Vec<_> = (0..4).map(|_| new.select(|_| false, FIRST, now).unwrap()).collect();
    assert_eq!(in_flight(&new), [2, 3, 3, 2], "what the old one gave back counts: {next:?}");
}

#[test]
fn the_bound_of_a_consistent_hash_counts_what_began_before_a_reload() {
    let now = Instant::now();
    let balance = Balance::ConsistentHash { factor: BalanceFactor::from_percent(150) };
    let old = Upstream::new(of(balance, 1..=4), None, now);
    let ties = Ties { hash: Some(1), bound: None };
    let one_key = |upstream: &Arc<Upstream>| upstream.select_tied(|_| false, FIRST, ties, now).unwrap();
    let mut leases: Vec<_> = (0..40).map(|_| one_key(&old)).collect();
    let new = Upstream::new(of(balance, 1..=4), Some(&old), now);
    leases.extend((0..40).map(|_| one_key(&new)));
    let mut loads = in_flight(&new);
    loads.sort_unstable();
    assert_eq!(loads.last(), Some(&30), "of 80 at most 1.5 times the mean: {loads:?}");
}

#[test]
fn least_time_prefers_who_answers_sooner_and_leaves_who_fails() {
    let now = Instant::now();
    let upstream = Upstream::new(of(Balance::LeastTime, 1..=2), None, now);
    for (port, millis) in [(1, 10), (2, 40)] {
        let mut lease = upstream.select(|other| other != address(port), FIRST, now).unwrap();
        lease.answered(Duration::from_millis(millis), 200, now);
    }
    assert!((0..10).all(|_| pick(&upstream, now) == Some(1)));
    let mut lease = upstream.select(|_| false, FIRST, now).unwrap();
    lease.failed_after(Duration::from_millis(25), now);
    lease.failed(Cause::HttpResponseTimeout, now);
    drop(lease);
    assert!((0..10).all(|_| pick(&upstream, now) == Some(2)), "it counts as 50 ms");
    let mut lease = upstream.select(|other| other != address(2), FIRST, now + TEN).unwrap();
    lease.answered(Duration::from_millis(40), 200, now + TEN);
    drop(lease);
    assert_eq!(
        pick(&upstream, now + TEN),
        Some(1),
        "after ten seconds it counts as 12.5 ms, and is tried again"
    );
}

fn slowly(spec: UpstreamSpec) -> UpstreamSpec {
    UpstreamSpec { slow_start: TEN, ..spec }
}

#[test]
fn who_joins_or_recovers_gets_the_share_that_has_passed_and_who_was_there_all_along_does_not_wait() {
    let now = Instant::now();
    let old = Upstream::new(slowly(of(Balance::RoundRobin, 1..=2)), None, now);
    let count =
        |upstream: &Arc<Upstream>, port, at| (0..80).filter(|_| pick(upstream, at) == Some(port)).count();
    assert_eq!(count(&old, 2, now), 40, "nobody starts slowly with the gateway");
    let new = Upstream::new(slowly(of(Balance::RoundRobin, 1..=3)), Some(&old), now);
    let quarter = now + TEN / 4;
    assert_eq!(count(&new, 3, now), 0);
    // Of 80 requests 26 or 27 are its turn, and of those it takes a quarter.
    assert!((6..=7).contains(&count(&new, 3, quarter)));
    assert!((26..=27).contains(&count(&new, 3, now + TEN)));
    for _ in 0..2 {
        fail(&new, 1, Cause::ConnectionRefused, now + TEN);
    }
    let back = now + TEN * 2;
    let mut trial = new.select(|_| false, FIRST, back).unwrap();
    assert_eq!((trial.how(), port(&trial)), (How::Trial, 1));
    trial.succeeded(back);
    assert_eq!(count(&new, 1, back), 0);
    assert!((13..=14).contains(&count(&new, 1, back + TEN / 2)));
}

#[test]
fn when_all_are_starting_slowly_nobody_waits() {
    let now = Instant::now();
    for balance in ways() {
        let old = Upstream::new(slowly(of(balance, 1..=1)), None, now);
        let new = Upstream::new(slowly(of(balance, 2..=5)), Some(&old), now);
        assert!((0..40).all(|_| pick(&new, now).is_some()), "{balance:?}");
    }
}

fn sticky(ports: std::ops::RangeInclusive<u16>) -> UpstreamSpec {
    let key = Some(StickyKey::new([7; 32]));
    let policy = StickyPolicy { cookie: "gg".into(), ttl: None, key };
    UpstreamSpec { sticky: Some(policy), ..of(Balance::RoundRobin, ports) }
}

fn bound_to(upstream: &Upstream, port: u16) -> Ties {
    let backend = upstream.backends().into_iter().find(|backend| backend.address == address(port));
    Ties { bound: backend.unwrap().id, hash: None }
}

#[test]
fn a_bound_request_gets_its_backend_and_another_one_when_that_is_tried_out_full_or_gone() {
    let now = Instant::now();
    let upstream = Upstream::new(sticky(1..=3), None, now);
    let ties = bound_to(&upstream, 2);
    let get = |upstream: &Arc<Upstream>| port(&upstream.select_tied(|_| false, FIRST, ties, now).unwrap());
    assert!((0..20).all(|_| get(&upstream) == 2));
    let retry = upstream.select_tied(|other| other == address(2), FIRST, ties, now).unwrap();
    assert_ne!(port(&retry), 2);
    fail(&upstream, 2, Cause::ConnectionRefused, now);
    fail(&upstream, 2, Cause::ConnectionRefused, now);
    assert!((0..20).all(|_| get(&upstream) != 2), "it is ejected");
    let mut full = sticky(1..=3);
    full.backends.iter_mut().for_each(|backend| backend.in_flight_max = 1);
    let full = Upstream::new(full, None, now);
    let held = full.select_tied(|_| false, FIRST, ties, now).unwrap();
    assert!(port(&held) == 2 && get(&full) != 2);
    let without = Upstream::new(sticky(3..=4), Some(&upstream), now);
    assert!((0..20).all(|_| get(&without) >= 3), "it is gone");
    assert_eq!(bound_to(&upstream, 3), bound_to(&without, 3), "who stays keeps its name");
}

#[test]
fn a_bound_request_is_no_trial_of_another_backend() {
    let now = Instant::now();
    let upstream = Upstream::new(sticky(1..=2), None, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    fail(&upstream, 1, Cause::ConnectionRefused, now);
    let ties = bound_to(&upstream, 2);
    let bound = upstream.select_tied(|_| false, FIRST, ties, now + TEN).unwrap();
    assert_eq!((bound.how(), port(&bound)), (How::Rotation, 2));
    let other = upstream.select(|_| false, FIRST, now + TEN).unwrap();
    assert_eq!((other.how(), port(&other)), (How::Trial, 1));
}
