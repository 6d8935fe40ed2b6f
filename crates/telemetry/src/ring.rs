//! The last failures and rescues of each upstream, in memory, so that one request can be explained while
//! somebody still wonders about it. What went well never comes here.
//!
//! Failures and rescues are kept apart: a site that lives on its copies has a rescue per request, and they
//! must not push out the failures before. Within each half the cause with the most records gives way first,
//! and of its routes the one with the most: a flood displaces itself before anything else. Of one cause only
//! so many a second are taken, for a copy of the record costs more than to count; the rest is counted.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use goodgate_failure::Cause;
use parking_lot::{Mutex, RwLock};

use crate::AccessRecord;

/// Records in each half of an upstream.
const RECORDS_MAX: usize = 128;
/// Records of one cause taken in a second, in each half of an upstream.
const PER_SECOND_MAX: u64 = 32;
/// What is kept of a text that a client chose, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// The upstream's name in the record of a request that no route takes.
const NO_UPSTREAM: &str = "none";

/// A record as it is kept.
pub type KeptRecord = Arc<AccessRecord<'static>>;

/// The last failures and rescues by upstream.
#[derive(Debug)]
pub struct Ring {
    born: Instant,
    upstreams: RwLock<HashMap<String, Arc<Halves>>>,
    /// Numbers records in the order of their coming.
    next: AtomicU64,
}

impl Ring {
    /// An empty one, for these upstreams and for what has none.
    pub fn new<'a>(upstreams: impl Iterator<Item = &'a str>, now: Instant) -> Self {
        let ring = Self { born: now, upstreams: RwLock::default(), next: AtomicU64::new(0) };
        ring.hold(upstreams);
        ring
    }

    /// From now on these upstreams have a place, and no others; those that had one keep their records.
    pub fn hold<'a>(&self, upstreams: impl Iterator<Item = &'a str>) {
        let mut held = self.upstreams.write();
        let place = |name: &str| (name.to_owned(), held.get(name).cloned().unwrap_or_default());
        let next = upstreams.chain([NO_UPSTREAM]).map(place).collect();
        *held = next;
    }

    /// Keeps the record if something failed in it. Otherwise this is one comparison.
    pub fn note(&self, record: AccessRecord<'_>, now: Instant) {
        if !record.is_of_interest() {
            return;
        }
        let Some(halves) = self.upstreams.read().get(&*record.upstream).map(Arc::clone) else {
            return;
        };
        let is_averted = record.rescue.is_some() && record.cause.is_none() && record.status < 500;
        let half = if is_averted { &halves.rescues } else { &halves.failures };
        let cause = record.decisive_cause();
        let second = now.saturating_duration_since(self.born).as_secs();
        if half.gate(cause).is_none_or(|gate| gate.passes(second)) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let record = Arc::new(shortened(record.into_owned()));
            half.kept.lock().add(cause, Numbered { number, record });
        }
    }

    /// All records, or those of one upstream, the newest first.
    pub fn newest_first(&self, upstream: Option<&str>) -> Vec<KeptRecord> {
        let held = self.upstreams.read();
        let wanted = held.iter().filter(|(name, _)| upstream.is_none_or(|wanted| wanted == *name));
        let mut all: Vec<Numbered> = Vec::new();
        for half in wanted.flat_map(|(_, halves)| [&halves.failures, &halves.rescues]) {
            all.extend(half.kept.lock().groups.iter().flat_map(|group| &group.records).cloned());
        }
        drop(held);
        all.sort_unstable_by_key(|one| Reverse(one.number));
        all.into_iter().map(|one| one.record).collect()
    }

    /// The last record of the request with this identifier.
    pub fn find(&self, request_id: &str) -> Option<KeptRecord> {
        self.newest_first(None).into_iter().find(|record| record.request_id == request_id)
    }

    /// How many records were only counted because there were too many of a kind in a second.
    pub fn skipped(&self) -> u64 {
        let held = self.upstreams.read();
        let halves = held.values().flat_map(|halves| [&halves.failures, &halves.rescues]);
        halves.flat_map(|half| &half.gates).map(|gate| gate.skipped.load(Ordering::Relaxed)).sum()
    }
}

