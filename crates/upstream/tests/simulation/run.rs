//! A run through the world: requests, probes and connections as events on one clock that jumps from one to the next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use goodgate_failure::{BudgetPolicy, Cause, Decision, Replay, RetryPolicy, Situation, Word, Words};
use goodgate_upstream::{
    Address, BackendAddress, BackendSpec, EjectionPolicy, Lease, ProbeKind, ProbePolicy, ProbeTls, Probed,
    Timeouts, Upstream, UpstreamSpec, Wish,
};
use http::Method;

use crate::dice::Dice;
use crate::world::{CONNECT_TIMEOUT, Ending, FIRST_BYTE_TIMEOUT, World, around, is_outage};

const BUDGET_PERCENT: u8 = 20;
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBE_EVERY_DOWN: Duration = Duration::from_secs(1);
const FALL: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
const TRIES: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
const CONNECT_FAILURES_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(15);
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// What is done about trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Retries,
    Ejection,
    Probes,
    /// A failed request has its backend probed at once.
    Alarm,
    /// Who cannot be reached is tried by connections.
    Revival,
}

pub(crate) const ALL: &[Mechanism] =
    &[Mechanism::Retries, Mechanism::Ejection, Mechanism::Probes, Mechanism::Alarm, Mechanism::Revival];

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Requests whose client saw an error, but those of the outages in which all backends are broken.
    pub(crate) errors: u64,
    pub(crate) errors_in_outages: u64,
    pub(crate) attempts: u64,
    /// Attempts that were made although something had been sent before.
    pub(crate) repeated: u64,
    /// Requests that took longer than a second, of those that were answered.
    pub(crate) slow: u64,
    /// The most by which repeated attempts were more than the budget in any ten seconds.
    pub(crate) over_budget: u64,
}

enum Event {
    Arrival,
    Ended(u64),
    Probe(usize),
    Probed { backend: usize, ending: Ending, left: u32, is_scheduled: bool },
    Revive,
}

struct Request {
    begun: Duration,
    method: Method,
    tried: Vec<Address>,
    sent: u32,
    under_way: Option<(Lease, Ending)>,
}

/// When requests and repeated attempts were, of the last ten seconds.
#[derive(Default)]
struct Recent {
    requests: VecDeque<Duration>,
    repeated: VecDeque<Duration>,
}

