//! What listeners are like now. An address is bound once; all else about it may change with a reload.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use arc_swap::ArcSwap;
use goodgate_config::{Certificate, Listener};

use crate::tls::ServerTls;

/// What holds for the next connection of a listener.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) proxy_protocol: bool,
    pub(crate) redirect_to_https: Option<NonZeroU16>,
    pub(crate) tls: Option<Arc<ServerTls>>,
}

/// A listener's terms, by the address that the configuration gives.
#[derive(Debug)]
pub(crate) struct Entrance {
    address: SocketAddr,
    /// Which of those with this address: port 0 may stand there several times.
    nth: usize,
    terms: ArcSwap<Terms>,
}

impl Entrance {
    /// One for each listener.
    pub(crate) fn of_all(specs: &[Listener]) -> Vec<Arc<Self>> {
        let entrance = |(at, spec): (usize, &Listener)| {
            let nth = specs.iter().take(at).filter(|other| other.address == spec.address).count();
            let terms = ArcSwap::from_pointee(Terms::new(spec, None));
            Arc::new(Self { address: spec.address, nth, terms })
        };
        specs.iter().enumerate().map(entrance).collect()
    }

    /// The same for a look.
    pub(crate) fn terms_now(&self) -> arc_swap::Guard<Arc<Terms>> {
        self.terms.load()
    }

    /// What holds for a connection that comes now.
    pub(crate) fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// Takes its terms from a new configuration. One that is not in there keeps them: only a restart closes it.
    pub(crate) fn change(&self, specs: &[Listener]) {
        if let Some(spec) = specs.iter().filter(|spec| spec.address == self.address).nth(self.nth) {
            let before = self.terms();
            self.terms.store(Arc::new(Terms::new(spec, before.tls.as_ref())));
        }
    }

    /// The certificates that are shown here.
    pub(crate) fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.terms().tls.as_ref().map(|tls| tls.certificates()).unwrap_or_default()
    }

    /// Shows this certificate instead of the one from the same files.
    pub(crate) fn renew(&self, certificate: &Arc<Certificate>) {
        let terms = self.terms();
        let Some(tls) = &terms.tls else { return };
        let is_same =
            |old: &Arc<Certificate>| old.cert() == certificate.cert() && old.key() == certificate.key();
        let all = tls.certificates();
        if all.iter().any(is_same) {
            let new = all.iter().map(|old| Arc::clone(if is_same(old) { certificate } else { old }));
            tls.renew(&new.collect::<Vec<_>>());
        }
    }
}

impl Terms {
    fn new(spec: &Listener, before: Option<&Arc<ServerTls>>) -> Self {
        Self {
            proxy_protocol: spec.proxy_protocol,
            redirect_to_https: spec.redirect_to_https,
            tls: spec.tls.as_ref().map(|tls| ServerTls::new(tls, before)),
        }
    }
}
