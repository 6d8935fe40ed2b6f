//! Plays the schedule in a time of its own.

use super::*;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use goodgate_upstream::{ProbeKind, TlsPolicy};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
struct Who {
    is_checking: bool,
    is_down: Rc<Cell<bool>>,
    expected: Rc<Cell<Option<Instant>>>,
}

impl User for Who {
    fn expect_probe(&self, at: Option<Instant>) {
        self.expected.set(at);
    }

    fn is_checking(&self) -> bool {
        self.is_checking
    }

    fn is_out(&self) -> bool {
        self.is_down.get()
    }

    fn is_down(&self) -> bool {
        self.is_down.get()
    }
}

fn terms(interval: Duration) -> Terms {
    let tls = TlsPolicy { ca: None, verify: true, client: None };
    let question = Question { kind: ProbeKind::Tcp, tls, timeout: 2 * SECOND, drain_header: None };
    Terms { question, interval, interval_down: SECOND }
}

fn address(number: u32) -> Address {
    Address::Ip(SocketAddr::from(((0x0a00_0000 + number).to_be_bytes(), 80)))
}

fn wanted(numbers: std::ops::Range<u32>, user: &Who) -> Vec<Wanted<Who>> {
    let one = |number| Wanted {
        backend: address(number),
        place: Place { address: address(number), tls_name: None, host: None },
        user: user.clone(),
    };
    numbers.map(one).collect()
}

/// Makes the probes of this long, each of which takes as long as is said for its place; when each was started.
fn play(
    schedule: &mut Schedule<Who>,
    begin: Instant,
    length: Duration,
    takes: impl Fn(Address) -> Duration,
) -> Vec<(Instant, Address)> {
    let (mut now, mut made) = (begin, Vec::new());
    let mut running: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    let mut starts: Vec<Start> = Vec::new();
    while now < begin + length {
        while let Some(Reverse((end, at))) = running.peek().copied()
            && end <= now
        {
            running.pop();
            schedule.finished(&starts[at], now);
        }
        for start in schedule.turn(now).0 {
            made.push((now, start.place.address));
            running.push(Reverse((now + takes(start.place.address), starts.len())));
            starts.push(start);
            assert!(running.len() <= 2 * IN_FLIGHT_MAX);
        }
        now += Duration::from_millis(2);
    }
    made
}

/// The most that were started within 100 ms.
fn most_in_100_ms(made: &[(Instant, Address)]) -> usize {
    let mut first = 0;
    let most = (0..made.len()).map(|last| {
        while made[last].0 - made[first].0 >= Duration::from_millis(100) {
            first += 1;
        }
        last - first + 1
    });
    most.max().unwrap_or(0)
}

#[test]
fn ten_thousand_backends_are_probed_without_a_burst() {
    for is_checking in [false, true] {
        let now = Instant::now();
        let mut schedule = Schedule::new();
        // Whoever has them: many upstreams that come at once are no burst either.
        for upstream in 0..100 {
            let who = Who { is_checking, ..Who::default() };
            let name = Arc::from(format!("u{upstream}"));
            schedule.replace(&name, terms(5 * SECOND), wanted(upstream * 100..upstream * 100 + 100, &who));
        }
        schedule.settle(now);
        let made = play(&mut schedule, now, 30 * SECOND, |_| Duration::from_millis(20));
        assert!((55_000..=65_000).contains(&made.len()), "every 5 seconds: {}", made.len());
        let first: std::collections::HashSet<Address> =
            made.iter().take_while(|(at, _)| *at <= now + 5 * SECOND).map(|(_, place)| *place).collect();
        assert_eq!(first.len(), 10_000, "each within the first interval");
        // 200 on the average, 222 at first; what is random about it stays within six standard deviations.
        let most = most_in_100_ms(&made);
        assert!(most <= 320, "{most} within 100 ms");
    }
}

#[test]
fn a_few_backends_are_probed_soon_and_those_that_wait_for_it_sooner() {
    for (is_checking, apart) in [(false, 5), (true, 1)] {
        let now = Instant::now();
        let mut schedule = Schedule::new();
        let who = Who { is_checking, ..Who::default() };
        schedule.replace(&"a".into(), terms(60 * SECOND), wanted(0..100, &who));
        schedule.settle(now);
        let made = play(&mut schedule, now, SECOND, |_| Duration::ZERO);
        assert_eq!(made.len(), 100);
        let last = made.last().unwrap().0 - now;
        let ideal = Duration::from_millis(99 * apart);
        assert!(last >= ideal && last <= ideal + Duration::from_millis(2), "{last:?}");
        let next = who.expected.get().unwrap() - now;
        assert!(next >= 53 * SECOND && next <= 67 * SECOND, "the next one is told: {next:?}");
    }
}

