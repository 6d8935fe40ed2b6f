//! Names: their addresses come, go, are kept and run out; levels and families decide who is asked first.

use super::*;
use crate::{FoundAddress, Standing, Unresolved};

fn name() -> BackendAddress {
    BackendAddress::Name { host: "web.test".into(), port: 80 }
}

fn of(address: BackendAddress) -> UpstreamSpec {
    spec(vec![BackendSpec { address, ..entry(1) }])
}

fn named() -> (Arc<Upstream>, Instant) {
    let now = Instant::now();
    (Upstream::new(of(name()), None, now), now)
}

fn found(ports: &[u16]) -> Vec<FoundAddress> {
    ports.iter().map(|port| FoundAddress::plain(address(*port))).collect()
}

#[test]
fn a_name_stands_for_all_its_addresses_and_keeps_the_last_ones() {
    let (upstream, now) = named();
    assert!(upstream.select(|_| false, FIRST, now).is_none());
    assert_eq!(upstream.why_none(), Cause::DnsTimeout, "nobody has answered yet");
    assert_eq!(upstream.unresolved(&name(), Cause::DnsError, now), Unresolved::Still, "nothing to keep");
    assert_eq!(upstream.why_none(), Cause::DnsError);
    let reloaded = Upstream::new(upstream.spec().clone(), Some(&upstream), now);
    assert_eq!(reloaded.why_none(), Cause::DnsError, "a reload does not forget why");
    assert!(upstream.resolved(&name(), &found(&[1, 2]), now));
    assert!(!upstream.resolved(&name(), &found(&[2, 1]), now), "the order is no change");
    let lease = upstream.select(|other| other != address(1), FIRST, now).unwrap();
    assert!(upstream.resolved(&name(), &found(&[2]), now));
    assert!((0..4).all(|_| pick(&upstream, now) == Some(2)));
    assert_eq!(lease.backend().address, address(1), "what is under way is left alone");
    assert_eq!(upstream.unresolved(&name(), Cause::DnsError, now), Unresolved::KeptFromNow);
    assert!(pick(&upstream, now).is_some());
}

#[test]
fn last_addresses_are_kept_for_as_long_as_they_may_and_not_longer() {
    let (upstream, now) = named();
    upstream.resolved(&name(), &found(&[1]), now);
    let at = now + TEN;
    assert_eq!(upstream.unresolved(&name(), Cause::DnsTimeout, at), Unresolved::KeptFromNow, "from here on");
    let standing = || upstream.name_views()[0].standing;
    assert_eq!(standing(), Standing::Kept { since: at, cause: Cause::DnsTimeout });
    let nearly = at + Duration::from_millis(9999);
    assert_eq!(upstream.unresolved(&name(), Cause::DnsError, nearly), Unresolved::Kept);
    assert_eq!(standing(), Standing::Kept { since: at, cause: Cause::DnsError });
    assert_eq!(pick(&upstream, nearly), Some(1));
    let reloaded = Upstream::new(upstream.spec().clone(), Some(&upstream), nearly);
    for upstream in [upstream, reloaded] {
        assert_eq!(upstream.unresolved(&name(), Cause::DnsError, at + TEN), Unresolved::RanOut);
        assert_eq!((pick(&upstream, at + TEN), upstream.why_none()), (None, Cause::DnsError));
        assert_eq!(upstream.unresolved(&name(), Cause::DnsTimeout, at + TEN), Unresolved::Still);
        assert!(upstream.resolved(&name(), &found(&[1]), at + TEN));
        assert_eq!(pick(&upstream, at + TEN), Some(1));
    }
}

#[test]
fn with_nothing_to_keep_addresses_leave_at_the_first_failure() {
    let now = Instant::now();
    let mut spec = of(name());
    spec.dns.keep = Duration::ZERO;
    let upstream = Upstream::new(spec, None, now);
    upstream.resolved(&name(), &found(&[1]), now);
    assert_eq!(upstream.unresolved(&name(), Cause::DnsError, now), Unresolved::RanOut);
    assert_eq!(upstream.in_rotation(), 0);
}

