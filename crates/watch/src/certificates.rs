//! When the certificates of backends end. Handshakes tell only that one has ended, when it is too late, and
//! Pingora does not say what it has seen: so each backend is asked for its certificate now and then, on a
//! connection that does nothing else and trusts nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use goodgate_telemetry::ExpiryNotices;
use goodgate_upstream::{Address, Backend, Upstream};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Between two looks at one backend.
const INTERVAL: Duration = Duration::from_hours(1);
/// The same after a look that has shown nothing.
const INTERVAL_FAILED: Duration = Duration::from_mins(1);
/// For connection and handshake.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks at the certificates of one upstream's backends.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    due: HashMap<Address, Instant>,
    notices: ExpiryNotices,
}

impl Certificates {
    /// Looks at those that are due; when the next one is.
    pub(crate) async fn round(&mut self, upstream: &Upstream) -> Instant {
        let backends = upstream.backends();
        self.due.retain(|address, _| backends.iter().any(|backend| backend.address == *address));
        let now = Instant::now();
        for backend in backends.iter().filter(|backend| backend.tls_name.is_some()) {
            if self.due.get(&backend.address).is_some_and(|due| *due > now) {
                continue;
            }
            let expires = tokio::time::timeout(LIMIT, expiry(backend)).await.ok().flatten();
            let interval = if expires.is_some() { INTERVAL } else { INTERVAL_FAILED };
            self.due.insert(backend.address, Instant::now() + interval);
            if let Some(expires) = expires {
                backend.note_certificate(expires);
                let whose = format!("{} at {}", upstream.spec().name, backend.written);
                self.notices.look(&whose, expires, SystemTime::now());
            }
        }
        self.due.values().min().copied().unwrap_or(now + INTERVAL)
    }
}

/// When the certificate that a backend shows now ends; none if it shows none.
async fn expiry(backend: &Backend) -> Option<SystemTime> {
    let name = ServerName::try_from(backend.tls_name.as_deref()?.to_owned()).ok()?;
    let seen = Arc::new(Seen::default());
    let config = ClientConfig::builder_with_provider(Arc::clone(&seen.provider))
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as _)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    // What counts is what was shown, also if the backend then asks for a certificate of ours.
    match backend.address {
        Address::Ip(address) => drop(connector.connect(name, TcpStream::connect(address).await.ok()?).await),
        Address::Unix(path) => drop(connector.connect(name, UnixStream::connect(path).await.ok()?).await),
    }
    *seen.expires.lock()
}

/// Accepts every certificate, and notes when it ends. Nothing is sent on such a connection.
#[derive(Debug)]
struct Seen {
    provider: Arc<CryptoProvider>,
    expires: Mutex<Option<SystemTime>>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { provider: Arc::new(ring::default_provider()), expires: Mutex::default() }
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = X509Certificate::from_der(certificate).ok();
        let end = parsed.map(|(_, certificate)| certificate.validity().not_after.timestamp());
        let seconds = end.map(|end| Duration::from_secs(u64::try_from(end).unwrap_or(0)));
        *self.expires.lock() = seconds.map(|seconds| SystemTime::UNIX_EPOCH + seconds);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
