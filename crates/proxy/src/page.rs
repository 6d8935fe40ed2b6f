//! The bodies of errors: a page for people, a problem document for programs, a line for the rest.

use std::borrow::Cow;

use bytes::Bytes;
use goodgate_config::{ErrorPage, Place};
use goodgate_failure::Cause;
use http::StatusCode;

/// How often and when a page reloads itself: after the time that it names and a random time more, so that the clients of
/// an outage do not all come back at once, and only a few times. The count is forgotten after ten minutes.
fn reload(retry_after: Option<u64>) -> String {
    let (first, spread) = retry_after.map_or((30, 60), |seconds| (seconds, seconds.max(5)));
    format!(
        "<script>try{{var k='goodgate '+location.href,n=Date.now(),\
         s=JSON.parse(sessionStorage.getItem(k)||'[0,0]');if(n-s[1]>6e5)s=[0,n];if(s[0]<3)\
         {{sessionStorage.setItem(k,JSON.stringify([s[0]+1,n]));setTimeout(function(){{location.reload()}},\
         ({first}+Math.random()*{spread})*1e3)}}}}catch(e){{}}</script>"
    )
}

/// The form of an error's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Html,
    Problem,
    Text,
}

/// What a body is made of. Nothing in it needs escaping: the request id is ours or was checked to be a token,
/// and the configuration allows no special characters in `contact`.
pub(crate) struct Content<'a> {
    pub(crate) status: u16,
    /// None if nothing has failed.
    pub(crate) cause: Option<Cause>,
    /// What is the matter, in a constant phrase.
    pub(crate) details: &'static str,
    pub(crate) request_id: &'a str,
    /// A page of the operator's.
    pub(crate) page: Option<&'a ErrorPage>,
    /// Whom to turn to.
    pub(crate) contact: Option<&'a str>,
    /// Seconds after which it may be worth trying again.
    pub(crate) retry_after: Option<u64>,
    /// Whether the page may reload itself.
    pub(crate) may_reload: bool,
}

impl Kind {
    /// The first of the forms we have that `Accept` names; plain text if it names none.
    pub(crate) fn wanted(accept: &[u8]) -> Self {
        let ranges = accept.split(|byte| *byte == b',').map(|range| {
            range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
        });
        for range in ranges {
            match range.as_slice() {
                b"text/html" | b"application/xhtml+xml" => return Self::Html,
                b"application/json" | b"application/problem+json" => return Self::Problem,
                b"text/plain" => return Self::Text,
                _ => {}
            }
        }
        Self::Text
    }

    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Problem => "application/problem+json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    pub(crate) fn body(self, content: &Content<'_>) -> Bytes {
        Bytes::from(match self {
            Self::Html => content.html(),
            Self::Problem => content.problem(),
            Self::Text => content.text(),
        })
    }
}

impl Content<'_> {
    fn title(&self) -> &'static str {
        let code = StatusCode::from_u16(self.status).ok();
        code.and_then(|code| code.canonical_reason()).unwrap_or("Error")
    }

    fn text(&self) -> String {
        let Self { status, details, .. } = self;
        format!("{status} {}: {details} (request {})\n", self.title(), self.request_id)
    }

    /// RFC 9457, with the cause, the request's identifier and what else is known as members of our own.
    fn problem(&self) -> String {
        let Self { status, details, .. } = self;
        let cause = self.cause.map(|cause| format!("\"cause\":\"{}\",", cause.name())).unwrap_or_default();
        let contact = self.contact.map(|contact| format!(",\"contact\":\"{contact}\"")).unwrap_or_default();
        let again = self.retry_after.map(|seconds| format!(",\"retry_after\":{seconds}")).unwrap_or_default();
        format!(
            "{{\"type\":\"about:blank\",\"title\":\"{}\",\"status\":{status},\"detail\":\"{details}\",\
             {cause}\"request_id\":\"{}\"{again}{contact}}}\n",
            self.title(),
            self.request_id
        )
    }

    fn html(&self) -> String {
        let Some(page) = self.page else {
            return self.own_html();
        };
        let status = self.status.to_string();
        let again = self.retry_after.map(|seconds| seconds.to_string()).unwrap_or_default();
        page.fill(|place| match place {
            Place::Status => &status,
            Place::Title => self.title(),
            Place::Details => self.details,
            Place::Cause => self.cause.map_or("", Cause::name),
            Place::RequestId => self.request_id,
            Place::Contact => self.contact.unwrap_or_default(),
            Place::RetryAfter => &again,
        })
    }

    fn own_html(&self) -> String {
        let Self { status, details, .. } = self;
        let title = self.title();
        let contact = match self.contact {
            Some(contact) => format!("<p>If it goes on, turn to {contact} and name the request.</p>"),
            None => String::new(),
        };
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
             <title>{status} {title}</title>\
             <style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;color:#222;\
             background:#fff}}small{{color:#666}}</style></head>\n<body><h1>{}</h1><p>{details} {}</p>{contact}\
             <p><small>Error {status}, request {}</small></p>{}</body></html>\n",
            self.headline(),
            self.advice(),
            self.request_id,
            if self.may_reload { reload(self.retry_after) } else { String::new() },
        )
    }

    fn headline(&self) -> &'static str {
        match self.status {
            404 => "There is nothing at this address",
            500.. => "This page is not available right now",
            _ => self.title(),
        }
    }

    fn advice(&self) -> Cow<'static, str> {
        if self.status < 500 {
            return match (self.cause, self.retry_after) {
                (Some(Cause::HttpRequestError), _) => "Please check the address and try again.".into(),
                (_, Some(seconds)) => format!("Please try again in about {}.", spoken(seconds)).into(),
                (_, None) => "".into(),
            };
        }
        match self.retry_after {
            Some(seconds) => {
                format!("It is not your fault. Please try again in about {}.", spoken(seconds)).into()
            }
            None => "It is not your fault. Please try again in a moment.".into(),
        }
    }
}

/// Seconds as a person says them.
fn spoken(seconds: u64) -> String {
    match seconds {
        0 | 1 => "a second".to_owned(),
        2..=90 => format!("{seconds} seconds"),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(status: u16, retry_after: Option<u64>) -> Content<'static> {
        Content {
            status,
            cause: Some(Cause::DestinationUnavailable),
            details: "Nobody is there.",
            request_id: "abc",
            page: None,
            contact: None,
            retry_after,
            may_reload: false,
        }
    }

    #[test]
    fn the_body_is_of_the_kind_that_was_asked_for() {
        assert_eq!(Kind::wanted(b"text/html,application/xhtml+xml,*/*;q=0.8"), Kind::Html);
        assert_eq!(Kind::wanted(b"Application/JSON; q=1"), Kind::Problem);
        assert_eq!(Kind::wanted(b"*/*"), Kind::Text);
        assert_eq!(Kind::wanted(b""), Kind::Text);
    }

    #[test]
    fn a_person_is_told_when_to_try_again() {
        assert!(content(503, Some(7)).own_html().contains("try again in about 7 seconds"));
        assert!(content(503, Some(100)).own_html().contains("try again in about 2 minutes"));
        assert!(content(502, None).own_html().contains("try again in a moment"));
    }

    #[test]
    fn only_what_may_reload_does() {
        assert!(!content(502, None).own_html().contains("<script>"));
        let reloads = Content { may_reload: true, ..content(502, None) };
        assert!(reloads.own_html().contains("location.reload()"));
    }
}
