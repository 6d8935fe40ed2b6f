//! What an upstream is told to be: plain values, built by `config`, applied by this room and by `watch`.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use goodgate_failure::Words;
use http::HeaderName;

use crate::{Address, Balance, BreakerPolicy, DnsPolicy, HashOn, OutlierPolicy, ProbePolicy, StickyPolicy};

/// One upstream as configured.
#[derive(Clone, Debug)]
pub struct UpstreamSpec {
    /// Its name: a metric label.
    pub name: String,
    /// How its requests are shared out.
    pub balance: Balance,
    /// What a consistent hash is made of.
    pub hash_on: HashOn,
    /// How clients are tied to the backend that they had first; none: they are not.
    pub sticky: Option<StickyPolicy>,
    /// How long a backend that comes into rotation takes to get its whole share; zero: it has it at once.
    pub slow_start: Duration,
    /// The `Host` that a backend is sent.
    pub host: HostHeader,
    /// Its backends as written; a name stands for all its addresses.
    pub backends: Vec<BackendSpec>,
    /// How names among them are looked up.
    pub dns: DnsPolicy,
    /// Active health checks; none if absent.
    pub probe: Option<ProbePolicy>,
    /// How many requests it gets at a time; none: as many as come.
    pub breaker: Option<BreakerPolicy>,
    /// Its time limits.
    pub timeouts: Timeouts,
    /// How backends that are spoken to over TLS prove who they are.
    pub tls: TlsPolicy,
    /// Whether a backend out of rotation is tried when no other is left.
    pub fail_open: bool,
    /// The largest share (0.0 to 1.0) of the backends that may be ejected although they answer; one always may.
    pub soft_ejections_max: f64,
    /// Who is ejected for answering worse than the others; none: nobody.
    pub outliers: Option<OutlierPolicy>,
    /// A field of answers by which a backend says that it wants no new requests.
    pub drain_header: Option<HeaderName>,
    /// What a backend that is added at run time has from the configuration.
    pub added: AddedBackend,
}

impl UpstreamSpec {
    /// An upstream without backends, that never ejects one and does nothing beyond sharing out.
    pub fn plain(name: &str, timeouts: Timeouts) -> Self {
        let ejection = EjectionPolicy {
            max_fails: 0,
            fail_timeout: Duration::from_secs(10),
            fail_timeout_max: Duration::from_secs(10),
            fail_on: Words::of(&[]),
            min_fail_share: 0.0,
        };
        Self {
            name: name.to_owned(),
            balance: Balance::RoundRobin,
            hash_on: HashOn::Uri,
            sticky: None,
            slow_start: Duration::ZERO,
            host: HostHeader::Client,
            backends: Vec::new(),
            dns: DnsPolicy::DEFAULT,
            probe: None,
            breaker: None,
            timeouts,
            tls: TlsPolicy { ca: None, verify: true, client: None },
            fail_open: true,
            soft_ejections_max: 0.5,
            outliers: None,
            drain_header: None,
            added: AddedBackend { ejection, has_tls: false, tls_name: None },
        }
    }
}

/// What a backend that is added at run time has from the configuration of its upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct AddedBackend {
    /// When live failures eject it.
    pub ejection: EjectionPolicy,
    /// Whether it is spoken to over TLS where its address does not say.
    pub has_tls: bool,
    /// The name that is proven instead of its own.
    pub tls_name: Option<String>,
}

/// TLS to backends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// Whose certificates are trusted; none: those that the machine trusts.
    pub ca: Option<Arc<CaBundle>>,
    /// Whether a backend must prove that it has the name that it is asked for.
    pub verify: bool,
    /// Who we say we are to backends that ask; none: nobody.
    pub client: Option<Arc<ClientIdentity>>,
}

