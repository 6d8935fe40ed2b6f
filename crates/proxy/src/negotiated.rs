//! What a connection was accepted for: the listener, the name, and the terms by which its client proved its identity.
//! Each request is compared with it. A certificate ends and a reload changes authorities while connections are open, and
//! a client may ask for another host than the one that the handshake was for.

use std::sync::Arc;
use std::time::SystemTime;

use goodgate_failure::Cause;

use crate::answer::ErrorAnswer;
use crate::listener::Entrance;
use crate::route::bare;
use crate::tls::{ClientIdentity, ServerTls};

/// What a connection was accepted for.
#[derive(Debug)]
pub(crate) struct Negotiated {
    entrance: Arc<Entrance>,
    /// None: without TLS.
    tls: Option<Arc<ServerTls>>,
    /// The name that the client asked for in the handshake (SNI), in lower case.
    name: Option<Box<str>>,
}

/// Why the connection does not serve a request: 421, so that the client may ask again on another (RFC 9110 section
/// 15.5.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// The client's certificate has ended since the handshake.
    Expired,
    /// A reload has changed which clients are trusted.
    TermsChanged,
    /// The request is for a name with another certificate.
    OtherName,
}

impl Objection {
    pub(crate) const fn answer(self) -> ErrorAnswer {
        let details = match self {
            Self::Expired => "The client certificate of this connection has expired.",
            Self::TermsChanged => "The listener has changed which client certificates it accepts.",
            Self::OtherName => "The request is for another host than the TLS handshake of this connection.",
        };
        ErrorAnswer { status: 421, cause: Cause::HttpRequestError, details }
    }
}

impl Negotiated {
    pub(crate) fn new(entrance: &Arc<Entrance>, tls: Option<&Arc<ServerTls>>, name: Option<&str>) -> Self {
        Self {
            entrance: Arc::clone(entrance),
            tls: tls.cloned(),
            name: name.map(|name| name.trim_end_matches('.').to_ascii_lowercase().into()),
        }
    }

    /// Whether the client's proof still holds.
    pub(crate) fn distrust(&self, identity: Option<&ClientIdentity>) -> Option<Objection> {
        if identity.is_some_and(|identity| identity.expires <= SystemTime::now()) {
            return Some(Objection::Expired);
        }
        let terms = self.entrance.terms_now();
        let is_same = match (&self.tls, &terms.tls) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old.has_same_clients(Some(new)),
            (Some(one), None) | (None, Some(one)) => one.has_same_clients(None),
            (None, None) => true,
        };
        if is_same { None } else { Some(Objection::TermsChanged) }
    }

    /// Whether a request for this host may come over the connection. A client without SNI has asked for no name: that
    /// matters only where clients prove their identity.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let Some(tls) = self.tls.as_deref() else {
            return true;
        };
        let host = bare(host);
        let name = self.name.as_deref();
        let is_free = host.is_empty() || name == Some(&*host) || name.is_none() && !tls.asks_clients();
        is_free || tls.serves_both(name, &host)
    }
}
