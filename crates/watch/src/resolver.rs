//! Looking up names, asynchronously, with the time for which the answer holds.
//!
//! A resolver keeps no answers: what is believed is kept in the upstreams. It is made for the settings of one upstream,
//! the text of `/etc/resolv.conf` and the state of `/etc/hosts`, and replaced when one of them changes.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goodgate_failure::Cause;
use goodgate_upstream::{Address, DnsPolicy, Family};
use hickory_resolver::Hosts;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use log::warn;
use tokio::time::timeout;

use crate::client::DnsClient;
use crate::hosts::{self, FileStamp, HOSTS};

/// Where the machine says who is asked.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// More of it is not read.
const CONF_BYTES_MAX: u64 = 64 << 10;
/// One try of a lookup may take this long, and there are two.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
const TRIES: usize = 2;
/// How long an address of the hosts file holds: its changes are noticed before.
const HOSTS_TTL: Duration = Duration::from_hours(1);
/// How long the addresses of one family wait for those of the other (the resolution delay of RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(200);
/// Of one name so many addresses are taken, and of one service so many records: the first in order.
pub(crate) const ADDRESSES_MAX: usize = 1000;
pub(crate) const RECORDS_MAX: usize = 100;

/// Asks the name servers of one upstream.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    /// None, if nobody can be asked.
    client: Option<DnsClient>,
    hosts: Arc<Hosts>,
    /// What a short name is short for.
    search: Vec<Name>,
    ndots: usize,
    made_for: MadeFor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct MadeFor {
    servers: Vec<SocketAddr>,
    search: Option<Vec<String>>,
    family: Family,
    /// The text of `/etc/resolv.conf`, where its servers are asked; none: it cannot be read.
    conf: Option<Vec<u8>>,
    hosts: Option<FileStamp>,
}

/// The rest of a lookup, which has not ended with the first family.
pub(crate) type Rest = Pin<Box<dyn Future<Output = Result<Answer<IpAddr>, Failure>> + Send>>;

/// What a lookup gave.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T> {
    pub(crate) found: Vec<T>,
    pub(crate) ttl: Duration,
    /// How many were left out: beyond the bound, or nothing that one can connect to.
    pub(crate) left_out: usize,
}

/// Why it gave nothing.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) why: String,
    /// There is nothing of what was asked for, which for one of two families is no fault.
    is_empty: bool,
}

impl Failure {
    pub(crate) fn error(why: impl Into<String>) -> Self {
        Self { cause: Cause::DnsError, why: why.into(), is_empty: false }
    }

    /// Of the failures of both families the one that says more.
    fn or(self, other: Self) -> Self {
        if self.is_empty { other } else { self }
    }
}

impl Resolver {
    /// A resolver for these settings; `conf` is [`RESOLV_CONF`] but for tests.
    pub(crate) fn new(policy: &DnsPolicy, conf: &Path) -> Self {
        let made_for = MadeFor::of(policy, conf);
        Self::with(made_for, hosts::read(Path::new(HOSTS)))
    }

    fn with(made_for: MadeFor, hosts: Arc<Hosts>) -> Self {
        let client = parts(&made_for).and_then(|(config, options)| {
            let search = config.domain.iter().chain(&config.search).cloned().collect();
            Ok((DnsClient::new(&config, &options)?, search, options.ndots))
        });
        let parts = client.map_err(
            |error| warn!(error = error.as_str(); "nobody can be asked for names: they do not resolve"),
        );
        match parts {
            Ok((client, search, ndots)) => Self { client: Some(client), hosts, search, ndots, made_for },
            Err(()) => Self { client: None, hosts, search: Vec::new(), ndots: 1, made_for },
        }
    }

    /// Whether a new one would be the same.
    pub(crate) fn is_current(&self, policy: &DnsPolicy, conf: &Path) -> bool {
        self.made_for == MadeFor::of(policy, conf)
    }

