//! Validation: what is asked, what a 304 or a HEAD changes, and conditional requests that the store answers
//! (RFC 9111 sections 3.2, 4.3, RFC 9110 section 13).

use super::case::{Case, case};

const OLD: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const OLDER: &str = "Thu, 01 Jan 2025 00:00:00 GMT";
const STALE: &str = "Cache-Control: max-age=10|Age: 20";

pub(super) fn cases() -> Vec<Case> {
    [generated(), confirmed(), tags(), dates(), heads(), forwarded()].into_iter().flatten().collect()
}

fn generated() -> Vec<Case> {
    let ask = |claim: &'static str, validators: String| {
        case("9111 4.3.1", claim).get().answered(format!("{STALE}|{validators}")).get()
    };
    vec![
        ask("a stale response with an entity tag is confirmed by it", "ETag: \"a\"".into())
            .sent("If-None-Match: \"a\""),
        ask("a weak entity tag as well", "ETag: W/\"a\"".into()).sent("If-None-Match: W/\"a\""),
        ask("a stale response with Last-Modified is confirmed by that", format!("Last-Modified: {OLD}"))
            .sent(format!("If-Modified-Since: {OLD}")),
        ask("of both the entity tag is sent", format!("ETag: \"a\"|Last-Modified: {OLD}"))
            .sent("If-None-Match: \"a\""),
        ask("without a validator nothing is confirmed", "X-A: 1".into())
            .not_sent("If-None-Match")
            .not_sent("If-Modified-Since"),
        ask("a tag without quotes is sent as it came", "ETag: a".into()).sent("If-None-Match: a"),
        case("9111 4.3.3", "a full answer to the question replaces the copy")
            .get()
            .answered(format!("{STALE}|ETag: \"a\""))
            .get()
            .answered("Cache-Control: max-age=60|ETag: \"b\"")
            .says_step(2)
            .has("ETag: \"b\"")
            .get()
            .hit()
            .says_step(2),
        case("9111 4.3.3", "a server error in answer to the question does not replace the copy")
            .get()
            .answered(format!("{STALE}|ETag: \"a\""))
            .get()
            .answered_by(500, "Cache-Control: max-age=60")
            .asked()
            .get()
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"a\"")
            .sent("If-None-Match: \"a\"")
            .status(200)
            .says_step(1),
        case("9111 4.3.1", "the client's own condition does not take the place of the copy's")
            .get()
            .answered(format!("{STALE}|ETag: \"a\""))
            .get()
            .with("If-None-Match: \"other\"")
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"a\"")
            .sent("If-None-Match: \"a\"")
            .status(200)
            .says_step(1),
    ]
}

