//! The table of causes: one variant a row, named by the error types of RFC 9209 section 2.3.
//!
//! A row is added here and nowhere else; every property is an exhaustive `match`, so the compiler lists
//! the places that a new row must be thought through. `received_<status>` is ours: an answer that the
//! backend itself sent is no error type there, it goes out as `received-status=<status>`.

use crate::words::Word;

/// Why an attempt or a request failed. `Copy`, closed, the same word everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The resolver did not answer in time and no last-good address is kept.
    DnsTimeout,
    /// The resolver said no such name, or failed, and no last-good address is kept.
    DnsError,
    /// No backend may be tried: the upstream is empty, or all that could be have been.
    DestinationUnavailable,
    /// Connect: no route to host, network unreachable.
    DestinationIpUnroutable,
    /// Connect: refused.
    ConnectionRefused,
    /// Connect: not established within `timeouts.connect`.
    ConnectionTimeout,
    /// Every usable backend is at its limit of connections.
    ConnectionLimitReached,
    /// TLS: the certificate is untrusted, expired, not yet valid or for another name.
    TlsCertificateError,
    /// TLS: the handshake failed otherwise.
    TlsProtocolError,
    /// TLS: the backend sent an alert.
    TlsAlertReceived,
    /// Closed or reset after the connect and before a complete response header.
    ConnectionTerminated,
    /// The request was not accepted within `timeouts.write`.
    ConnectionWriteTimeout,
    /// No response header within `timeouts.first_byte`, or within the request's deadline.
    HttpResponseTimeout,
    /// Not HTTP: a malformed status line or header, ambiguous framing, an unasked 101.
    HttpProtocolError,
    /// The response header is larger than the limit.
    HttpResponseHeaderSectionSize,
    /// The response body is larger than the route's limit.
    HttpResponseBodySize,
    /// An upgrade was not accepted as asked.
    HttpUpgradeFailed,
    /// The response body stalled for longer than `timeouts.read`.
    ConnectionReadTimeout,
    /// The response body ended early.
    HttpResponseIncomplete,
    /// The response body's chunked coding is broken.
    HttpResponseTransferCoding,
    /// The backend answered with a status that counts as a failure.
    Received(ReceivedStatus),
    /// No local port, file handle or memory for the attempt.
    ResourceExhausted,
    /// Our own identifier is among those that the request passed already.
    ProxyLoopDetected,
    /// The route cannot be served as configured.
    ProxyConfigurationError,
    /// A bug of ours.
    ProxyInternalError,
    /// The client's request is not valid HTTP.
    HttpRequestError,
    /// A limit or a rule of ours refused the request.
    HttpRequestDenied,
    /// The client went away first: logged as 499, nobody's failure.
    ClientDisconnected,
}

/// The statuses of a backend that can count as a failure, as a closed set so that they can be labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceivedStatus {
    /// 500
    S500,
    /// 502
    S502,
    /// 503
    S503,
    /// 504
    S504,
    /// 429
    S429,
    /// 403
    S403,
    /// 404
    S404,
}

impl ReceivedStatus {
    /// Every member, in the order of the table.
    pub const ALL: [Self; 7] =
        [Self::S500, Self::S502, Self::S503, Self::S504, Self::S429, Self::S403, Self::S404];

    /// The member for a status code, if it is one of the set.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// The status code.
    pub const fn code(self) -> u16 {
        match self {
            Self::S500 => 500,
            Self::S502 => 502,
            Self::S503 => 503,
            Self::S504 => 504,
            Self::S429 => 429,
            Self::S403 => 403,
            Self::S404 => 404,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::S500 => "received_500",
            Self::S502 => "received_502",
            Self::S503 => "received_503",
            Self::S504 => "received_504",
            Self::S429 => "received_429",
            Self::S403 => "received_403",
            Self::S404 => "received_404",
        }
    }

