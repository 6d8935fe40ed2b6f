//! One probe of one backend, over one connector for all.
//!
//! Pingora's own checks bring a connector each, which loads the machine's certificates anew; made per probe
//! that costs more than the probe, and kept per backend it costs memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use goodgate_config::Pins;
use goodgate_failure::{Cause, ReceivedStatus};
use goodgate_upstream::{Address, HttpProbe, ProbeKind, Probed, TlsPolicy};
use http::{HeaderMap, HeaderName, Method};
use pingora_core::connectors::http::v1::Connector;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora_error::{Error, ErrorType, ImmutStr, Result};
use pingora_http::RequestHeader;

/// The connector of all probes.
#[derive(Clone)]
pub(crate) struct ProbeConnector(Arc<Connector>);

impl ProbeConnector {
    /// Loads the certificates that the machine trusts.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Connector::new(None)))
    }
}

impl std::fmt::Debug for ProbeConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeConnector")
    }
}

/// What all backends of an upstream are asked.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) kind: ProbeKind,
    pub(crate) tls: TlsPolicy,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// A field of answers that says that the backend wants no new requests.
    pub(crate) drain_header: Option<HeaderName>,
}

/// Whom it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) address: Address,
    /// The name that is sent and proven in the TLS handshake; none: no TLS.
    pub(crate) tls_name: Option<Arc<str>>,
    /// The `Host`, where the question has none.
    pub(crate) host: Option<Arc<str>>,
}

/// What a probe has found, and the status if one was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) probed: Probed,
    pub(crate) status: Option<u16>,
}

/// One probe.
pub(crate) async fn ask(connector: &ProbeConnector, question: &Question, place: &Place) -> Found {
    let mut status = None;
    let probe = question.probe(connector, place, &mut status);
    let probed = match tokio::time::timeout(question.timeout, probe).await {
        Ok(Ok(probed)) => probed,
        Ok(Err(error)) => Probed::Failed(cause(&error)),
        Err(_) => Probed::Failed(Cause::HttpResponseTimeout),
    };
    Found { probed, status }
}

impl Question {
    /// A new connection, and for HTTP one request on it. Nothing is kept.
    async fn probe(
        &self,
        connector: &ProbeConnector,
        place: &Place,
        received: &mut Option<u16>,
    ) -> Result<Probed> {
        let (mut session, _) = connector.0.get_http_session(&self.peer(place)?).await?;
        self.verify(&session, place)?;
        let ProbeKind::Http(probe) = &self.kind else { return Ok(Probed::Passed) };
        let host = probe.host.as_deref().or(place.host.as_deref()).unwrap_or_default();
        let status = send(&mut session, probe, host).await?;
        *received = Some(status);
        let fields = session.resp_header().map(|response| &response.headers);
        let has = |name| fields.is_some_and(|fields| fields.contains_key(name));
        if self.drain_header.as_ref().is_some_and(has) || (probe.drains_on_404 && status == 404) {
            return Ok(Probed::Announced);
        }
        if !probe.expect_status.iter().any(|range| range.contains(&status)) {
            return Error::e_explain(ErrorType::HTTPStatus(status), "health check");
        }
        if !fields.is_some_and(|fields| has_expected(probe, fields)) {
            return stranger();
        }
        read_body(&mut session, probe).await?;
        Ok(Probed::Passed)
    }

    /// The certificates that backends may show, where `tls.ca` names them themselves.
    fn pins(&self) -> Option<Pins> {
        self.tls.ca.as_deref().filter(|_| self.tls.verify).and_then(Pins::of)
    }

    fn verify(&self, session: &HttpSession, place: &Place) -> Result<()> {
        let (Some(pins), Some(name)) = (self.pins(), &place.tls_name) else { return Ok(()) };
        let shown = session.digest().ssl_digest.as_ref().map(|tls| tls.cert_digest.as_slice());
        if shown.is_some_and(|shown| pins.admits(shown, name, SystemTime::now())) {
            return Ok(());
        }
        Error::e_explain(ErrorType::InvalidCert, "the certificate is none of those in tls.ca")
    }