fn confirmed() -> Vec<Case> {
    let update = |claim: String, before: &str, after: &str| {
        case("9111 3.2", claim)
            .get()
            .answered(format!("{STALE}|ETag: \"a\"|{before}"))
            .get()
            .answered_by(304, format!("Cache-Control: max-age=60|ETag: \"a\"|{after}"))
            .sent("If-None-Match: \"a\"")
            .status(200)
            .says_step(1)
    };
    let mut cases = vec![
        update("a 304 makes the copy fresh".into(), "X-A: 1", "").get().hit().says_step(1),
        update("a 304 adds fields".into(), "X-A: 1", "X-New: 2").has("X-New: 2").get().hit().has("X-New: 2"),
        update("what a 304 does not say stays".into(), "X-A: 1", "").has("X-A: 1").get().hit().has("X-A: 1"),
        update("the Age begins anew".into(), "X-A: 1", "").get().hit().aged(0, 5),
        update(
            "a 304 does not bring fields of its connection".into(),
            "X-A: 1",
            "Connection: x-hop|X-Hop: 1",
        )
        .lacks("X-Hop")
        .get()
        .hit()
        .lacks("X-Hop"),
        update("a 304 does not change the length".into(), "X-A: 1", "Content-Length: 1")
            .has("Content-Length: 14")
            .get()
            .hit()
            .has("Content-Length: 14"),
        update(
            "a 304 does not change the coding of the stored body".into(),
            "X-A: 1",
            "Content-Encoding: br",
        )
        .get()
        .hit()
        .lacks("Content-Encoding"),
        update("a 304 does not make a part of the whole".into(), "X-A: 1", "Content-Range: bytes 0-1/2")
            .get()
            .hit()
            .lacks("Content-Range"),
        update("several lines replace several lines".into(), "X-M: 1|X-M: 2", "X-M: 3|X-M: 4")
            .get()
            .hit()
            .has("X-M: 3")
            .has("X-M: 4"),
        case("9111 4.3.4", "a confirmed copy lives as long as the 304 says")
            .get()
            .answered("Cache-Control: max-age=10|Age: 20|ETag: \"a\"")
            .get()
            .answered_by(304, "Cache-Control: max-age=0|ETag: \"a\"")
            .get()
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"a\"")
            .asked()
            .get()
            .hit()
            .says_step(1),
        case("9111 4.3.4", "a 304 without a lifetime leaves that of the copy")
            .get()
            .answered("Cache-Control: max-age=100|Age: 200|ETag: \"a\"|Date: @-200")
            .get()
            .answered_by(304, "ETag: \"a\"")
            .get()
            .hit(),
        case("9111 4.3.4", "a copy without an entity tag is confirmed by its date")
            .get()
            .answered(format!("{STALE}|Last-Modified: {OLD}"))
            .get()
            .answered_by(304, "Cache-Control: max-age=60")
            .status(200)
            .says_step(1)
            .get()
            .hit(),
        case("9111 4.3.3", "a 304 that turns private is not served to others from the store")
            .get()
            .answered(format!("{STALE}|ETag: \"a\""))
            .get()
            .answered_by(304, "Cache-Control: private, max-age=60|ETag: \"a\"")
            .get()
            .asked(),
    ];
    for line in [
        "X-Test: new",
        "Content-Type: text/html",
        "Content-Language: fr",
        "Content-Location: /new",
        "Content-Security-Policy: new",
        "Cache-Control: max-age=60",
        "Date: Thu, 01 Jan 2099 00:00:00 GMT",
        "Expires: Thu, 01 Jan 2099 00:00:00 GMT",
        "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
        "Link: </new>",
        "X-Frame-Options: SAMEORIGIN",
        "Server: new",
    ] {
        let name = line.split(':').next().unwrap_or_default();
        let before = if name == "Date" || name == "Cache-Control" {
            "X-A: 1".to_owned()
        } else {
            format!("{name}: old")
        };
        cases.push(
            update(format!("a 304 updates {name}"), &before, line)
                .has(line)
                .get()
                .hit()
                .has(line)
                .says_step(1),
        );
    }
    cases
}

fn tags() -> Vec<Case> {
    let asked = |claim: &'static str, tag: &str, condition: &str| {
        case("9110 13.1.2", claim)
            .get()
            .answered(format!("Cache-Control: max-age=60|ETag: {tag}"))
            .get()
            .with(format!("If-None-Match: {condition}"))
            .hit()
    };
    vec![
        asked("a tag that matches is a 304", "\"a\"", "\"a\"").status(304).says(""),
        asked("another tag is the whole", "\"a\"", "\"b\"").status(200).says_step(1),
        asked("the first of a list", "\"a\"", "\"a\", \"b\"").status(304),
        asked("the second of a list", "\"b\"", "\"a\", \"b\", \"c\"").status(304),
        asked("the last of a list", "\"c\"", "\"a\",\"b\",\"c\"").status(304),
        asked("one of several lines", "\"b\"", "\"a\"|If-None-Match: \"b\"").status(304),
        asked("weak comparison: both weak", "W/\"a\"", "W/\"a\"").status(304),
        asked("weak comparison: the stored one weak", "W/\"a\"", "\"a\"").status(304),
        asked("weak comparison: the client's one weak", "\"a\"", "W/\"a\"").status(304),
        asked("a small w is no weak tag", "\"a\"", "w/\"a\"").status(200),
        asked("case counts within the quotes", "\"a\"", "\"A\"").status(200),
        asked("a comma within the quotes does not separate", "\"a,b\"", "\"x\", \"a,b\"").status(304),
        asked("a part between commas is no tag", "\"b\"", "\"a,\"b\",c\"").hit(),
        asked("an asterisk matches anything", "\"a\"", "*").status(304),
        asked("a quoted asterisk is a tag", "\"a\"", "\"*\"").status(200),
        asked("a tag that contains another", "\"ab\"", "\"a\"").status(200),
        asked("empty elements of the list", "\"a\"", ",, \"a\" ,").status(304),
        asked("a 304 has the fields that a 200 would have", "\"a\"", "\"a\"")
            .status(304)
            .has("ETag: \"a\"")
            .has("Cache-Control: max-age=60")
            .has("Date")
            .lacks("Content-Length"),
        case("9110 13.1.2", "an asterisk matches a copy without a tag")
            .get()
            .answered("Cache-Control: max-age=60")
            .get()
            .with("If-None-Match: *")
            .hit()
            .status(304),
        case("9110 13.1.2", "no tag matches a copy without one")
            .get()
            .answered("Cache-Control: max-age=60")
            .get()
            .with("If-None-Match: \"a\"")
            .hit()
            .status(200),
        case("9110 13.1.2", "a HEAD is answered with 304, too")
            .get()
            .answered("Cache-Control: max-age=60|ETag: \"a\"")
            .head()
            .with("If-None-Match: \"a\"")
            .hit()
            .status(304),
        case("9110 13.2.1", "a condition changes nothing about a stored 404")
            .get()
            .answered_by(404, "Cache-Control: max-age=60|ETag: \"a\"")
            .get()
            .with("If-None-Match: \"a\"")
            .hit()
            .status(404),
        case("9111 4.3.2", "a stale copy is confirmed before the client's condition is answered")
            .get()
            .answered(format!("{STALE}|ETag: \"a\""))
            .get()
            .with("If-None-Match: \"a\"")
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"a\"")
            .asked()
            .status(304),
        case("9111 4.3.2", "the client's condition is compared with what has come new")
            .get()
            .answered(format!("{STALE}|ETag: \"a\""))
            .get()
            .with("If-None-Match: \"b\"")
            .answered("Cache-Control: max-age=60|ETag: \"b\"")
            .status(304)
            .get()
            .hit()
            .says_step(2),
    ]
}

