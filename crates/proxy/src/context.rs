//! What is known of one request while it is under way: one field per room.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::time::{Duration, Instant, SystemTime};

use goodgate_failure::Cause;
use goodgate_telemetry::{By, CacheResult, Origin, TraceContext};
use http::{HeaderName, HeaderValue, Method, Version};
use pingora_http::RequestHeader;

use crate::answer::ErrorAnswer;
use crate::attempt::Attempting;
use crate::client_address::ClientAddress;
use crate::connection_auth::{BackendConnections, OwnConnections};
use crate::copies::Copying;
use crate::mirror::Mirroring;
use crate::negotiated::{Negotiated, Objection};
use crate::queue::Queueing;
use crate::replay::Replaying;
use crate::request_id::RequestId;
use crate::route::Route;
use crate::ties::Affinity;
use crate::tls::ClientIdentity;
use crate::watchdog::{Companion, Watchdog};

/// A client's connection, as its requests see it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Its IP address as a field value.
    pub(crate) ip: HeaderValue,
    pub(crate) has_tls: bool,
    /// Its PROXY header names no client (`LOCAL`, `UNKNOWN`): its `X-Forwarded-*` are not believed.
    pub(crate) is_unnamed: bool,
    /// Who it has proven to be, with TLS.
    pub(crate) identity: Option<Arc<ClientIdentity>>,
    /// Backend connections that no other client may use.
    pub(crate) own: OwnConnections,
    /// What the connection was accepted for; none: for nothing that a request could be compared with.
    pub(crate) negotiated: Option<Arc<Negotiated>>,
    /// Its requests are sent to `https` at this port.
    pub(crate) redirect_to_https: Option<NonZeroU16>,
    pub(crate) watchdog: Watchdog,
    /// The request that is being served has its access record.
    pub(crate) is_recorded: AtomicBool,
    /// Where in a split the request belongs that is being read, plus one; zero: that is not settled.
    pub(crate) split: AtomicU8,
}

/// The state of one request.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that has nothing to do with the others")]
pub(crate) struct Context {
    /// None for a subrequest of ours.
    pub(crate) client: Option<Arc<Client>>,
    /// Watches over a subrequest in place of its client's connection.
    companion: Option<Companion>,
    /// The client behind trusted proxies. None for a background request.
    pub(crate) client_address: Option<ClientAddress>,
    /// Whether the direct peer's `X-Forwarded-*` and `X-Request-Id` are believed.
    pub(crate) is_trusted: bool,
    /// Whether the client speaks https, with us or with a trusted proxy.
    pub(crate) is_https: bool,
    /// Whether the request came over HTTP/2: to Pingora it may look like one of HTTP/1.1 by now.
    pub(crate) is_http2: bool,
    /// The stream that it came on.
    pub(crate) http2_stream: Option<u32>,
    /// Which backend connections it may use.
    pub(crate) connections: BackendConnections,
    /// Nobody looks at the request once more and begins anew.
    pub(crate) is_for_good: bool,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) request_id: RequestId,
    /// None without traces.
    pub(crate) trace: Option<TraceContext>,
    pub(crate) route: Option<Arc<Route>>,
    /// The backends that its cookies name.
    pub(crate) affinity: Affinity,
    /// The method that the backend is to take it for, by a field of the request.
    pub(crate) override_method: Option<Method>,
    /// Request fields of the client that the backend does not get.
    pub(crate) removed_fields: Vec<HeaderName>,
    /// Whether a body comes with it.
    pub(crate) has_body: bool,
    /// Why it is refused, if that is plain from the start.
    pub(crate) refused: Option<ErrorAnswer>,
    pub(crate) queueing: Queueing,
    pub(crate) replaying: Replaying,
    pub(crate) attempting: Attempting,
    pub(crate) copying: Copying,
    pub(crate) mirroring: Mirroring,
    pub(crate) outcome: Outcome,
    /// Body bytes that the client has sent so far.
    pub(crate) body_bytes: u64,
    /// What was meant for the client's connection, in seconds, before an interim response went out.
    pub(crate) kept_for: Option<u64>,
    /// The backend has switched to another protocol: what follows are its bytes.
    pub(crate) is_tunnel: bool,
    /// How long nothing may move behind the response header, where Pingora does not see to that.
    idle_limit: Option<Duration>,
}

