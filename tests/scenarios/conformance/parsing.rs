//! How `Cache-Control` is read (RFC 9111 sections 4.2.1 and 5.2, RFC 9110 section 5.6).

use super::case::{Case, case, not_reused, reused};

pub(super) fn cases() -> Vec<Case> {
    let list = "9110 5.6.1";
    let invalid = "9111 4.2.1";
    vec![
        reused("9111 5.2", "the case of a directive does not count", "Cache-Control: MaX-aGe=60"),
        not_reused("9111 5.2", "the case of no-store does not count", "Cache-Control: No-StOrE, max-age=60"),
        not_reused("9111 5.2", "the case of private does not count", "Cache-Control: PRIVATE, max-age=60"),
        not_reused("9111 5.2", "the case of no-cache does not count", "Cache-Control: No-Cache, max-age=60"),
        reused("9111 5.2", "the case of s-maxage does not count", "Cache-Control: S-MAXAGE=60, max-age=0"),
        reused("9111 5.2", "an argument may be a quoted string", "Cache-Control: max-age=\"60\""),
        not_reused("9111 5.2", "zero in quotes is zero", "Cache-Control: max-age=\"0\"|Expires: @+60"),
        reused("9111 5.2.2.1", "zeros at the beginning mean nothing", "Cache-Control: max-age=00060"),
        not_reused(invalid, "single quotes are no quotes", "Cache-Control: max-age='60'"),
        not_reused(invalid, "a fraction is no number of seconds", "Cache-Control: max-age=60.5"),
        not_reused(invalid, "not even .0", "Cache-Control: max-age=60.0"),
        not_reused(invalid, "a negative lifetime is stale", "Cache-Control: max-age=-60"),
        not_reused(invalid, "a sign is no digit", "Cache-Control: max-age=+60"),
        not_reused(invalid, "letters before the number", "Cache-Control: max-age=a60"),
        not_reused(invalid, "letters behind the number", "Cache-Control: max-age=60a"),
        not_reused(invalid, "a max-age without a value", "Cache-Control: max-age"),
        not_reused(invalid, "an empty max-age", "Cache-Control: max-age="),
        not_reused(
            invalid,
            "a max-age that is invalid is not replaced by Expires",
            "Cache-Control: max-age=x|Expires: @+60",
        ),
        not_reused(invalid, "white space before the equals sign", "Cache-Control: max-age =60"),
        not_reused(invalid, "white space behind the equals sign", "Cache-Control: max-age= 60"),
        not_reused(invalid, "hexadecimal is invalid", "Cache-Control: max-age=0x60"),
        not_reused(invalid, "a quote without an end", "Cache-Control: max-age=\"60"),
        not_reused(
            invalid,
            "of two lifetimes one that is over",
            "Cache-Control: max-age=60, max-age=1|Age: 5",
        ),
        not_reused(
            invalid,
            "of two lifetimes the first that is over",
            "Cache-Control: max-age=1, max-age=60|Age: 5",
        ),
        not_reused(
            invalid,
            "of two lines one that is over",
            "Cache-Control: max-age=60|Cache-Control: max-age=1|Age: 5",
        ),
        reused(invalid, "the same lifetime twice", "Cache-Control: max-age=60, max-age=60"),
        not_reused(
            invalid,
            "the most restrictive directive is honoured",
            "Cache-Control: max-age=60, no-cache",
        ),
        reused(list, "white space around directives", "Cache-Control:  \t public ,\tmax-age=60 \t"),
        reused(list, "no white space between directives", "Cache-Control: public,max-age=60"),
        reused(list, "empty elements", "Cache-Control: ,, public,,max-age=60,"),
        reused(list, "an empty line before another", "Cache-Control:|Cache-Control: max-age=60"),
        reused(
            "9111 5.2.3",
            "names that end alike are other names",
            "Cache-Control: x-max-age=0, max-age=60",
        ),
        reused(
            "9111 5.2.3",
            "names that begin alike are other names",
            "Cache-Control: no-store-at-all, max-age=60",
        ),
        reused(
            "9111 5.2.3",
            "an unknown directive with a quoted list",
            "Cache-Control: x=\"a, b\", max-age=60",
        ),
        not_reused("9110 5.6.4", "a directive in quotes is none", "Cache-Control: x=\"max-age=60\""),
        not_reused(
            "9110 5.6.4",
            "quotes hide max-age from the left",
            "Cache-Control: x=\"max-age=60\", max-age=1|Age: 5",
        ),
        not_reused(
            "9110 5.6.4",
            "quotes hide max-age from the right",
            "Cache-Control: max-age=1, x=\"max-age=60\"|Age: 5",
        ),
        reused("9110 5.6.4", "quotes hide no-store", "Cache-Control: x=\"no-store\", max-age=60"),
        reused(
            "9110 5.6.4",
            "quotes hide a comma and what follows",
            "Cache-Control: x=\"a, no-store\", max-age=60",
        ),
        reused(
            "9110 5.6.4",
            "an escaped quote ends nothing",
            "Cache-Control: x=\"a\\\", no-store\", max-age=60",
        ),
        not_reused(
            "9111 5.2.2.5",
            "no-store with an argument is still no-store",
            "Cache-Control: no-store=1, max-age=60",
        ),
        not_reused(
            "9111 5.2.2.5",
            "no-store with white space before an equals sign",
            "Cache-Control: no-store =1, max-age=60",
        ),
        reused(
            "9111 5.4",
            "Pragma in a response means nothing",
            "Cache-Control: max-age=60|Pragma: no-cache",
        ),
        case("9111 5.4", "Pragma in a response makes nothing fresh")
            .get()
            .answered("Pragma: public")
            .get()
            .asked(),
    ]
}