    /// The addresses of a name: those of the hosts file, or of the first name in the search list that has any. If one
    /// family is known and the other one takes long, the answer is what is known, and the rest of the lookup comes with it.
    pub(crate) async fn addresses(&self, name: Name) -> Result<(Answer<IpAddr>, Option<Rest>), Failure> {
        let own = hosts::addresses(&self.hosts, &name);
        if own.iter().any(|ip| self.made_for.family.takes(Address::Ip(SocketAddr::new(*ip, 0)))) {
            return Ok((answer(&own, HOSTS_TTL)?, None));
        }
        let mut failed = None;
        for candidate in self.candidates(&name) {
            match self.addresses_of(&candidate).await {
                Ok(found) => return Ok(found),
                Err(failure) => failed = Some(failed.unwrap_or(failure)),
            }
        }
        Err(failed.unwrap_or_else(|| Failure::error("it is no name")))
    }

    /// The addresses of a complete name, of both families if both are wanted.
    async fn addresses_of(&self, name: &Name) -> Result<(Answer<IpAddr>, Option<Rest>), Failure> {
        let client = self.client()?;
        let of = |kind| addresses_of(client.clone(), name.clone(), kind);
        match self.made_for.family {
            Family::Ipv4Only => Ok((of(RecordType::A).await?, None)),
            Family::Ipv6Only => Ok((of(RecordType::AAAA).await?, None)),
            Family::Any | Family::Ipv4First | Family::Ipv6First => {
                either(of(RecordType::A), of(RecordType::AAAA)).await
            }
        }
    }

    /// The complete names that a name may be short for, in order (resolv.conf(5)).
    fn candidates(&self, name: &Name) -> Vec<Name> {
        let mut complete = name.clone();
        complete.set_fqdn(true);
        if name.is_fqdn() {
            return vec![complete];
        }
        let mut names: Vec<Name> =
            self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
        let has_dots = usize::from(name.num_labels()) > self.ndots || name.is_localhost();
        let at = if has_dots { 0 } else { names.len() };
        names.insert(at, complete);
        names
    }

    /// The records of a service, in order.
    pub(crate) async fn records(&self, service: Name) -> Result<Answer<SRV>, Failure> {
        let answer =
            self.client()?.records(service, RecordType::SRV).await.map_err(|error| failure(&error))?;
        let record = |data: &RData| if let RData::SRV(record) = data { Some(record.clone()) } else { None };
        let all: Vec<SRV> = answer.answers().iter().filter_map(|one| record(&one.data)).collect();
        if all.iter().any(|record| record.target.is_root()) {
            return Err(Failure::error("the service is not offered: its target is the root"));
        }
        let mut found: Vec<SRV> = all.iter().filter(|record| record.port > 0).cloned().collect();
        if found.is_empty() {
            return Err(Failure::error(format!("none of {} records has a port", all.len())));
        }
        found.sort_by(|a, b| (a.priority, &a.target, a.port).cmp(&(b.priority, &b.target, b.port)));
        found.truncate(RECORDS_MAX);
        Ok(Answer { left_out: all.len() - found.len(), ttl: ttl(answer.valid_until()), found })
    }

    fn client(&self) -> Result<&DnsClient, Failure> {
        self.client.as_ref().ok_or_else(|| Failure::error("nobody can be asked: see `dns.resolver`"))
    }
}

/// The addresses of one family.
fn addresses_of(client: DnsClient, name: Name, kind: RecordType) -> Rest {
    Box::pin(async move {
        let records = client.records(name, kind).await.map_err(|error| failure(&error))?;
        let all: Vec<IpAddr> = records.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        answer(&all, ttl(records.valid_until()))
    })
}

/// What of these addresses one can connect to.
fn answer(all: &[IpAddr], ttl: Duration) -> Result<Answer<IpAddr>, Failure> {
    let good: BTreeSet<IpAddr> = all.iter().map(IpAddr::to_canonical).filter(is_usable).collect();
    if good.is_empty() {
        return Err(Failure::error(format!("none of {} addresses can be connected to", all.len())));
    }
    let found: Vec<IpAddr> = good.into_iter().take(ADDRESSES_MAX).collect();
    Ok(Answer { left_out: all.len().saturating_sub(found.len()), ttl, found })
}

