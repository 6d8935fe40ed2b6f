//! Certificates that clients are shown.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::pem;

/// A certificate with its key, checked, and where it was read.
#[derive(Clone)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    pair: Arc<CertifiedKey>,
    names: Vec<String>,
    expires: SystemTime,
    state: FileState,
}

/// What tells that files have changed: identity, length and time of each; none where there is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState([Option<(u64, u64, SystemTime)>; 2]);

impl FileState {
    fn of(files: [&Path; 2]) -> Self {
        Self(files.map(|file| {
            let facts = std::fs::metadata(file).ok()?;
            Some((facts.ino(), facts.len(), facts.modified().ok()?))
        }))
    }
}

/// Which of the two files is wrong, and how.
#[derive(Debug)]
pub enum BadCertificate {
    /// The one with the certificate.
    Cert(String),
    /// The one with the key.
    Key(String),
}

impl fmt::Display for BadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Cert(message) | Self::Key(message)) = self;
        f.write_str(message)
    }
}

impl Certificate {
    /// Reads a certificate with its chain, and its key, from files in PEM form.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, BadCertificate> {
        // What changes while it is read is seen to have changed afterwards.
        let state = FileState::of([cert, key]);
        let chain = pem::certificates(cert).map_err(BadCertificate::Cert)?;
        let secret = pem::private_key(key).map_err(BadCertificate::Key)?;
        let pair = pem::pair(&chain, &secret)
            .map_err(|message| BadCertificate::Key(format!("{} {message}", key.display())))?;
        let (names, expires) = chain.first().map_or((Vec::new(), SystemTime::UNIX_EPOCH), |der| facts(der));
        if names.is_empty() {
            return Err(BadCertificate::Cert(format!("{} is for no name", cert.display())));
        }
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), pair: Arc::new(pair), names, expires, state })
    }

    /// Reads the same files again.
    pub fn again(&self) -> Result<Self, BadCertificate> {
        Self::read(&self.cert, &self.key)
    }

    /// The state of the files when they were read.
    pub const fn state(&self) -> &FileState {
        &self.state
    }

    /// The state of the files now.
    pub fn state_now(&self) -> FileState {
        FileState::of([&self.cert, &self.key])
    }

    /// Where the certificate was read.
    pub fn cert(&self) -> &Path {
        &self.cert
    }

    /// Where the key was read.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// Certificate, chain and key in the form of the TLS library.
    pub fn pair(&self) -> &Arc<CertifiedKey> {
        &self.pair
    }

    /// The names it is for, in lower case; `*.` begins one that stands for a whole level.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it ceases to be valid.
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// When a certificate in DER form ceases to be valid; none if it cannot be read.
fn expiry(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The names of a certificate and its end. Without alternative names its common name is taken, as of old.
fn facts(der: &[u8]) -> (Vec<String>, SystemTime) {
    let expires = expiry(der).unwrap_or(SystemTime::UNIX_EPOCH);
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return (Vec::new(), expires);
    };
    let alternative = certificate.subject_alternative_name().ok().flatten();
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "names of other kinds are not asked for in a handshake"
    )]
    let mut names: Vec<String> = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let common = certificate.subject().iter_common_name().next();
        names.extend(common.and_then(|name| name.as_str().ok()).map(str::to_ascii_lowercase));
    }
    (names, expires)
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    let six = || <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
    four.or_else(|_| six()).map(|ip| ip.to_string()).ok()
}