    const fn word(self) -> Word {
        match self {
            Self::S500 => Word::Http500,
            Self::S502 => Word::Http502,
            Self::S503 => Word::Http503,
            Self::S504 => Word::Http504,
            Self::S429 => Word::Http429,
            Self::S403 => Word::Http403,
            Self::S404 => Word::Http404,
        }
    }
}

/// Whom a failure speaks against, for passive health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody that we forward to: a client, our own limits, DNS.
    Nobody,
    /// The backend, and it could not even be connected to: always counts.
    BackendUnreachable,
    /// The backend, after the connection stood: counts subject to `min_fail_share`.
    BackendMisbehaved,
}

impl Cause {
    /// Every cause, in the order of the table. The order is stable: indexes into arrays of counters.
    pub const ALL: [Self; 34] = [
        Self::DnsTimeout,
        Self::DnsError,
        Self::DestinationUnavailable,
        Self::DestinationIpUnroutable,
        Self::ConnectionRefused,
        Self::ConnectionTimeout,
        Self::ConnectionLimitReached,
        Self::TlsCertificateError,
        Self::TlsProtocolError,
        Self::TlsAlertReceived,
        Self::ConnectionTerminated,
        Self::ConnectionWriteTimeout,
        Self::HttpResponseTimeout,
        Self::HttpProtocolError,
        Self::HttpResponseHeaderSectionSize,
        Self::HttpResponseBodySize,
        Self::HttpUpgradeFailed,
        Self::ConnectionReadTimeout,
        Self::HttpResponseIncomplete,
        Self::HttpResponseTransferCoding,
        Self::Received(ReceivedStatus::S500),
        Self::Received(ReceivedStatus::S502),
        Self::Received(ReceivedStatus::S503),
        Self::Received(ReceivedStatus::S504),
        Self::Received(ReceivedStatus::S429),
        Self::Received(ReceivedStatus::S403),
        Self::Received(ReceivedStatus::S404),
        Self::ResourceExhausted,
        Self::ProxyLoopDetected,
        Self::ProxyConfigurationError,
        Self::ProxyInternalError,
        Self::HttpRequestError,
        Self::HttpRequestDenied,
        Self::ClientDisconnected,
    ];

