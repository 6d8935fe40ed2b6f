//! The detail of a failed attempt, from a closed set of words: those of the kernel for an error number, those of the
//! protocol libraries for an error code, and those of this file. Error texts of libraries are never copied: Pingora's
//! carry the bytes before an unreadable header line, and a GOAWAY or a certificate carries text of the other side.

use std::error::Error as StdError;
use std::io;

use pingora_error::{Error, ErrorType};

/// What the failure was; none where the cause says it all.
pub(crate) fn detail(error: &Error) -> Option<Box<str>> {
    let known = Chain(error.cause.as_deref().map(|cause| cause as _)).filter_map(of_cause).last();
    known.or_else(|| of_text(error.etype(), super::text(error))).map(Into::into)
}

/// The errors beneath one of Pingora's, the innermost last.
struct Chain<'a>(Option<&'a (dyn StdError + 'static)>);

impl<'a> Iterator for Chain<'a> {
    type Item = &'a (dyn StdError + 'static);

    fn next(&mut self) -> Option<Self::Item> {
        let current = self.0?;
        self.0 = if let Some(io) = current.downcast_ref::<io::Error>() {
            io.get_ref().map(|inner| inner as _)
        } else if let Some(inner) = current.downcast_ref::<Box<Error>>() {
            inner.cause.as_deref().map(|cause| cause as _)
        } else {
            current.source()
        };
        Some(current)
    }
}

fn of_cause(cause: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return Some(of_io(error));
    }
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(of_tls(&error.to_string()));
    }
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return Some(of_h2(error));
    }
    // All of its texts are constants.
    cause.downcast_ref::<httparse::Error>().map(ToString::to_string)
}

/// The kernel's words for the number, or the library's for the kind; never a text that came with it.
fn of_io(error: &io::Error) -> String {
    let number = error.raw_os_error();
    number.map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error).to_string()
}

fn of_h2(error: &h2::Error) -> String {
    let what = if error.is_go_away() {
        "GOAWAY"
    } else if error.is_reset() {
        "RST_STREAM"
    } else {
        "HTTP/2 error"
    };
    match (error.reason(), error.get_io()) {
        (Some(reason), _) => {
            let by = if error.is_remote() { "received" } else { "sent" };
            format!("{what} {by}: {}", reason.description())
        }
        (None, Some(io)) => of_io(io),
        (None, None) => what.to_owned(),
    }
}

fn of_text(etype: &ErrorType, text: &str) -> Option<String> {
    let is_tls = matches!(etype, ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError);
    if is_tls {
        return Some(of_tls(text));
    }
    TEXTS.iter().find(|(begin, _)| text.starts_with(begin)).map(|(_, detail)| (*detail).to_owned())
}

/// How texts of Pingora begin, up to the first byte that may come from the other side, and what they mean.
const TEXTS: [(&str, &str); 14] = [
    ("Response header larger than", "the response header is larger than 1 MiB"),
    ("while reading response headers, bytes already read: 0", "closed before the response began"),
    ("while reading response headers, bytes already read", "closed within the response header"),
    ("Peer prematurely closed connection", "closed before the end of the body"),
    ("Connection prematurely closed", "closed before the last chunk"),
    ("Invalid chunked encoding", "a chunk does not end with CRLF"),
    ("Invalid chunk", "a chunk cannot be read"),
    ("Chunk ext over limit", "a chunk extension is too long"),
    ("chunk", "a chunk size is too large"),
    ("Trailer size over limit", "the trailers are too long"),
    ("negative Content-Length", "Content-Length is negative"),
    ("invalid Content-Length", "Content-Length cannot be read"),
    ("Content-Length", "Content-Length is too large"),
    ("invalid Transfer-Encoding", "Transfer-Encoding cannot be read"),
];

/// What a text of the TLS library says: its first words, and the name of a variant or alert behind them.
fn of_tls(text: &str) -> String {
    if let Some((_, why)) = text.split_once("invalid peer certificate: ") {
        let known = CERTIFICATE.iter().find(|(begin, _)| why.starts_with(begin));
        return format!("invalid peer certificate: {}", known.map_or("not acceptable", |(_, words)| words));
    }
    let found = TLS.iter().find_map(|words| Some((*words, text.split_once(*words)?.1)));
    match found {
        Some((words, rest)) => match variant(rest) {
            "" => words.to_owned(),
            variant => format!("{words}: {variant}"),
        },
        None => "the TLS handshake failed".to_owned(),
    }
}

