//! Plain values for the tests of this room.

use std::time::{Duration, SystemTime};

use goodgate_failure::{Word, Words};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora_http::ResponseHeader;

use crate::{CachePolicy, Mode, RequestFacts};

pub(crate) fn policy() -> CachePolicy {
    CachePolicy {
        use_stale: Words::of(&[Word::Error, Word::Timeout]),
        stale_for: Duration::from_hours(1),
        ..CachePolicy::standard()
    }
}

pub(crate) fn fallback() -> CachePolicy {
    CachePolicy { mode: Mode::Fallback, ..policy() }
}

/// A whole second, as HTTP dates need.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

pub(crate) fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect::<Vec<_>>()
        .into_iter()
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
}

pub(crate) fn request(fields: &[(&str, &str)]) -> RequestFacts {
    RequestFacts::new(&Method::GET, &headers(fields), &policy())
}

pub(crate) fn response(code: u16, fields: &[(&str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(code, None).unwrap();
    for (name, value) in fields {
        response.append_header((*name).to_owned(), *value).unwrap();
    }
    response
}
