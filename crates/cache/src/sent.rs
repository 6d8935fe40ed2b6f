//! A request as its backend receives it: the only request that the cache may judge.
//!
//! A proxy removes, adds and replaces fields on the way. A key or a variance computed from the client's own fields would
//! describe another request than the one that the response answers, so every lookup takes this view.

use http::{HeaderMap, HeaderName};

/// The fields of a request as its backend receives them.
pub trait SentRequest {
    /// Calls `each` with every line of a field, in order. The name is in lower case.
    fn each_line(&self, name: &str, each: &mut dyn FnMut(&[u8]));

    /// Calls `each` with every line of `Cookie` or `Authorization` whose value the client decides. A value that the route
    /// sets for everyone is not among them.
    fn each_credential(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8]));
}

/// A request that is sent as it came.
impl SentRequest for HeaderMap {
    fn each_line(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.get_all(name).iter().for_each(|line| each(line.as_bytes()));
    }

    fn each_credential(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        self.get_all(name).iter().for_each(|line| each(line.as_bytes()));
    }
}

/// The lines of a field, copied.
pub(crate) fn lines(request: &dyn SentRequest, name: &str) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    request.each_line(name, &mut |line| lines.push(line.to_vec()));
    lines
}
