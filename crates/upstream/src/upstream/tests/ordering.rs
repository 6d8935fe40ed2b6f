//! Orders of operators: who gets requests then, and what a new configuration makes of them.

use super::*;
use crate::{BackendId, FoundAddress, Mode, NotOrdered, Order, StickyKey, StickyPolicy};

fn two() -> (Arc<Upstream>, Instant) {
    let now = Instant::now();
    (Upstream::new(spec(vec![entry(1), entry(2)]), None, now), now)
}

fn order(upstream: &Upstream, port: u16, order: Order) -> Result<(), NotOrdered> {
    upstream.order(&address(port).to_string(), order, Instant::now())
}

fn shares(upstream: &Arc<Upstream>) -> HashMap<u16, u32> {
    let mut shares = HashMap::new();
    for _ in 0..120 {
        *shares.entry(pick(upstream, Instant::now()).unwrap_or_default()).or_default() += 1;
    }
    shares
}

#[test]
fn who_is_drained_or_disabled_gets_nothing_until_it_is_enabled() {
    for mode in [Mode::Drain, Mode::Disable] {
        let (upstream, _) = two();
        order(&upstream, 1, Order::Mode(mode)).unwrap();
        assert_eq!(shares(&upstream), HashMap::from([(2, 120)]));
        order(&upstream, 2, Order::Mode(mode)).unwrap();
        assert!(upstream.is_out());
        assert!(upstream.select_fail_open(|_| false).is_none(), "not even for want of others");
        assert!(!upstream.has_untried(|_| false, true, Instant::now()));
        assert_eq!(upstream.why_none(), Cause::DestinationUnavailable);
        order(&upstream, 1, Order::Mode(Mode::Serve)).unwrap();
        assert_eq!(shares(&upstream), HashMap::from([(1, 120)]));
    }
}

#[test]
fn what_is_under_way_goes_on_and_is_counted() {
    let (upstream, now) = two();
    let mut lease = upstream.select(|other| other != address(1), FIRST, now).unwrap();
    order(&upstream, 1, Order::Mode(Mode::Drain)).unwrap();
    assert_eq!(upstream.views()[0].in_flight, 1);
    assert_eq!(upstream.views()[0].state, State::Draining);
    lease.succeeded(now);
    drop(lease);
    assert_eq!(upstream.views()[0].in_flight, 0);
}

#[test]
fn clients_that_are_tied_to_it_go_on_while_it_drains_and_move_when_it_is_disabled() {
    let now = Instant::now();
    let key = StickyKey::new([7; 32]);
    let sticky = Some(StickyPolicy { cookie: "gg".into(), ttl: None, key: Some(key) });
    let upstream = Upstream::new(UpstreamSpec { sticky, ..spec(vec![entry(1), entry(2)]) }, None, now);
    let id: Option<BackendId> = upstream.backends()[0].id;
    let tied = Ties { bound: id, hash: None };
    let bound = || upstream.select_tied(|_| false, FIRST, tied, now).map(|lease| lease.backend().address);
    order(&upstream, 1, Order::Mode(Mode::Drain)).unwrap();
    assert_eq!(bound(), Some(address(1)));
    order(&upstream, 1, Order::Mode(Mode::Disable)).unwrap();
    assert_eq!(bound(), Some(address(2)));
}

#[test]
fn a_weight_holds_until_it_is_reset_or_the_file_says_another() {
    let (upstream, now) = two();
    order(&upstream, 1, Order::Weight(NonZeroU16::new(5).unwrap())).unwrap();
    assert_eq!(shares(&upstream), HashMap::from([(1, 100), (2, 20)]));
    let same = Upstream::new(upstream.spec().clone(), Some(&upstream), now);
    assert_eq!(shares(&same), HashMap::from([(1, 100), (2, 20)]), "the file says the same as before");
    let changed = BackendSpec { weight: NonZeroU16::new(2).unwrap(), ..entry(1) };
    let changed = Upstream::new(spec(vec![changed, entry(2)]), Some(&same), now);
    assert_eq!(shares(&changed), HashMap::from([(1, 80), (2, 40)]));
    order(&changed, 1, Order::Weight(NonZeroU16::new(5).unwrap())).unwrap();
    order(&changed, 1, Order::Reset).unwrap();
    assert_eq!(shares(&changed), HashMap::from([(1, 80), (2, 40)]));
    assert_eq!(changed.orders().changes().count(), 0);
}

