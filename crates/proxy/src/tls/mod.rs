//! TLS towards clients: the handshake, under a deadline of its own, and what it tells of the client.

mod certificates;
mod client;
mod subject;

use std::io;
use std::sync::Arc;

use goodgate_config::{Certificate, ClientCertificates, ListenerTls};
use goodgate_telemetry::Handshake;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use certificates::Certificates;
pub(crate) use client::ClientIdentity;

/// The first byte of every TLS connection: a record that holds a handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// What a listener's TLS is. Session tickets live as long as it does; certificates come and go.
#[derive(Debug)]
pub(crate) struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    allows_tls12: bool,
    http2: bool,
    clients: Option<ClientCertificates>,
}

impl ServerTls {
    /// As configured. What was there before lives on if only certificates differ.
    pub(crate) fn new(spec: &ListenerTls, before: Option<&Arc<Self>>) -> Arc<Self> {
        let same = before.filter(|old| {
            old.allows_tls12 == spec.allows_tls12 && old.http2 == spec.http2 && old.clients == spec.clients
        });
        if let Some(old) = same {
            old.renew(&spec.certificates);
            return Arc::clone(old);
        }
        let certificates = Arc::new(Certificates::new(&spec.certificates));
        Arc::new(Self {
            config: Arc::new(config(spec, &certificates)),
            certificates,
            allows_tls12: spec.allows_tls12,
            http2: spec.http2,
            clients: spec.clients.clone(),
        })
    }

    /// From the next handshake on these certificates are shown.
    pub(crate) fn renew(&self, certificates: &[Arc<Certificate>]) {
        self.certificates.renew(certificates);
    }

    /// Those that are shown now.
    pub(crate) fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.certificates.all()
    }

    /// Whether clients prove their identity by the same terms there.
    pub(crate) fn has_same_clients(&self, other: Option<&Self>) -> bool {
        self.clients.as_ref() == other.and_then(|other| other.clients.as_ref())
    }

    /// Whether clients are asked for certificates.
    pub(crate) fn asks_clients(&self) -> bool {
        self.clients.is_some()
    }

    /// Whether a connection for the one name may serve requests for the other: the same certificate is shown.
    pub(crate) fn serves_both(&self, asked: Option<&str>, other: &str) -> bool {
        self.certificates.are_alike(asked, other)
    }

    /// Shakes hands.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> Result<Box<TlsStream<TcpStream>>, Handshake> {
        let accepted = TlsAcceptor::from(Arc::clone(&self.config)).accept(tcp).await;
        accepted.map(Box::new).map_err(|error| {
            // Anyone can cause as many of these as they like: seen with `RUST_LOG=debug`.
            log::debug!(error:% = error; "a TLS handshake has failed");
            failure(&error)
        })
    }
}

/// Whether a client that should speak TLS begins to. An error means that it is gone.
pub(crate) async fn begins_with_tls(tcp: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match tcp.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE_RECORD]),
    }
}

#[expect(
    clippy::expect_used,
    reason = "all suites of the provider belong to these versions; authorities were checked"
)]
fn config(spec: &ListenerTls, certificates: &Arc<Certificates>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let versions = VERSIONS.get(..if spec.allows_tls12 { 2 } else { 1 }).unwrap_or(&VERSIONS);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions that the provider has suites for");
    let builder = match &spec.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            let known = clients.authorities.iter().map(|der| CertificateDer::from(der.clone()));
            roots.add_parsable_certificates(known);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().expect("at least one authority"))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if spec.http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    if spec.clients.is_some() {
        // A resumed session would take an earlier proof for a new one: see docs/decisions/0022-client-certificates.md.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        return config;
    }
    match ring::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => log::warn!(error:% = error; "TLS sessions cannot be resumed"),
    }
    config
}

/// What a handshake failed for.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is wrong, the client has sent it")]
fn failure(error: &io::Error) -> Handshake {
    use rustls::Error;
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return Handshake::Closed;
    };
    match error {
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Handshake::ClientCertificate,
        Error::PeerIncompatible(_) => Handshake::Incompatible,
        Error::AlertReceived(_) => Handshake::Refused,
        _ => Handshake::Malformed,
    }
}
