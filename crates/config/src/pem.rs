//! Certificates and private keys in PEM files, each checked when it is read, so that none is refused when a
//! connection is made.

use std::path::Path;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::file::read_bounded;

/// The largest bundle of certificates: the public ones of a whole machine have about 250 KiB.
const CERTIFICATES_BYTES_MAX: usize = 1 << 20;
/// The largest private key.
const KEY_BYTES_MAX: usize = 64 << 10;

/// The certificates of a file in DER form, at least one. The error names the file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let named = path.display();
    let bytes = read_bounded(path, CERTIFICATES_BYTES_MAX, "a few certificates are expected in it")?;
    let mut certificates = Vec::new();
    for (at, certificate) in CertificateDer::pem_slice_iter(&bytes).enumerate() {
        let certificate =
            certificate.map_err(|error| format!("{named}: certificate {}: {error:?}", at + 1))?;
        if X509Certificate::from_der(&certificate).is_err() {
            return Err(format!("{named}: certificate {} cannot be read", at + 1));
        }
        certificates.push(certificate.to_vec());
    }
    if certificates.is_empty() {
        return Err(format!("{named} holds no certificate; allowed: a file in PEM form"));
    }
    Ok(certificates)
}

/// The same of authorities: each can be trusted.
pub(crate) fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let certificates = certificates(path)?;
    let is_bad =
        |der: &Vec<u8>| webpki::anchor_from_trusted_cert(&CertificateDer::from(der.as_slice())).is_err();
    match certificates.iter().position(is_bad) {
        Some(at) => Err(format!("{}: certificate {} cannot be read", path.display(), at + 1)),
        None => Ok(certificates),
    }
}

/// The private key of a file in DER form. The error names the file.
pub(crate) fn private_key(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read_bounded(path, KEY_BYTES_MAX, "one private key is expected in it")?;
    let key = PrivateKeyDer::from_pem_slice(&bytes);
    let key = key.map_err(|_| format!("{} holds no private key in PEM form", path.display()))?;
    Ok(key.secret_der().to_vec())
}

/// Certificate and key for TLS; they must belong together.
pub(crate) fn pair(chain: &[Vec<u8>], key: &[u8]) -> Result<CertifiedKey, &'static str> {
    let certificates = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::try_from(key.to_vec()).map_err(|_| "is of an unknown kind")?;
    CertifiedKey::from_der(certificates, key, &ring::default_provider())
        .map_err(|_| "does not belong to the certificate beside it")
}