#[derive(Debug, Default)]
struct Halves {
    failures: Half,
    rescues: Half,
}

#[derive(Debug)]
struct Half {
    /// One for each cause, and one for what has none.
    gates: Vec<Gate>,
    kept: Mutex<Kept>,
}

impl Default for Half {
    fn default() -> Self {
        Self { gates: (0..=Cause::ALL.len()).map(|_| Gate::default()).collect(), kept: Mutex::default() }
    }
}

impl Half {
    fn gate(&self, cause: Option<Cause>) -> Option<&Gate> {
        self.gates.get(cause.map_or(Cause::ALL.len(), Cause::index))
    }
}

/// Lets so many through in each second, and counts the others.
#[derive(Debug, Default)]
struct Gate {
    /// The second in the upper half, how many passed in it in the lower.
    passed: AtomicU64,
    skipped: AtomicU64,
}

impl Gate {
    fn passes(&self, second: u64) -> bool {
        let step = |before: u64| match (before >> 32 == second, before & u64::from(u32::MAX)) {
            (false, _) => Some(second << 32 | 1),
            (true, count) => (count < PER_SECOND_MAX).then_some(before + 1),
        };
        let has_room = self.passed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok();
        if !has_room {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }
}

#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    record: KeptRecord,
}

/// The records of one half. No group is empty.
#[derive(Debug, Default)]
struct Kept {
    groups: Vec<Group>,
    count: usize,
}

/// Records of one cause on one route, the oldest first.
#[derive(Debug)]
struct Group {
    cause: Option<Cause>,
    route: String,
    records: VecDeque<Numbered>,
}

impl Kept {
    fn add(&mut self, cause: Option<Cause>, one: Numbered) {
        let route = &one.record.route;
        let group = self.groups.iter_mut().find(|group| group.cause == cause && group.route == *route);
        if let Some(group) = group {
            group.records.push_back(one);
        } else {
            let route = route.clone().into_owned();
            self.groups.push(Group { cause, route, records: VecDeque::from([one]) });
        }
        self.count += 1;
        if self.count > RECORDS_MAX {
            self.drop_one();
        }
    }

    fn drop_one(&mut self) {
        let of_cause = |cause| {
            let groups = self.groups.iter().filter(|group| group.cause == cause);
            groups.map(|group| group.records.len()).sum::<usize>()
        };
        let age = |group: &Group| group.records.front().map(|one| Reverse(one.number));
        let size = |group: &Group| (of_cause(group.cause), group.records.len(), age(group));
        let largest = self.groups.iter().enumerate().max_by_key(|(_, group)| size(group)).map(|(at, _)| at);
        if let Some(group) = largest.and_then(|at| self.groups.get_mut(at)) {
            group.records.pop_front();
            self.count -= 1;
            self.groups.retain(|group| !group.records.is_empty());
        }
    }
}

