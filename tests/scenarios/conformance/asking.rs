//! What a request may ask of the cache (RFC 9111 sections 5.2.1 and 5.4).

use super::case::{Case, case};

const FRESH: &str = "Cache-Control: max-age=600|Age: 100";

fn asking(section: &'static str, claim: &'static str, fields: &str) -> Case {
    case(section, claim).get().answered(FRESH).get().with(fields)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        asking("9111 5.2.1.4", "no-cache asks before a copy is served", "Cache-Control: no-cache").asked(),
        asking("9111 5.2.1.4", "the case of no-cache does not count", "Cache-Control: NO-CACHE").asked(),
        asking(
            "9111 5.2.1.4",
            "no-cache beside other directives",
            "Cache-Control: x, no-cache, max-age=9999",
        )
        .asked(),
        asking("9111 5.4", "Pragma: no-cache without Cache-Control", "Pragma: no-cache").asked(),
        asking(
            "9111 5.4",
            "Pragma beside Cache-Control means nothing",
            "Pragma: no-cache|Cache-Control: max-stale",
        )
        .hit(),
        asking("9111 5.4", "another Pragma means nothing", "Pragma: x-a").hit(),
        asking("9111 5.2.1.1", "an age above max-age", "Cache-Control: max-age=50").asked(),
        asking("9111 5.2.1.1", "an age below max-age", "Cache-Control: max-age=500").hit(),
        asking("9111 5.2.1.1", "max-age=0", "Cache-Control: max-age=0").asked(),
        asking("9111 5.2.1.3", "fresh for as long as min-fresh", "Cache-Control: min-fresh=400").hit(),
        asking("9111 5.2.1.3", "not fresh for as long as min-fresh", "Cache-Control: min-fresh=550").asked(),
        asking("9111 5.2.1.3", "min-fresh and max-age both count", "Cache-Control: min-fresh=10, max-age=50")
            .asked(),
        asking("9111 5.2.1.5", "no-store does not use what is stored", "Cache-Control: no-store").asked(),
        case("9111 5.2.1.5", "the answer to no-store is not stored")
            .get()
            .with("Cache-Control: no-store")
            .answered(FRESH)
            .get()
            .asked(),
        case("9111 5.2.1.5", "no-store leaves what was stored before")
            .get()
            .answered(FRESH)
            .get()
            .with("Cache-Control: no-store")
            .get()
            .hit()
            .says_step(1),
        asking("9111 5.2.1.7", "only-if-cached is answered from the store", "Cache-Control: only-if-cached")
            .hit(),
        case("9111 5.2.1.7", "only-if-cached without a copy is a 504")
            .get()
            .with("Cache-Control: only-if-cached")
            .status(504)
            .hit(),
        case("9111 5.2.1.7", "only-if-cached with a stale copy is a 504")
            .get()
            .answered("Cache-Control: max-age=10|Age: 50|ETag: \"a\"")
            .get()
            .with("Cache-Control: only-if-cached")
            .status(504)
            .hit(),
        case("9111 5.2.1.7", "only-if-cached with max-stale takes a stale copy")
            .get()
            .answered("Cache-Control: max-age=10|Age: 50|ETag: \"a\"")
            .get()
            .with("Cache-Control: only-if-cached, max-stale=100")
            .status(200)
            .hit(),
        case("9111 5.2.1.7", "only-if-cached with a copy that is too old for the request is a 504")
            .get()
            .answered(FRESH)
            .get()
            .with("Cache-Control: only-if-cached, max-age=50")
            .status(504)
            .hit(),
        case("9111 5.2.1.7", "only-if-cached of a HEAD")
            .head()
            .with("Cache-Control: only-if-cached")
            .status(504)
            .hit(),
        stale("max-stale takes any stale copy", "Cache-Control: max-stale").hit(),
        stale("a copy staler than max-stale is asked about", "Cache-Control: max-stale=10").asked(),
        stale("a copy less stale than max-stale is taken", "Cache-Control: max-stale=100").hit(),
        stale("max-stale and max-age both count", "Cache-Control: max-stale=100, max-age=20").asked(),
        stale("no-cache wins over max-stale", "Cache-Control: max-stale, no-cache").asked(),
        case("9111 4.2.4", "max-stale does not lift must-revalidate")
            .get()
            .answered("Cache-Control: max-age=10, must-revalidate|Age: 50|ETag: \"a\"")
            .get()
            .with("Cache-Control: max-stale=100")
            .asked(),
        case("9111 5.2.2.10", "max-stale does not lift s-maxage")
            .get()
            .answered("Cache-Control: s-maxage=10|Age: 50|ETag: \"a\"")
            .get()
            .with("Cache-Control: max-stale=100")
            .asked(),
        asking("9111 5.2.1", "a directive that is none means nothing", "Cache-Control: nonsense").hit(),
        asking("9111 5.2.1.1", "a max-age that is no number asks", "Cache-Control: max-age=soon").asked(),
        asking("9111 5.2.1.6", "no-transform means nothing to the store", "Cache-Control: no-transform")
            .hit(),
    ]
}

fn stale(claim: &'static str, fields: &str) -> Case {
    case("9111 5.2.1.2", claim)
        .get()
        .answered("Cache-Control: max-age=10|Age: 50|ETag: \"a\"")
        .get()
        .with(fields)
}
