//! A backend was reached and gave no usable response header.

use super::{Chapter, Guide};

pub(super) const CONNECTION_TERMINATED: Guide = Guide {
    chapter: Chapter::Answer,
    meaning: "The backend closed or reset the connection after it stood and before a complete response \
        header had come.",
    seen: "`goodgate_attempt_failures_total{cause=\"connection_terminated\"}`; in the access record an \
        attempt with `phase` `request` and `reused` true or false. \
        `goodgate_rescues_total{by=\"connection_race\"}` counts the kept connections that were replaced in \
        time.",
    usual: "With `reused` true: the backend closed an idle connection in the very moment when a request \
        came. With `reused` false: the process crashed or was restarted in the middle, or it, or a proxy \
        before it, cuts requests that it does not like.",
    advice: "See `reused` in the record. If true, let the backend keep idle connections longer than the \
        gateway does; if false, look into the backend's log at that second for a crash or a restart.",
    setting: "`timeouts.idle` is the longest that an idle connection is kept; `retry.replay` says which \
        requests may be sent again.",
    nginx: &[
        "upstream prematurely closed connection while reading response header from upstream",
        "recv() failed (104: Connection reset by peer) while reading response header from upstream",
        "writev() failed (32: Broken pipe) while sending request to upstream",
    ],
    is_raised: true,
};

pub(super) const CONNECTION_WRITE_TIMEOUT: Guide = Guide {
    chapter: Chapter::Answer,
    meaning: "The backend did not take the request, or the next piece of its body, within `timeouts.write`.",
    seen: "`goodgate_attempt_failures_total{cause=\"connection_write_timeout\"}`; in the access record an \
        attempt with `phase` `request`, most often with large `bytes_received`.",
    usual: "A large upload into a backend that is too busy to read it, or that stores it on a slow disk.",
    advice: "See what the backend does with the upload: its load, its disk, whether its workers are all \
        taken.",
    setting: "`timeouts.write`; `max_body_bytes` of the route bounds uploads.",
    nginx: &["upstream timed out (110: Connection timed out) while sending request to upstream"],
    is_raised: true,
};

pub(super) const HTTP_RESPONSE_TIMEOUT: Guide = Guide {
    chapter: Chapter::Answer,
    meaning: "The backend took the request and sent no complete response header within \
        `timeouts.first_byte`, or before the route's `timeout` for all attempts was over.",
    seen: "`goodgate_attempt_failures_total{cause=\"http_response_timeout\"}`, and the upper buckets of \
        `goodgate_upstream_first_byte_seconds`; in the access record an attempt with `phase` `request` whose \
        `total_ms` is the limit.",
    usual: "A slow page or query, a backend whose workers are all busy, a database or another service that \
        it waits for.",
    advice: "See whether one path is slow or all are: group the records by `path`. One path is a matter of \
        that page; all of them mean that the backend, or what it waits for, is overloaded.",
    setting: "`timeouts.first_byte` for one attempt, `timeout` of the route for all of them. A shorter one \
        fails sooner and leaves time for another backend or a copy.",
    nginx: &["upstream timed out (110: Connection timed out) while reading response header from upstream"],
    is_raised: true,
};

pub(super) const HTTP_PROTOCOL_ERROR: Guide = Guide {
    chapter: Chapter::Answer,
    meaning: "What came from the backend is not HTTP: a malformed status line or field, lengths that \
        contradict each other, or a change of protocol that nobody asked for.",
    seen: "`goodgate_attempt_failures_total{cause=\"http_protocol_error\"}`; in the access record an attempt \
        with `phase` `request`.",
    usual: "Another protocol on that port (TLS, HTTP/2 only, a database), a program that prints warnings \
        into its response, or a field with a line break in it.",
    advice: "See the bytes for yourself: `curl -v --http1.1 http://ADDRESS:PORT/PATH` from the gateway's \
        machine.",
    setting: "The port in `backends`; no setting makes a broken answer acceptable.",
    nginx: &[
        "upstream sent invalid header while reading response header from upstream",
        "upstream sent no valid HTTP/1.0 header while reading response header from upstream",
        "upstream sent duplicate header line",
    ],
    is_raised: true,
};

pub(super) const HTTP_RESPONSE_HEADER_SECTION_SIZE: Guide = Guide {
    chapter: Chapter::Answer,
    meaning: "The response header is larger than `limits.max_response_header_bytes`.",
    seen: "`goodgate_attempt_failures_total{cause=\"http_response_header_section_size\"}`; in the access \
        record an attempt with `phase` `request`.",
    usual: "Large or many cookies, tokens in header fields, debugging fields that were left on.",
    advice: "Measure what the backend sends (`curl -s -o /dev/null -D - URL | wc -c`), and find out which \
        field grew.",
    setting: "`limits.max_response_header_bytes`.",
    nginx: &["upstream sent too big header while reading response header from upstream"],
    is_raised: true,
};

pub(super) const HTTP_UPGRADE_FAILED: Guide = Guide {
    chapter: Chapter::Answer,
    meaning: "The client asked for another protocol (WebSocket, for instance), and the backend's answer to \
        that was neither a valid change of protocol nor an ordinary response.",
    seen: "`goodgate_gateway_errors_total{cause=\"http_upgrade_failed\"}`; the access record has the path, \
        the backend and its `status`.",
    usual: "A backend or a proxy before it that changes to another protocol than the one asked for, or the \
        request went to a backend that does not serve this path.",
    advice: "Ask the backend itself for the upgrade (`curl -v --http1.1 -H 'Connection: Upgrade' -H \
        'Upgrade: websocket' URL`) and compare the `Upgrade` of its answer with the one asked for.",
    setting: "`routes[].match` and `upstream` of the route decide which backends get such requests; \
        `timeouts.tunnel` is the idle limit once it is accepted.",
    nginx: &[],
    is_raised: true,
};
