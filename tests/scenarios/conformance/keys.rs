//! Routes that say what makes two requests the same (RFC 9111 section 2: what the cache key may have besides).

use super::case::{Case, case};

const FRESH: &str = "Cache-Control: max-age=60";

fn two(route: &'static str, claim: &'static str, first: &'static str, second: &'static str) -> Case {
    case("9111 2", claim).on(route).get().at(first).answered(FRESH).get().at(second)
}

fn sent(claim: &'static str, first: &'static str, second: &'static str) -> Case {
    case("9111 2", claim).on("chosen").get().with(first).answered(FRESH).get().with(second)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        two("plain", "the order of parameters counts", "/?a=1&b=2", "/?b=2&a=1").asked(),
        two("sorted", "unless they are sorted", "/?a=1&b=2", "/?b=2&a=1").hit(),
        two("sorted", "values count when sorted", "/?a=1&b=2", "/?b=1&a=2").asked(),
        two("sorted", "the order of one parameter's values counts when sorted", "/?a=1&a=2", "/?a=2&a=1")
            .asked(),
        two("queryless", "without the query", "/?a=1", "/?a=2").hit(),
        two("queryless", "the path still counts", "/x?a=1", "/y?a=1").asked(),
        two("chosen", "a parameter that is chosen counts", "/?page=1&x=1", "/?page=2&x=1").asked(),
        two("chosen", "one that is not does not", "/?page=1&x=1", "/?x=2&page=1").hit(),
        two(
            "without",
            "a parameter that is left out does not count",
            "/?a=1&utm_source=x",
            "/?a=1&utm_medium=y",
        )
        .hit(),
        two("without", "the others do", "/?a=1&utm_source=x", "/?a=2&utm_source=x").asked(),
        two("without", "all left out is the same as no query", "/?utm_source=x", "/").hit(),
        sent("a field that is chosen counts", "X-Key: 1", "X-Key: 2").asked(),
        sent("the same value is the same key", "X-Key: 1", "X-Key: 1").hit(),
        sent("a field that is absent is not empty", "X-Key:", "").asked(),
        sent("others do not count", "X-Key: 1|X-Other: 1", "X-Key: 1|X-Other: 2").hit(),
        sent("a cookie that is chosen counts", "Cookie: lang=de", "Cookie: lang=en").asked(),
        sent("among others", "Cookie: lang=de; x=1", "Cookie: y=2; lang=de").hit(),
        case("9111 7.3", "a cookie in the key makes nobody personal")
            .on("chosen")
            .get()
            .with("Cookie: lang=de")
            .answered("Cache-Control: no-cache|ETag: \"a\"")
            .get()
            .with("Cookie: lang=de")
            .sent("If-None-Match: \"a\""),
        case("9111 7.3", "another one beside it does")
            .on("chosen")
            .get()
            .with("Cookie: lang=de; session=1")
            .answered("Cache-Control: no-cache|ETag: \"a\"")
            .get()
            .with("Cookie: lang=de")
            .not_sent("If-None-Match"),
        case("9111 4.4", "a change puts the copy of its own key out of date")
            .on("sorted")
            .get()
            .at("/?a=1&b=2")
            .answered(FRESH)
            .asks("POST")
            .at("/?b=2&a=1")
            .get()
            .at("/?a=1&b=2")
            .asked(),
    ]
}
