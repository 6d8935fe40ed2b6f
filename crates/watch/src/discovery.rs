//! One name of an upstream as a service discovery of Pingora's kind: a host with a port, or a service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use goodgate_failure::Cause;
use goodgate_upstream::{Address, BackendAddress, DnsPolicy, FoundAddress};
use hickory_resolver::proto::rr::Name;
use parking_lot::Mutex;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora_error::{Error, ErrorType, Result};
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;
use tokio::task::JoinSet;

use crate::resolver::{ADDRESSES_MAX, Answer, Failure, Resolver, Rest};
use crate::service::{Offer, arrange};

/// A lookup that failed is repeated after this long.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So many targets of a service are looked up at a time.
const AT_A_TIME: usize = 16;

/// What is looked up, and what the last lookup gave.
pub(crate) struct NameDiscovery {
    resolver: Resolver,
    policy: DnsPolicy,
    address: BackendAddress,
    last: Mutex<Last>,
    /// The addresses that the targets of a service had.
    targets: Mutex<BTreeMap<Name, Target>>,
    /// Of the last lookup, what had not been answered yet.
    rest: tokio::sync::Mutex<Option<(Answer<IpAddr>, Rest)>>,
}

/// What the trait has no room for.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    /// How long the last answer holds.
    pub(crate) holds: Duration,
    /// Why there was none.
    pub(crate) failure: Option<(Cause, String)>,
    pub(crate) left_out: usize,
    /// Targets whose lookups fail.
    pub(crate) unresolved: Vec<String>,
}

/// The addresses of one family that came after those of the other.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) is_ipv6: bool,
    /// None came if it is empty.
    pub(crate) found: Vec<FoundAddress>,
}

#[derive(Clone, Debug)]
struct Target {
    addresses: Vec<IpAddr>,
    /// Its lookups have failed since then.
    failing_since: Option<Instant>,
}

impl std::fmt::Debug for NameDiscovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NameDiscovery").field("address", &self.address).finish_non_exhaustive()
    }
}

impl NameDiscovery {
    pub(crate) fn new(resolver: Resolver, policy: &DnsPolicy, address: &BackendAddress) -> Self {
        let last = Last { holds: AGAIN_AFTER, failure: None, left_out: 0, unresolved: Vec::new() };
        Self {
            resolver,
            policy: policy.clone(),
            address: address.clone(),
            last: Mutex::new(last),
            targets: Mutex::default(),
            rest: tokio::sync::Mutex::default(),
        }
    }

    /// The same under other settings.
    pub(crate) fn renewed(&self, resolver: Resolver, policy: &DnsPolicy) -> Self {
        let targets = Mutex::new(self.targets.lock().clone());
        Self { targets, ..Self::new(resolver, policy, &self.address) }
    }

    pub(crate) fn last(&self) -> Last {
        self.last.lock().clone()
    }

    /// Whether a part of the last lookup has not been answered yet.
    pub(crate) async fn has_rest(&self) -> bool {
        self.rest.lock().await.is_some()
    }

    /// Waits for the rest of the last lookup. None: there is none.
    pub(crate) async fn rest(&self) -> Option<Late> {
        let (first, rest) = self.rest.lock().await.take()?;
        let BackendAddress::Name { port, .. } = &self.address else { return None };
        let is_ipv6 = first.found.first().is_some_and(IpAddr::is_ipv4);
        Some(Late { is_ipv6, found: rest.await.map_or(Vec::new(), |answer| at_port(answer, *port).found) })
    }

    async fn look_up(&self) -> std::result::Result<(Answer<FoundAddress>, Vec<String>), Failure> {
        let name = |text: &str| Name::from_ascii(text).map_err(|error| Failure::error(error.to_string()));
        match &self.address {
            BackendAddress::Name { host, port } => {
                let (answer, rest) = self.resolver.addresses(name(host)?).await?;
                *self.rest.lock().await = rest.map(|rest| (answer.clone(), rest));
                Ok((at_port(answer, *port), Vec::new()))
            }
            BackendAddress::Service(service) => self.service(name(service)?).await,
            BackendAddress::Ip(_) | BackendAddress::Unix(_) => {
                Err(Failure::error("an address is not looked up"))
            }
        }
    }

