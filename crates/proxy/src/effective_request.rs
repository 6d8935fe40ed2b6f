//! The effective upstream request: the fields that a backend will receive, known before the request is made.
//!
//! The cache computes keys, variances and facts from this view and from nothing else. It speaks of a head that
//! [`crate::begin`] has cleaned, and adds what [`crate::forward`] adds, by the same functions. Fields that differ in each
//! request (`X-Request-Id`, `traceparent`) are not in it: a response that varies by one of them is not stored.

use goodgate_cache::{KeyedLine, SentRequest};
use goodgate_config::{FieldValue, HeaderRules, Template, Variable};
use http::header;
use http::{HeaderName, HeaderValue};
use memchr::memchr_iter;
use pingora_http::RequestHeader;

use crate::context::Context;
use crate::route::Route;
use crate::{forward, hops, hygiene, variables};

/// The view of one request.
pub(crate) struct EffectiveRequest<'a> {
    head: &'a RequestHeader,
    context: &'a Context,
    /// Whether the backend is told who the client is.
    has_client: bool,
}

impl<'a> EffectiveRequest<'a> {
    /// The view of a request whose route is known.
    pub(crate) fn new(head: &'a RequestHeader, context: &'a Context) -> Self {
        Self { head, context, has_client: true }
    }

    /// The view of the same request sent behind the client's back.
    pub(crate) fn without_client(head: &'a RequestHeader, context: &'a Context) -> Self {
        Self { head, context, has_client: false }
    }

    /// What the route does to the field.
    fn rule(&self, name: &str) -> Rule<'a> {
        let Some(route) = &self.context.route else {
            return Rule::Keep;
        };
        let rules = &route.request_headers;
        if rules.is_empty() {
            return Rule::Keep;
        }
        let HeaderRules { set, remove, remove_prefixes } = rules;
        let has_prefix = || {
            let begins = remove_prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
            begins && HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| rules.has_prefix_of(&name))
        };
        match set.iter().find(|(set, _)| set == name) {
            Some((_, value)) => Rule::Set(value),
            None if remove.iter().any(|removed| removed == name) || has_prefix() => Rule::Remove,
            None => Rule::Keep,
        }
    }

    /// The fields that are set here whatever the client sends.
    fn each_own_line(&self, name: &str, each: &mut dyn FnMut(&[u8])) -> bool {
        let one = |value: Option<HeaderValue>, each: &mut dyn FnMut(&[u8])| {
            if let Some(value) = value {
                each(value.as_bytes());
            }
        };
        match name {
            "x-forwarded-for" => {
                let chain = forward::forwarded_for(&self.head.headers, self.context);
                one(chain.filter(|_| self.has_client), each);
            }
            "x-forwarded-proto" => each(self.context.scheme().as_bytes()),
            "x-forwarded-host" if forward::has_other_host(&self.head.headers, self.context) => return false,
            "x-forwarded-host" => self.head.each_line_of(header::HOST.as_str(), each),
            "client-cert" | "client-cert-chain" if self.has_client => {
                let Some(identity) = self.context.speaker().and_then(|client| client.identity.as_ref())
                else {
                    return false;
                };
                if name == "client-cert" {
                    each(identity.certificate.as_bytes());
                }
            }
            "via" => {
                self.head.each_line_of(name, each);
                each(hops::via(self.context.version(self.head)).as_bytes());
            }
            _ => return false,
        }
        true
    }

    /// Whether the field ends at this gateway.
    fn is_removed(&self, name: &str) -> bool {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return true;
        };
        let passed = self.context.route.as_ref().map_or(&[][..], |route| &route.pass_headers);
        is_hop_by_hop(&name)
            || !self.has_client && hygiene::is_of_client(&name) && !passed.contains(&name)
            || hygiene::is_dropped(&name, self.context.is_trusted, passed)
    }
}

impl SentRequest for EffectiveRequest<'_> {
    fn each_line(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        match self.rule(name) {
            Rule::Set(FieldValue::Constant(value)) => each(value.as_bytes()),
            Rule::Set(FieldValue::Filled(template)) if !self.has_client && is_about_client(template) => {}
            Rule::Set(value) => {
                if let Ok(value) = variables::value(value, self.head, self.context) {
                    each(value.as_bytes());
                }
            }
            Rule::Remove => {}
            Rule::Keep if self.each_own_line(name, each) || self.is_removed(name) => {}
            Rule::Keep => self.head.each_line_of(name, each),
        }
    }

    fn each_credential(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        match self.rule(name.as_str()) {
            // Nothing else adds or removes a credential.
            Rule::Keep => self.head.headers.get_all(name).iter().for_each(|line| each(line.as_bytes())),
            Rule::Set(FieldValue::Filled(template)) if is_about_client(template) => {
                self.each_line(name.as_str(), each);
            }
            Rule::Set(_) | Rule::Remove => {}
        }
    }
}

