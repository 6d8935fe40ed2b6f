//! `tls` of an upstream: how a backend proves who it is.

use std::path::Path;
use std::sync::Arc;

use goodgate_upstream::{CaBundle, ClientIdentity, TlsPolicy};
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::address::parse_host;
use crate::file::read_bounded;
use crate::kind::{one_of, text, wrong};
use crate::tree::Node;
use crate::view::Map;
use crate::{defaults, keys};

/// The largest bundle of certificates: the public ones of a whole machine have about 250 KiB.
const CA_BYTES_MAX: usize = 1 << 20;
/// The largest private key.
const KEY_BYTES_MAX: usize = 64 << 10;

/// What the section says: the policy, the name that is sent and proven if not the backend's own, and whether
/// the section is there at all.
pub(super) struct Tls {
    pub(super) policy: TlsPolicy,
    pub(super) sni: Option<String>,
    pub(super) is_given: bool,
}

pub(super) fn tls(map: &Map<'_>, folder: &Path) -> Tls {
    let is_given = map.has("tls");
    let map = map.section("tls", &keys::TLS);
    let ca = map.get("ca").and_then(|view| {
        let path = folder.join(view.read(text)?);
        bundle(&path).map_err(|message| view.problem(message)).ok()
    });
    let verify = map.read("verify", one_of(&[("full", true), ("off", false)]));
    let policy = TlsPolicy {
        ca: ca.map(CaBundle::new).map(Arc::new),
        verify: verify.unwrap_or(defaults::TLS_VERIFY),
        client: client(&map, folder).map(Arc::new),
    };
    Tls { policy, sni: map.read("sni", name), is_given }
}

/// Certificate and key, which must be there together and belong together.
fn client(map: &Map<'_>, folder: &Path) -> Option<ClientIdentity> {
    let (cert, key) = match (map.get("client_cert"), map.get("client_key")) {
        (None, None) => return None,
        (Some(cert), Some(key)) => (cert, key),
        (Some(alone), None) => {
            alone.problem("`client_key` is missing beside it");
            return None;
        }
        (None, Some(alone)) => {
            alone.problem("`client_cert` is missing beside it");
            return None;
        }
    };
    let chain = bundle(&folder.join(cert.read(text)?)).map_err(|message| cert.problem(message)).ok()?;
    let file = folder.join(key.read(text)?);
    let secret = private_key(&file).map_err(|message| key.problem(message)).ok()?;
    if let Err(message) = belong_together(&chain, &secret) {
        key.problem(format!("{} {message}", file.display()));
        return None;
    }
    Some(ClientIdentity::new(chain, secret))
}

fn private_key(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read_bounded(path, KEY_BYTES_MAX, "one private key is expected in it")?;
    let key = PrivateKeyDer::from_pem_slice(&bytes);
    let key = key.map_err(|_| format!("{} holds no private key in PEM form", path.display()))?;
    Ok(key.secret_der().to_vec())
}

fn belong_together(chain: &[Vec<u8>], key: &[u8]) -> Result<(), &'static str> {
    let certificates = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::try_from(key.to_vec()).map_err(|_| "is of an unknown kind")?;
    CertifiedKey::from_der(certificates, key, &ring::default_provider())
        .map(|_| ())
        .map_err(|_| "does not belong to the certificate of `client_cert`")
}

fn name(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    let name = parse_host(&text).map(|name| name.trim_matches(['[', ']']).to_owned());
    name.filter(|name| ServerName::try_from(name.as_str()).is_ok())
        .ok_or_else(|| wrong(node, "a host name, like `app.internal`"))
}

/// The certificates of a PEM file, each one checked, so that none is refused when a connection is made.
fn bundle(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let named = path.display();
    let bytes = read_bounded(path, CA_BYTES_MAX, "a few certificates are expected in it")?;
    let mut certificates = Vec::new();
    for (at, certificate) in CertificateDer::pem_slice_iter(&bytes).enumerate() {
        let certificate =
            certificate.map_err(|error| format!("{named}: certificate {}: {error:?}", at + 1))?;
        let is_good = X509Certificate::from_der(&certificate).is_ok()
            && webpki::anchor_from_trusted_cert(&certificate).is_ok();
        if !is_good {
            return Err(format!("{named}: certificate {} cannot be read", at + 1));
        }
        certificates.push(certificate.to_vec());
    }
    if certificates.is_empty() {
        return Err(format!("{named} holds no certificate; allowed: a file in PEM form"));
    }
    Ok(certificates)
}