fn dates() -> Vec<Case> {
    let asked = |claim: &'static str, stored: String, condition: String| {
        case("9110 13.1.3", claim)
            .get()
            .answered(format!("Cache-Control: max-age=600|{stored}"))
            .get()
            .with(condition)
            .hit()
    };
    let lm = || format!("Last-Modified: {OLD}");
    vec![
        asked("not modified since that very date", lm(), format!("If-Modified-Since: {OLD}")).status(304),
        asked("not modified since a later date", lm(), "If-Modified-Since: @-0".into()).status(304),
        asked("modified since an earlier date", lm(), format!("If-Modified-Since: {OLDER}")).status(200),
        asked("a date that is none is ignored", lm(), "If-Modified-Since: yesterday".into()).status(200),
        asked("the RFC 850 form", lm(), "If-Modified-Since: Thursday, 01-Jan-26 00:00:00 GMT".into())
            .status(304),
        asked("the asctime form", lm(), "If-Modified-Since: Thu Jan  1 00:00:00 2026".into()).status(304),
        asked(
            "If-None-Match wins: a tag that does not match",
            format!("ETag: \"a\"|{}", lm()),
            format!("If-None-Match: \"b\"|If-Modified-Since: {OLD}"),
        )
        .status(200),
        asked(
            "If-None-Match wins: a tag that matches",
            format!("ETag: \"a\"|{}", lm()),
            format!("If-None-Match: \"a\"|If-Modified-Since: {OLDER}"),
        )
        .status(304),
        Case {
            section: "9111 4.3.2",
            ..asked(
                "without Last-Modified the Date counts",
                "X-A: 1".into(),
                "If-Modified-Since: @+60".into(),
            )
            .status(304)
        },
        Case {
            section: "9111 4.3.2",
            ..asked("a Date after the condition", "Date: @-30".into(), "If-Modified-Since: @-60".into())
                .status(200)
        },
    ]
}