    /// Position in [`Cause::ALL`]: a dense index for arrays of counters.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|cause| *cause == self).unwrap_or_default()
    }

    /// The word for logs, headers, metrics and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DnsTimeout => "dns_timeout",
            Self::DnsError => "dns_error",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::DestinationIpUnroutable => "destination_ip_unroutable",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::TlsCertificateError => "tls_certificate_error",
            Self::TlsProtocolError => "tls_protocol_error",
            Self::TlsAlertReceived => "tls_alert_received",
            Self::ConnectionTerminated => "connection_terminated",
            Self::ConnectionWriteTimeout => "connection_write_timeout",
            Self::HttpResponseTimeout => "http_response_timeout",
            Self::HttpProtocolError => "http_protocol_error",
            Self::HttpResponseHeaderSectionSize => "http_response_header_section_size",
            Self::HttpResponseBodySize => "http_response_body_size",
            Self::HttpUpgradeFailed => "http_upgrade_failed",
            Self::ConnectionReadTimeout => "connection_read_timeout",
            Self::HttpResponseIncomplete => "http_response_incomplete",
            Self::HttpResponseTransferCoding => "http_response_transfer_coding",
            Self::Received(status) => status.name(),
            Self::ResourceExhausted => "resource_exhausted",
            Self::ProxyLoopDetected => "proxy_loop_detected",
            Self::ProxyConfigurationError => "proxy_configuration_error",
            Self::ProxyInternalError => "proxy_internal_error",
            Self::HttpRequestError => "http_request_error",
            Self::HttpRequestDenied => "http_request_denied",
            Self::ClientDisconnected => "client_disconnected",
        }
    }

    /// The status that we answer with if nothing rescues the request: 502 for a bad answer, 503 for no
    /// capacity, 504 for time. For a client's own mistake it is the default of its kind; the place that
    /// refuses may know a better one. 499 is only ever logged.
    pub const fn status(self) -> u16 {
        match self {
            Self::DnsTimeout
            | Self::ConnectionTimeout
            | Self::ConnectionWriteTimeout
            | Self::HttpResponseTimeout
            | Self::ConnectionReadTimeout => 504,
            Self::DestinationUnavailable | Self::ConnectionLimitReached | Self::ResourceExhausted => 503,
            Self::DnsError
            | Self::DestinationIpUnroutable
            | Self::ConnectionRefused
            | Self::TlsCertificateError
            | Self::TlsProtocolError
            | Self::TlsAlertReceived
            | Self::ConnectionTerminated
            | Self::HttpProtocolError
            | Self::HttpResponseHeaderSectionSize
            | Self::HttpResponseBodySize
            | Self::HttpUpgradeFailed
            | Self::HttpResponseIncomplete
            | Self::HttpResponseTransferCoding
            | Self::ProxyLoopDetected => 502,
            Self::Received(status) => status.code(),
            Self::ProxyConfigurationError | Self::ProxyInternalError => 500,
            Self::HttpRequestError => 400,
            Self::HttpRequestDenied => 403,
            Self::ClientDisconnected => 499,
        }
    }

    /// The word of `use_stale`, `retry.on` and `fail_on` that covers this cause; none for what no
    /// other backend and no old copy may answer.
    pub const fn word(self) -> Option<Word> {
        match self {
            Self::DnsTimeout
            | Self::ConnectionTimeout
            | Self::ConnectionWriteTimeout
            | Self::HttpResponseTimeout
            | Self::ConnectionReadTimeout => Some(Word::Timeout),
            Self::DnsError
            | Self::DestinationUnavailable
            | Self::DestinationIpUnroutable
            | Self::ConnectionRefused
            | Self::ConnectionLimitReached
            | Self::TlsCertificateError
            | Self::TlsProtocolError
            | Self::TlsAlertReceived
            | Self::ConnectionTerminated
            | Self::HttpResponseIncomplete
            | Self::ResourceExhausted
            | Self::ProxyInternalError => Some(Word::Error),
            Self::HttpProtocolError
            | Self::HttpResponseHeaderSectionSize
            | Self::HttpResponseBodySize
            | Self::HttpResponseTransferCoding => Some(Word::InvalidHeader),
            Self::Received(status) => Some(status.word()),
            Self::HttpUpgradeFailed
            | Self::ProxyLoopDetected
            | Self::ProxyConfigurationError
            | Self::HttpRequestError
            | Self::HttpRequestDenied
            | Self::ClientDisconnected => None,
        }
    }

    /// Whether nothing of the request had been sent: free of `tries`, budget and `replay`.
    pub const fn is_before_sending(self) -> bool {
        match self {
            Self::DnsTimeout
            | Self::DnsError
            | Self::DestinationUnavailable
            | Self::DestinationIpUnroutable
            | Self::ConnectionRefused
            | Self::ConnectionTimeout
            | Self::ConnectionLimitReached
            | Self::TlsCertificateError
            | Self::TlsProtocolError
            | Self::TlsAlertReceived
            | Self::ResourceExhausted => true,
            Self::ConnectionTerminated
            | Self::ConnectionWriteTimeout
            | Self::HttpResponseTimeout
            | Self::HttpProtocolError
            | Self::HttpResponseHeaderSectionSize
            | Self::HttpResponseBodySize
            | Self::HttpUpgradeFailed
            | Self::ConnectionReadTimeout
            | Self::HttpResponseIncomplete
            | Self::HttpResponseTransferCoding
            | Self::Received(_)
            | Self::ProxyLoopDetected
            | Self::ProxyConfigurationError
            | Self::ProxyInternalError
            | Self::HttpRequestError
            | Self::HttpRequestDenied
            | Self::ClientDisconnected => false,
        }
    }

    /// Whom it speaks against. A received status counts only where `fail_on` names it.
    pub const fn blame(self) -> Blame {
        match self {
            Self::DestinationIpUnroutable
            | Self::ConnectionRefused
            | Self::ConnectionTimeout
            | Self::TlsCertificateError
            | Self::TlsProtocolError
            | Self::TlsAlertReceived => Blame::BackendUnreachable,
            Self::ConnectionTerminated
            | Self::ConnectionWriteTimeout
            | Self::HttpResponseTimeout
            | Self::HttpProtocolError
            | Self::ConnectionReadTimeout
            | Self::HttpResponseIncomplete
            | Self::HttpResponseTransferCoding
            | Self::Received(_) => Blame::BackendMisbehaved,
            Self::DnsTimeout
            | Self::DnsError
            | Self::DestinationUnavailable
            | Self::ConnectionLimitReached
            | Self::HttpResponseHeaderSectionSize
            | Self::HttpResponseBodySize
            | Self::HttpUpgradeFailed
            | Self::ResourceExhausted
            | Self::ProxyLoopDetected
            | Self::ProxyConfigurationError
            | Self::ProxyInternalError
            | Self::HttpRequestError
            | Self::HttpRequestDenied
            | Self::ClientDisconnected => Blame::Nobody,
        }
    }

    /// What happened, in one plain sentence without internals: for the client's eyes.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::DnsTimeout => "The address of the service could not be looked up in time.",
            Self::DnsError => "The address of the service could not be found.",
            Self::DestinationUnavailable => "No server of the service is available at the moment.",
            Self::DestinationIpUnroutable => "The service could not be reached over the network.",
            Self::ConnectionRefused => "The service refused the connection.",
            Self::ConnectionTimeout => "The service did not accept the connection in time.",
            Self::ConnectionLimitReached => "The service is at its limit of connections.",
            Self::TlsCertificateError => "The service could not prove its identity.",
            Self::TlsProtocolError => "A secure connection to the service could not be made.",
            Self::TlsAlertReceived => "The service refused the secure connection.",
            Self::ConnectionTerminated => "The service closed the connection before it answered.",
            Self::ConnectionWriteTimeout => "The service did not take the request in time.",
            Self::HttpResponseTimeout => "The service did not answer in time.",
            Self::HttpProtocolError => "The service sent an answer that is not valid.",
            Self::HttpResponseHeaderSectionSize => "The header of the service's answer is too large.",
            Self::HttpResponseBodySize => "The service's answer is too large.",
            Self::HttpUpgradeFailed => "The service did not accept the change of protocol.",
            Self::ConnectionReadTimeout => "The service stopped in the middle of its answer.",
            Self::HttpResponseIncomplete => "The service's answer ended early.",
            Self::HttpResponseTransferCoding => "The service's answer is garbled.",
            Self::Received(_) => "The service answered with an error.",
            Self::ResourceExhausted => "The gateway is short of resources.",
            Self::ProxyLoopDetected => "The request went round in a circle.",
            Self::ProxyConfigurationError => "The gateway is not set up for this request.",
            Self::ProxyInternalError => "Something went wrong in the gateway.",
            Self::HttpRequestError => "The request is not valid.",
            Self::HttpRequestDenied => "The request is not allowed.",
            Self::ClientDisconnected => "The client went away.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_and_indexes_dense() {
        let names: HashSet<_> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        for (position, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(cause.index(), position, "{}", cause.name());
        }
    }

    #[test]
    fn what_was_never_sent_is_never_a_bad_answer() {
        for cause in Cause::ALL.into_iter().filter(|cause| cause.is_before_sending()) {
            assert_ne!(cause.word(), Some(Word::InvalidHeader), "{}", cause.name());
            assert_ne!(cause.blame(), Blame::BackendMisbehaved, "{}", cause.name());
        }
    }

    #[test]
    fn only_received_statuses_pass_a_status_on() {
        for status in ReceivedStatus::ALL {
            assert_eq!(Cause::Received(status).status(), status.code());
            assert_eq!(ReceivedStatus::from_code(status.code()), Some(status));
        }
        assert_eq!(ReceivedStatus::from_code(418), None);
    }
}