/// The record with its longest texts cut, so that the ring is bounded in bytes as well.
fn shortened(record: AccessRecord<'static>) -> AccessRecord<'static> {
    let mut record = record;
    for text in [&mut record.path, &mut record.host, &mut record.method] {
        cut(text.to_mut());
    }
    for text in [&mut record.user_agent, &mut record.query].into_iter().flatten() {
        cut(text.to_mut());
    }
    record
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::By;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, SystemTime};

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn failure<'a>(id: &'a str, route: &'a str, cause: Cause) -> AccessRecord<'a> {
        let record = AccessRecord::of_no_request(SystemTime::UNIX_EPOCH, id, CLIENT, 502, cause);
        AccessRecord { route: route.into(), upstream: "web".into(), ..record }
    }

    fn rescue(id: &str, cause: Cause) -> AccessRecord<'_> {
        let record = failure(id, "r", cause);
        AccessRecord { status: 200, cause: None, rescue: Some((By::Stale, cause)), ..record }
    }

    /// The identifiers that are kept, the newest first.
    fn ids(ring: &Ring) -> Vec<String> {
        ring.newest_first(None).iter().map(|record| record.request_id.to_string()).collect()
    }

    #[test]
    fn what_went_well_is_not_kept() {
        let now = Instant::now();
        let ring = Ring::new(["web"].into_iter(), now);
        ring.note(AccessRecord { status: 404, cause: None, ..failure("a", "r", Cause::DnsError) }, now);
        assert_eq!(ids(&ring), Vec::<String>::new());
        ring.note(AccessRecord { status: 500, cause: None, ..failure("b", "r", Cause::DnsError) }, now);
        assert_eq!(ids(&ring), ["b"]);
    }

    #[test]
    fn rescues_do_not_push_out_failures() {
        let start = Instant::now();
        let ring = Ring::new(["web"].into_iter(), start);
        ring.note(failure("f", "r", Cause::DnsError), start);
        for at in 0..5000 {
            let now = start + Duration::from_millis(at * 30);
            ring.note(rescue(&format!("r{at}"), Cause::DnsError), now);
        }
        let kept = ids(&ring);
        assert_eq!(kept.len(), RECORDS_MAX + 1);
        assert_eq!(kept.last().unwrap(), "f");
        assert!(ring.find("f").is_some() && ring.find("r1").is_none());
    }

    #[test]
    fn a_flood_displaces_itself_before_another_cause_or_route() {
        let start = Instant::now();
        let ring = Ring::new(["web"].into_iter(), start);
        ring.note(failure("rare", "a", Cause::DnsError), start);
        ring.note(failure("quiet", "b", Cause::ConnectionRefused), start);
        for at in 0..1000 {
            let now = start + Duration::from_millis(at * 40);
            ring.note(failure(&format!("x{at}"), "a", Cause::ConnectionRefused), now);
        }
        let kept = ids(&ring);
        assert_eq!(kept.len(), RECORDS_MAX);
        assert_eq!(kept.first().unwrap(), "x999");
        assert_eq!(&kept[RECORDS_MAX - 2..], ["quiet", "rare"]);
    }

    #[test]
    fn a_cause_on_many_routes_does_not_push_out_another() {
        let start = Instant::now();
        let ring = Ring::new(["web"].into_iter(), start);
        ring.note(failure("rare", "a", Cause::DnsError), start);
        for at in 0..1000 {
            let now = start + Duration::from_millis(at * 40);
            ring.note(failure("x", &format!("route{at}"), Cause::ConnectionRefused), now);
        }
        assert!(ring.find("rare").is_some());
    }

    #[test]
    fn beyond_so_many_a_second_they_are_only_counted() {
        let start = Instant::now();
        let ring = Ring::new(["web"].into_iter(), start);
        for _ in 0..100 {
            ring.note(rescue("r", Cause::DnsError), start);
        }
        assert_eq!((ids(&ring).len() as u64, ring.skipped()), (PER_SECOND_MAX, 100 - PER_SECOND_MAX));
        ring.note(rescue("next", Cause::DnsError), start + Duration::from_secs(1));
        assert_eq!(ids(&ring).first().unwrap(), "next");
    }

    #[test]
    fn an_upstream_that_is_gone_takes_its_records_with_it() {
        let now = Instant::now();
        let ring = Ring::new(["web", "old"].into_iter(), now);
        ring.note(failure("a", "r", Cause::DnsError), now);
        ring.note(AccessRecord { upstream: "old".into(), ..failure("b", "r", Cause::DnsError) }, now);
        ring.hold(["web", "new"].into_iter());
        assert_eq!(ids(&ring), ["a"]);
        ring.note(AccessRecord { upstream: "old".into(), ..failure("late", "r", Cause::DnsError) }, now);
        assert_eq!(ids(&ring), ["a"], "a request that ends after the reload makes no new place");
        assert_eq!(ring.newest_first(Some("new")).len(), 0);
    }

    #[test]
    fn long_texts_are_cut() {
        let now = Instant::now();
        let ring = Ring::new(["web"].into_iter(), now);
        let path = "ä".repeat(TEXT_BYTES_MAX);
        ring.note(AccessRecord { path: path.into(), ..failure("a", "r", Cause::DnsError) }, now);
        let kept = ring.find("a").unwrap();
        assert_eq!(kept.path.len(), TEXT_BYTES_MAX + '…'.len_utf8());
    }
}
