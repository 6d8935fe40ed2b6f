//! The form in which an upstream's memory is written down: plain words and Unix times. Times are read relative to
//! `written_ms`, so that a system clock that was wrong when they were written does not matter.

use std::num::NonZeroU16;
use std::time::{Duration, Instant, SystemTime};

use goodgate_config::added_backend;
use goodgate_upstream::{
    Address, BackendAddress, BackendMemory, BackendSpec, Changed, Condition, FoundAddress, Mode, Orders,
    Upstream, Why,
};
use serde::{Deserialize, Serialize};

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: Instant,
    pub(super) system: SystemTime,
}

/// When a file was written, for the process that reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub(super) now: Instant,
    written_ms: u64,
    pub(super) age: Duration,
}

/// No time in the file is believed to be further ahead. The policy of the upstream may say less.
const SPAN_MAX: Duration = Duration::from_hours(24);

/// The whole file.
#[derive(Debug, Deserialize)]
pub(super) struct Form {
    pub(super) written_ms: u64,
    pub(super) upstreams: Vec<UpstreamForm>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct UpstreamForm {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    backends: Vec<BackendForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<NameForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changed: Vec<ChangedForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct BackendForm {
    address: String,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    since_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    #[serde(default)]
    strikes: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_close_ms: Option<u64>,
}

#[derive(Debug, Deserialize, Serialize)]
struct NameForm {
    name: String,
    found: Vec<FoundForm>,
}

#[derive(Debug, Deserialize, Serialize)]
struct FoundForm {
    address: String,
    #[serde(default)]
    level: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<NonZeroU16>,
}

#[derive(Debug, Deserialize, Serialize)]
struct ChangedForm {
    entry: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<(NonZeroU16, NonZeroU16)>,
    since_ms: u64,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { now: Instant::now(), system: SystemTime::now() }
    }

    /// As a Unix time.
    pub(super) fn millis(&self, at: Instant) -> u64 {
        let system = if at >= self.now {
            self.system.checked_add(at - self.now)
        } else {
            self.system.checked_sub(self.now - at)
        };
        let since = system.and_then(|system| system.duration_since(SystemTime::UNIX_EPOCH).ok());
        // To a tenth of a second: the two clocks drift, and what has not changed is not to look new.
        let tenths = since.unwrap_or_default().as_millis().saturating_add(50) / 100;
        u64::try_from(tenths * 100).unwrap_or(u64::MAX)
    }
}

impl Past {
    pub(super) fn new(written_ms: u64, clock: &Clock) -> Self {
        let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(written_ms));
        // A clock that was set back makes it new, not old.
        let age = written.and_then(|written| clock.system.duration_since(written).ok()).unwrap_or_default();
        Self { now: clock.now, written_ms, age }
    }

    /// A time of the file by this process's clock: the span between it and the writing counts, not the time itself,
    /// which the system clock of that moment gave.
    fn instant(&self, millis: u64) -> Instant {
        let moved = if let Some(left) = millis.checked_sub(self.written_ms) {
            let left = Duration::from_millis(left).saturating_sub(self.age);
            self.now.checked_add(left.min(SPAN_MAX))
        } else {
            let passed = Duration::from_millis(self.written_ms.saturating_sub(millis));
            self.now.checked_sub(passed.saturating_add(self.age))
        };
        moved.unwrap_or(self.now)
    }
}

impl UpstreamForm {
    pub(super) fn of(upstream: &Upstream, clock: &Clock) -> Self {
        let memory = upstream.remember(clock.now);
        let orders = &memory.orders;
        let mut changed: Vec<ChangedForm> =
            orders.changes().map(|(entry, changed)| ChangedForm::of(entry, changed, clock)).collect();
        // So that the same orders give the same text.
        changed.sort_by(|a, b| (&a.entry, &a.address).cmp(&(&b.entry, &b.address)));
        Self {
            name: upstream.spec().name.clone(),
            backends: memory.backends.iter().map(|backend| BackendForm::of(backend, clock)).collect(),
            names: memory.names.iter().map(|(name, found)| NameForm::of(name, found)).collect(),
            changed,
            added: orders.added().iter().map(with_scheme).collect(),
            removed: orders.removed().iter().map(ToString::to_string).collect(),
        }
    }

    /// What was ordered; what cannot be read is left out.
    pub(super) fn orders(&self, upstream: &Upstream, past: &Past) -> Orders {
        let spec = |text: &String| added_backend(text, &upstream.spec().added).ok();
        let entry = |text: &String| spec(text).map(|spec| spec.address);
        let changed = self.changed.iter().filter_map(|form| Some((entry(&form.entry)?, form.read(past)?)));
        Orders::written_down(
            changed,
            self.added.iter().filter_map(spec).collect(),
            self.removed.iter().filter_map(entry).collect(),
        )
    }

