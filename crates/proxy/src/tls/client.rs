//! Who a client has proven to be.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::ServerConnection;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The holder of a certificate that one of the listener's authorities vouches for.
#[derive(Debug)]
pub(crate) struct ClientIdentity {
    /// The certificate, as `Client-Cert` carries it (RFC 9440 section 2.2).
    pub(crate) certificate: HeaderValue,
    /// Its subject, like `CN=sensor-7, O=Example`; visible ASCII.
    pub(crate) subject: String,
}

impl ClientIdentity {
    /// Of a connection after its handshake; none if the client has shown no certificate.
    pub(crate) fn of(connection: &ServerConnection) -> Option<Self> {
        let der = connection.peer_certificates()?.first()?;
        // Base64 has nothing that a field value may not have.
        let certificate = HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok()?;
        let parsed = X509Certificate::from_der(der).ok();
        let subject = parsed.map(|(_, certificate)| certificate.subject().to_string()).unwrap_or_default();
        let visible = |letter: char| if matches!(letter, ' '..='~') { letter } else { '?' };
        Some(Self { certificate, subject: subject.chars().map(visible).collect() })
    }
}