#[test]
fn backends_come_and_go_and_the_file_wins() {
    let (upstream, now) = two();
    assert_eq!(order(&upstream, 3, Order::Remove), Err(NotOrdered::Unknown));
    assert_eq!(order(&upstream, 1, Order::Add(Box::new(entry(1)))), Err(NotOrdered::Exists));
    order(&upstream, 3, Order::Add(Box::new(entry(3)))).unwrap();
    order(&upstream, 1, Order::Remove).unwrap();
    assert_eq!(shares(&upstream), HashMap::from([(2, 60), (3, 60)]));
    let same = Upstream::new(upstream.spec().clone(), Some(&upstream), now);
    assert_eq!(shares(&same), HashMap::from([(2, 60), (3, 60)]), "orders survive a reload");
    let next = Upstream::new(spec(vec![entry(2), entry(3)]), Some(&same), now);
    assert_eq!((next.orders().added().len(), next.orders().removed().len()), (0, 0), "the file has it so");
    order(&next, 3, Order::Remove).unwrap();
    order(&next, 3, Order::Reset).unwrap();
    assert_eq!(shares(&next), HashMap::from([(2, 60), (3, 60)]));
    order(&next, 2, Order::Remove).unwrap();
    order(&next, 3, Order::Remove).unwrap();
    assert!(next.select(|_| false, FIRST, now).is_none());
    order(&next, 2, Order::Add(Box::new(entry(2)))).unwrap();
    assert_eq!(shares(&next), HashMap::from([(2, 120)]), "put back");
}

#[test]
fn an_order_for_a_name_is_for_all_its_addresses_and_one_for_an_address_for_that_one() {
    let now = Instant::now();
    let name = BackendAddress::Name { host: "web.test".into(), port: 80 };
    let upstream = Upstream::new(spec(vec![BackendSpec { address: name.clone(), ..entry(1) }]), None, now);
    let found = [1, 2].map(|port| FoundAddress::plain(address(port)));
    upstream.resolved(&name, &found, now);
    order(&upstream, 1, Order::Mode(Mode::Drain)).unwrap();
    assert_eq!(order(&upstream, 1, Order::Remove), Err(NotOrdered::NotAnEntry));
    assert_eq!(shares(&upstream), HashMap::from([(2, 120)]));
    upstream.order("web.test:80", Order::Mode(Mode::Drain), now).unwrap();
    upstream.resolved(&name, &[1, 2, 3].map(|port| FoundAddress::plain(address(port))), now);
    assert!(upstream.is_out(), "new addresses too");
    order(&upstream, 2, Order::Mode(Mode::Serve)).unwrap();
    assert_eq!(shares(&upstream), HashMap::from([(2, 120)]), "one is let out of it");
    upstream.order("web.test:80", Order::Reset, now).unwrap();
    assert_eq!(upstream.in_rotation(), 3);
}

#[test]
fn health_goes_on_underneath_and_nothing_is_told_of_it() {
    let (upstream, now) = two();
    let mut first = upstream.select(|other| other != address(1), FIRST, now).unwrap();
    let mut second = upstream.select(|other| other != address(1), FIRST, now).unwrap();
    order(&upstream, 1, Order::Mode(Mode::Disable)).unwrap();
    assert_eq!(first.failed(Cause::ConnectionRefused, now), None);
    assert_eq!(second.failed(Cause::ConnectionRefused, now), None);
    assert_eq!(upstream.views()[0].state, State::Disabled);
    assert!(upstream.unreachable().is_empty());
    let later = now + TEN;
    assert!((0..10).all(|_| pick(&upstream, later) == Some(2)), "no trial of what is disabled");
    order(&upstream, 1, Order::Mode(Mode::Serve)).unwrap();
    assert_eq!(upstream.views()[0].state, State::Ejected);
}