#[test]
fn who_leaves_is_told_and_who_stays_is_not() {
    let (upstream, now) = named();
    upstream.resolved(&name(), &found(&[1, 2]), now);
    let [one, two] = [1, 2].map(|port| {
        let lease = upstream.select(|other| other != address(port), FIRST, now).unwrap();
        Arc::clone(lease.backend())
    });
    upstream.resolved(&name(), &found(&[2, 3]), now);
    assert!(one.has_left() && !two.has_left());
    upstream.resolved(&name(), &found(&[1, 2]), now);
    let back = upstream.select(|other| other != address(1), FIRST, now).unwrap();
    assert!(!back.backend().has_left(), "who comes back begins anew");
    let next = Upstream::new(spec(vec![entry(1)]), Some(&upstream), now);
    upstream.hand_over(Some(&next));
    assert!(two.has_left() && !back.backend().has_left(), "a reload is a change like any other");
    next.hand_over(None);
    assert!(back.backend().has_left(), "the upstream is gone");
}

#[test]
fn an_address_that_another_entry_has_too_does_not_leave() {
    let now = Instant::now();
    let upstream =
        Upstream::new(spec(vec![BackendSpec { address: name(), ..entry(9) }, entry(1)]), None, now);
    upstream.resolved(&name(), &found(&[1, 2]), now);
    upstream.resolved(&name(), &found(&[2]), now);
    assert!(upstream.backends().iter().all(|backend| !backend.has_left()));
}

#[test]
fn each_level_is_used_only_when_the_one_before_cannot_be_had() {
    let now = Instant::now();
    let service = BackendAddress::Service("_http._tcp.web.test".into());
    let backup = BackendSpec { backup: true, ..entry(9) };
    let mut spec = of(service.clone());
    spec.backends.push(backup);
    let upstream = Upstream::new(spec, None, now);
    let at = |port, level| FoundAddress { level, ..FoundAddress::plain(address(port)) };
    upstream.resolved(&service, &[at(3, 2), at(2, 1), at(1, 0), at(4, 2)], now);
    let order = |tried: &[u16]| {
        let is_tried = |other| tried.iter().any(|port| address(*port) == other);
        let mut ports: Vec<_> = (0..4)
            .filter_map(|_| upstream.select(is_tried, FIRST, now))
            .map(|lease| lease.backend().address)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    assert_eq!(order(&[]), [address(1)]);
    assert_eq!(order(&[1]), [address(2)]);
    assert_eq!(order(&[1, 2]), [address(3), address(4)], "a level shares its turns");
    assert_eq!(order(&[1, 2, 3, 4]), [address(9)], "a backup comes behind every level");
    for _ in 0..2 {
        fail(&upstream, 1, Cause::ConnectionRefused, now);
    }
    assert_eq!(order(&[]), [address(2)], "also when the first is ejected");
    let fail_open = upstream.select_fail_open(|other| other == address(2)).unwrap();
    assert_eq!(fail_open.backend().address, address(1));
}

#[test]
fn the_share_that_the_dns_names_replaces_that_of_the_entry() {
    let (upstream, now) = named();
    let heavy = FoundAddress { weight: NonZeroU16::new(3), ..FoundAddress::plain(address(1)) };
    upstream.resolved(&name(), &[heavy, FoundAddress::plain(address(2))], now);
    let picks = (0..40).filter(|_| pick(&upstream, now) == Some(1)).count();
    assert_eq!(picks, 30);
}

#[test]
fn a_family_comes_first_and_the_other_when_it_was_tried_or_is_out() {
    let now = Instant::now();
    let [four, six] = ["127.0.0.1:80", "[::1]:80"].map(|text| Address::Ip(text.parse().unwrap()));
    let both = [FoundAddress::plain(four), FoundAddress::plain(six)];
    let with = |family, previous: Option<&Upstream>| {
        let mut spec = of(name());
        spec.dns.family = family;
        Upstream::new(spec, previous, now)
    };
    let upstream = with(Family::Ipv6First, None);
    upstream.resolved(&name(), &both, now);
    assert!(upstream.has_both_families());
    let pick = |upstream: &Arc<Upstream>, tried: Option<Address>| {
        let lease = upstream.select(|other| Some(other) == tried, FIRST, now);
        lease.map(|lease| lease.backend().address)
    };
    assert!((0..4).all(|_| pick(&upstream, None) == Some(six)));
    assert_eq!(pick(&upstream, Some(six)), Some(four));
    let reloaded = with(Family::Ipv4Only, Some(&upstream));
    assert_eq!((pick(&reloaded, None), pick(&reloaded, Some(four))), (Some(four), None));
    assert!(!reloaded.has_both_families());
    let reloaded = with(Family::Any, Some(&reloaded));
    assert_eq!(reloaded.in_rotation(), 2, "what was left out is not forgotten");
}