/// The name of a variant behind these words. All that the library puts there are its own identifiers.
fn variant(rest: &str) -> &str {
    let rest = rest.trim_start_matches(" of type").trim_start_matches([':', ' ']);
    rest.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default()
}

const TLS: [&str; 9] = [
    "received fatal alert",
    "received corrupt message",
    "received unexpected message",
    "received unexpected handshake message",
    "peer is incompatible",
    "peer misbehaved",
    "cannot decrypt peer's message",
    "peer sent no certificates",
    "tls handshake eof",
];

const CERTIFICATE: [(&str, &str); 14] = [
    ("UnknownIssuer", "UnknownIssuer"),
    ("certificate not valid for name", "not valid for the name that is verified"),
    ("NotValidForName", "not valid for the name that is verified"),
    ("certificate expired", "expired"),
    ("Expired", "expired"),
    ("certificate not valid yet", "not valid yet"),
    ("NotValidYet", "not valid yet"),
    ("Revoked", "revoked"),
    ("BadSignature", "BadSignature"),
    ("BadEncoding", "BadEncoding"),
    ("UnhandledCriticalExtension", "UnhandledCriticalExtension"),
    ("UnsupportedSignatureAlgorithm", "UnsupportedSignatureAlgorithm"),
    ("certificate does not allow extended key usage", "not valid for this purpose"),
    ("InvalidPurpose", "not valid for this purpose"),
];

#[cfg(test)]
mod tests {
    use pingora_error::OrErr;

    use super::*;

    const SECRET: &str = "Set-Cookie: session=SECRET";

    fn said(error: &Error) -> String {
        let said = detail(error).map_or(String::new(), str::into_string);
        assert!(!said.contains("SECRET"), "{said}");
        said
    }

    #[test]
    fn no_text_of_an_error_of_any_type_is_copied() {
        let types = [
            ErrorType::InvalidHTTPHeader,
            ErrorType::ConnectionClosed,
            ErrorType::ReadError,
            ErrorType::H2Error,
            ErrorType::InvalidCert,
            ErrorType::TLSHandshakeFailure,
            ErrorType::InternalError,
            ErrorType::Custom("InvalidChunk"),
            ErrorType::Custom("PrematureBodyEnd"),
        ];
        for etype in types {
            let all =
                TEXTS.iter().map(|(begin, _)| *begin).chain(TLS).chain(["", "invalid peer certificate: "]);
            for begin in all {
                let text = format!("{begin} {SECRET} cause: {SECRET}");
                said(&Error::explain(etype.clone(), text.clone()));
                let inner = io::Error::new(io::ErrorKind::InvalidData, text.clone());
                said(&Error::because(etype.clone(), text.clone(), inner));
                let wrapped: Result<(), _> = Err(Error::explain(etype.clone(), text.clone()));
                said(&wrapped.or_err(etype.clone(), SECRET).unwrap_err());
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_fixed_words() {
        let because =
            |cause: Box<dyn StdError + Send + Sync>| Error::because(ErrorType::ReadError, SECRET, cause);
        let refused = io::Error::from_raw_os_error(nix::libc::ECONNREFUSED);
        assert!(said(&because(Box::new(refused))).starts_with("Connection refused"));
        assert_eq!(said(&because(Box::new(httparse::Error::HeaderName))), "invalid header name");
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let alert = io::Error::new(io::ErrorKind::InvalidData, alert);
        assert_eq!(said(&because(Box::new(alert))), "received fatal alert: CertificateRequired");
        let reset = h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM);
        assert!(said(&because(Box::new(reset))).starts_with("HTTP/2 error sent: "));
        for (text, means) in [
            ("TLS connect() failed: invalid peer certificate: UnknownIssuer, SNI: a", "UnknownIssuer"),
            ("invalid peer certificate: certificate not valid for name \"a\"; SECRET", "is verified"),
            (
                "TLS connect() failed: received corrupt message of type InvalidContentType",
                ": InvalidContentType",
            ),
            ("TLS connect() failed: tls handshake eof, SNI: a", "tls handshake eof"),
        ] {
            let said = said(&Error::explain(ErrorType::TLSHandshakeFailure, text));
            assert!(said.ends_with(means), "{said}");
        }
    }
}