fn heads() -> Vec<Case> {
    let head = |claim: &'static str, stored: &str, told: &str| {
        case("9111 4.3.5", claim)
            .get()
            .answered(format!("Cache-Control: max-age=600|{stored}"))
            .head()
            .with("Cache-Control: no-cache")
            .answered(told)
            .asked()
    };
    vec![
        head(
            "a HEAD that fits updates the stored GET",
            "ETag: \"a\"|X-A: 1",
            "Cache-Control: max-age=600|ETag: \"a\"|X-A: 2|Content-Length: 14",
        )
        .get()
        .hit()
        .says_step(1)
        .has("X-A: 2"),
        head(
            "a HEAD that fits makes it fresh",
            "ETag: \"a\"|Age: 500",
            "Cache-Control: max-age=600|ETag: \"a\"|Content-Length: 14",
        )
        .get()
        .hit()
        .aged(0, 5),
        head(
            "a HEAD with another tag makes the stored GET stale",
            "ETag: \"a\"",
            "Cache-Control: max-age=600|ETag: \"b\"",
        )
        .get()
        .asked(),
        head(
            "a HEAD with another date makes it stale",
            "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
            "Cache-Control: max-age=600|Last-Modified: Fri, 02 Jan 2026 00:00:00 GMT",
        )
        .get()
        .asked(),
        head(
            "a HEAD with another length makes it stale",
            "ETag: \"a\"",
            "Cache-Control: max-age=600|ETag: \"a\"|Content-Length: 999",
        )
        .get()
        .asked(),
        head(
            "a HEAD does not change the length of the body",
            "ETag: \"a\"",
            "Cache-Control: max-age=600|ETag: \"a\"|X-A: 2|Content-Length: 14",
        )
        .get()
        .hit()
        .has("Content-Length: 14"),
        case("9111 4.3.5", "a HEAD that fails changes nothing")
            .get()
            .answered("Cache-Control: max-age=600|ETag: \"a\"")
            .head()
            .with("Cache-Control: no-cache")
            .answered_by(404, "ETag: \"b\"")
            .asked()
            .get()
            .hit()
            .says_step(1),
        case("9110 9.3.2", "a HEAD that is forwarded stays a HEAD, and a stale copy is not fetched for it")
            .get()
            .answered("Cache-Control: max-age=10|Age: 20|ETag: \"a\"")
            .head()
            .answered("Cache-Control: max-age=60|ETag: \"a\"|Content-Length: 14")
            .asked()
            .get()
            .hit()
            .says_step(1),
    ]
}

fn forwarded() -> Vec<Case> {
    vec![
        case("9110 13.2.1", "with nothing stored the answer meets the client's condition")
            .get()
            .with("If-None-Match: \"a\"")
            .answered("Cache-Control: max-age=60|ETag: \"a\"")
            .status(304)
            .get()
            .hit()
            .status(200)
            .says_step(1),
        case("9110 13.2.1", "with nothing stored the condition of somebody in person is for the backend")
            .get()
            .with("Cookie: session=1|If-None-Match: \"a\"")
            .answered_by(304, "ETag: \"a\"")
            .sent("If-None-Match: \"a\"")
            .status(304)
            .get()
            .asked()
            .status(200),
        case("9110 13.2.1", "and that of somebody with a password")
            .get()
            .with("Authorization: Basic eDp5|If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT")
            .answered_by(304, "X-A: 1")
            .sent("If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT")
            .status(304),
        case("9111 3", "a 304 in answer to nobody's question is not stored")
            .get()
            .with("Cache-Control: no-store|If-None-Match: \"a\"")
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"a\"")
            .sent("If-None-Match: \"a\"")
            .status(304)
            .get()
            .asked()
            .says_step(2),
        case("9110 13.1.1", "If-Match of a GET is for the backend to judge")
            .get()
            .answered("Cache-Control: max-age=600|ETag: \"a\"")
            .get()
            .with("If-Match: \"b\"")
            .answered_by(412, "X-A: 1")
            .sent("If-Match: \"b\"")
            .status(412)
            .get()
            .hit()
            .says_step(1),
        case("9110 13.1.4", "If-Unmodified-Since of a GET as well")
            .get()
            .with(format!("If-Unmodified-Since: {OLD}"))
            .answered("Cache-Control: max-age=600")
            .sent(format!("If-Unmodified-Since: {OLD}")),
        case("9111 4.3.4", "a 304 with another strong tag updates nothing")
            .get()
            .answered(format!("{STALE}|ETag: \"a\"|X-A: 1"))
            .get()
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"b\"|X-A: 2")
            .status(200)
            .says_step(1)
            .has("ETag: \"a\"")
            .has("X-A: 1")
            .get()
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"a\"")
            .sent("If-None-Match: \"a\"")
            .says_step(1),
        case("9111 4.3.4", "a 304 without a tag confirms what was asked about")
            .get()
            .answered(format!("{STALE}|ETag: \"a\""))
            .get()
            .answered_by(304, "Cache-Control: max-age=60")
            .says_step(1)
            .get()
            .hit()
            .has("ETag: \"a\""),
        case("9110 13.1.1", "If-Match of an unsafe method reaches the backend")
            .asks("PUT")
            .with("If-Match: \"a\"")
            .sent("If-Match: \"a\""),
    ]
}
