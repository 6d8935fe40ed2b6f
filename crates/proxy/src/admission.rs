//! From an accepted socket to a client that may ask: a place for it, the PROXY header, the TLS handshake. All of
//! it has one deadline, and who fails is gone with a counter.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use goodgate_config::Limits;
use goodgate_failure::Cause;
use goodgate_telemetry::{Handshake, TurnedAway};
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::net::TcpStream;

use crate::answer::ErrorAnswer;
use crate::client_address::is_among;
use crate::connection::Door;
use crate::context::Client;
use crate::listener::Terms;
use crate::negotiated::Negotiated;
use crate::places::{Full, Place};
use crate::proxy_header;
use crate::socket::Socket;
use crate::stream::ClientStream;
use crate::tls::{ClientIdentity, ServerTls, begins_with_tls};

/// A connection that may bring requests.
pub(crate) struct Admitted {
    /// Boxed once: it goes into Pingora and comes back out with every request.
    pub(crate) stream: Box<ClientStream>,
    pub(crate) client: Arc<Client>,
    pub(crate) place: Place,
}

const ALL_TAKEN: ErrorAnswer = ErrorAnswer {
    status: 503,
    cause: Cause::ResourceExhausted,
    details: "The gateway has no place for another connection.",
};
const TOO_MANY: ErrorAnswer = ErrorAnswer {
    status: 429,
    cause: Cause::HttpRequestDenied,
    details: "This client has too many connections.",
};
const PLAIN_HTTP: ErrorAnswer =
    ErrorAnswer { status: 400, cause: Cause::HttpRequestError, details: "This port speaks https, not http." };

impl Door {
    /// Lets a connection in. None: it was turned away, or has left.
    pub(crate) async fn admit(&self, tcp: TcpStream, peer: SocketAddr) -> Option<Admitted> {
        let snapshot = self.live.snapshot().clone();
        let limits = &snapshot.limits;
        let terms = self.entrance.terms();
        // Without it answers are late, not wrong.
        let _ = tcp.set_nodelay(true);
        let mut place = match self.live.places.take(limits) {
            Ok((place, made_room)) => {
                self.metrics.made_room.inc_by(made_room.into());
                place
            }
            Err(full) => {
                self.turn_away(tcp, peer, &terms, limits, full).await;
                return None;
            }
        };
        let deadline = Instant::now() + limits.handshake_timeout;
        let is_trusted = is_among(peer.ip().to_canonical(), &snapshot.trusted_proxies);
        let mut tcp = tcp;
        let mut address = peer;
        let mut is_shared = is_trusted;
        let mut is_unnamed = false;
        if terms.proxy_protocol {
            let header = proxy_header::read(&mut tcp);
            let left = deadline.saturating_duration_since(Instant::now());
            let header =
                if is_trusted { fast_timeout(left, header).await.ok().and_then(Result::ok) } else { None };
            let Some(client) = header else {
                self.metrics.turned_away(TurnedAway::ProxyHeader);
                return None;
            };
            is_unnamed = client.is_none();
            address = client.unwrap_or(peer);
            is_shared = is_among(address.ip().to_canonical(), &snapshot.trusted_proxies);
        }
        // Behind a trusted proxy are many clients.
        if !is_shared && let Err(full) = place.of_client(address.ip(), limits.connections_per_ip_max) {
            self.turn_away(tcp, address, &terms, limits, full).await;
            return None;
        }
        let mut client = Client::new(address, Instant::now());
        client.redirect_to_https = terms.redirect_to_https;
        client.is_unnamed = is_unnamed;
        let socket = match &terms.tls {
            None => {
                client.negotiated = Some(Arc::new(Negotiated::new(&self.entrance, None, None)));
                Socket::Plain(tcp)
            }
            Some(tls) => self.shake_hands(tcp, &mut client, tls, limits, deadline).await?,
        };
        let stream = Box::new(ClientStream::new(socket));
        Some(Admitted { stream, client: Arc::new(client), place })
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        client: &mut Client,
        tls: &Arc<ServerTls>,
        limits: &Limits,
        deadline: Instant,
    ) -> Option<Socket> {
        let left = || deadline.saturating_duration_since(Instant::now());
        match fast_timeout(left(), begins_with_tls(&tcp)).await {
            Err(_) => return self.failed(Handshake::Timeout),
            Ok(Err(_)) => return self.failed(Handshake::Closed),
            Ok(Ok(false)) => {
                let stream = Box::new(ClientStream::new(Socket::Plain(tcp)));
                self.refuse(stream, client, limits, PLAIN_HTTP).await;
                return self.failed(Handshake::Malformed);
            }
            Ok(Ok(true)) => {}
        }
        let accepted = match fast_timeout(left(), tls.accept(tcp)).await {
            Err(_) => return self.failed(Handshake::Timeout),
            Ok(Err(why)) => return self.failed(why),
            Ok(Ok(accepted)) => accepted,
        };
        let session = accepted.get_ref().1;
        let Ok(identity) = ClientIdentity::of(session, SystemTime::now()) else {
            return self.failed(Handshake::ClientCertificate);
        };
        client.has_tls = true;
        client.identity = identity.map(Arc::new);
        client.negotiated = Some(Arc::new(Negotiated::new(&self.entrance, Some(tls), session.server_name())));
        self.metrics.handshake(Handshake::Ok);
        Some(Socket::Tls(accepted))
    }

    fn failed(&self, why: Handshake) -> Option<Socket> {
        self.metrics.handshake(why);
        None
    }

    /// Says why, where that can be said without a handshake.
    async fn turn_away(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
        terms: &Terms,
        limits: &Limits,
        full: Full,
    ) {
        let (why, answer) = match full {
            Full::All => (TurnedAway::Limit, ALL_TAKEN),
            Full::Client => (TurnedAway::LimitPerIp, TOO_MANY),
        };
        self.metrics.turned_away(why);
        if terms.tls.is_none() && !(terms.proxy_protocol && full == Full::All) {
            let client = Client::new(client, Instant::now());
            let stream = Box::new(ClientStream::new(Socket::Plain(tcp)));
            let limits = Limits { write_timeout: limits.write_timeout.min(FAREWELL), ..limits.clone() };
            self.refuse(stream, &client, &limits, answer).await;
        }
    }
}

/// How long a client that has no place may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);
