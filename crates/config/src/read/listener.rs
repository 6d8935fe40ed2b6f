//! `listeners`: where clients are accepted, and what TLS they are shown.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

use super::server::admin_address;
use crate::address::parse_listen;
use crate::kind::{boolean, integer, one_of, text, text_as, wrong};
use crate::tree::{Kind, Node};
use crate::view::{Map, View};
use crate::{BadCertificate, Certificate, ClientCertificates, Listener, ListenerTls, defaults, keys, pem};

/// The port of `https` where none is given.
const HTTPS: NonZeroU16 = NonZeroU16::new(443).expect("not zero");

/// At least one; no address twice, that of `admin` included. Port 0 is another port each time.
pub(super) fn listeners(top: &Map<'_>, folder: &Path) -> Vec<Listener> {
    let Some(view) = top.get("listeners") else {
        let address = defaults::LISTENER;
        return vec![Listener { address, proxy_protocol: false, redirect_to_https: None, tls: None }];
    };
    let items = view.list().unwrap_or_default();
    if view.items().is_some_and(|items| items.is_empty()) {
        view.problem("found an empty list; allowed: at least one listener");
    }
    let mut taken: HashMap<SocketAddr, String> = HashMap::new();
    if let Some(address) = admin_address(top) {
        taken.insert(address, "admin.address".to_owned());
    }
    let trusts =
        top.get("trusted_proxies").and_then(|view| view.items()).is_some_and(|items| !items.is_empty());
    items.iter().filter_map(|item| listener(item, folder, trusts, &mut taken)).collect()
}

fn listener(
    item: &View<'_>,
    folder: &Path,
    trusts: bool,
    taken: &mut HashMap<SocketAddr, String>,
) -> Option<Listener> {
    if !matches!(item.node().kind, Kind::Map(_)) {
        item.problem(wrong(item.node(), "a map, like `{ address: \"0.0.0.0:80\" }`"));
        return None;
    }
    let map = item.map(&keys::LISTENER)?;
    let proxy_protocol = map.read("proxy_protocol", boolean).unwrap_or(false);
    if let Some(view) = map.get("proxy_protocol").filter(|_| proxy_protocol && !trusts) {
        view.key_problem("nobody may send a PROXY header: name who does in `trusted_proxies`");
    }
    let redirect_to_https = map.read("redirect_to_https", https_port).flatten();
    let http2 = map.read("http2", boolean).unwrap_or(defaults::HTTP2);
    let tls = map.has("tls").then(|| tls(&map.section("tls", &keys::LISTENER_TLS), folder, http2));
    if let Some(view) = map.get("http2").filter(|_| http2 && tls.is_none()) {
        view.key_problem("has no meaning without `tls`: there it is chosen");
    }
    if let (Some(_), Some(view)) = (redirect_to_https, map.get("redirect_to_https").filter(|_| tls.is_some()))
    {
        view.key_problem("has no meaning with `tls`: its requests are https already");
    }
    let view = map.required("address")?;
    let address = view.read(text_as(parse_listen))?;
    if let Some(other) = taken.get(&address).filter(|_| address.port() > 0) {
        view.problem(format!("{address} is taken by `{other}` already"));
    }
    taken.entry(address).or_insert_with(|| view.path().to_owned());
    Some(Listener { address, proxy_protocol, redirect_to_https, tls: tls.flatten() })
}

/// `false`, `true` for the usual port, or the port.
fn https_port(node: &Node) -> Result<Option<NonZeroU16>, String> {
    if let Ok(redirects) = boolean(node) {
        return Ok(redirects.then_some(HTTPS));
    }
    let port =
        integer(1..=u16::MAX)(node).map_err(|_| wrong(node, "true, false, or a port from 1 to 65535"))?;
    Ok(NonZeroU16::new(port))
}

fn tls(map: &Map<'_>, folder: &Path, http2: bool) -> Option<ListenerTls> {
    let min_version = map.read("min_version", one_of(&[("1.2", true), ("1.3", false)]));
    let clients = clients(map, folder);
    let view = map.required("certificates")?;
    let certificates = view.list()?.iter().filter_map(|item| certificate(item, folder)).collect();
    if view.items().is_some_and(|items| items.is_empty()) {
        view.problem("found an empty list; allowed: at least one certificate");
    }
    Some(ListenerTls {
        certificates,
        allows_tls12: min_version.unwrap_or(defaults::ALLOWS_TLS12),
        http2,
        clients,
    })
}

fn certificate(item: &View<'_>, folder: &Path) -> Option<Arc<Certificate>> {
    let map = item.map(&keys::CERTIFICATE)?;
    let (cert, key) = (map.required("cert"), map.required("key"));
    let (cert, key) = (cert?, key?);
    let files = (folder.join(cert.read(text)?), folder.join(key.read(text)?));
    match Certificate::read(&files.0, &files.1) {
        Ok(certificate) => return Some(Arc::new(certificate)),
        Err(BadCertificate::Cert(message)) => cert.problem(message),
        Err(BadCertificate::Key(message)) => key.problem(message),
    }
    None
}

fn clients(map: &Map<'_>, folder: &Path) -> Option<ClientCertificates> {
    let required = map.read("client_auth", one_of(&[("required", true), ("optional", false)]));
    let Some(view) = map.get("client_ca") else {
        if let Some(view) = map.get("client_auth") {
            view.key_problem("`client_ca` is missing beside it");
        }
        return None;
    };
    let path = folder.join(view.read(text)?);
    let authorities = pem::authorities(&path).map_err(|message| view.problem(message)).ok()?;
    Some(ClientCertificates { authorities, required: required.unwrap_or(defaults::CLIENT_AUTH_REQUIRED) })
}
