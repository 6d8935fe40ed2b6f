//! Authentication that belongs to a connection, not to a request: NTLM, Negotiate and Kerberos. A backend that speaks
//! them takes everything on a connection for the user who proved an identity on it once.
//!
//! Each client connection has backend connections of its own from the first sign of such a scheme on. No other client
//! gets one of them, no cached response is made of what they bring, and nothing of them is retried or mirrored. See
//! docs/decisions/0023-connection-authentication.md.

use std::sync::atomic::{AtomicU64, Ordering};

use goodgate_upstream::{Address, Backend};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use crate::context::Context;

const SCHEMES: [&[u8]; 3] = [b"ntlm", b"negotiate", b"kerberos"];
/// A client that uses several upstreams leads to a backend of each; the oldest is forgotten.
const BACKENDS_MAX: usize = 8;
const CHALLENGES: [HeaderName; 2] = [header::WWW_AUTHENTICATE, header::PROXY_AUTHENTICATE];

/// The backends that a client's own connections lead to, the latest last.
pub(crate) type Backends = SmallVec<[Address; 2]>;

/// The backend connections that belong to one client connection.
#[derive(Debug, Default)]
pub(crate) struct OwnConnections {
    /// Names them in the pool; zero: there are none.
    group: AtomicU64,
    backends: Mutex<Backends>,
}

/// Which backend connections a request may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BackendConnections {
    /// Those that all clients share.
    #[default]
    Shared,
    /// Those of this group, which belong to the client's connection.
    Own(u64),
    /// A new one, which is closed behind the request: the client's connection may carry requests of several users.
    Single,
}

/// Whether the backend connection belongs to the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    None,
    /// It does; the backends that such connections lead to.
    ToClient(Backends),
}

impl Binding {
    pub(crate) fn backends(&self) -> &[Address] {
        match self {
            Self::ToClient(backends) => backends,
            Self::None => &[],
        }
    }
}

impl BackendConnections {
    pub(crate) fn are_shared(self) -> bool {
        self == Self::Shared
    }
}

impl OwnConnections {
    /// For a request with these fields. `is_single_user`: all requests of the client's connection are of one user.
    pub(crate) fn of_request(&self, headers: &HeaderMap, is_single_user: bool) -> BackendConnections {
        let group = self.group.load(Ordering::Relaxed);
        let is_sign = || has_scheme(headers, &header::AUTHORIZATION);
        match (is_single_user, group != 0 || is_sign()) {
            (_, false) => BackendConnections::Shared,
            (true, true) => BackendConnections::Own(self.group()),
            (false, true) => BackendConnections::Single,
        }
    }

    /// From now on there are some.
    fn group(&self) -> u64 {
        let new = fastrand::u64(1..);
        self.group.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(new)
    }

    /// There will be some, to this backend if there have been none.
    pub(crate) fn begin(&self, backend: Option<Address>) {
        if self.group.load(Ordering::Relaxed) == 0 {
            self.group();
            self.backends.lock().extend(backend);
        }
    }

    /// The client's connection gets others, in place of one that died.
    pub(crate) fn renew(&self) -> u64 {
        let new = fastrand::u64(1..);
        self.group.store(new, Ordering::Relaxed);
        new
    }

    /// The backends that they lead to.
    fn backends(&self) -> Backends {
        self.backends.lock().clone()
    }

    fn lead_to(&self, backend: Address) {
        let mut backends = self.backends.lock();
        backends.retain(|known| *known != backend);
        if backends.len() >= BACKENDS_MAX {
            backends.remove(0);
        }
        backends.push(backend);
    }
}

/// The backend connections that the request may use. Where those of its client are of no use, it gets others.
pub(crate) fn choose(context: &Context, backend: &Backend, fresh: bool) -> BackendConnections {
    let (BackendConnections::Own(_), Some(client)) = (context.connections, &context.client) else {
        return context.connections;
    };
    client.own.lead_to(backend.address);
    if fresh { BackendConnections::Own(client.own.renew()) } else { context.connections }
}

/// A response asks for an authentication that belongs to its connection: no other client gets that connection, and the
/// client of this one has its own from now on.
pub(crate) fn note_challenge(context: &mut Context, response: &ResponseHeader) {
    if !is_challenge(&response.headers) {
        return;
    }
    if context.connections.are_shared() {
        context.attempting.leave_pool();
    }
    if let Some(client) = &context.client
        && !context.is_trusted
        && !context.is_http2
    {
        client.own.begin(context.attempting.lease().map(|lease| lease.backend().address));
    }
    context.copying.request = None;
}

/// A request with connections of its own goes to the backend that they lead to.
pub(crate) fn bind(context: &mut Context) {
    if !context.connections.are_shared() {
        let backends = context.client.as_ref().map(|client| client.own.backends());
        context.attempting.bind(backends.unwrap_or_default());
    }
}

/// Whether a response asks for such an authentication, or goes on with one.
fn is_challenge(headers: &HeaderMap) -> bool {
    CHALLENGES.iter().any(|name| has_scheme(headers, name))
}

fn has_scheme(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().any(names_scheme)
}

/// Several challenges may stand in one field. A comma within quotes makes a scheme of what is none, which is harmless.
fn names_scheme(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|part| {
        let mut words = part.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t'));
        words.next().is_some_and(|word| SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_schemes_are_found_wherever_they_stand() {
        for value in
            ["NTLM", "negotiate abc=", "Basic realm=\"x\", NTLM", "Basic realm=a,\tNegotiate", "Kerberos x"]
        {
            assert!(is_challenge(&headers(header::WWW_AUTHENTICATE, value)), "{value}");
            assert!(is_challenge(&headers(header::PROXY_AUTHENTICATE, value)), "{value}");
        }
        for value in ["", "Basic realm=\"NTLM\"", "Bearer NTLM", "NTLMv2", "Digest a=negotiate"] {
            assert!(!is_challenge(&headers(header::WWW_AUTHENTICATE, value)), "{value}");
        }
    }

    #[test]
    fn the_latest_backend_comes_last_and_there_are_few() {
        let own = OwnConnections::default();
        let at = |port: u16| Address::Ip(([127, 0, 0, 1], port).into());
        for port in (1..=20).chain([15]) {
            own.lead_to(at(port));
        }
        assert_eq!(own.backends().to_vec(), [13, 14, 16, 17, 18, 19, 20, 15].map(at));
    }

    #[test]
    fn a_client_connection_keeps_its_own_from_the_first_sign_on() {
        let own = OwnConnections::default();
        let (plain, ntlm) = (HeaderMap::new(), headers(header::AUTHORIZATION, "ntlm abc"));
        assert!(own.of_request(&plain, true).are_shared());
        assert_eq!(own.of_request(&ntlm, false), BackendConnections::Single);
        assert!(own.of_request(&plain, true).are_shared(), "a request of many says nothing of the others");
        let first = own.of_request(&ntlm, true);
        assert!(matches!(first, BackendConnections::Own(group) if group != 0));
        assert_eq!(own.of_request(&plain, true), first);
        assert_ne!(BackendConnections::Own(own.renew()), first);
    }
}
