//! What happens at a listener before there is a request: connections, handshakes, certificates.

use std::net::SocketAddr;
use std::time::SystemTime;

use prometheus::{IntCounter, IntGauge};

use crate::Metrics;
use crate::exposition::unix_seconds;

/// How a TLS handshake with a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It succeeded.
    Ok,
    /// It took too long.
    Timeout,
    /// The client left.
    Closed,
    /// There is no version or cipher that both sides speak.
    Incompatible,
    /// The client has sent something else than TLS.
    Malformed,
    /// The client does not accept our certificate.
    Refused,
    /// The client has no certificate that we accept.
    ClientCertificate,
}

impl Handshake {
    const ALL: [Self; 7] = [
        Self::Ok,
        Self::Timeout,
        Self::Closed,
        Self::Incompatible,
        Self::Malformed,
        Self::Refused,
        Self::ClientCertificate,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Incompatible => "incompatible",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::ClientCertificate => "client_certificate",
        }
    }
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// `limits.max_connections`.
    Limit,
    /// `limits.max_connections_per_ip`.
    LimitPerIp,
    /// It does not begin with a PROXY header, or comes from somebody who may not send one.
    ProxyHeader,
}

impl TurnedAway {
    const ALL: [Self; 3] = [Self::Limit, Self::LimitPerIp, Self::ProxyHeader];

    const fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::LimitPerIp => "limit_per_ip",
            Self::ProxyHeader => "proxy_header",
        }
    }
}

/// The handles of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Connections with a request under way.
    pub active: IntGauge,
    /// Connections without one.
    pub idle: IntGauge,
    /// Idle connections that were closed to make room.
    pub made_room: IntCounter,
    handshakes: [IntCounter; Handshake::ALL.len()],
    turned_away: [IntCounter; TurnedAway::ALL.len()],
}

impl ListenerMetrics {
    /// Those of the listener at this address.
    pub fn new(metrics: &Metrics, listener: SocketAddr) -> Self {
        let listener = listener.to_string();
        let families = &metrics.entrance;
        let connections = |state| families.connections.with_label_values(&[listener.as_str(), state]);
        let handshakes = |kind: Handshake| families.handshakes.with_label_values(&[&listener, kind.name()]);
        let turned_away = |why: TurnedAway| families.turned_away.with_label_values(&[&listener, why.name()]);
        Self {
            active: connections("active"),
            idle: connections("idle"),
            made_room: families.made_room.with_label_values(&[&listener]),
            handshakes: Handshake::ALL.map(handshakes),
            turned_away: TurnedAway::ALL.map(turned_away),
        }
    }

    /// Counts a handshake.
    pub fn handshake(&self, result: Handshake) {
        let all = Handshake::ALL.iter().zip(&self.handshakes);
        all.filter(|(kind, _)| **kind == result).for_each(|(_, counter)| counter.inc());
    }

    /// Counts a connection that was turned away.
    pub fn turned_away(&self, why: TurnedAway) {
        let all = TurnedAway::ALL.iter().zip(&self.turned_away);
        all.filter(|(kind, _)| **kind == why).for_each(|(_, counter)| counter.inc());
    }
}

impl Metrics {
    /// When each of the certificates that clients are shown ends; those that are not named are gone.
    pub(crate) fn write_certificates(&self, certificates: &[(String, SystemTime)]) {
        self.certificates.expiry.reset();
        for (certificate, expires) in certificates {
            self.certificates.expiry.with_label_values(&[certificate]).set(unix_seconds(*expires));
        }
    }

    /// Notes that certificate files have changed, and whether they could be used.
    pub fn certificate_reloaded(&self, ok: bool) {
        self.certificates.reloads.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
    }
}