#[test]
fn hanging_backends_of_one_upstream_keep_those_of_another_from_nothing() {
    let now = Instant::now();
    let mut schedule = Schedule::new();
    schedule.replace(&"hanging".into(), terms(SECOND), wanted(0..10_000, &Who::default()));
    schedule.replace(&"well".into(), terms(SECOND), wanted(10_000..10_010, &Who::default()));
    schedule.settle(now);
    let is_well = |place: Address| place >= address(10_000);
    let takes = |place| if is_well(place) { Duration::from_millis(1) } else { 2 * SECOND };
    let made = play(&mut schedule, now, 20 * SECOND, takes);
    for number in 10_000..10_010 {
        let times: Vec<Instant> =
            made.iter().filter(|(_, place)| *place == address(number)).map(|(at, _)| *at).collect();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest <= Duration::from_millis(1110), "{longest:?}");
        assert!(times.len() >= 17, "{}", times.len());
    }
    let hanging = made.iter().filter(|(_, place)| !is_well(*place)).count();
    assert!(hanging >= 2000, "256 at a time for 20 seconds: {hanging}");
}

#[test]
fn what_is_asked_in_the_same_way_is_asked_once() {
    let now = Instant::now();
    let mut schedule = Schedule::new();
    let names: [Arc<str>; 3] = ["a", "b", "c"].map(Arc::from);
    for name in &names {
        schedule.replace(name, terms(SECOND), wanted(0..2, &Who::default()));
    }
    schedule.settle(now);
    let (starts, _) = schedule.turn(now + SECOND);
    assert_eq!(starts.len(), 2);
    assert!(starts.iter().all(|start| schedule.users(start.job).count() == 3));
    for start in &starts {
        schedule.finished(start, now + SECOND);
    }
    drop(starts);
    // A reload changes no time. Who goes is told no more, and who asks otherwise is asked apart.
    let who = Who::default();
    schedule.replace(&names[0], terms(SECOND), wanted(0..2, &who));
    schedule.settle(now + SECOND);
    assert!(schedule.turn(now + SECOND).0.is_empty());
    schedule.replace(&names[1], terms(2 * SECOND), wanted(0..2, &who));
    schedule.remove(&names[2]);
    schedule.settle(now + SECOND);
    let (starts, _) = schedule.turn(now + 4 * SECOND);
    assert_eq!(starts.len(), 4);
    assert!(starts.iter().all(|start| schedule.users(start.job).count() == 1));
    // Nothing stays of what nobody wants.
    assert!(who.expected.get().is_some());
    for name in &names {
        schedule.remove(name);
    }
    assert_eq!(who.expected.get(), None);
    for start in &starts {
        schedule.finished(start, now + 4 * SECOND);
    }
    drop(starts);
    for name in &names {
        schedule.remove(name);
    }
    assert!(schedule.turn(now + 60 * SECOND).0.is_empty());
    assert!(schedule.jobs.is_empty() && schedule.known.is_empty() && schedule.terms.is_empty());
    assert!(schedule.upstreams.is_empty() && schedule.due.is_empty());
}

#[test]
fn a_suspect_is_probed_at_once_whoever_else_hangs_and_once_for_all() {
    let now = Instant::now();
    let mut schedule = Schedule::new();
    let who = Who::default();
    let [a, b]: [Arc<str>; 2] = ["a", "b"].map(Arc::from);
    schedule.replace(&a, terms(SECOND), wanted(0..10_000, &who));
    schedule.replace(&b, terms(SECOND), wanted(0..10, &who));
    schedule.settle(now);
    let (hanging, _) = schedule.turn(now + 10 * SECOND);
    assert_eq!(hanging.len(), IN_FLIGHT_MAX / 2);
    schedule.suspect(&a, &[address(3), address(4)]);
    schedule.suspect(&b, &[address(3)]);
    let (urgent, _) = schedule.turn(now + 10 * SECOND);
    let places: Vec<Address> = urgent.iter().map(|start| start.place.address).collect();
    assert_eq!(places, [address(3), address(4)]);
    assert!(urgent.iter().all(|start| start.is_urgent));
    schedule.suspect(&b, &[address(3)]);
    assert!(schedule.turn(now + 10 * SECOND).0.is_empty(), "it is being looked at");
    for start in &urgent {
        schedule.finished(start, now + 10 * SECOND);
    }
    who.is_down.set(true);
    schedule.suspect(&b, &[address(3), address(99_999)]);
    assert!(schedule.turn(now + 10 * SECOND).0.is_empty(), "it is known to be down");
}
