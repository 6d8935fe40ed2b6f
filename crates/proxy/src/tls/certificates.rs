//! Which certificate a client is shown: by the name that it asks for, and by the signatures that it can check.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use goodgate_config::Certificate;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

/// The certificates of a listener; they are swapped while handshakes go on.
#[derive(Debug)]
pub(super) struct Certificates(ArcSwap<Table>);

type Pairs = Vec<Arc<CertifiedKey>>;

#[derive(Debug)]
struct Table {
    all: Vec<Arc<Certificate>>,
    /// By exact name.
    exact: HashMap<String, Pairs>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Pairs>,
    /// For names that none is for, and for clients that ask for none.
    default: Pairs,
}

impl Certificates {
    pub(super) fn new(certificates: &[Arc<Certificate>]) -> Self {
        Self(ArcSwap::from_pointee(Table::new(certificates)))
    }

    pub(super) fn renew(&self, certificates: &[Arc<Certificate>]) {
        self.0.store(Arc::new(Table::new(certificates)));
    }

    pub(super) fn all(&self) -> Vec<Arc<Certificate>> {
        self.0.load().all.clone()
    }

    /// Whether a certificate that is shown for the one name is shown for the other, too.
    pub(super) fn are_alike(&self, one: Option<&str>, other: &str) -> bool {
        let table = self.0.load();
        let (one, other) = (table.pairs(one), table.pairs(Some(other)));
        one.iter().any(|pair| other.iter().any(|other| Arc::ptr_eq(pair, other)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name(), hello.signature_schemes())
    }
}

impl Table {
    fn new(certificates: &[Arc<Certificate>]) -> Self {
        let (mut exact, mut wildcard) = (HashMap::<_, Pairs>::new(), HashMap::<_, Pairs>::new());
        for certificate in certificates {
            for name in certificate.names() {
                let pairs = match name.strip_prefix("*.") {
                    Some(level) => wildcard.entry(level.to_owned()).or_default(),
                    None => exact.entry(name.clone()).or_default(),
                };
                pairs.push(Arc::clone(certificate.pair()));
            }
        }
        // The small and fast signatures first; of two for one name and kind the one that stands first.
        for pairs in exact.values_mut().chain(wildcard.values_mut()) {
            pairs.sort_by_key(|pair| pair.key.algorithm() == SignatureAlgorithm::RSA);
        }
        // Beside the first one those of another kind for its names.
        let first = certificates.first();
        let first_names = first.map(|first| first.names()).unwrap_or_default();
        let mut default: Pairs = certificates
            .iter()
            .filter(|other| other.names() == first_names)
            .map(|other| Arc::clone(other.pair()))
            .collect();
        default.sort_by_key(|pair| pair.key.algorithm() == SignatureAlgorithm::RSA);
        Self { all: certificates.to_vec(), exact, wildcard, default }
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let pairs = self.pairs(name);
        let usable = pairs.iter().find(|pair| pair.key.choose_scheme(schemes).is_some());
        usable.or_else(|| pairs.first()).cloned()
    }

    fn pairs(&self, name: Option<&str>) -> &Pairs {
        name.and_then(|name| self.find(&name.to_ascii_lowercase())).unwrap_or(&self.default)
    }

    /// An exact name before a wildcard, which stands for one level (RFC 6125 section 6.4.3).
    fn find(&self, name: &str) -> Option<&Pairs> {
        let above = || name.split_once('.').map(|(_, above)| above);
        self.exact.get(name).or_else(|| self.wildcard.get(above()?))
    }
}
