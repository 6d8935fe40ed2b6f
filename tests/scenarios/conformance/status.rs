//! Negative caching, and what is made of errors (RFC 9111 sections 3 and 4.2.2).

use super::case::{Body, Case, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("9111 4.2.2", "the route may say how long a 404 is fresh")
            .on("negative")
            .get()
            .answered_by(404, "X-A: 1")
            .get()
            .hit()
            .status(404),
        case("9111 4.2.2", "the route may say how long a 503 is fresh")
            .on("negative")
            .get()
            .answered_by(503, "X-A: 1")
            .get()
            .hit()
            .status(503),
        case("9111 4.2.2", "what the response says wins over the route")
            .on("negative")
            .get()
            .answered_by(404, "Cache-Control: max-age=0")
            .get()
            .asked(),
        case("9111 4.2.2", "other statuses are not meant")
            .on("negative")
            .get()
            .answered_by(410, "X-A: 1")
            .get()
            .asked(),
        case("9111 5.2.2.5", "no-store wins over the route")
            .on("negative")
            .get()
            .answered_by(404, "Cache-Control: no-store")
            .get()
            .asked(),
        case("9111 3", "a stored error gives way to a good answer")
            .get()
            .answered_by(500, "Cache-Control: max-age=60")
            .get()
            .with("Cache-Control: no-cache")
            .answered("Cache-Control: max-age=60")
            .get()
            .hit()
            .status(200)
            .says_step(2),
        case("9111 3", "an error does not take the place of a good copy")
            .get()
            .answered("Cache-Control: max-age=600|ETag: \"a\"")
            .get()
            .with("Cache-Control: no-cache")
            .answered_by(500, "Cache-Control: max-age=600")
            .asked()
            .get()
            .hit()
            .status(200)
            .says_step(1),
        case("9111 3", "no answer at all does not, either")
            .get()
            .answered("Cache-Control: max-age=600|ETag: \"a\"")
            .get()
            .with("Cache-Control: no-cache")
            .body(Body::Nothing)
            .get()
            .hit()
            .says_step(1),
        case("9110 15.5.5", "a page that is gone takes the place of its copy")
            .get()
            .answered("Cache-Control: max-age=600")
            .get()
            .with("Cache-Control: no-cache")
            .answered_by(410, "Cache-Control: max-age=600")
            .status(410)
            .get()
            .hit()
            .status(410),
    ]
}
