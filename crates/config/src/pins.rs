//! Self-signed certificates of backends that `tls.ca` names itself.
//!
//! The usual way to make one (`openssl req -x509`) marks it as an authority, and the TLS library accepts no
//! authority as the certificate of a server (RFC 5280 section 4.2.1.9). Where all certificates of a bundle are of that
//! kind, a backend must show exactly one of them, by the name that is expected of it and within its time.

use std::time::SystemTime;

use goodgate_upstream::CaBundle;
use ring::digest::{SHA256, digest};
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

/// The certificates that backends may show.
#[derive(Debug)]
pub struct Pins(Vec<Vec<u8>>);

impl Pins {
    /// The pins of a bundle; none if it has authorities whose certificates are issued to backends.
    pub fn of(bundle: &CaBundle) -> Option<Self> {
        let all = bundle.certificates();
        let are_pins = !all.is_empty() && all.iter().all(|der| is_pin(der));
        are_pins.then(|| Self(all.to_vec()))
    }

    /// Whether a backend of this name may show the certificate with this SHA-256 digest.
    pub fn admits(&self, shown: &[u8], name: &str, now: SystemTime) -> bool {
        let pin = self.0.iter().find(|der| digest(&SHA256, der).as_ref() == shown);
        pin.is_some_and(|der| is_valid_at(der, now) && is_for(der, name))
    }
}

/// Whether it is the certificate of a server, by its names, and marked as an authority that has signed itself.
fn is_pin(der: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    let has_names = certificate
        .subject_alternative_name()
        .is_ok_and(|names| names.is_some_and(|names| !names.value.general_names.is_empty()));
    // One that is not marked as an authority passes the usual verification.
    let issues_others = certificate
        .key_usage()
        .is_ok_and(|usage| usage.is_some_and(|usage| !usage.value.digital_signature()));
    certificate.is_ca() && certificate.issuer() == certificate.subject() && has_names && !issues_others
}

fn is_valid_at(der: &[u8], now: SystemTime) -> bool {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let Ok(now) = ASN1Time::from_timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)) else {
        return false;
    };
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.validity().is_valid_at(now))
}

fn is_for(der: &[u8], name: &str) -> bool {
    let der = CertificateDer::from(der);
    let (Ok(certificate), Ok(name)) = (ParsedCertificate::try_from(&der), ServerName::try_from(name)) else {
        return false;
    };
    verify_server_name(&certificate, &name).is_ok()
}
