//! When which place is probed, for all upstreams together. Reads no clock and does no I/O.
//!
//! What several backends are asked in the same way at the same place is one job, and they are its users. A turn costs
//! as much as is due in it. First probes are spread, so that a start with 10,000 backends is no burst; later ones stay
//! spread, since each is jittered. Probes that failed requests ask for have places of their own and wait for nobody.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_upstream::Address;

use crate::check::{Place, Question};
use crate::line::Line;

/// Probes under way at a time, and as many more of those that failed requests ask for.
pub(crate) const IN_FLIGHT_MAX: usize = 512;
/// Time between the first probes of two places; less if they would not fit into the interval.
const FIRST_APART: Duration = Duration::from_millis(5);
/// The same where a backend gets no request before.
const FIRST_APART_CHECKING: Duration = Duration::from_millis(1);
/// So much more or less than the interval each pause may be.
const JITTER: f64 = 0.1;

/// What is asked, and how often.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    pub(crate) question: Question,
    pub(crate) interval: Duration,
    pub(crate) interval_down: Duration,
}

/// Who wants to know.
pub(crate) trait User {
    /// The next probe is made then; none: no more are.
    fn expect_probe(&self, at: Option<Instant>);
    /// It gets no request before its first probe.
    fn is_checking(&self) -> bool;
    /// It is out of rotation and is asked more often, to be back soon.
    fn is_out(&self) -> bool;
    /// Probes have taken it out of rotation.
    fn is_down(&self) -> bool;
}

/// One backend that is to be probed.
pub(crate) struct Wanted<U> {
    pub(crate) backend: Address,
    pub(crate) place: Place,
    pub(crate) user: U,
}

/// A probe to be made now.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) job: JobId,
    pub(crate) terms: Arc<Terms>,
    pub(crate) place: Place,
    /// Because a request has failed: it is made again until it passes.
    pub(crate) is_urgent: bool,
    group: Arc<str>,
    at: Instant,
}

pub(crate) type JobId = u64;
type TermsId = u64;

/// All jobs.
#[derive(Debug)]
pub(crate) struct Schedule<U> {
    jobs: HashMap<JobId, Job<U>>,
    known: HashMap<(TermsId, Place), JobId>,
    /// Terms that are the same are kept once.
    terms: HashMap<Arc<Terms>, TermsId>,
    /// The job of each backend of each upstream.
    upstreams: HashMap<Arc<str>, HashMap<Address, JobId>>,
    due: BinaryHeap<Reverse<(Instant, JobId)>>,
    /// Jobs whose first probe has no time yet.
    new: Vec<JobId>,
    regular: Line<JobId>,
    urgent: Line<JobId>,
    next: JobId,
}

#[derive(Debug)]
struct Job<U> {
    terms: Arc<Terms>,
    terms_id: TermsId,
    place: Place,
    users: Vec<(Arc<str>, U)>,
    stage: Stage,
    /// A failed request has asked for it, and that was not done yet.
    is_suspected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting { due: Instant },
    Due,
    Running,
}

impl<U: User> Schedule<U> {
    pub(crate) fn new() -> Self {
        Self {
            jobs: HashMap::new(),
            known: HashMap::new(),
            terms: HashMap::new(),
            upstreams: HashMap::new(),
            due: BinaryHeap::new(),
            new: Vec::new(),
            regular: Line::new(IN_FLIGHT_MAX),
            urgent: Line::new(IN_FLIGHT_MAX),
            next: 0,
        }
    }

    /// From now on these are all that this upstream wants. What it wanted before in the same way keeps its time; what
    /// is new gets one by [`Self::settle`].
    pub(crate) fn replace(&mut self, upstream: &Arc<str>, terms: Terms, wanted: Vec<Wanted<U>>) {
        let before = self.forget(upstream);
        let number = self.number();
        let terms = Arc::new(terms);
        let entry = self.terms.entry(terms);
        let terms = Arc::clone(entry.key());
        let terms_id = *entry.or_insert(number);
        let mut jobs = HashMap::with_capacity(wanted.len());
        for Wanted { backend, place, user } in wanted {
            let job = match self.known.get(&(terms_id, place.clone())) {
                Some(job) => *job,
                None => self.add(&terms, terms_id, place),
            };
            if let Some(known) = self.jobs.get_mut(&job) {
                if let Stage::Waiting { due } = known.stage {
                    user.expect_probe(Some(due));
                }
                known.users.push((Arc::clone(upstream), user));
                jobs.insert(backend, job);
            }
        }
        self.upstreams.insert(Arc::clone(upstream), jobs);
        self.drop_unused(before);
    }

    /// This upstream wants nothing any more.
    pub(crate) fn remove(&mut self, upstream: &str) {
        let before = self.forget(upstream);
        self.drop_unused(before);
    }

    /// It uses no job any more; those that it used.
    fn forget(&mut self, upstream: &str) -> Vec<JobId> {
        let before: Vec<JobId> =
            self.upstreams.remove(upstream).map(|jobs| jobs.into_values().collect()).unwrap_or_default();
        for job in &before {
            if let Some(job) = self.jobs.get_mut(job) {
                let leaving = job.users.extract_if(.., |(name, _)| **name == *upstream);
                leaving.for_each(|(_, user)| user.expect_probe(None));
            }
        }
        before
    }

