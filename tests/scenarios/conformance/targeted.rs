//! Fields that speak to caches like this one (RFC 9213, with the syntax of RFC 8941).

use super::case::{Case, case, not_reused, reused};

pub(super) fn cases() -> Vec<Case> {
    let it = "9213 2.2";
    let syntax = "8941 3.2";
    let field = |directives: &str, others: &str| format!("CDN-Cache-Control: {directives}|{others}");
    vec![
        reused(it, "CDN-Cache-Control counts", &field("max-age=60", "X-A: 1")),
        reused(it, "it wins over Cache-Control: max-age=0", &field("max-age=60", "Cache-Control: max-age=0")),
        reused(it, "it wins over Cache-Control: no-store", &field("max-age=60", "Cache-Control: no-store")),
        reused(it, "it wins over Cache-Control: private", &field("max-age=60", "Cache-Control: private")),
        reused(it, "it wins over Cache-Control: no-cache", &field("max-age=60", "Cache-Control: no-cache")),
        reused(it, "it wins over s-maxage", &field("max-age=60", "Cache-Control: s-maxage=0")),
        reused(it, "it wins over Expires", &field("max-age=60", "Expires: 0")),
        not_reused(
            it,
            "its max-age=0 wins over a longer one",
            &field("max-age=0", "Cache-Control: max-age=60"),
        ),
        not_reused(it, "its no-store wins over max-age", &field("no-store", "Cache-Control: max-age=60")),
        not_reused(it, "its private wins over max-age", &field("private", "Cache-Control: max-age=60")),
        not_reused(it, "its no-cache wins over max-age", &field("no-cache", "Cache-Control: max-age=60")),
        not_reused(it, "no-store makes its max-age idle", &field("no-store, max-age=60", "X-A: 1")),
        not_reused(
            it,
            "without a lifetime of its own that of Cache-Control does not count",
            &field("public", "Cache-Control: max-age=60"),
        ),
        not_reused(it, "nor that of Expires", &field("public", "Expires: @+60")),
        not_reused(it, "Age is taken off", &field("max-age=60", "Age: 90")),
        reused(it, "s-maxage counts there, too", &field("s-maxage=60, max-age=0", "X-A: 1")),
        reused(it, "an unknown member is ignored", &field("x=1, max-age=60, y", "X-A: 1")),
        reused(it, "parameters are ignored", &field("max-age=60;x=1;y", "X-A: 1")),
        reused(
            it,
            "several lines are one dictionary",
            &field("public|CDN-Cache-Control: max-age=60", "Cache-Control: no-store"),
        ),
        reused(it, "of two members the last one counts", &field("max-age=0, max-age=60", "X-A: 1")),
        not_reused(it, "of two members the last one counts: zero", &field("max-age=60, max-age=0", "X-A: 1")),
        reused("9213 2.1", "an empty field is ignored", &field("", "Cache-Control: max-age=60")),
        not_reused("9213 2.1", "an empty field lifts nothing", &field("", "Cache-Control: no-store")),
        reused(
            syntax,
            "a key in upper case is an error: the field is ignored",
            &field("Max-Age=0", "Cache-Control: max-age=60"),
        ),
        reused(syntax, "a comma at the end is an error", &field("max-age=0,", "Cache-Control: max-age=60")),
        reused(syntax, "empty members are an error", &field("max-age=0,,x", "Cache-Control: max-age=60")),
        reused(syntax, "a missing value is an error", &field("max-age=", "Cache-Control: max-age=60")),
        reused(
            syntax,
            "a space before the equals sign is an error",
            &field("max-age =0", "Cache-Control: max-age=60"),
        ),
        reused(syntax, "a space behind it is an error", &field("max-age= 0", "Cache-Control: max-age=60")),
        reused(syntax, "single quotes are an error", &field("max-age='0'", "Cache-Control: max-age=60")),
        reused(
            syntax,
            "a string without an end is an error",
            &field("max-age=\"0", "Cache-Control: max-age=60"),
        ),
        reused(
            syntax,
            "a semicolon between members is an error",
            &field("no-store; ,", "Cache-Control: max-age=60"),
        ),
        not_reused(
            syntax,
            "an error does not lift Cache-Control",
            &field("max-age=60,", "Cache-Control: no-store"),
        ),
        reused(syntax, "white space around members", &field(" public \t,\t max-age=60 ", "X-A: 1")),
        not_reused(
            it,
            "a fraction is no number of seconds",
            &field("max-age=60.5", "Cache-Control: max-age=60"),
        ),
        not_reused(it, "a negative lifetime is over", &field("max-age=-60", "Cache-Control: max-age=60")),
        not_reused(
            it,
            "a string is no number of seconds",
            &field("max-age=\"60\"", "Cache-Control: max-age=60"),
        ),
        case(it, "the field is passed on, and stored")
            .get()
            .answered(field("max-age=60", "X-A: 1"))
            .has("CDN-Cache-Control: max-age=60")
            .get()
            .hit()
            .has("CDN-Cache-Control: max-age=60"),
        case(it, "a 304 brings a new one")
            .get()
            .answered("CDN-Cache-Control: max-age=10|Age: 20|ETag: \"a\"")
            .get()
            .answered_by(304, "CDN-Cache-Control: max-age=60|ETag: \"a\"")
            .says_step(1)
            .get()
            .hit(),
        case(it, "in a request it means nothing")
            .get()
            .answered("Cache-Control: max-age=60")
            .get()
            .with("CDN-Cache-Control: no-cache")
            .hit(),
        not_reused("9213 2.1", "another cache's field means nothing", "Other-CDN-Cache-Control: max-age=60"),
        reused(
            "9213 2.1",
            "no field of another cache restricts this one",
            "Surrogate-Control: no-store|Cache-Control: max-age=60",
        ),
    ]
}
