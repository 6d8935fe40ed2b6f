//! What a TLS library's own words mean.
//!
//! A failed handshake reaches us as text alone. The words are those of rustls; scenarios pin them, so that an
//! upgrade that rewords them fails a test.

use crate::Cause;

impl Cause {
    /// The cause that a failed handshake's text tells of.
    pub fn of_handshake(text: &str) -> Self {
        if text.contains("invalid peer certificate") {
            Self::TlsCertificateError
        } else if text.contains(ALERT) {
            Self::TlsAlertReceived
        } else {
            Self::TlsProtocolError
        }
    }

    /// Whether the text of an error on a standing connection tells of an alert: with TLS 1.3 a backend refuses
    /// a client without a certificate only after the handshake.
    pub fn is_tls_alert(text: &str) -> bool {
        text.contains(ALERT)
    }
}

const ALERT: &str = "received fatal alert";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_library_are_told_apart() {
        let cases = [
            ("invalid peer certificate: UnknownIssuer", Cause::TlsCertificateError),
            (
                "received fatal alert: the peer does not support any known protocol version",
                Cause::TlsAlertReceived,
            ),
            ("received corrupt message of type InvalidContentType", Cause::TlsProtocolError),
            ("tls handshake eof", Cause::TlsProtocolError),
        ];
        for (text, cause) in cases {
            assert_eq!(Cause::of_handshake(text), cause, "{text}");
        }
    }
}
