//! When an old copy may be served (RFC 9111 section 4.2.4, RFC 5861).

use super::case::{Body, Case, case};

const BROKEN: Body = Body::Nothing;

pub(super) fn cases() -> Vec<Case> {
    [reachable(), disconnected(), windows()].into_iter().flatten().collect()
}

fn reachable() -> Vec<Case> {
    let stale = |claim: &'static str, control: &str| {
        case("9111 4.2.4", claim)
            .get()
            .answered(format!("Cache-Control: {control}|Age: 100|ETag: \"a\""))
            .get()
            .answered("Cache-Control: max-age=600")
    };
    vec![
        stale("a stale response is not served while the backend answers", "max-age=10").asked().says_step(2),
        stale("must-revalidate asks once stale", "max-age=10, must-revalidate").asked().says_step(2),
        stale("proxy-revalidate asks once stale", "max-age=10, proxy-revalidate").asked().says_step(2),
        stale("s-maxage asks once stale", "s-maxage=10").asked().says_step(2),
        stale("stale-if-error is not for a backend that answers", "max-age=10, stale-if-error=600")
            .asked()
            .says_step(2),
    ]
}

fn disconnected() -> Vec<Case> {
    let stale = |section: &'static str, claim: &'static str, control: &str| {
        case(section, claim)
            .get()
            .answered(format!("Cache-Control: {control}|Age: 100|ETag: \"a\""))
            .get()
            .body(BROKEN)
    };
    let forbidden = "9111 4.2.4";
    vec![
        stale(forbidden, "a cache that is disconnected may serve stale", "max-age=10")
            .status(200)
            .says_step(1)
            .aged(100, 110),
        stale("9111 5.2.2.2", "must-revalidate forbids it", "max-age=10, must-revalidate").status(502),
        stale("9111 5.2.2.8", "proxy-revalidate forbids it", "max-age=10, proxy-revalidate").status(502),
        stale("9111 5.2.2.10", "s-maxage forbids it", "s-maxage=10").status(502),
        stale("9111 5.2.2.4", "no-cache forbids it", "no-cache, max-age=600").status(502),
        stale("5861 4", "stale-if-error allows it for its time", "max-age=10, stale-if-error=600")
            .status(200)
            .says_step(1),
        stale("5861 4", "beyond its time it does not", "max-age=10, stale-if-error=5").status(502),
        stale(
            "5861 4",
            "must-revalidate wins over stale-if-error",
            "max-age=10, must-revalidate, stale-if-error=600",
        )
        .status(502),
        stale("5861 4.1", "stale-if-error of the request allows it", "max-age=10, stale-if-error=5")
            .with("Cache-Control: stale-if-error=600")
            .status(200)
            .says_step(1),
        stale("5861 4.1", "beyond the time of the request it does not", "max-age=10, stale-if-error=5")
            .with("Cache-Control: stale-if-error=20")
            .status(502),
        stale(
            "5861 4.1",
            "stale-if-error of the request does not lift must-revalidate",
            "max-age=10, must-revalidate",
        )
        .with("Cache-Control: stale-if-error=600")
        .status(502),
        case("5861 4", "a 503 is an error")
            .get()
            .answered("Cache-Control: max-age=10, stale-if-error=600|Age: 100")
            .get()
            .answered_by(503, "X-A: 1")
            .status(200)
            .says_step(1),
        case("5861 4", "a 404 is none")
            .get()
            .answered("Cache-Control: max-age=10, stale-if-error=600|Age: 100")
            .get()
            .answered_by(404, "X-A: 1")
            .status(404),
        case("9111 4.2.4", "an error that is over does not stand in for another one")
            .get()
            .answered_by(500, "Cache-Control: max-age=10|Age: 100|ETag: \"a\"")
            .get()
            .body(BROKEN)
            .status(502),
        case("9111 5.2.2.2", "with must-revalidate a 503 is passed on")
            .get()
            .answered("Cache-Control: max-age=10, must-revalidate|Age: 100")
            .get()
            .answered_by(503, "X-A: 1")
            .status(503),
    ]
}

fn windows() -> Vec<Case> {
    let at = "5861 3";
    let stale = |claim: &'static str, control: &str| {
        case(at, claim)
            .get()
            .answered(format!("Cache-Control: {control}|Age: 100|ETag: \"a\""))
            .get()
            .answered("Cache-Control: max-age=600|ETag: \"b\"")
    };
    vec![
        stale(
            "within stale-while-revalidate the old copy is served, and refreshed behind",
            "max-age=10, stale-while-revalidate=600",
        )
        .behind(),
        stale("beyond it the backend is waited for", "max-age=10, stale-while-revalidate=5")
            .asked()
            .says_step(2),
        stale("must-revalidate wins", "max-age=10, must-revalidate, stale-while-revalidate=600")
            .asked()
            .says_step(2),
        stale("no-cache wins", "no-cache, stale-while-revalidate=600").asked().says_step(2),
        stale("s-maxage beside a window forbids nothing", "s-maxage=10, stale-while-revalidate=600").behind(),
        stale("a window that is no number is none", "max-age=10, stale-while-revalidate=x")
            .asked()
            .says_step(2),
        stale("an empty window is none", "max-age=10, stale-while-revalidate").asked().says_step(2),
        stale("the request's no-cache wins", "max-age=10, stale-while-revalidate=600")
            .with("Cache-Control: no-cache")
            .asked()
            .says_step(2),
        stale("the request's max-age wins", "max-age=10, stale-while-revalidate=600")
            .with("Cache-Control: max-age=50")
            .asked()
            .says_step(2),
    ]
}
