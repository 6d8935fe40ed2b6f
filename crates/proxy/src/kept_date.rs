//! The `Date` of an answer, kept as whoever made it wrote it.
//!
//! Pingora writes the time of sending over it, and offers no way not to. But whoever keeps the answer behind us counts
//! `Expires` from it, and an answer out of the store is older than its sending (RFC 9111 section 4.2). All HTTP dates
//! that anybody writes are of one length, so the right one is put in its place when the head passes the client's
//! stream. Over HTTP/2, where the head is not ours to see, it stays the time of sending.

use http::{HeaderValue, header};
use memchr::memmem;
use parking_lot::Mutex;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::stream::ClientStream;

/// `Sun, 06 Nov 1994 08:49:37 GMT`
const DATE_BYTES: usize = 29;

/// The date that the next final head is to have.
#[derive(Debug, Default)]
pub(crate) struct KeptDate(Mutex<Option<[u8; DATE_BYTES]>>);

/// Keeps the date of the answer whose header is about to be written.
pub(crate) fn keep(session: &mut Session, response: &ResponseHeader) {
    keep_of(session.as_downstream_mut(), response);
}

/// The same in the session of a client.
pub(crate) fn keep_of(client: &mut ServerSession, response: &ResponseHeader) {
    let Some(date) = response.headers.get(header::DATE) else {
        return;
    };
    if client.is_http2() || *date == get_cached_date() {
        return;
    }
    let stream = client.stream().and_then(|stream| (**stream).as_any().downcast_ref::<ClientStream>());
    if let Some(stream) = stream {
        stream.kept_date().set(date);
    }
}

impl KeptDate {
    /// A date of another form cannot be kept.
    fn set(&self, date: &HeaderValue) {
        *self.0.lock() = date.as_bytes().try_into().ok();
    }

    /// Drops one that no head has taken: it was another answer's.
    pub(crate) fn forget(&mut self) {
        *self.0.get_mut() = None;
    }

    /// Puts the date into a head that is being written.
    pub(crate) fn put_into(&mut self, head: &mut [u8]) {
        const NAME: &[u8] = b"\r\nDate: ";
        let Some(date) = self.0.get_mut().take() else {
            return;
        };
        let start = memmem::find(head, NAME).map(|at| at + NAME.len());
        let rest = start.and_then(|start| head.get_mut(start..)).unwrap_or_default();
        if let Some((place, end)) = rest.split_at_mut_checked(DATE_BYTES)
            && end.starts_with(b"\r\n")
        {
            place.copy_from_slice(&date);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_takes_the_place_of_another_once() {
        let mut kept = KeptDate::default();
        let head = b"HTTP/1.1 200 OK\r\nX-Date: a\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        let put = |kept: &mut KeptDate, head: &[u8]| {
            let mut head = head.to_vec();
            kept.put_into(&mut head);
            String::from_utf8(head).unwrap()
        };
        kept.set(&HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT"));
        assert!(put(&mut kept, head).contains("\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"));
        assert_eq!(put(&mut kept, head).as_bytes(), head);
    }

    #[test]
    fn a_date_of_another_form_leaves_the_head_as_it_is() {
        for (date, head) in [
            ("Thu Jan  1 00:00:00 2026", "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"),
            ("Thu, 01 Jan 2026 00:00:00 GMT", "HTTP/1.1 200 OK\r\nDate: then\r\n\r\n"),
            ("Thu, 01 Jan 2026 00:00:00 GMT", "HTTP/1.1 200 OK\r\n\r\n"),
        ] {
            let mut kept = KeptDate::default();
            kept.set(&HeaderValue::from_static(date));
            let mut bytes = head.as_bytes().to_vec();
            kept.put_into(&mut bytes);
            assert_eq!(bytes, head.as_bytes(), "{date}");
        }
    }
}