    async fn service(
        &self,
        service: Name,
    ) -> std::result::Result<(Answer<FoundAddress>, Vec<String>), Failure> {
        let records = self.resolver.records(service).await?;
        let mut targets: Vec<Name> = records.found.iter().map(|record| record.target.clone()).collect();
        targets.sort_unstable();
        targets.dedup();
        let mut ttl = records.ttl;
        let mut left_out = records.left_out;
        let mut unresolved = Vec::new();
        let mut why = None;
        let mut known = BTreeMap::new();
        for (target, answer) in self.look_up_all(targets).await {
            let addresses = match answer {
                Ok(answer) => {
                    ttl = ttl.min(answer.ttl);
                    left_out += answer.left_out;
                    Target { addresses: answer.found, failing_since: None }
                }
                Err(failure) => {
                    ttl = ttl.min(AGAIN_AFTER);
                    unresolved.push(target.to_string());
                    why = Some(failure);
                    self.kept(&target)
                }
            };
            known.insert(target, addresses);
        }
        let offer = |record: &hickory_resolver::proto::rr::rdata::SRV| Offer {
            priority: record.priority,
            weight: record.weight,
            port: record.port,
            addresses: known.get(&record.target).map(|target| target.addresses.clone()).unwrap_or_default(),
        };
        let mut found = arrange(&records.found.iter().map(offer).collect::<Vec<_>>());
        left_out += found.len().saturating_sub(ADDRESSES_MAX);
        found.truncate(ADDRESSES_MAX);
        *self.targets.lock() = known;
        match why {
            Some(failure) if found.is_empty() => Err(failure),
            _ => Ok((Answer { found, ttl, left_out }, unresolved)),
        }
    }

    async fn look_up_all(
        &self,
        targets: Vec<Name>,
    ) -> Vec<(Name, std::result::Result<Answer<IpAddr>, Failure>)> {
        let mut answers = Vec::new();
        let mut lookups = JoinSet::new();
        for target in targets {
            if lookups.len() == AT_A_TIME {
                answers.extend(lookups.join_next().await.and_then(std::result::Result::ok));
            }
            let resolver = self.resolver.clone();
            lookups.spawn(async move {
                let answer = resolver.addresses(target.clone()).await;
                (target, answer.map(|(answer, _)| answer))
            });
        }
        while let Some(answer) = lookups.join_next().await {
            answers.extend(answer.ok());
        }
        answers
    }

    /// What a target had before its lookups began to fail, for as long as that may be used.
    fn kept(&self, target: &Name) -> Target {
        let now = Instant::now();
        let known = self.targets.lock().get(target).cloned();
        let known = known.unwrap_or(Target { addresses: Vec::new(), failing_since: None });
        let since = known.failing_since.unwrap_or(now);
        let is_over = now.saturating_duration_since(since) >= self.policy.keep;
        let addresses = if is_over { Vec::new() } else { known.addresses };
        Target { addresses, failing_since: Some(since) }
    }
}

#[async_trait]
impl ServiceDiscovery for NameDiscovery {
    async fn discover(&self) -> Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        match self.look_up().await {
            Ok((answer, unresolved)) => {
                let holds = self.policy.holds(answer.ttl);
                *self.last.lock() = Last { holds, failure: None, left_out: answer.left_out, unresolved };
                Ok((answer.found.into_iter().filter_map(backend).collect(), HashMap::new()))
            }
            Err(Failure { cause, why, .. }) => {
                let failure = Some((cause, why.clone()));
                *self.last.lock() = Last { holds: AGAIN_AFTER, failure, left_out: 0, unresolved: Vec::new() };
                Error::e_explain(ErrorType::Custom(cause.name()), why)
            }
        }
    }
}

fn at_port(answer: Answer<IpAddr>, port: u16) -> Answer<FoundAddress> {
    let Answer { found, ttl, left_out } = answer;
    let at = |ip| FoundAddress::plain(Address::Ip(SocketAddr::new(ip, port)));
    Answer { found: found.into_iter().map(at).collect(), ttl, left_out }
}

/// Pingora's backend for an address, with what the lookup said of it. The weight is ours to apply.
fn backend(found: FoundAddress) -> Option<Backend> {
    let Address::Ip(address) = found.address else {
        return None;
    };
    let mut ext = http::Extensions::default();
    ext.insert(found);
    Some(Backend { addr: PingoraAddress::Inet(address), weight: 1, ext })
}
