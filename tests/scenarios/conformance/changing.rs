//! Requests that change something put copies out of date (RFC 9111 section 4.4).

use super::case::{Case, case};

const FRESH: &str = "Cache-Control: max-age=600";

fn after(claim: impl Into<String>, method: &'static str) -> Case {
    case("9111 4.4", claim).get().answered(FRESH).asks(method)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in ["POST", "PUT", "DELETE", "PATCH", "FOO", "LOCK"] {
        cases.push(after(format!("{method} puts the copy out of date"), method).get().asked().says_step(3));
    }
    for method in ["OPTIONS", "TRACE"] {
        if method != "TRACE" {
            cases.push(after(format!("{method} is safe"), method).get().hit().says_step(1));
        }
    }
    for status in [201, 202, 204, 205, 301, 302, 303, 307] {
        cases.push(
            after(format!("a POST with {status} has changed something"), "POST")
                .answered_by(status, "X-A: 1")
                .get()
                .asked(),
        );
    }
    for status in [400, 403, 404, 409, 422, 500, 503] {
        cases.push(
            after(format!("a POST that failed with {status} has changed nothing"), "POST")
                .answered_by(status, "X-A: 1")
                .get()
                .hit()
                .says_step(1),
        );
    }
    cases.extend(places());
    cases.extend(others());
    cases
}

fn places() -> Vec<Case> {
    let beside = |claim: &'static str, fields: &str| {
        case("9111 4.4", claim)
            .get()
            .at("/other")
            .answered(FRESH)
            .asks("POST")
            .answered_by(201, fields)
            .get()
            .at("/other")
    };
    vec![
        beside("so is the copy under Location", "Location: {base}/other").asked(),
        beside("so is the copy under Content-Location", "Content-Location: {base}/other").asked(),
        beside("Location with scheme and host", "Location: http://test{base}/other").asked(),
        beside("Location with the host in another case", "Location: http://TEST{base}/other").asked(),
        beside("Location with the default port", "Location: http://test:80{base}/other").asked(),
        beside("Location without a scheme", "Location: //test{base}/other").asked(),
        beside("Location with a fragment", "Location: {base}/other#part").asked(),
        beside("Location of another host changes nothing", "Location: http://elsewhere{base}/other").hit(),
        beside(
            "Content-Location of another host changes nothing",
            "Content-Location: http://elsewhere{base}/other",
        )
        .hit(),
        beside("Location of another scheme changes nothing", "Location: https://test{base}/other").hit(),
        beside("Location of another port changes nothing", "Location: http://test:81{base}/other").hit(),
        beside("another place changes nothing", "Location: {base}/else").hit(),
        beside("a Location that is none changes nothing", "Location: ::::").hit(),
        case("9111 4.4", "Location of a request that failed changes nothing")
            .get()
            .at("/other")
            .answered(FRESH)
            .asks("POST")
            .answered_by(500, "Location: {base}/other")
            .get()
            .at("/other")
            .hit(),
        case("9111 4.4", "Location of a GET changes nothing")
            .get()
            .at("/other")
            .answered(FRESH)
            .get()
            .answered("Location: {base}/other")
            .get()
            .at("/other")
            .hit(),
        case("9110 4.2.3", "a Location relative to the request's own address")
            .get()
            .at("/list/other")
            .answered(FRESH)
            .asks("POST")
            .at("/list/new")
            .answered_by(201, "Location: other")
            .get()
            .at("/list/other")
            .asked(),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case("9111 4.4", "every variant is out of date")
            .get()
            .with("X-A: 1")
            .answered("Cache-Control: max-age=600|Vary: X-A")
            .get()
            .with("X-A: 2")
            .answered("Cache-Control: max-age=600|Vary: X-A")
            .asks("POST")
            .get()
            .with("X-A: 1")
            .asked()
            .get()
            .with("X-A: 2")
            .asked(),
        case("9111 4.4", "another query is another address")
            .get()
            .at("/?a=1")
            .answered(FRESH)
            .asks("POST")
            .at("/?a=2")
            .get()
            .at("/?a=1")
            .hit(),
        case("9111 4.4", "an old copy is not served behind a change, whatever it allows")
            .get()
            .answered("Cache-Control: max-age=600, stale-while-revalidate=600")
            .asks("POST")
            .get()
            .asked()
            .says_step(3),
        case("9111 4.4", "the next answer is stored again")
            .get()
            .answered(FRESH)
            .asks("POST")
            .get()
            .answered(FRESH)
            .asked()
            .get()
            .hit()
            .says_step(3),
    ]
}