/// The answers of both lookups; of one alone if the other one fails or takes long.
async fn either(mut one: Rest, mut other: Rest) -> Result<(Answer<IpAddr>, Option<Rest>), Failure> {
    let (first, mut second) = tokio::select! {
        first = &mut one => (first, other),
        first = &mut other => (first, one),
    };
    let first = match first {
        Ok(first) => first,
        Err(first) => return second.await.map(|answer| (answer, None)).map_err(|second| first.or(second)),
    };
    match timeout(RESOLUTION_DELAY, &mut second).await {
        Ok(Ok(second)) => Ok((first.and(second), None)),
        Ok(Err(_)) => Ok((first, None)),
        Err(_) => Ok((first, Some(second))),
    }
}

impl Answer<IpAddr> {
    /// Together with the addresses of the other family.
    pub(crate) fn and(self, other: Self) -> Self {
        let all: BTreeSet<IpAddr> = self.found.into_iter().chain(other.found).collect();
        let count = all.len();
        let found: Vec<IpAddr> = all.into_iter().take(ADDRESSES_MAX).collect();
        let left_out = self.left_out + other.left_out + count - found.len();
        Self { ttl: self.ttl.min(other.ttl), left_out, found }
    }
}

impl MadeFor {
    fn of(policy: &DnsPolicy, conf: &Path) -> Self {
        let is_own = !policy.servers.is_empty();
        Self {
            servers: policy.servers.clone(),
            search: policy.search.clone(),
            family: policy.family,
            conf: if is_own { None } else { read(conf) },
            hosts: FileStamp::of(Path::new(HOSTS)),
        }
    }
}

fn read(conf: &Path) -> Option<Vec<u8>> {
    goodgate_files::read_bounded(conf, CONF_BYTES_MAX).ok()
}

