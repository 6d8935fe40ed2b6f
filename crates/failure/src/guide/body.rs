//! The response body did not come as promised; the client may have its beginning already.

use super::{Chapter, Guide};

pub(super) const CONNECTION_READ_TIMEOUT: Guide = Guide {
    chapter: Chapter::Body,
    meaning: "In the middle of the body nothing came from the backend for `timeouts.read`. The client has \
        the beginning, and its connection is closed short of the end.",
    seen: "`goodgate_attempt_failures_total{cause=\"connection_read_timeout\"}`; in the access record an \
        attempt with `phase` `response`, a `status` and this cause.",
    usual: "A backend that is stuck while it writes, or a stream (events, a long export) that is quiet for \
        longer than the limit.",
    advice: "See whether the path is a stream. If so, let the backend send something now and then or raise \
        the limit; otherwise find out where the backend hangs.",
    setting: "`timeouts.read`: in effect never less than `timeouts.first_byte`.",
    nginx: &["upstream timed out (110: Connection timed out) while reading upstream"],
    is_raised: true,
};

pub(super) const HTTP_RESPONSE_INCOMPLETE: Guide = Guide {
    chapter: Chapter::Body,
    meaning: "The body ended early: less came than `Content-Length` announced, or the last chunk is missing. \
        Such a body is never kept as a copy.",
    seen: "`goodgate_attempt_failures_total{cause=\"http_response_incomplete\"}`; in the access record an \
        attempt with `phase` `response`, and `bytes_sent` of what the client got.",
    usual: "The backend crashed or was stopped in the middle of a response, or announces a length that is \
        not true.",
    advice: "See whether it strikes one path always, which points to a wrong length, or many at the same \
        second, which points to a restart that does not wait for requests under way.",
    setting: "None of the gateway's: let the backend end its requests before it stops.",
    nginx: &[
        "upstream prematurely closed connection while reading upstream",
        "recv() failed (104: Connection reset by peer) while reading upstream",
    ],
    is_raised: true,
};

pub(super) const HTTP_RESPONSE_TRANSFER_CODING: Guide = Guide {
    chapter: Chapter::Body,
    meaning: "The chunked coding of the body is broken, so that nobody can tell where the answer ends.",
    seen: "`goodgate_attempt_failures_total{cause=\"http_response_transfer_coding\"}`; in the access record \
        an attempt with `phase` `response`.",
    usual: "A bug of the backend, or of a proxy between it and the gateway: chunks that were coded twice or \
        not at all.",
    advice: "See the raw bytes (`curl --raw -v URL`) at the backend itself; if they are good there, look at \
        what stands in between.",
    setting: "None: a body without a readable end cannot be forwarded.",
    nginx: &["upstream sent invalid chunked response while reading upstream"],
    is_raised: true,
};

pub(super) const HTTP_RESPONSE_BODY_SIZE: Guide = Guide {
    chapter: Chapter::Body,
    meaning: "The response body is larger than the route allows.",
    seen: "`goodgate_attempt_failures_total{cause=\"http_response_body_size\"}`.",
    usual: "An export or a listing without pages.",
    advice: "See which path it is, and whether so large an answer is meant.",
    setting: "A limit of response bodies is not a setting of this build.",
    nginx: &[],
    is_raised: false,
};
