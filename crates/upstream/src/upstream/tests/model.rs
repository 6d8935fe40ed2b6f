//! Whatever happens to the backends of an upstream, in any order: what must hold holds after every step.

use goodgate_failure::ReceivedStatus;

use super::*;
use crate::health::model::Dice;
use crate::{Mode, Order};

const STEPS: usize = 100_000;
const PORTS: u16 = 6;
const LIMIT: u32 = 4;
/// Of six backends these may be out although they answer.
const SOFT_MAX: usize = 3;
const CAUSES: [Cause; 4] = [
    Cause::ConnectionRefused,
    Cause::HttpResponseTimeout,
    Cause::HttpProtocolError,
    Cause::Received(ReceivedStatus::S500),
];

fn watched() -> UpstreamSpec {
    let limited = |port| BackendSpec {
        in_flight_max: LIMIT,
        backup: port == PORTS,
        ejection: EjectionPolicy {
            fail_on: Words::of(&[Word::Error, Word::Timeout, Word::InvalidHeader, Word::Http500]),
            fail_timeout_max: TEN * 8,
            ..ejection()
        },
        ..entry(port)
    };
    UpstreamSpec { probe: Some(probe()), ..spec((1..=PORTS).map(limited).collect()) }
}

/// A walk through everything that can happen.
struct Walk {
    upstream: Arc<Upstream>,
    leases: Vec<Lease>,
    dice: Dice,
    now: Instant,
    seen: HashMap<&'static str, u32>,
}

impl Walk {
    fn port(&mut self) -> Address {
        address(1 + u16::try_from(self.dice.below(u64::from(PORTS))).unwrap())
    }

    fn cause(&mut self) -> Cause {
        CAUSES[usize::try_from(self.dice.below(4)).unwrap()]
    }

    fn step(&mut self) {
        let address = self.port();
        match self.dice.below(16) {
            0..=4 => self.select(),
            5..=9 if !self.leases.is_empty() => self.finish(),
            10 => self.now += Duration::from_millis(self.dice.below(4_000)),
            11 => {
                let found = match self.dice.below(8) {
                    0..=4 => Probed::Passed,
                    5 => Probed::Announced,
                    _ => Probed::Failed(self.cause()),
                };
                self.upstream.probed(address, found, self.now);
            }
            12 => {
                self.upstream.reachable(address, self.now);
            }
            13 if self.dice.below(4) == 0 => {
                let mode = [Mode::Serve, Mode::Serve, Mode::Drain, Mode::Disable];
                let mode = mode[usize::try_from(self.dice.below(4)).unwrap()];
                self.upstream.order(&address.to_string(), Order::Mode(mode), self.now).unwrap();
            }
            14 if self.dice.below(8) == 0 => {
                self.upstream = Upstream::new(watched(), Some(&self.upstream), self.now);
            }
            _ => self.now += Duration::from_millis(10),
        }
    }

    fn state(&self, address: Address) -> State {
        self.upstream.views().iter().find(|view| view.address == address).unwrap().state
    }

    fn under_way(&self, address: Address) -> u64 {
        self.leases.iter().filter(|lease| lease.backend().address == address).count() as u64
    }

    fn select(&mut self) {
        let tried: Vec<Address> = (0..self.dice.below(4)).map(|_| self.port()).collect();
        let is_tried = |address| tried.contains(&address);
        let wish = Wish { is_retry: !tried.is_empty(), may_be_trial: self.dice.below(2) == 0 };
        let before = self.upstream.views();
        let has_room = |address| self.under_way(address) < u64::from(LIMIT);
        let open = before
            .iter()
            .any(|view| view.state == State::Up && !is_tried(view.address) && has_room(view.address));
        let lease = self.upstream.select(is_tried, wish, self.now);
        assert!(lease.is_some() || !open, "somebody could have been had: {before:?}");
        let lease = lease.or_else(|| self.upstream.select_fail_open(is_tried));
        let Some(lease) = lease else { return };
        let address = lease.backend().address;
        let was = before.iter().find(|view| view.address == address).unwrap().state;
        assert!(!is_tried(address), "twice at the same backend");
        let (is_fit, what) = match lease.how() {
            How::Rotation => (was == State::Up && has_room(address), "rotation"),
            How::Trial => (matches!(was, State::Ejected | State::Draining), "trial"),
            How::FailOpen => {
                (!open && was != State::Disabled && lease.backend().mode == Mode::Serve, "fail open")
            }
        };
        assert!(is_fit, "{:?} of one that was {was:?}", lease.how());
        let others = self.leases.iter().filter(|other| other.how() == How::Trial);
        if lease.how() == How::Trial && self.state(address) == State::Trial {
            let live = others.filter(|other| other.backend().address == address).count();
            // One that was overtaken by a probe may still be on its way.
            *self.seen.entry(if live == 0 { "only trial" } else { "overtaken trial" }).or_default() += 1;
        }
        *self.seen.entry(what).or_default() += 1;
        self.leases.push(lease);
    }

    fn finish(&mut self) {
        let at = usize::try_from(self.dice.below(self.leases.len() as u64)).unwrap();
        let mut lease = self.leases.swap_remove(at);
        match self.dice.below(8) {
            0..=3 => drop(lease.succeeded(self.now)),
            4 => drop(lease.announced(self.now)),
            5 => drop(lease.abandoned(self.now)),
            6..=7 => drop(lease.failed(self.cause(), self.now)),
            _ => {}
        }
        lease.done();
    }

    fn hold(&self) {
        let views = self.upstream.views();
        let up = views.iter().filter(|view| view.state == State::Up).count();
        assert_eq!(self.upstream.in_rotation(), up, "{views:?}");
        for view in &views {
            assert_eq!(view.in_flight, self.under_way(view.address), "{view:?}");
        }
        let soft = self.upstream.backends().into_iter().filter(|backend| {
            let health = backend.vitals.health();
            matches!(health.state(), State::Ejected | State::Trial)
                && health.why().is_some_and(crate::Why::is_soft)
        });
        assert!(soft.count() <= SOFT_MAX, "{views:?}");
        let is_waiting = |view: &BackendView| matches!(view.state, State::Ejected);
        if views.iter().any(is_waiting) {
            assert!(self.upstream.rotation.load().trial_due.is_some(), "nobody comes to look: {views:?}");
        }
    }
}

#[test]
fn what_must_hold_holds_whatever_happens() {
    for balance in [Balance::RoundRobin, Balance::LeastConn] {
        let now = Instant::now();
        let upstream = Upstream::new(UpstreamSpec { balance, ..watched() }, None, now);
        let mut walk = Walk { upstream, leases: Vec::new(), dice: Dice::new(5), now, seen: HashMap::new() };
        for _ in 0..STEPS / 2 {
            walk.step();
            walk.hold();
        }
        walk.leases.clear();
        walk.hold();
        for what in ["rotation", "trial", "fail open", "only trial"] {
            assert!(walk.seen.get(what).is_some_and(|times| *times > 50), "{what}: {:?}", walk.seen);
        }
    }
}