/// A certificate with its chain and its key, in DER form; known to be readable and to belong together.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientIdentity {
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl ClientIdentity {
    /// An identity that has been checked: at least one certificate, our own first.
    pub fn new(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Self {
        Self { chain, key }
    }

    /// The certificates, our own first.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The private key. A secret.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Certificates of authorities in DER form; at least one, each known to be readable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CaBundle(Vec<Vec<u8>>);

impl CaBundle {
    /// A bundle of certificates in DER form that have been checked.
    pub fn new(certificates: Vec<Vec<u8>>) -> Self {
        Self(certificates)
    }

    /// The certificates.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.0
    }
}

/// One entry of `backends`.
#[derive(Clone, Debug)]
pub struct BackendSpec {
    /// Where it is.
    pub address: BackendAddress,
    /// Its share of the requests relative to the others, 1 to [`BackendSpec::WEIGHT_MAX`].
    pub weight: NonZeroU16,
    /// Used only when no other is in rotation, or all others are full.
    pub backup: bool,
    /// Requests that it may have under way; zero: any number.
    pub in_flight_max: u32,
    /// When live failures take it out of rotation.
    pub ejection: EjectionPolicy,
    /// The name that is sent and proven in the TLS handshake; none: it is spoken to without TLS. Not empty.
    pub tls_name: Option<String>,
}

impl BackendSpec {
    /// The largest weight. It bounds the length of the precomputed rotation.
    pub const WEIGHT_MAX: u16 = 1000;
}

/// An address as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A name to look up, and a port. Lower case; a trailing dot says that it is complete and short for nothing. It is
    /// shown without.
    Name {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A service that the DNS knows (RFC 2782), like `_http._tcp.app.internal`: addresses with ports, shares and an
    /// order. As with a name.
    Service(String),
    /// The absolute path of a Unix socket.
    Unix(String),
}

impl BackendAddress {
    /// Whether it must be looked up.
    pub const fn is_name(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::Service(_))
    }

    /// The address itself, where that is written.
    pub(crate) fn as_address(&self) -> Option<Address> {
        match self {
            Self::Ip(address) => Some(Address::Ip(*address)),
            Self::Unix(path) => Some(Address::unix(path)),
            Self::Name { .. } | Self::Service(_) => None,
        }
    }
}

/// The domain that offers a service: its name without the labels that say which one, and without a trailing dot.
pub fn domain_of(service: &str) -> &str {
    let mut rest = service.trim_end_matches('.');
    while rest.starts_with('_')
        && let Some((_, domain)) = rest.split_once('.')
    {
        rest = domain;
    }
    rest
}

impl std::fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{}:{port}", host.trim_end_matches('.')),
            Self::Service(name) => write!(f, "srv:{}", name.trim_end_matches('.')),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The `Host` that a backend is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// As the client sent it.
    Client,
    /// The backend's own address as written in the configuration.
    Backend,
    /// A fixed name.
    Name(String),
}

/// When live failures take a backend out of rotation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EjectionPolicy {
    /// Failures within `fail_timeout` that eject; 0 never ejects.
    pub max_fails: u32,
    /// The window that failures are counted in, and the length of the first ejection.
    pub fail_timeout: Duration,
    /// Each further ejection is twice as long as the one before, up to this.
    pub fail_timeout_max: Duration,
    /// Which failures count.
    pub fail_on: Words,
    /// Failures after the connection stood count only if they are at least this share (0.0 to 1.0) of the
    /// backend's attempts in the window.
    pub min_fail_share: f64,
}

/// Time limits towards the backends of an upstream. All finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: Duration,
    /// From the request to the response header, each attempt.
    pub first_byte: Duration,
    /// Between two reads of the response body; in effect never less than `first_byte`.
    pub read: Duration,
    /// Until a piece of the request is accepted.
    pub write: Duration,
    /// A kept connection is not reused after this long.
    pub idle: Duration,
    /// Between two reads of an upgraded connection.
    pub tunnel: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_of_a_service_is_what_follows_the_labels_that_say_which() {
        let domains = [
            ("_http._tcp.app.internal", "app.internal"),
            ("_http._tcp.app.internal.", "app.internal"),
            ("web.service.consul", "web.service.consul"),
            ("_http", "_http"),
            ("a._b.c", "a._b.c"),
        ];
        for (service, domain) in domains {
            assert_eq!(domain_of(service), domain, "{service}");
        }
    }

    #[test]
    fn a_complete_name_is_shown_without_its_dot() {
        let host = "app.internal.".to_owned();
        assert_eq!(BackendAddress::Name { host: host.clone(), port: 80 }.to_string(), "app.internal:80");
        assert_eq!(BackendAddress::Service(host).to_string(), "srv:app.internal");
    }
}
