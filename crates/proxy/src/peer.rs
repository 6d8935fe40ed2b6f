//! The Pingora peer of an attempt: an address, never a name, with every time limit set.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use goodgate_config::Pins;
use goodgate_upstream::{Address, Backend, CaBundle, ClientIdentity, Timeouts, TlsPolicy};
use pingora_core::protocols::Digest;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora_error::Result;

use crate::connection_auth::BackendConnections;
use crate::kept::Kept;

/// How long a connection that was made outside of the pool's groups may lie idle: nobody finds it there.
const LOST_AFTER: Duration = Duration::from_millis(1);

/// What an attempt's connection must be like.
pub(crate) struct Terms<'a> {
    pub(crate) backend: &'a Backend,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) is_upgrade: bool,
    /// It must not be a kept one.
    pub(crate) fresh: bool,
    /// Which it may be.
    pub(crate) connections: BackendConnections,
    /// What is left until then caps the connect.
    pub(crate) deadline: Instant,
    pub(crate) now: Instant,
    pub(crate) tls: &'a BackendTls,
    /// How long the client may let the request's body wait.
    pub(crate) upload_pause: Duration,
}

/// How backends prove who they are, in Pingora's form.
#[derive(Debug)]
pub(crate) struct BackendTls {
    ca: Option<Arc<CaType>>,
    /// Instead of authorities: the certificates that backends may show.
    pins: Option<Pins>,
    verify: bool,
    client: Option<Arc<CertKey>>,
    /// Connections that were verified otherwise are not reused: Pingora does not tell them apart by their
    /// authorities.
    group: u64,
}

impl BackendTls {
    pub(crate) fn new(policy: &TlsPolicy) -> Self {
        let wrapped = |bundle: &Arc<CaBundle>| {
            bundle.certificates().iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect()
        };
        let mut hasher = DefaultHasher::new();
        (&policy.ca, &policy.client).hash(&mut hasher);
        let is_plain = policy.ca.is_none() && policy.client.is_none();
        let identity = |client: &Arc<ClientIdentity>| {
            Arc::new(CertKey::new(client.chain().to_vec(), client.key().to_vec()))
        };
        Self {
            ca: policy.ca.as_ref().map(wrapped),
            pins: policy.ca.as_deref().filter(|_| policy.verify).and_then(Pins::of),
            verify: policy.verify,
            client: policy.client.as_ref().map(identity),
            group: if is_plain { 0 } else { hasher.finish() },
        }
    }

    fn peer(&self, address: Address, name: &str) -> Result<Box<HttpPeer>> {
        let mut peer = at(address, Some(name))?;
        peer.group_key = self.group;
        peer.client_cert_key.clone_from(&self.client);
        peer.options.ca.clone_from(&self.ca);
        // A pinned certificate is compared once the handshake has proven that the backend has its key.
        let verify = self.verify && self.pins.is_none();
        peer.options.verify_cert = verify;
        peer.options.verify_hostname = verify;
        Ok(peer)
    }

    /// Whether the certificate that a backend of this name has shown is one that it may show, as far as the handshake has
    /// not found out. `shown` is its SHA-256 digest.
    pub(crate) fn admits(&self, name: &str, shown: Option<&[u8]>) -> bool {
        let Some(pins) = &self.pins else { return true };
        shown.is_some_and(|shown| pins.admits(shown, name, SystemTime::now()))
    }
}

/// Fails only for a path that no Unix socket can have, which the configuration refuses.
fn at(address: Address, tls_name: Option<&str>) -> Result<Box<HttpPeer>> {
    let sni = tls_name.unwrap_or_default().to_owned();
    match address {
        Address::Ip(address) => Ok(Box::new(HttpPeer::new(address, tls_name.is_some(), sni))),
        Address::Unix(path) => HttpPeer::new_uds(path, tls_name.is_some(), sni).map(Box::new),
    }
}

/// Builds the peer.
pub(crate) fn peer(terms: &Terms<'_>, kept: &Arc<Kept>) -> Result<Box<HttpPeer>> {
    let Terms { backend, timeouts, is_upgrade, fresh, connections, deadline, now, tls, upload_pause } =
        *terms;
    let mut peer = match &backend.tls_name {
        Some(name) => tls.peer(backend.address, name)?,
        None => at(backend.address, None)?,
    };
    let left = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
    let connect = timeouts.connect.min(left);
    let options = &mut peer.options;
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    // One limit for every read of the attempt, that of the header included: it must not undercut
    // `first_byte`, which the watchdog enforces.
    // Pingora cannot tell a tunnel that is idle from one in which only the client speaks: the watchdog can.
    // Each piece of the request's body begins it again, so that it must not undercut the pauses in that either.
    let read = timeouts.read.max(timeouts.first_byte).max(upload_pause + Duration::from_secs(1));
    options.read_timeout = (!is_upgrade).then_some(read);
    options.write_timeout = Some(timeouts.write);
    options.tracer = Some(kept.tracer());
    // A tunnel takes its connection with it. On a kept one, which may still be marked as readable, Pingora could see
    // the switch before it has noted the end of the request, and takes that for the end of the tunnel.
    if let BackendConnections::Own(group) = connections {
        peer.group_key ^= group;
    } else if fresh || is_upgrade || connections == BackendConnections::Single {
        // A group of its own: nothing in the pool belongs to it.
        peer.group_key = fastrand::u64(1..);
        peer.options.idle_timeout = Some(LOST_AFTER);
    }
    Ok(peer)
}

/// What of making a connection the TLS handshake took, if there was one.
pub(crate) fn tls_time(digest: &Digest) -> Option<Duration> {
    digest.ssl_digest.as_ref()?;
    digest.timing_digest.last()?.as_ref()?.establishment_duration
}