/// One run.
pub(crate) struct Run<'a> {
    world: &'a World,
    mechanisms: &'a [Mechanism],
    dice: Dice,
    start: Instant,
    now: Duration,
    upstream: Arc<Upstream>,
    retry: RetryPolicy,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    pending: HashMap<u64, Event>,
    count: u64,
    requests: HashMap<u64, Request>,
    recent: Recent,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    pub(crate) fn new(world: &'a World, backends: u16, mechanisms: &'a [Mechanism]) -> Self {
        let start = Instant::now();
        let retry = RetryPolicy {
            tries: if mechanisms.contains(&Mechanism::Retries) { TRIES } else { NonZeroU32::MIN },
            connect_failures_max: CONNECT_FAILURES_MAX,
            on: Words::of(if mechanisms.contains(&Mechanism::Retries) {
                &[Word::Error, Word::Timeout, Word::InvalidHeader, Word::Http502, Word::Http503]
            } else {
                &[]
            }),
            replay: Replay::Idempotent,
            budget: BudgetPolicy::percent(BUDGET_PERCENT),
            body_bytes_max: 64 << 10,
        };
        Self {
            world,
            mechanisms,
            dice: Dice::new(7),
            start,
            now: Duration::ZERO,
            upstream: Upstream::new(spec(backends, mechanisms), None, start),
            retry,
            events: BinaryHeap::new(),
            pending: HashMap::new(),
            count: 0,
            requests: HashMap::new(),
            recent: Recent::default(),
            outcome: Outcome::default(),
        }
    }

    /// Runs for so long, with so many requests a second on average: half of that at night, half as much again by day.
    pub(crate) fn through(mut self, length: Duration, per_second: u32) -> Outcome {
        self.later(Duration::ZERO, Event::Arrival);
        if self.mechanisms.contains(&Mechanism::Probes) {
            for backend in 0..self.upstream.backends().len() {
                let first = around(PROBE_EVERY, &mut self.dice).min(PROBE_EVERY);
                self.later(first, Event::Probe(backend));
            }
        }
        if self.mechanisms.contains(&Mechanism::Revival) {
            self.later(Duration::from_secs(1), Event::Revive);
        }
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at;
            match self.pending.remove(&event) {
                Some(Event::Arrival) if at < length => self.arrive(per_second),
                Some(Event::Ended(request)) => self.end(request),
                Some(Event::Probe(backend)) if at < length => self.probe(backend, 1, true),
                Some(Event::Probed { backend, ending, left, is_scheduled }) => {
                    self.probed(backend, &ending, left, is_scheduled);
                }
                Some(Event::Revive) if at < length => self.revive(),
                _ => {}
            }
        }
        self.outcome
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.pending.insert(self.count, event);
        self.events.push(Reverse((self.now + after, self.count)));
    }

    fn clock(&self) -> Instant {
        self.start + self.now
    }

    fn arrive(&mut self, per_second: u32) {
        let of_day = (self.now.as_secs_f64() / 86_400.0 * std::f64::consts::TAU).sin();
        let rate = f64::from(per_second) * (1.0 + 0.5 * of_day);
        let next = around(Duration::from_secs_f64(1.0 / rate), &mut self.dice);
        self.later(next, Event::Arrival);
        let method = if self.dice.below(10) == 0 { Method::POST } else { Method::GET };
        let request = Request { begun: self.now, method, tried: Vec::new(), sent: 0, under_way: None };
        self.outcome.requests += 1;
        self.upstream.budget().request(self.clock());
        self.note(|recent| &mut recent.requests);
        self.attempt(request);
    }

    fn attempt(&mut self, mut request: Request) {
        let now = self.clock();
        let tried = |address| request.tried.contains(&address);
        let wish = Wish {
            is_retry: !request.tried.is_empty(),
            may_be_trial: self.retry.replay.allows(&request.method),
        };
        let lease = self.upstream.select(tried, wish, now);
        let Some(lease) = lease.or_else(|| self.upstream.select_fail_open(tried)) else {
            self.fail(&request);
            return;
        };
        let address = lease.backend().address;
        let takes = Duration::from_millis(20 + self.dice.below(40));
        let ending = self.world.attempt(place(address), self.now, takes);
        request.tried.push(address);
        request.under_way = Some((lease, ending));
        self.outcome.attempts += 1;
        self.count += 1;
        let id = self.count;
        self.requests.insert(id, request);
        self.later(ending.0, Event::Ended(id));
    }

    fn end(&mut self, id: u64) {
        let Some(mut request) = self.requests.remove(&id) else { return };
        let Some((mut lease, (_, result))) = request.under_way.take() else { return };
        let now = self.clock();
        let Err((cause, was_sent)) = result else {
            lease.succeeded(now);
            self.outcome.slow += u64::from(self.now.saturating_sub(request.begun) > Duration::from_secs(1));
            return;
        };
        lease.failed(cause, now);
        drop(lease);
        self.look_at_suspects();
        request.sent += u32::from(was_sent);
        if self.may_repeat(&request, cause, was_sent) {
            self.attempt(request);
        } else {
            self.fail(&request);
        }
    }

    fn fail(&mut self, request: &Request) {
        let is_outage = is_outage(request.begun) || is_outage(self.now);
        *(if is_outage { &mut self.outcome.errors_in_outages } else { &mut self.outcome.errors }) += 1;
    }

    fn may_repeat(&mut self, request: &Request, cause: Cause, was_sent: bool) -> bool {
        let now = self.clock();
        let situation = Situation {
            cause,
            method: &request.method,
            sent_attempts: request.sent,
            connect_failures: u32::try_from(request.tried.len()).unwrap_or(u32::MAX) - request.sent,
            request_bytes_sent: was_sent,
            body_kept: true,
            response_bytes_out: false,
            deadline: self.start + request.begun + Duration::from_secs(30),
            now,
        };
        let decision = self.retry.decide(&situation);
        if matches!(decision, Decision::Stop(_))
            || !self.upstream.has_untried(|address| request.tried.contains(&address), true, now)
        {
            return false;
        }
        if decision == Decision::RetryFree {
            return true;
        }
        let taken = self.upstream.budget().take(self.retry.budget, now);
        if taken {
            self.outcome.repeated += 1;
            self.note(|recent| &mut recent.repeated);
        }
        taken
    }

    /// Keeps the last ten seconds of requests and of repeated attempts, and compares them.
    fn note(&mut self, of: fn(&mut Recent) -> &mut VecDeque<Duration>) {
        of(&mut self.recent).push_back(self.now);
        for times in [&mut self.recent.requests, &mut self.recent.repeated] {
            while times.front().is_some_and(|at| *at + BUDGET_WINDOW < self.now) {
                times.pop_front();
            }
        }
        let floor = u64::from(BudgetPolicy::FLOOR_PER_SECOND) * BUDGET_WINDOW.as_secs();
        let allowed = (self.recent.requests.len() as u64 * u64::from(BUDGET_PERCENT) / 100).max(floor);
        let over = (self.recent.repeated.len() as u64).saturating_sub(allowed);
        self.outcome.over_budget = self.outcome.over_budget.max(over);
    }

    fn look_at_suspects(&mut self) {
        let upstream = Arc::clone(&self.upstream);
        let Poll::Ready(suspects) = upstream.probe_alarm().poll_suspects(&Context::from_waker(Waker::noop()))
        else {
            return;
        };
        if self.mechanisms.contains(&Mechanism::Alarm) {
            for suspect in suspects {
                self.probe(place(suspect), FALL.get(), false);
            }
        }
    }

    /// One of the schedule, or one of up to so many that look into a failure.
    fn probe(&mut self, backend: usize, left: u32, is_scheduled: bool) {
        let takes = Duration::from_millis(2 + self.dice.below(5));
        let ending = self.world.attempt(backend, self.now, takes);
        self.later(ending.0, Event::Probed { backend, ending, left, is_scheduled });
    }

    fn probed(&mut self, backend: usize, ending: &Ending, left: u32, is_scheduled: bool) {
        let found = match ending.1 {
            Ok(()) => Probed::Passed,
            Err((cause, _)) => Probed::Failed(cause),
        };
        self.upstream.probed(address(backend), found, self.clock());
        let has_failed = found.failure().is_some();
        if is_scheduled {
            let every = if has_failed { PROBE_EVERY_DOWN } else { PROBE_EVERY };
            let jitter = Duration::from_millis(self.dice.below(200));
            self.later(every + jitter, Event::Probe(backend));
        } else if has_failed && left > 1 {
            self.probe(backend, left - 1, false);
        }
    }

    fn revive(&mut self) {
        for backend in self.upstream.unreachable() {
            if self.world.connects(place(backend.address), self.now) {
                self.upstream.reachable(backend.address, self.clock());
            }
        }
        self.later(Duration::from_secs(1), Event::Revive);
    }
}

