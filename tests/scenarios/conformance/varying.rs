//! Which of several stored responses a request is for (RFC 9111 section 4.1).

use super::case::{Case, case};

fn vary(claim: &'static str, vary: &str, first: &str, second: &str) -> Case {
    case("9111 4.1", claim)
        .get()
        .with(first.to_owned())
        .answered(format!("Cache-Control: max-age=60|Vary: {vary}"))
        .get()
        .with(second.to_owned())
        .answered(format!("Cache-Control: max-age=60|Vary: {vary}"))
}

pub(super) fn cases() -> Vec<Case> {
    [matching(), variants(), syntax(), alike()].into_iter().flatten().collect()
}

fn matching() -> Vec<Case> {
    vec![
        vary("the same value is the same response", "X-A", "X-A: 1", "X-A: 1").hit(),
        vary("another value is another response", "X-A", "X-A: 1", "X-A: 2").asked(),
        vary("absence is another value", "X-A", "X-A: 1", "").asked(),
        vary("a value is not absence", "X-A", "", "X-A: 1").asked(),
        vary("an empty value is not absence", "X-A", "", "X-A:").asked(),
        vary("absence is the same as absence", "X-A", "", "").hit(),
        vary("fields that are not named do not count", "X-A", "X-A: 1|X-B: 1", "X-A: 1|X-B: 2").hit(),
        vary("of two fields both match", "X-A, X-B", "X-A: 1|X-B: 2", "X-A: 1|X-B: 2").hit(),
        vary("of two fields the second differs", "X-A, X-B", "X-A: 1|X-B: 2", "X-A: 1|X-B: 3").asked(),
        vary("of two fields the first differs", "X-A, X-B", "X-A: 1|X-B: 2", "X-A: 2|X-B: 2").asked(),
        vary("of three fields one is missing", "X-A, X-B, X-C", "X-A: 1|X-B: 2|X-C: 3", "X-A: 1|X-C: 3")
            .asked(),
        vary("the order of different fields does not count", "X-A, X-B", "X-A: 1|X-B: 2", "X-B: 2|X-A: 1")
            .hit(),
        vary("values do not wander between fields", "X-A, X-B", "X-A: 1|X-B: 2", "X-A: 2|X-B: 1").asked(),
        vary("the case of values of unknown fields counts", "X-A", "X-A: a", "X-A: A").asked(),
        vary(
            "the order of values counts",
            "Accept-Language",
            "Accept-Language: de, en",
            "Accept-Language: en, de",
        )
        .asked(),
        vary("the order of lines of one field counts", "X-A", "X-A: 1|X-A: 2", "X-A: 2|X-A: 1").asked(),
    ]
}

fn variants() -> Vec<Case> {
    let two = |claim: &'static str| vary(claim, "X-A", "X-A: 1", "X-A: 2").asked().get().with("X-A: 1");
    vec![
        two("a second response leaves the first where it was").hit().says_step(1),
        two("and is stored itself").hit().get().with("X-A: 2").hit().says_step(2),
        two("a third as well")
            .hit()
            .get()
            .with("X-A: 3")
            .answered("Cache-Control: max-age=60|Vary: X-A")
            .asked()
            .get()
            .with("X-A: 1")
            .hit()
            .says_step(1)
            .get()
            .with("X-A: 2")
            .hit()
            .says_step(2)
            .get()
            .with("X-A: 3")
            .hit()
            .says_step(4),
        case("9111 4.1", "a newer response that does not vary answers everyone")
            .get()
            .with("X-A: 1")
            .answered("Cache-Control: max-age=60|Vary: X-A")
            .get()
            .with("X-A: 2")
            .answered("Cache-Control: max-age=60")
            .asked()
            .get()
            .with("X-A: 3")
            .hit()
            .says_step(2),
        case("9111 4.1", "the Vary of the newest response counts")
            .get()
            .with("X-A: 1|X-B: 1")
            .answered("Cache-Control: max-age=60|Vary: X-A")
            .get()
            .with("X-A: 2|X-B: 1")
            .answered("Cache-Control: max-age=60|Vary: X-A, X-B")
            .asked()
            .get()
            .with("X-A: 2|X-B: 2")
            .asked(),
        case("9111 4.1", "a HEAD gets the variant that is for it")
            .get()
            .with("X-A: 1")
            .answered("Cache-Control: max-age=60|Vary: X-A|X-Is: one")
            .get()
            .with("X-A: 2")
            .answered("Cache-Control: max-age=60|Vary: X-A|X-Is: two")
            .head()
            .with("X-A: 1")
            .hit()
            .has("X-Is: one"),
        case("9111 4.1", "each variant is confirmed by its own tag")
            .get()
            .with("X-A: 1")
            .answered("Cache-Control: max-age=10|Age: 20|Vary: X-A|ETag: \"one\"")
            .get()
            .with("X-A: 2")
            .answered("Cache-Control: max-age=10|Age: 20|Vary: X-A|ETag: \"two\"")
            .get()
            .with("X-A: 1")
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"one\"")
            .sent("If-None-Match: \"one\"")
            .says_step(1)
            .get()
            .with("X-A: 2")
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"two\"")
            .sent("If-None-Match: \"two\"")
            .says_step(2),
    ]
}

