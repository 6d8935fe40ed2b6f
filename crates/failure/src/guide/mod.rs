//! What an operator should know of each cause: the text of the documentation and of what is printed beside
//! one failed request, in one place, so that no cause can be without it.
//!
//! The texts are Markdown with nothing but code spans. `docs/failures.md` is made from them; a test of this
//! room fails when the page is out of date. No figures: those are of a request, not of a cause.

mod answer;
mod body;
mod elsewhere;
mod reaching;
mod received;

use crate::Cause;

/// The advice for one cause. Every text is one or a few whole sentences, but for `setting`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guide {
    /// Where in a request's story it happens.
    pub chapter: Chapter,
    /// What it means, in plain words.
    pub meaning: &'static str,
    /// The metric, and the fields of the access record, that show it.
    pub seen: &'static str,
    /// What is behind it most of the time.
    pub usual: &'static str,
    /// What to do first. It must read well alone.
    pub advice: &'static str,
    /// The keys of the configuration that matter, and how.
    pub setting: &'static str,
    /// What nginx writes into its error log for the same thing; empty if it writes nothing.
    pub nginx: &'static [&'static str],
    /// Whether this build raises it. The series of a cause that it does not raise exist at zero.
    pub is_raised: bool,
}

/// Where in a request's story a cause belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chapter {
    /// Before a byte of the request went out: names, connections, TLS, nobody to ask.
    Reaching,
    /// After the connection stood and before a complete response header.
    Answer,
    /// In the middle of the response body: the client may have its beginning already.
    Body,
    /// The backend itself answered with an error.
    Received,
    /// The client, the gateway, the configuration.
    Elsewhere,
}

impl Chapter {
    /// Every chapter, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Reaching, Self::Answer, Self::Body, Self::Received, Self::Elsewhere];

    /// The word that marks its part of `docs/failures.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reaching => "reaching",
            Self::Answer => "answer",
            Self::Body => "body",
            Self::Received => "received",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl Cause {
    /// What an operator should know of it.
    pub const fn guide(self) -> &'static Guide {
        match self {
            Self::DnsTimeout => &reaching::DNS_TIMEOUT,
            Self::DnsError => &reaching::DNS_ERROR,
            Self::DestinationUnavailable => &reaching::DESTINATION_UNAVAILABLE,
            Self::DestinationIpUnroutable => &reaching::DESTINATION_IP_UNROUTABLE,
            Self::ConnectionRefused => &reaching::CONNECTION_REFUSED,
            Self::ConnectionTimeout => &reaching::CONNECTION_TIMEOUT,
            Self::ConnectionLimitReached => &reaching::CONNECTION_LIMIT_REACHED,
            Self::TlsCertificateError => &reaching::TLS_CERTIFICATE_ERROR,
            Self::TlsProtocolError => &reaching::TLS_PROTOCOL_ERROR,
            Self::TlsAlertReceived => &reaching::TLS_ALERT_RECEIVED,
            Self::ConnectionTerminated => &answer::CONNECTION_TERMINATED,
            Self::ConnectionWriteTimeout => &answer::CONNECTION_WRITE_TIMEOUT,
            Self::HttpResponseTimeout => &answer::HTTP_RESPONSE_TIMEOUT,
            Self::HttpProtocolError => &answer::HTTP_PROTOCOL_ERROR,
            Self::HttpResponseHeaderSectionSize => &answer::HTTP_RESPONSE_HEADER_SECTION_SIZE,
            Self::HttpUpgradeFailed => &answer::HTTP_UPGRADE_FAILED,
            Self::ConnectionReadTimeout => &body::CONNECTION_READ_TIMEOUT,
            Self::HttpResponseIncomplete => &body::HTTP_RESPONSE_INCOMPLETE,
            Self::HttpResponseTransferCoding => &body::HTTP_RESPONSE_TRANSFER_CODING,
            Self::HttpResponseBodySize => &body::HTTP_RESPONSE_BODY_SIZE,
            Self::Received(status) => received::guide(status),
            Self::ResourceExhausted => &reaching::RESOURCE_EXHAUSTED,
            Self::ProxyLoopDetected => &elsewhere::PROXY_LOOP_DETECTED,
            Self::ProxyConfigurationError => &elsewhere::PROXY_CONFIGURATION_ERROR,
            Self::ProxyInternalError => &elsewhere::PROXY_INTERNAL_ERROR,
            Self::HttpRequestError => &elsewhere::HTTP_REQUEST_ERROR,
            Self::HttpRequestDenied => &elsewhere::HTTP_REQUEST_DENIED,
            Self::ClientDisconnected => &elsewhere::CLIENT_DISCONNECTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_there_and_ends_as_a_sentence() {
        for cause in Cause::ALL {
            let guide = cause.guide();
            for text in [guide.meaning, guide.seen, guide.usual, guide.advice, guide.setting] {
                assert!(text.len() > 10 && text.ends_with('.'), "{}: {text:?}", cause.name());
                assert!(!text.contains("  ") && !text.contains('\n'), "{}: {text:?}", cause.name());
                assert_eq!(text.matches('`').count() % 2, 0, "{}: {text:?}", cause.name());
            }
        }
    }

    #[test]
    fn what_is_free_to_be_tried_again_is_told_where_no_backend_was_reached() {
        for cause in Cause::ALL {
            let is_reaching = cause.guide().chapter == Chapter::Reaching;
            assert_eq!(is_reaching, cause.is_before_sending(), "{}", cause.name());
        }
    }

    #[test]
    fn an_alert_that_counts_a_cause_finds_it_in_what_the_guide_says_of_metrics() {
        for cause in Cause::ALL.into_iter().filter(|cause| matches!(cause.status(), 502..=504)) {
            assert!(cause.guide().seen.contains("goodgate_"), "{}", cause.name());
        }
    }
}
