//! The identity that a client has proven.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::ServerConnection;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::subject;

/// The holder of a certificate that one of the listener's authorities vouches for.
#[derive(Debug)]
pub(crate) struct ClientIdentity {
    /// The certificate, as `Client-Cert` carries it (RFC 9440 section 2.2).
    pub(crate) certificate: HeaderValue,
    /// Its subject, like `CN=sensor-7, O=Example`; visible ASCII.
    pub(crate) subject: String,
    /// When the first certificate of the chain that was valid at the handshake ends.
    pub(crate) expires: SystemTime,
}

/// A certificate that the TLS library accepts and that cannot be read here.
#[derive(Debug)]
pub(crate) struct Unreadable;

impl ClientIdentity {
    /// Of a connection after its handshake; none if the client has shown no certificate.
    pub(crate) fn of(connection: &ServerConnection, now: SystemTime) -> Result<Option<Self>, Unreadable> {
        let Some([der, rest @ ..]) = connection.peer_certificates() else {
            return Ok(None);
        };
        let (_, leaf) = X509Certificate::from_der(der).map_err(|_| Unreadable)?;
        // Base64 has nothing that a field value may not have.
        let certificate = HeaderValue::try_from(format!(":{}:", STANDARD.encode(der)));
        let above = rest.iter().filter_map(|der| Some(end(&X509Certificate::from_der(der).ok()?.1)));
        // A certificate beyond the chain may be sent, too: one that had ended did not count.
        let expires = above.filter(|end| *end > now).fold(end(&leaf), SystemTime::min);
        Ok(Some(Self {
            certificate: certificate.map_err(|_| Unreadable)?,
            subject: subject::of(leaf.subject()),
            expires,
        }))
    }
}

fn end(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}