/// What a route does to a request field.
enum Rule<'a> {
    Keep,
    Remove,
    Set(&'a FieldValue),
}

/// Whether a value may differ from client to client under one key.
fn is_about_client(template: &Template) -> bool {
    const VARIABLES: [Variable; 5] = [
        Variable::ClientIp,
        Variable::ClientCertSubject,
        Variable::RequestId,
        Variable::Query,
        Variable::PathAndQuery,
    ];
    VARIABLES.into_iter().any(|variable| template.has(variable))
}

trait Lines {
    fn each_line_of(&self, name: &str, each: &mut dyn FnMut(&[u8]));
}

impl Lines for RequestHeader {
    fn each_line_of(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.headers.get_all(name).iter().for_each(|line| each(line.as_bytes()));
    }
}

/// Fields of a request that concern this connection only (RFC 9110 section 7.6.1). Pingora removes them.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    forward::is_hop_by_hop(name)
        || [header::TRANSFER_ENCODING, header::PROXY_AUTHORIZATION].contains(name)
        || *name == "http2-settings"
}

/// The lines beyond the address that the key must have, because they reach the backend by trust or by `pass_headers`.
pub(crate) fn keyed_lines(head: &RequestHeader, context: &Context, route: &Route) -> Vec<KeyedLine> {
    if !context.is_trusted && route.pass_headers.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for name in hygiene::keyed(&head.headers, context.is_trusted, &route.pass_headers) {
        let of_name = head.headers.get_all(name).iter().map(|line| without_addresses(name, line.as_bytes()));
        lines.extend(of_name.filter(|line| !line.is_empty()).map(|line| (name.clone(), line)));
    }
    if context.is_trusted {
        let hosts = head.headers.get_all(forward::FORWARDED_HOST).iter();
        lines.extend(hosts.map(|host| (forward::FORWARDED_HOST, host.as_bytes().to_vec())));
    }
    lines.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    lines
}

/// A line of a field without what names addresses alone: the `for` and `by` of `Forwarded` (RFC 7239). A line whose quotes
/// do not close within one parameter stays as it is.
pub(crate) fn without_addresses(name: &HeaderName, line: &[u8]) -> Vec<u8> {
    let mut parameters = line.split(|byte| matches!(byte, b',' | b';'));
    let is_closed = |part: &[u8]| memchr_iter(b'"', part).count().is_multiple_of(2);
    if *name != header::FORWARDED || !parameters.all(is_closed) {
        return line.to_vec();
    }
    let elements: Vec<Vec<u8>> = line.split(|byte| *byte == b',').map(without_address).collect();
    if elements.iter().all(Vec::is_empty) { Vec::new() } else { elements.join(&b',') }
}

fn without_address(element: &[u8]) -> Vec<u8> {
    let is_address = |part: &&[u8]| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by")
    };
    let parameters = element.split(|byte| *byte == b';');
    parameters.filter(|part| !is_address(part)).map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b';')
}

/// Whether the client has proven who it is, here or to a trusted proxy: the backend may answer it alone.
pub(crate) fn is_identified(head: &RequestHeader, context: &Context) -> bool {
    context.speaker().is_some_and(|client| client.identity.is_some())
        || hygiene::has_identity(&head.headers, context.is_trusted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_in_forwarded_are_not_keyed() {
        let left =
            |line: &str| String::from_utf8(without_addresses(&header::FORWARDED, line.as_bytes())).unwrap();
        assert_eq!(left("for=1.2.3.4"), "");
        assert_eq!(left("for=1.2.3.4, for=2.3.4.5"), "");
        assert_ne!(left("for=x;host=a, for=y"), left("for=x, for=y;host=a"));
        assert_eq!(left("For=\"[::1]:80\"; proto=https;by=_x, for=1.2.3.4;host=a"), "proto=https,host=a");
        let odd = "host=\"a;for=b\"";
        assert_eq!(left(odd), odd);
        assert_eq!(without_addresses(&header::ACCEPT, b"for=1"), b"for=1");
    }
}
