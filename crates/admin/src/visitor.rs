//! Who may ask the operator's side. A token speaks for itself; without one the place speaks, and then a page in a
//! browser on this machine must not be taken for its operator: not by a name that leads here (DNS rebinding), and
//! not by a change that it sends in passing (request forgery).

use std::net::IpAddr;

use goodgate_config::{Admin as Settings, Token};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

/// The conditions of one listener.
pub(crate) struct Conditions {
    token: Option<Token>,
    hosts: Vec<String>,
    is_loopback: bool,
}

/// What stands against a request.
pub(crate) type Refusal = (StatusCode, &'static str);

const MISDIRECTED: Refusal = (
    StatusCode::MISDIRECTED_REQUEST,
    "421: this is the operator's side of a gateway, which goes by its address, localhost, or a name in admin.hosts\n",
);
const NO_TOKEN: Refusal =
    (StatusCode::FORBIDDEN, "403: this address needs the admin token (Authorization: Bearer …)\n");
const NO_CHANGE: Refusal =
    (StatusCode::FORBIDDEN, "403: a change needs the admin token: set admin.token_file\n");
const FOREIGN: Refusal = (StatusCode::FORBIDDEN, "403: a change that another site has sent\n");

impl Conditions {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            token: settings.token.clone(),
            hosts: settings.hosts.clone(),
            is_loopback: settings.address.ip().is_loopback(),
        }
    }

    /// The same listener with the token and names of other settings.
    pub(crate) fn changed(&self, settings: &Settings) -> Self {
        Self { is_loopback: self.is_loopback, ..Self::new(settings) }
    }

    /// What stands against a request, if anything does. Health is for everyone, metrics for everyone who means
    /// this machine, and the rest for operators.
    pub(crate) fn refusal(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Refusal> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let path = uri.path();
        if is_read && matches!(path, "/livez" | "/readyz") {
            return None;
        }
        // Elsewhere a token is asked for, which a page does not have.
        if self.is_loopback && !self.is_meant(uri, headers) {
            return Some(MISDIRECTED);
        }
        if is_read && path == "/metrics" {
            return None;
        }
        if !self.may_enter(headers) {
            return Some(NO_TOKEN);
        }
        if is_read {
            return None;
        }
        if is_foreign(headers) {
            return Some(FOREIGN);
        }
        self.token.is_none().then_some(NO_CHANGE)
    }

    fn may_enter(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return self.is_loopback;
        };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        given.and_then(|value| value.strip_prefix(b"Bearer ")).is_some_and(|given| token.matches(given))
    }

    /// Whether the one who asks knows whom: by an address, or by a name that is ours. Browsers always say it.
    fn is_meant(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
        named.chain(uri.authority().map(http::uri::Authority::as_str)).all(|host| self.is_ours(host))
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host);
        let is_address = name.parse::<IpAddr>().is_ok();
        let is_name = |ours: &str| ours.eq_ignore_ascii_case(name);
        is_address || is_name("localhost") || self.hosts.iter().any(|host| is_name(host))
    }
}

fn without_port(host: &str) -> &str {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
        return inner;
    }
    let name = host.split(':').next().unwrap_or_default();
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether a browser says that a page of another site has sent it.
fn is_foreign(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_own = |origin: &HeaderValue| {
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    };
    let is_near = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    !headers.get_all(header::ORIGIN).iter().all(is_own)
        || !headers.get_all("sec-fetch-site").iter().all(is_near)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(is_loopback: bool) -> Conditions {
        Conditions { token: None, hosts: vec!["gateway.internal".to_owned()], is_loopback }
    }

    fn status(is_loopback: bool, line: &str, fields: &[(&'static str, &str)]) -> Option<u16> {
        let (method, target) = line.split_once(' ').unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let refusal = conditions(is_loopback).refusal(
            &Method::from_bytes(method.as_bytes()).unwrap(),
            &target.parse().unwrap(),
            &headers,
        );
        refusal.map(|(status, _)| status.as_u16())
    }

    #[test]
    fn a_page_that_leads_its_own_name_here_learns_nothing() {
        for good in
            ["127.0.0.1:9180", "localhost", "LOCALHOST:1", "[::1]:9180", "Gateway.Internal.:9180", "10.0.0.1"]
        {
            assert_eq!(status(true, "GET /api/v1/backends", &[("host", good)]), None, "{good}");
        }
        for bad in
            ["evil.test", "evil.test:9180", "127.0.0.1.evil.test", "localhost.evil.test", "", "[evil.test]"]
        {
            assert_eq!(status(true, "GET /api/v1/backends", &[("host", bad)]), Some(421), "{bad}");
            assert_eq!(status(true, "GET /metrics", &[("host", bad)]), Some(421), "{bad}");
            assert_eq!(status(true, "GET /livez", &[("host", bad)]), None, "it tells nothing");
        }
        let two = [("host", "localhost"), ("host", "evil.test")];
        assert_eq!(status(true, "GET /metrics", &two), Some(421));
        assert_eq!(status(true, "GET http://evil.test/metrics", &[("host", "localhost")]), Some(421));
        assert_eq!(status(true, "GET /metrics", &[]), None, "no browser asks so");
        assert_eq!(
            status(false, "GET /metrics", &[("host", "gateway:9180")]),
            None,
            "a scraper in a network"
        );
        assert_eq!(status(false, "GET /api/v1/backends", &[("host", "localhost")]), Some(403));
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let ours = ("host", "localhost:9180");
        for fields in [
            &[ours, ("origin", "http://evil.test")][..],
            &[ours, ("origin", "null")],
            &[ours, ("origin", "http://localhost:9181")],
            &[ours, ("sec-fetch-site", "cross-site")],
            &[ours, ("sec-fetch-site", "same-site")],
        ] {
            let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            assert!(is_foreign(&headers.collect()), "{fields:?}");
            assert_eq!(status(true, "POST /api/v1/backends", fields), Some(403));
            assert_eq!(status(true, "GET /api/v1/backends", fields), None, "what it reads it cannot see");
        }
        let own = [ours, ("origin", "http://localhost:9180"), ("sec-fetch-site", "same-origin")];
        let headers = own.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        assert!(!is_foreign(&headers.collect()));
        assert_eq!(status(true, "POST /api/v1/backends", &own), Some(403), "a change needs a token");
    }
}