    pub(super) fn names(&self) -> Vec<(BackendAddress, Vec<FoundAddress>)> {
        self.names.iter().filter_map(NameForm::read).collect()
    }

    pub(super) fn backends(&self, past: &Past) -> Vec<BackendMemory> {
        self.backends.iter().filter_map(|form| form.read(past)).collect()
    }
}

impl BackendForm {
    fn of(memory: &BackendMemory, clock: &Clock) -> Self {
        let (state, why, until) = match memory.condition {
            Condition::Up => ("up", None, None),
            Condition::Checking => ("checking", None, None),
            Condition::Ejected { until, why } => ("ejected", Some(why), Some(until)),
            Condition::Trial { why } => ("ejected", Some(why), None),
            Condition::Down { cause, .. } => ("down", Some(Why::Failure(cause)), None),
            Condition::Draining { until } => ("draining", None, until),
        };
        Self {
            address: memory.address.to_string(),
            state: state.to_owned(),
            why: why.map(|why| why.name().to_owned()),
            since_ms: clock.millis(memory.since),
            until_ms: until.map(|until| clock.millis(until)),
            strikes: memory.strikes,
            idle_close_ms: memory.idle_close.and_then(|limit| u64::try_from(limit.as_millis()).ok()),
        }
    }

    fn read(&self, past: &Past) -> Option<BackendMemory> {
        let why = self.why.as_deref().and_then(Why::of);
        let until = self.until_ms.map(|until| past.instant(until));
        let condition = match (self.state.as_str(), why) {
            ("up" | "checking", _) => Condition::Up,
            ("ejected", Some(why)) => Condition::Ejected { until: until.unwrap_or(past.now), why },
            ("down", Some(Why::Failure(cause))) => Condition::Down { passes: 0, cause },
            ("draining", _) => Condition::Draining { until },
            _ => return None,
        };
        Some(BackendMemory {
            address: address(&self.address)?,
            condition,
            since: past.instant(self.since_ms).min(past.now),
            strikes: self.strikes,
            idle_close: self.idle_close_ms.filter(|limit| *limit > 0).map(Duration::from_millis),
        })
    }
}

impl NameForm {
    fn of(name: &BackendAddress, found: &[FoundAddress]) -> Self {
        let form = |found: &FoundAddress| FoundForm {
            address: found.address.to_string(),
            level: found.level,
            weight: found.weight,
        };
        Self { name: name.to_string(), found: found.iter().map(form).collect() }
    }

    fn read(&self) -> Option<(BackendAddress, Vec<FoundAddress>)> {
        let name = goodgate_config::backend_address(&self.name)?;
        let read = |form: &FoundForm| {
            let weight = form.weight.filter(|weight| weight.get() <= BackendSpec::WEIGHT_MAX);
            Some(FoundAddress { address: address(&form.address)?, level: form.level, weight })
        };
        let found: Vec<FoundAddress> = self.found.iter().filter_map(read).collect();
        (name.is_name() && !found.is_empty()).then_some((name, found))
    }
}

impl ChangedForm {
    fn of(entry: &BackendAddress, changed: &Changed, clock: &Clock) -> Self {
        Self {
            entry: entry.to_string(),
            address: changed.address.map(|address| address.to_string()),
            mode: changed.mode.name().to_owned(),
            weight: changed.weight,
            since_ms: clock.millis(changed.since),
        }
    }

    fn read(&self, past: &Past) -> Option<Changed> {
        let is_good = |(weight, _): &(NonZeroU16, NonZeroU16)| weight.get() <= BackendSpec::WEIGHT_MAX;
        Some(Changed {
            address: match &self.address {
                None => None,
                Some(text) => Some(address(text)?),
            },
            mode: Mode::of(&self.mode)?,
            weight: self.weight.filter(is_good),
            since: past.instant(self.since_ms).min(past.now),
        })
    }
}

/// An added backend as it would be written in a configuration, whatever the upstream's `tls`.
fn with_scheme(spec: &BackendSpec) -> String {
    let scheme = if spec.tls_name.is_some() { "https" } else { "http" };
    match &spec.address {
        BackendAddress::Ip(_) | BackendAddress::Name { .. } => format!("{scheme}://{}", spec.address),
        BackendAddress::Service(_) | BackendAddress::Unix(_) => spec.address.to_string(),
    }
}

fn address(text: &str) -> Option<Address> {
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') && path.len() < 108 => Some(Address::unix(path)),
        Some(_) => None,
        None => text.parse().ok().map(Address::Ip),
    }
}