fn syntax() -> Vec<Case> {
    vec![
        vary("an asterisk matches nothing", "*", "X-A: 1", "X-A: 1").asked(),
        vary("an asterisk behind a name", "X-A, *", "X-A: 1", "X-A: 1").asked(),
        vary("an asterisk before a name", "*, X-A", "X-A: 1", "X-A: 1").asked(),
        vary("an asterisk between empty elements", ", *", "X-A: 1", "X-A: 1").asked(),
        vary("an asterisk on a line of its own", "X-A|Vary: *", "X-A: 1", "X-A: 1").asked(),
        vary("an asterisk on a first line", "*|Vary: X-A", "X-A: 1", "X-A: 1").asked(),
        vary("two lines count together", "X-A|Vary: X-B", "X-A: 1|X-B: 1", "X-A: 1|X-B: 2").asked(),
        vary("two lines that both match", "X-A|Vary: X-B", "X-A: 1|X-B: 1", "X-A: 1|X-B: 1").hit(),
        vary("the case of names does not count", "x-A", "X-a: 1", "X-A: 2").asked(),
        vary("empty elements are passed over", ",X-A,,", "X-A: 1", "X-A: 1").hit(),
        vary("an empty Vary varies by nothing", "", "X-A: 1", "X-A: 2").hit(),
        vary("white space around names", " X-A\t, X-B ", "X-A: 1|X-B: 1", "X-A: 1|X-B: 2").asked(),
    ]
}

fn alike() -> Vec<Case> {
    let lang = |claim, first: &str, second: &str| {
        vary(
            claim,
            "Accept-Language",
            &format!("Accept-Language: {first}"),
            &format!("Accept-Language: {second}"),
        )
    };
    vec![
        lang("white space of a list does not count", "de, en;q=0.5", "de,en;q=0.5").hit(),
        lang("the case of languages does not count", "de-AT", "DE-at").hit(),
        lang("lines of a list are one list", "de, en", "de|Accept-Language: en").hit(),
        lang("weights count", "de;q=0.5", "de;q=0.6").asked(),
        vary(
            "the order of codings does not count",
            "Accept-Encoding",
            "Accept-Encoding: gzip, br",
            "Accept-Encoding: br, gzip",
        )
        .hit(),
        vary(
            "the case of codings does not count",
            "Accept-Encoding",
            "Accept-Encoding: GZIP",
            "Accept-Encoding: gzip",
        )
        .hit(),
        vary("lines of one field are one list", "X-A", "X-A: 1, 2", "X-A: 1|X-A: 2").hit(),
        vary("white space around a value does not count", "X-A", "X-A:  1  ", "X-A: 1").hit(),
    ]
}