    fn peer(&self, place: &Place) -> Result<HttpPeer> {
        let name = place.tls_name.as_deref();
        let (has_tls, sni) = (name.is_some(), name.unwrap_or_default().to_owned());
        let mut peer = match place.address {
            Address::Ip(target) => HttpPeer::new(target, has_tls, sni),
            Address::Unix(path) => HttpPeer::new_uds(path, has_tls, sni)?,
        };
        // Nothing is reused: a probe is to find out whether a connection can be made.
        peer.group_key = fastrand::u64(1..);
        peer.client_cert_key = self
            .tls
            .client
            .as_ref()
            .map(|client| Arc::new(CertKey::new(client.chain().to_vec(), client.key().to_vec())));
        let options = &mut peer.options;
        options.connection_timeout = Some(self.timeout);
        options.total_connection_timeout = Some(self.timeout);
        options.read_timeout = Some(self.timeout);
        options.write_timeout = Some(self.timeout);
        let verify = self.tls.verify && self.pins().is_none();
        options.verify_cert = verify;
        options.verify_hostname = verify;
        options.ca = self.tls.ca.as_ref().map(|bundle| {
            bundle.certificates().iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect()
        });
        Ok(peer)
    }
}

/// Sends the request; the status of the final answer.
async fn send(session: &mut HttpSession, probe: &HttpProbe, host: &str) -> Result<u16> {
    let mut request = RequestHeader::build(probe.method.clone(), probe.path.as_bytes(), None)?;
    request.insert_header("Host", host)?;
    request.insert_header("User-Agent", "goodgate-health-check")?;
    for (name, value) in &probe.headers {
        request.insert_header(name, value)?;
    }
    if probe.method == Method::POST {
        request.insert_header("Content-Length", "0")?;
    }
    request.insert_header("Connection", "close")?;
    session.write_request_header(Box::new(request)).await?;
    for _ in 0..=INTERIM_MAX {
        session.read_response().await?;
        let status = session.resp_header().map_or(0, |response| response.status.as_u16());
        if !(100..200).contains(&status) {
            return Ok(status);
        }
    }
    Error::e_explain(ErrorType::Custom(NO_END), "interim responses without end")
}

/// As many interim responses as a request may get.
const INTERIM_MAX: u32 = 32;
const NO_END: &str = "InterimWithoutEnd";

fn has_expected(probe: &HttpProbe, fields: &HeaderMap) -> bool {
    probe.expect_headers.iter().all(|(name, value)| fields.get_all(name).iter().any(|found| found == value))
}

/// So much of a body is looked at.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Reads what has to be read of the body to know whether it has what is expected of it. Whoever answers without it is
/// not the service that is meant.
async fn read_body(session: &mut HttpSession, probe: &HttpProbe) -> Result<()> {
    let (mut text, pattern) = (probe.expect_body.as_deref(), &probe.expect_pattern);
    let mut body = Vec::new();
    while (text.is_some() || pattern.is_some()) && body.len() < BODY_BYTES_MAX {
        let Some(piece) = session.read_body_ref().await? else { break };
        // It may begin in what was searched before: a body that comes byte by byte is not searched again for each.
        let from = body.len().saturating_sub(text.map_or(0, str::len));
        let room = BODY_BYTES_MAX - body.len();
        body.extend_from_slice(piece.get(..room).unwrap_or(piece));
        let is_new = |wanted: &&str| {
            memchr::memmem::find(body.get(from..).unwrap_or_default(), wanted.as_bytes()).is_none()
        };
        text = text.filter(is_new);
    }
    if text.is_some() || pattern.as_ref().is_some_and(|pattern| !pattern.is_in(&body)) {
        return stranger();
    }
    Ok(())
}

fn stranger<T>() -> Result<T> {
    Error::e_explain(ErrorType::Custom(OTHER_SERVICE), "the answer is not that of the service that is meant")
}

const OTHER_SERVICE: &str = "OtherService";

/// Why a probe failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "a probe that failed otherwise ended without an answer")]
fn cause(error: &Error) -> Cause {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Cause::ConnectionTimeout,
        // The others are what Pingora makes of a Unix socket that is missing or not allowed.
        ErrorType::ConnectRefused | ErrorType::ConnectError | ErrorType::InternalError => {
            Cause::ConnectionRefused
        }
        ErrorType::ConnectNoRoute => Cause::DestinationIpUnroutable,
        ErrorType::InvalidCert => Cause::TlsCertificateError,
        ErrorType::TLSHandshakeFailure => {
            Cause::of_handshake(error.context.as_ref().map(ImmutStr::as_str).unwrap_or_default())
        }
        ErrorType::ReadTimedout => Cause::HttpResponseTimeout,
        ErrorType::HTTPStatus(status) => {
            ReceivedStatus::from_code(*status).map_or(Cause::HttpProtocolError, Cause::Received)
        }
        ErrorType::InvalidHTTPHeader | ErrorType::Custom(OTHER_SERVICE | NO_END) => Cause::HttpProtocolError,
        _ => Cause::ConnectionTerminated,
    }
}