/// How the request was answered.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) origin: Origin,
    /// Why it failed, if the client saw it fail.
    pub(crate) cause: Option<Cause>,
    /// What is wrong in this very case, where the cause alone does not say it.
    pub(crate) detail: Option<&'static str>,
    pub(crate) rescue: Option<(By, Cause)>,
    pub(crate) cache: Option<CacheResult>,
    /// Why nothing stored could answer in place of the failure.
    pub(crate) cache_detail: Option<&'static str>,
    /// The age of the copy that was served.
    pub(crate) age: Option<Duration>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, now: Instant) -> Self {
        let ip = HeaderValue::from_str(&address.ip().to_canonical().to_string());
        // An address in text has nothing that a field value may not have.
        let ip = ip.unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            address,
            ip,
            has_tls: false,
            is_unnamed: false,
            identity: None,
            own: OwnConnections::default(),
            negotiated: None,
            redirect_to_https: None,
            watchdog: Watchdog::new(now),
            is_recorded: AtomicBool::new(false),
            split: AtomicU8::new(0),
        }
    }

    /// The same for one of several requests at once.
    pub(crate) fn of_stream(&self, now: Instant) -> Self {
        Self {
            address: self.address,
            ip: self.ip.clone(),
            has_tls: self.has_tls,
            is_unnamed: self.is_unnamed,
            identity: self.identity.clone(),
            own: OwnConnections::default(),
            negotiated: self.negotiated.clone(),
            redirect_to_https: self.redirect_to_https,
            watchdog: Watchdog::new(now),
            is_recorded: AtomicBool::new(false),
            split: AtomicU8::new(0),
        }
    }
}

impl Client {
    /// Whether the connection is of no more use for requests, and why.
    pub(crate) fn distrust(&self) -> Option<Objection> {
        self.negotiated.as_ref()?.distrust(self.identity.as_deref())
    }

    /// Why a request for this host is not served on the connection.
    pub(crate) fn objection(&self, host: &str) -> Option<Objection> {
        let is_for = |negotiated: &Arc<Negotiated>| negotiated.is_for(host);
        let other = || (!self.negotiated.as_ref().is_none_or(is_for)).then_some(Objection::OtherName);
        self.distrust().or_else(other)
    }
}

impl Context {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            client: None,
            companion: None,
            client_address: None,
            is_trusted: false,
            is_https: false,
            is_http2: false,
            http2_stream: None,
            connections: BackendConnections::Shared,
            is_for_good: false,
            started: now,
            started_at: SystemTime::now(),
            request_id: RequestId::none(),
            trace: None,
            route: None,
            affinity: Affinity::default(),
            override_method: None,
            removed_fields: Vec::new(),
            has_body: false,
            refused: None,
            queueing: Queueing::default(),
            replaying: Replaying::default(),
            attempting: Attempting::new(now),
            copying: Copying::default(),
            mirroring: Mirroring::default(),
            outcome: Outcome::default(),
            body_bytes: 0,
            kept_for: None,
            is_tunnel: false,
            idle_limit: None,
        }
    }

    /// The version that the client speaks.
    pub(crate) fn version(&self, request: &RequestHeader) -> Version {
        if self.is_http2 { Version::HTTP_2 } else { request.version }
    }

    /// The scheme that the client speaks.
    pub(crate) const fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// What watches the deadlines of its attempts.
    pub(crate) fn watchdog(&self) -> Option<&Watchdog> {
        let of_client = self.client.as_ref().map(|client| &client.watchdog);
        of_client.or_else(|| self.companion.as_ref().map(Companion::watchdog))
    }

    /// The attempt on this socket must have its response header by then.
    pub(crate) fn watch(&mut self, socket: RawFd, deadline: Instant) {
        if let Some(client) = &self.client {
            client.watchdog.arm(socket, deadline);
            return;
        }
        let companion = self.companion.get_or_insert_with(|| Companion::new(Instant::now()));
        companion.watchdog().arm(socket, deadline);
        companion.wake();
    }

    /// The deadline of the attempt under way comes forward.
    pub(crate) fn tighten(&mut self, deadline: Instant) {
        if let Some(watchdog) = self.watchdog() {
            watchdog.adjust(deadline);
        }
        if let Some(companion) = &mut self.companion {
            companion.wake();
        }
    }

    /// From now on something must move at least this often, in whichever direction.
    pub(crate) fn limit_idle(&mut self, limit: Duration) {
        self.idle_limit = Some(limit);
        if let Some(watchdog) = self.watchdog() {
            watchdog.rearm(Instant::now() + limit);
        }
    }

    /// Something has moved.
    pub(crate) fn moved(&self) {
        if let (Some(limit), Some(watchdog)) = (self.idle_limit, self.watchdog()) {
            watchdog.adjust(Instant::now() + limit);
        }
    }

    /// Whether nothing has moved for too long.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle_limit.is_some() && self.watchdog().is_some_and(Watchdog::has_fired)
    }

    /// Whether it is a tunnel that ends for that: nobody has failed.
    pub(crate) fn is_idle_tunnel(&self) -> bool {
        self.is_tunnel && self.is_idle()
    }

    /// The header has come, or the attempt is over. Whether its deadline had passed before.
    pub(crate) fn disarm(&self) -> bool {
        self.watchdog().is_some_and(Watchdog::disarm)
    }

    /// Who speaks to the backend, by way of us.
    pub(crate) fn speaker(&self) -> Option<&Client> {
        match &self.mirroring {
            Mirroring::Copy(copy) => Some(&copy.client),
            Mirroring::Nothing | Mirroring::Draft(_) => self.client.as_deref(),
        }
    }

    /// Whether nobody waits for the answer: it only refreshes a copy or tries a backend.
    pub(crate) fn is_background(&self) -> bool {
        self.client.is_none()
    }
}