fn address(backend: usize) -> Address {
    let port = u16::try_from(backend).unwrap_or(u16::MAX - 1) + 1;
    Address::Ip(SocketAddr::from(([10, 0, 0, 1], port)))
}

fn place(address: Address) -> usize {
    match address {
        Address::Ip(address) => usize::from(address.port()) - 1,
        Address::Unix(_) => 0,
    }
}

fn spec(backends: u16, mechanisms: &[Mechanism]) -> UpstreamSpec {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts {
        connect: CONNECT_TIMEOUT,
        first_byte: FIRST_BYTE_TIMEOUT,
        read: second,
        write: second,
        idle: second,
        tunnel: second,
    };
    let ejection = EjectionPolicy {
        max_fails: if mechanisms.contains(&Mechanism::Ejection) { 3 } else { 0 },
        fail_timeout: second * 10,
        fail_timeout_max: second * 10,
        fail_on: Words::of(&[Word::Error, Word::Timeout, Word::InvalidHeader]),
        min_fail_share: 0.2,
    };
    let entry = |number: u16| BackendSpec {
        address: BackendAddress::Ip(SocketAddr::from(([10, 0, 0, 1], number))),
        weight: NonZeroU16::MIN,
        backup: false,
        in_flight_max: 0,
        ejection,
        tls_name: None,
    };
    let probe = mechanisms.contains(&Mechanism::Probes).then(|| ProbePolicy {
        kind: ProbeKind::Tcp,
        port: None,
        interval: PROBE_EVERY,
        interval_down: PROBE_EVERY_DOWN,
        timeout: second * 2,
        rise: NonZeroU32::MIN.saturating_add(1),
        fall: FALL,
        starts_checking: false,
        tls: ProbeTls::AsBackend,
    });
    UpstreamSpec {
        backends: (1..=backends).map(entry).collect(),
        probe,
        ..UpstreamSpec::plain("simulated", timeouts)
    }
}
