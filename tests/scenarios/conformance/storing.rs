//! What may be stored (RFC 9111 section 3) and for whom.

use super::case::{Body, Case, case, not_reused, reused};

const FRESH: &str = "Cache-Control: max-age=60";

pub(super) fn cases() -> Vec<Case> {
    [methods(), statuses(), directives(), people(), whole()].concat_cases()
}

trait Concat {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> Concat for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

fn methods() -> Vec<Case> {
    let mut cases = vec![
        reused("9111 3", "a GET with explicit freshness is stored and reused", FRESH),
        case("9111 4", "a HEAD is answered from a stored GET").get().answered(FRESH).head().hit().says(""),
        case("9110 9.3.2", "a HEAD answered from the store tells the length of the body")
            .get()
            .answered(FRESH)
            .head()
            .hit()
            .has("Content-Length: 14"),
        case("9110 9.3.2", "the answer to a HEAD is no body for a GET")
            .head()
            .answered(FRESH)
            .get()
            .asked()
            .says_step(2),
    ];
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "SEARCH", "FOO"] {
        cases.push(
            case("9111 3", format!("the answer to {method} is not used for another {method}"))
                .asks(method)
                .answered(FRESH)
                .asks(method)
                .asked(),
        );
        cases.push(
            case("9111 4", format!("the answer to {method} is not used for a GET"))
                .asks(method)
                .answered(FRESH)
                .get()
                .asked(),
        );
    }
    for method in ["OPTIONS", "FOO"] {
        cases.push(
            case("9111 4", format!("a stored GET does not answer {method}"))
                .get()
                .answered(FRESH)
                .asks(method)
                .asked(),
        );
    }
    cases
}

fn statuses() -> Vec<Case> {
    let mut cases = Vec::new();
    let twice = |status: u16, fields: &str| {
        case("9111 3", format!("a {status} with freshness")).get().answered_by(status, fields).get()
    };
    for status in [
        200, 201, 202, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 402, 403, 404, 405, 406, 409, 410,
        411, 414, 415, 418, 422, 451, 499, 500, 501, 502, 503, 504, 510, 599,
    ] {
        let it = twice(status, FRESH).hit().status(status);
        cases.push(Case { claim: format!("a {status} that says how long it is fresh is reused"), ..it });
        let it = twice(status, "Cache-Control: max-age=1|Age: 5").asked();
        cases.push(Case { claim: format!("a {status} that is stale is not reused"), ..it });
    }
    for status in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
        let old = "Last-Modified: @-864000|Date: @-0";
        let it = twice(status, old).asked();
        cases.push(
            Case {
                section: "9111 4.2.2",
                claim: format!("nobody guesses how long a {status} is fresh"),
                ..it
            }
            .on("guessing"),
        );
    }
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        let it = twice(status, "Last-Modified: @-864000|Date: @-0").hit();
        cases.push(
            Case { section: "9110 15.1", claim: format!("the freshness of a {status} may be guessed"), ..it }
                .on("guessing"),
        );
    }
    for status in [206, 304, 416, 412] {
        let it = twice(status, FRESH).asked();
        cases.push(Case { claim: format!("a {status} that nobody has asked for is not stored"), ..it });
    }
    for status in [428, 429, 431, 511] {
        let it = twice(status, FRESH).asked();
        cases.push(Case { section: "6585", claim: format!("a {status} must not be stored"), ..it });
    }
    cases
}

fn directives() -> Vec<Case> {
    vec![
        not_reused("9111 5.2.2.5", "no-store is not stored", "Cache-Control: no-store"),
        not_reused("9111 5.2.2.5", "no-store wins over max-age", "Cache-Control: no-store, max-age=60"),
        not_reused(
            "9111 5.2.2.5",
            "no-store wins over a later max-age",
            "Cache-Control: max-age=60, no-store",
        ),
        not_reused("9111 5.2.2.5", "no-store wins over Expires", "Cache-Control: no-store|Expires: @+60"),
        not_reused(
            "9111 5.2.2.7",
            "private is not stored by a shared cache",
            "Cache-Control: private, max-age=60",
        ),
        not_reused("9111 5.2.2.7", "private wins over s-maxage", "Cache-Control: private, s-maxage=60"),
        not_reused("9111 5.2.2.7", "private wins over public", "Cache-Control: public, private, max-age=60"),
        not_reused("9111 3", "without a word about freshness nothing is reused", "X-A: 1"),
        not_reused("9111 3", "public alone says nothing of freshness", "Cache-Control: public"),
        reused(
            "9111 5.2.2.3",
            "must-understand lifts no-store for a status that is understood",
            "Cache-Control: must-understand, no-store, max-age=60",
        ),
        case("9111 5.2.2.3", "must-understand keeps an unknown status from being stored")
            .get()
            .answered_by(599, "Cache-Control: must-understand, max-age=60")
            .get()
            .asked(),
        case("9111 5.2.2.3", "must-understand with no-store and an unknown status is not stored")
            .get()
            .answered_by(599, "Cache-Control: must-understand, no-store, max-age=60")
            .get()
            .asked(),
        case("9111 5.2.2.4", "no-cache is stored, and asked about each time")
            .get()
            .answered("Cache-Control: no-cache, max-age=60|ETag: \"a\"")
            .get()
            .answered_by(304, "ETag: \"a\"")
            .asked()
            .sent("If-None-Match: \"a\"")
            .status(200)
            .says_step(1),
        case("9111 5.2.2.4", "no-cache without a validator is asked about each time")
            .get()
            .answered("Cache-Control: no-cache")
            .get()
            .asked()
            .says_step(2),
        case("9111 5.2.2.4", "no-cache with names: the rest is reused without those fields")
            .get()
            .answered("Cache-Control: no-cache=\"X-A, x-b\", max-age=60|X-A: 1|X-B: 2|X-C: 3")
            .has("X-A: 1")
            .get()
            .hit()
            .lacks("X-A")
            .lacks("X-B")
            .has("X-C: 3"),
        case("9111 5.2.2.4", "no-cache with one name that is no quoted string")
            .get()
            .answered("Cache-Control: no-cache=X-A, max-age=60|X-A: 1")
            .get()
            .hit()
            .lacks("X-A"),
        reused(
            "9111 5.2.3",
            "an unknown directive is ignored",
            "Cache-Control: max-age=60, nothing, extra=1",
        ),
        reused(
            "9111 5.2.2.6",
            "no-transform does not keep it from being stored",
            "Cache-Control: no-transform, max-age=60",
        ),
        reused(
            "9111 5.2.2.2",
            "must-revalidate is reused while fresh",
            "Cache-Control: must-revalidate, max-age=60",
        ),
        reused(
            "9111 5.2.2.8",
            "proxy-revalidate is reused while fresh",
            "Cache-Control: proxy-revalidate, max-age=60",
        ),
    ]
}

