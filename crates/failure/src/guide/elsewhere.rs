//! It was not the backend: the client, the gateway, its configuration.

use super::{Chapter, Guide};

pub(super) const HTTP_REQUEST_ERROR: Guide = Guide {
    chapter: Chapter::Elsewhere,
    meaning: "The client's request is not valid HTTP, is over one of `limits`, came too slowly, or no route \
        leads anywhere for it. The status says which: 400, 404, 405, 408, 413, 414, 431 or 505.",
    seen: "`goodgate_gateway_errors_total{cause=\"http_request_error\"}` by `status`; the error's text says \
        what exactly is wrong. Without a route, `route` is `none`.",
    usual: "Scanners, and clients that are broken; 413: an upload over the limit; 404: a host or a path that \
        `routes` does not have.",
    advice: "Group the records by `status` and `client`. A few addresses are scanners; many with 413 or 404 \
        mean that a limit or a route does not fit the site.",
    setting: "`limits`, `max_body_bytes` of the route, `routes[].match`.",
    nginx: &[
        "client sent invalid method while reading client request line",
        "client intended to send too large body",
        "client sent too long URI while reading client request line",
        "client timed out (110: Connection timed out) while reading client request headers",
    ],
    is_raised: true,
};

pub(super) const HTTP_REQUEST_DENIED: Guide = Guide {
    chapter: Chapter::Elsewhere,
    meaning: "A rule of the route refused the request. The status says which: 403, `deny` names the client's \
        address, or `allow` does not; 401, `basic_auth` asks for a password; 429, there were more requests than \
        `rate_limit` admits, or more passwords to check at a time than can be.",
    seen: "`goodgate_gateway_errors_total{cause=\"http_request_denied\"}` by `route` and `status`; `client` in \
        the record is the address that was looked at.",
    usual: "Somebody who is meant to be kept out, or to ask less often; each first visit, for 401; or a load balancer in front whose own \
        address is looked at, since it is not among `trusted_proxies`, so that all clients are one.",
    advice: "See `client`, `route` and `status` in the records and whether the rule is meant for them.",
    setting: "`allow`, `deny`, `basic_auth` and `rate_limit` of the route; `trusted_proxies` decides whose address counts.",
    nginx: &[
        "access forbidden by rule",
        "limiting requests, excess",
        "password mismatch",
        "was not found in",
    ],
    is_raised: true,
};

pub(super) const CLIENT_DISCONNECTED: Guide = Guide {
    chapter: Chapter::Elsewhere,
    meaning: "The client went away before its answer was complete. It is logged as 499 if there was none \
        yet, is no error of ours, and no failure of the backend.",
    seen: "`goodgate_client_aborts_total` by `phase` (`request`, `waiting`, `response`); \
        `goodgate_responses_total{status=\"499\"}`.",
    usual: "People who close a page; programs with a time limit of their own. Many at once mean that answers \
        are slow.",
    advice: "Compare with `goodgate_upstream_first_byte_seconds`: if both rose together the backend is slow, \
        and clients are the first to notice.",
    setting: "None; but `timeouts.first_byte` shorter than the patience of clients leaves time for another \
        backend or a copy.",
    nginx: &["client prematurely closed connection"],
    is_raised: true,
};

pub(super) const PROXY_LOOP_DETECTED: Guide = Guide {
    chapter: Chapter::Elsewhere,
    meaning: "The request has passed this process before, for the same host and path or more than \
              `limits.max_passages` times: it goes around in a circle. Each process knows itself again by the \
              identifier that it adds to `CDN-Loop`.",
    seen: "`goodgate_gateway_errors_total{cause=\"proxy_loop_detected\"}`; its client is a backend of ours, \
        or the gateway itself. The request that began it has a record of its own, with a 502 from a backend.",
    usual: "A backend address, or the name it is looked up by, that leads back to the gateway.",
    advice: "Follow the address in `backends` from the gateway's machine and see who answers there.",
    setting: "`backends`.",
    nginx: &[],
    is_raised: true,
};

pub(super) const PROXY_CONFIGURATION_ERROR: Guide = Guide {
    chapter: Chapter::Elsewhere,
    meaning: "Something could not be done as it is configured. This build raises it only for a health check \
        that could not be made at all.",
    seen: "`goodgate_health_checks_total{result=\"proxy_configuration_error\"}`; the backend goes `down`.",
    usual: "A `path` or a `host` of a health check that makes no valid request.",
    advice: "Correct `health_check.http` of the upstream and reload.",
    setting: "`health_check.http.path`, `health_check.http.host`.",
    nginx: &[],
    is_raised: true,
};

pub(super) const PROXY_INTERNAL_ERROR: Guide = Guide {
    chapter: Chapter::Elsewhere,
    meaning: "A bug of ours, or a case that nobody thought of. It is never shown as a 502, so that the \
        backend is not suspected.",
    seen: "`goodgate_gateway_errors_total{cause=\"proxy_internal_error\"}`, and `goodgate_panics_total` if a \
        part of the gateway gave up.",
    usual: "A combination of request, answer and configuration that no test has.",
    advice: "Please report it, with the access record of the request and the lines of the log around that \
        time.",
    setting: "None has to do with it.",
    nginx: &[],
    is_raised: true,
};
