//! Pingora's errors as causes: one total match, and the one place that reads error text.

use std::io;

use goodgate_failure::{Address, Cause, Phase, ReceivedStatus};
use goodgate_telemetry::Refused;
use nix::errno::Errno;
use pingora_error::{Error, ErrorType};

use crate::answer::ErrorAnswer;

mod detail;

pub(crate) use detail::detail;

/// The error type of what was decided in a hook and only travels through Pingora as an error.
pub(crate) const SETTLED: ErrorType = ErrorType::Custom("Settled");

/// The error type of a request body over the route's limit.
pub(crate) const BODY_TOO_LARGE: ErrorType = ErrorType::Custom("RequestBodyTooLarge");

/// Why an attempt failed, from the error it ended with and how far it had come.
pub(crate) fn attempt(error: &Error, phase: Phase) -> Cause {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Cause::ConnectionTimeout,
        ErrorType::ConnectRefused => Cause::ConnectionRefused,
        ErrorType::ConnectNoRoute => Cause::DestinationIpUnroutable,
        ErrorType::InvalidCert => Cause::TlsCertificateError,
        ErrorType::TLSHandshakeFailure | ErrorType::TLSWantX509Lookup | ErrorType::HandshakeError => {
            Cause::of_handshake(text(error))
        }
        ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::AcceptError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure => connect(error),
        // What Pingora makes of a socket that cannot be had.
        ErrorType::InternalError if phase == Phase::Connect && io_error(error).is_some() => connect(error),
        ErrorType::InvalidHTTPHeader => invalid_header(error),
        ErrorType::H1Error | ErrorType::H2Error | ErrorType::H2Downgrade | ErrorType::InvalidH2 => {
            Cause::HttpProtocolError
        }
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => {
            let is_alert = io_error(error).is_some_and(|io| Cause::is_tls_alert(&io.to_string()));
            if is_alert { Cause::TlsAlertReceived } else { broken(phase) }
        }
        ErrorType::ReadTimedout => match phase {
            Phase::Response => Cause::ConnectionReadTimeout,
            Phase::Connect | Phase::Request => Cause::HttpResponseTimeout,
        },
        ErrorType::WriteTimedout => Cause::ConnectionWriteTimeout,
        ErrorType::HTTPStatus(status) | ErrorType::CustomCode(_, status) => {
            ReceivedStatus::from_code(*status).map_or(Cause::ProxyInternalError, Cause::Received)
        }
        ErrorType::Custom("InvalidChunk") => Cause::HttpResponseTransferCoding,
        ErrorType::Custom("PrematureBodyEnd") => Cause::HttpResponseIncomplete,
        ErrorType::FileOpenError
        | ErrorType::FileCreateError
        | ErrorType::FileReadError
        | ErrorType::FileWriteError
        | ErrorType::InternalError
        | ErrorType::UnknownError
        | ErrorType::Custom(_) => Cause::ProxyInternalError,
    }
}

/// What the client did wrong, or that it left.
pub(crate) fn client(error: &Error) -> ErrorAnswer {
    let wrong = |status, details| ErrorAnswer { status, cause: Cause::HttpRequestError, details };
    let gone = ErrorAnswer::of(Cause::ClientDisconnected);
    let own = io_error(error).filter(|io| io.raw_os_error().is_none()).map(io::Error::kind);
    match (error.etype(), own) {
        (etype, _) if *etype == BODY_TOO_LARGE => TOO_LARGE,
        (ErrorType::ReadError, Some(io::ErrorKind::TimedOut)) => {
            wrong(408, "The request body came too slowly.")
        }
        (ErrorType::WriteError, Some(io::ErrorKind::TimedOut)) => {
            ErrorAnswer { details: SLOW_READER, ..gone }
        }
        (ErrorType::ReadTimedout, _) => wrong(408, "The request body did not come in time."),
        // The first is what our own stream says.
        (ErrorType::ReadError, Some(io::ErrorKind::InvalidData))
        | (ErrorType::Custom("InvalidChunk" | "InvalidTrailerEnd"), _) => wrong(400, BAD_CHUNKS),
        (ErrorType::InvalidHTTPHeader, _) => ErrorAnswer::of(Cause::HttpRequestError),
        _ => gone,
    }
}