fn people() -> Vec<Case> {
    let with_password = |claim, fields: &str| {
        case("9111 3.5", claim).get().with("Authorization: Basic eDp5").answered(fields).get()
    };
    vec![
        with_password("the answer to Authorization is not stored without permission", FRESH).asked(),
        with_password("Expires is no permission for the answer to Authorization", "Expires: @+60").asked(),
        with_password(
            "public permits storing the answer to Authorization",
            "Cache-Control: public, max-age=60",
        )
        .hit(),
        with_password("s-maxage permits storing the answer to Authorization", "Cache-Control: s-maxage=60")
            .hit(),
        case("9111 3.5", "a stored response answers a request with Authorization if it may be shared")
            .get()
            .answered("Cache-Control: public, max-age=60")
            .get()
            .with("Authorization: Basic eDp5")
            .hit(),
    ]
}

fn whole() -> Vec<Case> {
    vec![
        case("9111 3.3", "an incomplete response is not stored as a whole one")
            .get()
            .answered(FRESH)
            .body(Body::Cut)
            .get()
            .asked()
            .says_step(2),
        case("9111 3.3", "a response cut short does not displace a complete one")
            .get()
            .answered("Cache-Control: max-age=60")
            .get()
            .with("Cache-Control: no-cache")
            .answered("Cache-Control: max-age=60")
            .body(Body::Cut)
            .get()
            .hit()
            .says_step(1),
        case("9112 7.1", "a chunked response is stored, and reused with its body")
            .get()
            .answered(FRESH)
            .body(Body::Chunked("chunked body".into(), ""))
            .get()
            .hit()
            .says("chunked body"),
        case("9110 6.5", "trailers do not become fields of the stored response")
            .get()
            .answered("Cache-Control: max-age=60|Trailer: X-T")
            .body(Body::Chunked("chunked body".into(), "X-T: 1"))
            .get()
            .hit()
            .says("chunked body")
            .lacks("X-T")
            .lacks("Trailer"),
        case("9111 3", "the newest of several responses is reused")
            .get()
            .answered(FRESH)
            .get()
            .with("Cache-Control: no-cache")
            .answered(FRESH)
            .asked()
            .get()
            .hit()
            .says_step(2),
        case("9111 2", "the key is the whole target: another query is another response")
            .get()
            .at("/q?a=1")
            .answered(FRESH)
            .get()
            .at("/q?a=2")
            .asked()
            .get()
            .at("/q?a=1")
            .hit()
            .says_step(1),
        case("9111 2", "the key is the whole target: the case of the path counts")
            .get()
            .at("/path")
            .answered(FRESH)
            .get()
            .at("/PATH")
            .asked(),
        case("9110 15.3.1", "an empty body is stored")
            .get()
            .answered(FRESH)
            .text("")
            .get()
            .hit()
            .says("")
            .has("Content-Length: 0"),
        case("9110 15.2", "an interim response is passed on and is not the one that is stored")
            .get()
            .interim("103 Early Hints|Link: </a.css>; rel=preload")
            .answered(FRESH)
            .saw(103)
            .get()
            .hit()
            .lacks("Link"),
        case("9110 15.2.1", "caching fields of an interim response mean nothing")
            .get()
            .interim("103 Early Hints|Cache-Control: max-age=60")
            .answered("")
            .saw(103)
            .get()
            .asked(),
        case("9110 15.2.3", "a 102 before the answer does not keep it from being stored")
            .get()
            .interim("102 Processing")
            .answered(FRESH)
            .get()
            .hit(),
    ]
}
