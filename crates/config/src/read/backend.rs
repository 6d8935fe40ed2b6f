//! `backends` of one upstream: an address as a plain string, or a map.

use std::collections::HashMap;
use std::num::NonZeroU16;

use goodgate_upstream::{AddedBackend, BackendAddress, BackendSpec, EjectionPolicy, domain_of};

use super::TIMEOUT;
use super::ejection::MAX_FAILS_MAX;
use super::tls::Tls;
use crate::address::{BACKEND_FORMS as FORMS, parse_backend};
use crate::kind::{boolean, duration, integer, text, wrong};
use crate::tree::{Kind, Node};
use crate::view::View;
use crate::{defaults, keys};

/// More than a machine has ports for.
const MAX_CONNS_MAX: u32 = 1_000_000;

/// At least one, no address twice. `ejection` is the upstream's, which a backend may override in part; `tls`
/// is for those whose address has no scheme.
pub(super) fn backends(view: &View<'_>, ejection: &EjectionPolicy, tls: &Tls) -> Vec<BackendSpec> {
    let items = view.list().unwrap_or_default();
    if view.items().is_some_and(|items| items.is_empty()) {
        view.problem("found an empty list; allowed: at least one backend");
    }
    let mut taken = HashMap::new();
    items.iter().filter_map(|item| backend(item, ejection, tls, &mut taken)).collect()
}

fn backend(
    item: &View<'_>,
    ejection: &EjectionPolicy,
    tls: &Tls,
    taken: &mut HashMap<BackendAddress, String>,
) -> Option<BackendSpec> {
    let (view, spec) = if matches!(item.node().kind, Kind::Map(_)) {
        long(item, ejection, tls)?
    } else {
        (item.clone(), plain(item.read(address)?, ejection, tls))
    };
    if let Some(other) = taken.get(&spec.address) {
        view.problem(format!("{} is the same address as `{other}`", spec.address));
    } else {
        taken.insert(spec.address.clone(), item.path().to_owned());
    }
    Some(spec)
}

fn long<'a>(item: &View<'a>, ejection: &EjectionPolicy, tls: &Tls) -> Option<(View<'a>, BackendSpec)> {
    let map = item.map(&keys::BACKEND)?;
    let weight = map.read("weight", integer(1..=BackendSpec::WEIGHT_MAX));
    let max_fails = map.read("max_fails", integer(0..=MAX_FAILS_MAX));
    let fail_timeout = map.read("fail_timeout", duration(TIMEOUT));
    let max_conns = map.read("max_conns", integer(0..=MAX_CONNS_MAX));
    let backup = map.read("backup", boolean);
    let view = map.required("address")?;
    let plain = plain(view.read(address)?, ejection, tls);
    if let (BackendAddress::Service(_), Some(view)) = (&plain.address, map.get("weight")) {
        view.key_problem("not allowed with `srv:`: the service's records have the weights");
    }
    let ejection = EjectionPolicy {
        max_fails: max_fails.unwrap_or(ejection.max_fails),
        fail_timeout: fail_timeout.unwrap_or(ejection.fail_timeout),
        fail_timeout_max: ejection.fail_timeout_max.max(fail_timeout.unwrap_or_default()),
        ..*ejection
    };
    let weight = weight.and_then(NonZeroU16::new).unwrap_or(plain.weight);
    let in_flight_max = max_conns.unwrap_or(plain.in_flight_max);
    Some((view, BackendSpec { weight, backup: backup.unwrap_or_default(), in_flight_max, ejection, ..plain }))
}

/// A backend that is added at run time to an upstream of which it takes over the rest. The error says what is
/// allowed.
pub(crate) fn added(text: &str, upstream: &AddedBackend) -> Result<BackendSpec, String> {
    let AddedBackend { ejection, has_tls, tls_name } = upstream;
    Ok(with(parse_backend(text)?, ejection, *has_tls, tls_name.as_ref()))
}

fn plain(address: (BackendAddress, Option<bool>), ejection: &EjectionPolicy, tls: &Tls) -> BackendSpec {
    with(address, ejection, tls.is_given, tls.sni.as_ref())
}

fn with(
    (address, scheme): (BackendAddress, Option<bool>),
    ejection: &EjectionPolicy,
    has_tls: bool,
    tls_name: Option<&String>,
) -> BackendSpec {
    let own_name = match &address {
        BackendAddress::Ip(address) => address.ip().to_string(),
        BackendAddress::Name { host, .. } => host.trim_end_matches('.').to_owned(),
        BackendAddress::Service(name) => domain_of(name).to_owned(),
        BackendAddress::Unix(_) => "localhost".to_owned(),
    };
    let tls_name = scheme.unwrap_or(has_tls).then(|| tls_name.cloned().unwrap_or(own_name));
    let weight = NonZeroU16::new(defaults::WEIGHT).unwrap_or(NonZeroU16::MIN);
    let in_flight_max = defaults::MAX_CONNS;
    BackendSpec { address, weight, backup: false, in_flight_max, ejection: *ejection, tls_name }
}

fn address(node: &Node) -> Result<(BackendAddress, Option<bool>), String> {
    let text = text(node).map_err(|_| wrong(node, FORMS))?;
    parse_backend(&text).map_err(|allowed| wrong(node, &allowed))
}