/// What is wrong with a body that was answered in this way, if that is what is wrong.
pub(crate) fn refused_body(status: u16, detail: Option<&'static str>) -> Option<Refused> {
    match status {
        408 => Some(Refused::BodyTimeout),
        413 => Some(Refused::BodyTooLarge),
        400 if detail == Some(BAD_CHUNKS) => Some(Refused::Chunks),
        _ => None,
    }
}

const BAD_CHUNKS: &str = "The request body is not chunked as it should be.";
const SLOW_READER: &str = "The client did not take the answer in time.";

/// The answer to a request body over the limit.
pub(crate) const TOO_LARGE: ErrorAnswer = ErrorAnswer {
    status: 413,
    cause: Cause::HttpRequestError,
    details: "The request body is larger than what is allowed here.",
};

/// Why a connection could not be made. A Unix socket that may not be used is nothing that has no route: it refuses,
/// like one that is missing or that nobody listens on. The detail says which.
pub(crate) fn connecting(error: &Error, to: Option<Address>) -> Cause {
    let cause = attempt(error, Phase::Connect);
    let has_no_route = cause == Cause::DestinationIpUnroutable;
    if has_no_route && to.is_some_and(Address::is_unix) { Cause::ConnectionRefused } else { cause }
}

fn broken(phase: Phase) -> Cause {
    match phase {
        Phase::Response => Cause::HttpResponseIncomplete,
        Phase::Connect | Phase::Request => Cause::ConnectionTerminated,
    }
}

/// A connect that failed otherwise: by the error number beneath.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's list is open; what is not named here is a refusal"
)]
fn connect(error: &Error) -> Cause {
    let Some(number) = io_error(error).and_then(io::Error::raw_os_error) else {
        return Cause::ConnectionRefused;
    };
    match Errno::from_raw(number) {
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL => {
            Cause::ResourceExhausted
        }
        Errno::ENETUNREACH
        | Errno::EHOSTUNREACH
        | Errno::ENETDOWN
        | Errno::EHOSTDOWN
        | Errno::EACCES
        | Errno::EPERM => Cause::DestinationIpUnroutable,
        Errno::ETIMEDOUT => Cause::ConnectionTimeout,
        _ => Cause::ConnectionRefused,
    }
}

fn text(error: &Error) -> &str {
    error.context.as_ref().map(pingora_error::ImmutStr::as_str).unwrap_or_default()
}

fn io_error(error: &Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> =
        error.cause.as_deref().map(|cause| cause as _);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io);
        }
        if let Some(inner) = current.downcast_ref::<Box<Error>>() {
            return io_error(inner);
        }
        cause = current.source();
    }
    None
}

/// Pingora has one type for a header that is not HTTP and for one that is too long: only its text tells.
fn invalid_header(error: &Error) -> Cause {
    let parser = error.cause.as_deref().and_then(|cause| cause.downcast_ref::<httparse::Error>());
    if text(error).contains("larger than") || parser == Some(&httparse::Error::TooManyHeaders) {
        Cause::HttpResponseHeaderSectionSize
    } else {
        Cause::HttpProtocolError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pingora's error where a connection could not be made.
    fn failed(number: Errno, etype: ErrorType) -> Error {
        *Error::because(etype, "Fail to connect", io::Error::from_raw_os_error(number as i32))
    }

    #[test]
    fn a_unix_socket_that_cannot_be_used_refuses_the_connection() {
        let socket = Some(Address::unix("/run/app.sock"));
        let host = Some(Address::Ip(([10, 0, 0, 1], 80).into()));
        for (number, etype) in [
            (Errno::ENOENT, ErrorType::ConnectError),
            (Errno::EACCES, ErrorType::InternalError),
            (Errno::ECONNREFUSED, ErrorType::ConnectRefused),
            (Errno::EAGAIN, ErrorType::ConnectError),
        ] {
            let error = failed(number, etype);
            assert_eq!(connecting(&error, socket), Cause::ConnectionRefused, "{number}");
            assert!(detail(&error).is_some_and(|detail| detail.contains("os error")), "{number}");
        }
        let denied = failed(Errno::EACCES, ErrorType::InternalError);
        assert_eq!(connecting(&denied, host), Cause::DestinationIpUnroutable);
        let too_many = failed(Errno::EMFILE, ErrorType::InternalError);
        assert_eq!(connecting(&too_many, socket), Cause::ResourceExhausted);
    }
}
