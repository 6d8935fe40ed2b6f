//! `tls` of an upstream and of its health checks: how a backend proves who it is.

use std::path::Path;
use std::sync::Arc;

use goodgate_upstream::{CaBundle, ClientIdentity, ProbeTls, TlsPolicy};
use rustls_pki_types::ServerName;

use crate::address::parse_host;
use crate::kind::{boolean, one_of, text, wrong};
use crate::tree::{Kind, Node};
use crate::view::{Map, View};
use crate::{defaults, keys, pem};

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
    let policy = TlsPolicy {
        ca: authorities(&map, folder),
        verify: verify(&map).unwrap_or(defaults::TLS_VERIFY),
        client: client(&map, folder).map(Arc::new),
    };
    Tls { policy, sni: map.read("sni", name), is_given }
}

/// `tls` of a health check: `false`, `true`, or what differs from the upstream's.
pub(super) fn of_check(view: &View<'_>, folder: &Path, tls: &Tls) -> Option<ProbeTls> {
    if matches!(view.node().kind, Kind::Map(_)) {
        let map = view.map(&keys::PROBE_TLS)?;
        let policy = TlsPolicy {
            ca: authorities(&map, folder).or_else(|| tls.policy.ca.clone()),
            verify: verify(&map).unwrap_or(tls.policy.verify),
            client: tls.policy.client.clone(),
        };
        return Some(ProbeTls::On { policy, name: map.read("sni", name) });
    }
    let is_on = view.read(|node| boolean(node).map_err(|_| wrong(node, "true, false, or a map")))?;
    Some(if is_on { ProbeTls::On { policy: tls.policy.clone(), name: None } } else { ProbeTls::Off })
}

fn authorities(map: &Map<'_>, folder: &Path) -> Option<Arc<CaBundle>> {
    let view = map.get("ca")?;
    let path = folder.join(view.read(text)?);
    let found = pem::authorities(&path).map_err(|message| view.problem(message)).ok()?;
    Some(Arc::new(CaBundle::new(found)))
}

fn verify(map: &Map<'_>) -> Option<bool> {
    map.read("verify", one_of(&[("full", true), ("off", false)]))
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
    let chain = folder.join(cert.read(text)?);
    let chain = pem::certificates(&chain).map_err(|message| cert.problem(message)).ok()?;
    let file = folder.join(key.read(text)?);
    let secret = pem::private_key(&file).map_err(|message| key.problem(message)).ok()?;
    if let Err(message) = pem::pair(&chain, &secret) {
        key.problem(format!("{} {message}", file.display()));
        return None;
    }
    Some(ClientIdentity::new(chain, secret))
}

fn name(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    let name = parse_host(&text).map(|name| name.trim_matches(['[', ']']).to_owned());
    name.filter(|name| ServerName::try_from(name.as_str()).is_ok())
        .ok_or_else(|| wrong(node, "a host name, like `app.internal`"))
}