    /// Those that nobody uses any more are no jobs.
    fn drop_unused(&mut self, jobs: Vec<JobId>) {
        for id in jobs {
            if self.jobs.get(&id).is_some_and(|job| job.users.is_empty())
                && let Some(job) = self.jobs.remove(&id)
            {
                self.known.remove(&(job.terms_id, job.place));
            }
        }
        self.terms.retain(|terms, _| Arc::strong_count(terms) > 1);
    }

    fn add(&mut self, terms: &Arc<Terms>, terms_id: TermsId, place: Place) -> JobId {
        let id = self.number();
        self.known.insert((terms_id, place.clone()), id);
        let terms = Arc::clone(terms);
        let job = Job { terms, terms_id, place, users: Vec::new(), stage: Stage::Due, is_suspected: false };
        self.jobs.insert(id, job);
        self.new.push(id);
        id
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Gives those that are new the times of their first probes: one after the other, and all before the second probe of
    /// any is due.
    pub(crate) fn settle(&mut self, now: Instant) {
        let new = std::mem::take(&mut self.new);
        let count = u32::try_from(new.len()).unwrap_or(u32::MAX).max(1);
        for (at, id) in (0_u32..).zip(new) {
            let Some(job) = self.jobs.get(&id) else { continue };
            let is_checking = job.users.iter().any(|(_, user)| user.is_checking());
            let apart = if is_checking { FIRST_APART_CHECKING } else { FIRST_APART };
            let apart = apart.min(job.terms.interval.mul_f64(1.0 - JITTER) / count);
            self.wait(id, now + apart * at);
        }
    }

    fn wait(&mut self, id: JobId, due: Instant) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.stage = Stage::Waiting { due };
            for (_, user) in &job.users {
                user.expect_probe(Some(due));
            }
            self.due.push(Reverse((due, id)));
        }
    }

    /// The probes to be made now, and when the next ones are due.
    pub(crate) fn turn(&mut self, now: Instant) -> (Vec<Start>, Option<Instant>) {
        while let Some(Reverse((due, id))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            // One that was put off, or is none any more, has left its old time behind.
            if let Some(job) = self.jobs.get_mut(&id)
                && job.stage == (Stage::Waiting { due })
                && let Some((group, _)) = job.users.first()
            {
                job.stage = Stage::Due;
                self.regular.push(group, id);
            }
        }
        let mut starts = Vec::new();
        while let Some((group, id)) = self.urgent.next() {
            match self.jobs.get(&id) {
                Some(job) => starts.push(job.start(id, group, true, now)),
                None => self.urgent.left(&group),
            }
        }
        while let Some((group, id)) = self.regular.next() {
            match self.jobs.get_mut(&id) {
                Some(job) => {
                    job.stage = Stage::Running;
                    starts.push(job.start(id, group, false, now));
                }
                None => self.regular.left(&group),
            }
        }
        (starts, self.due.peek().map(|Reverse((due, _))| *due))
    }

    /// Requests have failed at these backends of an upstream: they are looked at in the next turn, unless they are known
    /// to be down.
    pub(crate) fn suspect(&mut self, upstream: &Arc<str>, backends: &[Address]) {
        let Some(jobs) = self.upstreams.get(upstream) else { return };
        for id in backends.iter().filter_map(|backend| jobs.get(backend)) {
            if let Some(job) = self.jobs.get_mut(id)
                && !job.is_suspected
                && !job.users.iter().all(|(_, user)| user.is_down())
            {
                job.is_suspected = true;
                self.urgent.push(upstream, *id);
            }
        }
    }

    /// Those who want to know what it has found.
    pub(crate) fn users(&self, job: JobId) -> impl Iterator<Item = &U> {
        self.jobs.get(&job).into_iter().flat_map(|job| job.users.iter().map(|(_, user)| user))
    }

    /// A probe is over, and its users know.
    pub(crate) fn finished(&mut self, start: &Start, now: Instant) {
        let line = if start.is_urgent { &mut self.urgent } else { &mut self.regular };
        line.left(&start.group);
        let Some(job) = self.jobs.get_mut(&start.job) else { return };
        let Terms { interval, interval_down, .. } = *job.terms;
        if start.is_urgent {
            job.is_suspected = false;
            if let Stage::Waiting { due } = job.stage {
                self.wait(start.job, due.min(now + jittered(interval_down)));
            }
            return;
        }
        let is_out = job.users.iter().any(|(_, user)| user.is_out());
        let after = jittered(if is_out { interval_down } else { interval });
        self.wait(start.job, (start.at + after).max(now));
    }
}

impl<U> Job<U> {
    fn start(&self, job: JobId, group: Arc<str>, is_urgent: bool, at: Instant) -> Start {
        Start { job, terms: Arc::clone(&self.terms), place: self.place.clone(), is_urgent, group, at }
    }
}

/// A little more or less, so that many gateways do not probe in step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + (fastrand::f64() * 2.0 - 1.0) * JITTER)
}

#[cfg(test)]
mod tests;
