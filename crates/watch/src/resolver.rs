//! Looking up names, asynchronously, with the time for which the answer holds.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use goodgate_failure::Cause;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use log::warn;
use parking_lot::Mutex;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora_error::{Error, ErrorType, Result};
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;

/// One try of a lookup may take this long, and there are two.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
const TRIES: usize = 2;
/// An answer holds at least and at most this long, whatever its TTL says.
pub(crate) const HOLDS_MIN: Duration = Duration::from_secs(1);
pub(crate) const HOLDS_MAX: Duration = Duration::from_mins(1);

/// The resolver of the process. It keeps no answers: what is believed is kept in the upstreams.
#[derive(Clone, Debug)]
pub struct Resolver(TokioResolver);

impl Resolver {
    /// A resolver that asks the given name servers, or those of `/etc/resolv.conf` if there are none.
    pub fn new(servers: &[SocketAddr]) -> std::io::Result<Self> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().unwrap_or_else(|error| {
                // Only names need it, and perhaps there are none.
                warn!(error:% = error; "/etc/resolv.conf cannot be used: names will not resolve");
                of_servers(&[])
            })
        } else {
            of_servers(servers)
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = TRY_TIMEOUT;
        options.attempts = TRIES;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(Self(builder.build().map_err(std::io::Error::other)?))
    }

    /// All addresses of a name and how long they hold, or why there are none.
    async fn look_up(&self, host: &str) -> std::result::Result<(Vec<IpAddr>, Duration), Cause> {
        let answer = self.0.lookup_ip(host).await.map_err(|error| cause(&error))?;
        let holds = answer.valid_until().saturating_duration_since(Instant::now());
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() { Err(Cause::DnsError) } else { Ok((addresses, holds)) }
    }
}

fn of_servers(servers: &[SocketAddr]) -> ResolverBuilder<TokioRuntimeProvider> {
    let servers = servers.iter().map(name_server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the list is open; every other failure is an error")]
fn cause(error: &NetError) -> Cause {
    match error {
        NetError::Timeout => Cause::DnsTimeout,
        _ => Cause::DnsError,
    }
}

/// One name of an upstream as a service discovery of Pingora's kind.
#[derive(Debug)]
pub(crate) struct NameDiscovery {
    resolver: Resolver,
    host: String,
    port: u16,
    last: Arc<Mutex<Last>>,
}

/// What the trait has no room for: how long the last answer holds, and why there was none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub(crate) holds: Duration,
    pub(crate) failure: Option<Cause>,
}

impl NameDiscovery {
    pub(crate) fn new(resolver: Resolver, host: &str, port: u16) -> Self {
        let last = Last { holds: HOLDS_MIN, failure: None };
        Self { resolver, host: host.to_owned(), port, last: Arc::new(Mutex::new(last)) }
    }

    pub(crate) fn last(&self) -> Last {
        *self.last.lock()
    }
}

#[async_trait]
impl ServiceDiscovery for NameDiscovery {
    async fn discover(&self) -> Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        match self.resolver.look_up(&self.host).await {
            Ok((addresses, holds)) => {
                *self.last.lock() = Last { holds: holds.clamp(HOLDS_MIN, HOLDS_MAX), failure: None };
                Ok((
                    addresses.into_iter().map(|ip| backend(SocketAddr::new(ip, self.port))).collect(),
                    HashMap::new(),
                ))
            }
            Err(cause) => {
                *self.last.lock() = Last { holds: HOLDS_MIN, failure: Some(cause) };
                Error::e_explain(ErrorType::Custom(cause.name()), self.host.clone())
            }
        }
    }
}

/// Pingora's backend for an address. The weight is ours to apply.
fn backend(address: SocketAddr) -> Backend {
    Backend { addr: PingoraAddress::Inet(address), weight: 1, ext: http::Extensions::default() }
}
