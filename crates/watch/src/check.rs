//! One probe of one backend, over one connector for all.
//!
//! Pingora's own checks bring a connector each, which loads the machine's certificates anew; made per probe
//! that costs more than the probe, and kept per backend it costs memory.

use std::sync::Arc;

use goodgate_failure::{Cause, ReceivedStatus};
use goodgate_upstream::{Address, Backend, ProbeKind, ProbePolicy, Probed, TlsPolicy};
use http::HeaderName;
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

/// What is asked of one backend.
pub(crate) struct Check {
    pub(crate) connector: ProbeConnector,
    pub(crate) policy: ProbePolicy,
    pub(crate) tls: TlsPolicy,
    /// A field of answers that says that the backend wants no new requests.
    pub(crate) drain_header: Option<HeaderName>,
    pub(crate) backend: Arc<Backend>,
}

impl Check {
    /// A new connection, and for HTTP one request on it. Nothing is kept.
    pub(crate) async fn probe(&self) -> Result<Probed> {
        let (mut session, _) = self.connector.0.get_http_session(&self.peer()?).await?;
        match &self.policy.kind {
            ProbeKind::Tcp => Ok(Probed::Passed),
            ProbeKind::Http { path, host, expect_status, expect_body, drains_on_404 } => {
                let host = host.as_deref().unwrap_or(self.backend.host());
                let status = self.ask(&mut session, path, host).await?;
                let drains = self.drain_header.as_ref().is_some_and(|name| {
                    session.resp_header().is_some_and(|response| response.headers.contains_key(name))
                });
                if drains || (*drains_on_404 && status == 404) {
                    return Ok(Probed::Announced);
                }
                let is_good = expect_status.iter().any(|range| range.contains(&status));
                if !is_good {
                    return Error::e_explain(ErrorType::HTTPStatus(status), "health check");
                }
                if let Some(text) = expect_body {
                    contains(&mut session, text.as_bytes()).await?;
                }
                Ok(Probed::Passed)
            }
        }
    }

    fn peer(&self) -> Result<HttpPeer> {
        let name = self.backend.tls_name.as_deref();
        let (has_tls, sni) = (name.is_some(), name.unwrap_or_default().to_owned());
        let mut peer = match self.backend.address {
            Address::Ip(mut target) => {
                if let Some(port) = self.policy.port {
                    target.set_port(port.get());
                }
                HttpPeer::new(target, has_tls, sni)
            }
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
        options.connection_timeout = Some(self.policy.timeout);
        options.total_connection_timeout = Some(self.policy.timeout);
        options.read_timeout = Some(self.policy.timeout);
        options.write_timeout = Some(self.policy.timeout);
        options.verify_cert = self.tls.verify;
        options.verify_hostname = self.tls.verify;
        options.ca = self.tls.ca.as_ref().map(|bundle| {
            bundle.certificates().iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect()
        });
        Ok(peer)
    }

    async fn ask(&self, session: &mut HttpSession, path: &str, host: &str) -> Result<u16> {
        let mut request = RequestHeader::build("GET", path.as_bytes(), None)?;
        request.insert_header("Host", host)?;
        request.insert_header("User-Agent", "goodgate-health-check")?;
        request.insert_header("Connection", "close")?;
        session.write_request_header(Box::new(request)).await?;
        loop {
            session.read_response().await?;
            let status = session.resp_header().map_or(0, |response| response.status.as_u16());
            if !(100..200).contains(&status) {
                return Ok(status);
            }
        }
    }
}

/// So much of a body is looked at.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Whether the beginning of the body contains the text. Whoever answers without it is not the service that is meant.
async fn contains(session: &mut HttpSession, text: &[u8]) -> Result<()> {
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX {
        let Some(piece) = session.read_body_ref().await? else { break };
        body.extend_from_slice(piece);
        if memchr::memmem::find(&body, text).is_some() {
            return Ok(());
        }
    }
    Error::e_explain(ErrorType::Custom(WRONG_BODY), "the body of the health check lacks the expected text")
}

const WRONG_BODY: &str = "WrongBody";

/// Why a probe failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "a probe that failed otherwise ended without an answer")]
pub(crate) fn cause(error: &Error) -> Cause {
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
        ErrorType::InvalidHTTPHeader | ErrorType::Custom(WRONG_BODY) => Cause::HttpProtocolError,
        _ => Cause::ConnectionTerminated,
    }
}