/// What the client is told. The error says why there is nobody to ask.
fn parts(made_for: &MadeFor) -> Result<(ResolverConfig, ResolverOpts), String> {
    let (mut config, mut options) = match &made_for.conf {
        _ if !made_for.servers.is_empty() => {
            let servers = made_for.servers.iter().map(name_server).collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
        }
        Some(text) => parse_resolv_conf(text).map_err(|error| format!("{RESOLV_CONF}: {error}"))?,
        None => return Err(format!("{RESOLV_CONF} cannot be read")),
    };
    if let Some(search) = &made_for.search {
        config.domain = None;
        config.search = search.iter().filter_map(|domain| Name::from_ascii(domain).ok()).collect();
    }
    options.cache_size = 0;
    options.timeout = TRY_TIMEOUT;
    options.attempts = TRIES;
    Ok((config, options))
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn ttl(valid_until: Instant) -> Duration {
    valid_until.saturating_duration_since(Instant::now())
}

/// Whether an address is one that a connection can be made to: not this machine as "any", not a group, and not one that
/// would need to know through which interface.
fn is_usable(ip: &IpAddr) -> bool {
    let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast && !is_link_local
}

fn failure(error: &NetError) -> Failure {
    let cause = if matches!(error, NetError::Timeout) { Cause::DnsTimeout } else { Cause::DnsError };
    let is_empty = matches!(error, NetError::Dns(DnsError::NoRecordsFound(_)));
    Failure { cause, why: why(error), is_empty }
}

/// The failure in fixed words, without a byte of the response.
fn why(error: &NetError) -> String {
    if let NetError::Dns(DnsError::NoRecordsFound(none)) = error {
        return format!("the response has no records: {}", none.response_code);
    }
    if let NetError::Io(error) = error {
        let number = error.raw_os_error();
        return number.map_or_else(|| error.kind().into(), io::Error::from_raw_os_error).to_string();
    }
    let known = [
        (matches!(error, NetError::Timeout), "no response in time"),
        (matches!(error, NetError::NoConnections), "no name server can be reached"),
        (matches!(error, NetError::Busy), "too many lookups at once"),
        (matches!(error, NetError::Truncated), "the response is truncated"),
    ];
    let found = known.into_iter().find_map(|(is_it, words)| is_it.then_some(words));
    found.unwrap_or("the response cannot be used").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> DnsPolicy {
        DnsPolicy {
            servers: Vec::new(),
            search: None,
            family: Family::Any,
            ttl_min: Duration::ZERO,
            ttl_max: Duration::ZERO,
            keep: Duration::ZERO,
        }
    }

    const CONF: &str = "nameserver 127.0.0.53\nsearch a.test b.test\noptions ndots:3\n";

    fn of(policy: &DnsPolicy, conf: &str) -> Result<(ResolverConfig, ResolverOpts), String> {
        let conf = (!conf.is_empty()).then(|| conf.into());
        parts(&MadeFor { conf, ..MadeFor::of(policy, Path::new("/nonexistent")) })
    }

    fn search(config: &ResolverConfig) -> Vec<String> {
        config.search.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn resolv_conf_says_who_is_asked_and_what_short_names_are_short_for() {
        let (config, options) = of(&policy(), CONF).unwrap();
        assert_eq!(config.name_servers[0].ip, IpAddr::from([127, 0, 0, 53]));
        assert_eq!((search(&config), options.ndots), (vec!["a.test".to_owned(), "b.test".to_owned()], 3));
        assert_eq!((options.timeout, options.attempts, options.cache_size), (TRY_TIMEOUT, TRIES, 0));
    }

    #[test]
    fn own_servers_have_no_search_domains_but_those_that_are_named() {
        let own = DnsPolicy { servers: vec!["127.0.0.1:54".parse().unwrap()], ..policy() };
        let (config, _) = of(&own, CONF).unwrap();
        assert_eq!((search(&config).len(), config.name_servers[0].connections[0].port), (0, 54));
        let named = DnsPolicy { search: Some(vec!["c.test".to_owned()]), ..own };
        assert_eq!(search(&of(&named, CONF).unwrap().0), ["c.test"]);
        let instead = DnsPolicy { servers: Vec::new(), ..named };
        assert_eq!(search(&of(&instead, CONF).unwrap().0), ["c.test"], "they replace those of the file");
    }

    #[test]
    fn a_file_without_servers_and_no_file_say_why_nobody_is_asked() {
        assert!(of(&policy(), "").unwrap_err().contains("cannot be read"));
        assert!(of(&policy(), "search a.test\n").unwrap_err().contains("no nameservers"));
        for text in ["\0\u{1}", "nameserver", "nameserver x\noptions ndots:999999999999", "search \u{e9}..a"]
        {
            let _ = of(&policy(), text);
        }
    }

    #[test]
    fn a_changed_file_is_noticed_and_a_changed_setting_too() {
        let folder = std::env::temp_dir().join(format!("goodgate-resolv-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let conf = folder.join("resolv.conf");
        std::fs::write(&conf, CONF).unwrap();
        let resolver = Resolver::new(&policy(), &conf);
        assert!(resolver.is_current(&policy(), &conf) && resolver.client.is_some());
        std::fs::write(&conf, "nameserver 127.0.0.54\n").unwrap();
        assert!(!resolver.is_current(&policy(), &conf));
        let resolver = Resolver::new(&policy(), &conf);
        assert!(!resolver.is_current(&DnsPolicy { family: Family::Ipv4Only, ..policy() }, &conf));
        let own = DnsPolicy { servers: vec!["127.0.0.1:54".parse().unwrap()], ..policy() };
        let resolver = Resolver::new(&own, &conf);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(resolver.is_current(&own, &conf), "the file does not matter then");
        assert!(Resolver::new(&policy(), &conf).client.is_none());
    }

    #[test]
    fn addresses_that_lead_nowhere_are_not_used() {
        let usable = |text: &str| is_usable(&text.parse::<IpAddr>().unwrap().to_canonical());
        for text in ["127.0.0.1", "10.0.0.1", "::1", "2001:db8::1", "::ffff:10.0.0.1", "169.254.0.1"] {
            assert!(usable(text), "{text}");
        }
        for text in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1", "::ffff:0.0.0.0"]
        {
            assert!(!usable(text), "{text}");
        }
    }

    type Asked = std::sync::Arc<parking_lot::Mutex<Vec<String>>>;

    /// A name server that knows one name, and notes what it is asked.
    async fn server(knows: &'static str) -> (u16, Asked) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let asked = Asked::default();
        let noting = Asked::clone(&asked);
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((_, client)) = socket.recv_from(&mut packet).await {
                let (mut at, mut labels) = (12, Vec::new());
                while packet[at] > 0 {
                    let end = at + 1 + usize::from(packet[at]);
                    labels.push(String::from_utf8_lossy(&packet[at + 1..end]).into_owned());
                    at = end;
                }
                let (name, end) = (labels.join("."), at + 5);
                let is_known = name == knows && packet[at + 2] == 1;
                let mut answer = packet[..2].to_vec();
                answer.extend([
                    0x81,
                    if name == knows { 0x80 } else { 0x83 },
                    0,
                    1,
                    0,
                    u8::from(is_known),
                    0,
                    0,
                    0,
                    0,
                ]);
                answer.extend(&packet[12..end]);
                if is_known {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 127, 0, 0, 7]);
                }
                noting.lock().push(name);
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        (port, asked)
    }

    #[tokio::test]
    async fn a_short_name_is_asked_for_in_the_domains_of_resolv_conf_in_their_order() {
        let (port, asked) = server("app.b.test").await;
        let made_for = MadeFor {
            conf: Some(b"nameserver 127.0.0.1\nsearch a.test b.test\noptions ndots:2\n".to_vec()),
            ..MadeFor::of(&policy(), Path::new("/nonexistent"))
        };
        let (mut config, options) = parts(&made_for).unwrap();
        // The file has no place for a port.
        let connections = config.name_servers.iter_mut().flat_map(|server| &mut server.connections);
        connections.for_each(|connection| connection.port = port);
        let client = DnsClient::new(&config, &options);
        let resolver = Resolver { client: client.ok(), ..Resolver::with(made_for, Arc::default()) };
        let (answer, _) = resolver.addresses(Name::from_ascii("app").unwrap()).await.unwrap();
        assert_eq!(answer.found, [IpAddr::from([127, 0, 0, 7])]);
        assert!((8..=9).contains(&answer.ttl.as_secs()), "{:?}", answer.ttl);
        let mut names = std::mem::take(&mut *asked.lock());
        names.dedup();
        assert_eq!(names, ["app.a.test", "app.b.test"]);
        let failure = resolver.addresses(Name::from_ascii("app.").unwrap()).await.map(|_| ()).unwrap_err();
        assert_eq!((failure.cause, asked.lock().iter().all(|name| name == "app")), (Cause::DnsError, true));
        let dotted = Name::from_ascii("app.b").unwrap();
        assert!(resolver.addresses(dotted).await.is_err());
        assert!(asked.lock().contains(&"app.b.a.test".to_owned()), "ndots:2 has one dot searched first");
    }

    #[tokio::test]
    async fn a_name_of_the_hosts_file_is_not_asked_for_and_its_changes_are_noticed() {
        let folder = std::env::temp_dir().join(format!("goodgate-hosts-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("hosts");
        std::fs::write(&file, "127.0.0.8 app\n127.0.0.9 app other.test # a comment\n").unwrap();
        let before = FileStamp::of(&file);
        let made_for = MadeFor::of(&policy(), Path::new("/nonexistent"));
        let resolver = Resolver::with(made_for, hosts::read(&file));
        let (answer, rest) = resolver.addresses(Name::from_ascii("app").unwrap()).await.unwrap();
        assert_eq!(answer.found, [IpAddr::from([127, 0, 0, 8]), IpAddr::from([127, 0, 0, 9])]);
        assert!(rest.is_none());
        assert!(resolver.addresses(Name::from_ascii("third").unwrap()).await.is_err());
        std::fs::write(&file, "127.0.0.8 app third\n").unwrap();
        assert_ne!(FileStamp::of(&file), before);
        let again = folder.join("again");
        std::fs::write(&again, "127.0.0.8 app third\n").unwrap();
        let before = FileStamp::of(&file);
        std::fs::rename(again, &file).unwrap();
        assert_ne!(FileStamp::of(&file), before, "another file of the same length");
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(FileStamp::of(&file), None);
    }
}
