//! The fields of a response, wherever they are kept: in a map of their own, or in the text of a copy's head.

use http::{HeaderMap, HeaderValue, StatusCode};
use pingora_http::ResponseHeader;

/// A set of fields.
pub trait Fields {
    /// The values of a field, whose name is in lower case, in their order.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;

    /// The first of them.
    fn first<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.all(name).next()
    }
}

/// The header of a response.
pub trait Header: Fields {
    /// Its status.
    fn status(&self) -> StatusCode;
}

impl Fields for HeaderMap {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

impl Fields for ResponseHeader {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.all(name)
    }
}

impl Header for ResponseHeader {
    fn status(&self) -> StatusCode {
        self.status
    }
}
