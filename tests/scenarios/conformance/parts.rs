//! Parts of stored responses (RFC 9111 section 3.3, RFC 9110 section 14).

use super::case::{Body, Case, case};

const FRESH: &str = "Cache-Control: max-age=60|ETag: \"a\"|Content-Type: text/plain|Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT";
const BODY: &str = "0123456789";

fn part(section: &'static str, claim: &'static str, fields: &str) -> Case {
    case(section, claim).get().answered(FRESH).text(BODY).get().with(fields.to_owned()).hit()
}

pub(super) fn cases() -> Vec<Case> {
    [ranges(), conditions(), others()].into_iter().flatten().collect()
}

fn ranges() -> Vec<Case> {
    let at = "9110 14.2";
    vec![
        part(at, "the first bytes", "Range: bytes=0-3")
            .status(206)
            .says("0123")
            .has("Content-Range: bytes 0-3/10")
            .has("Content-Length: 4")
            .has("ETag: \"a\""),
        part(at, "bytes from the middle", "Range: bytes=4-5")
            .status(206)
            .says("45")
            .has("Content-Range: bytes 4-5/10"),
        part(at, "to the end", "Range: bytes=7-").status(206).says("789").has("Content-Range: bytes 7-9/10"),
        part(at, "the last bytes", "Range: bytes=-2")
            .status(206)
            .says("89")
            .has("Content-Range: bytes 8-9/10"),
        part(at, "more last bytes than there are", "Range: bytes=-20").status(206).says(BODY),
        part(at, "an end beyond the end", "Range: bytes=8-99")
            .status(206)
            .says("89")
            .has("Content-Range: bytes 8-9/10"),
        part(at, "one byte", "Range: bytes=9-9").status(206).says("9"),
        part(at, "the unit in another case", "Range: Bytes=0-1").status(206).says("01"),
        part("9110 15.5.17", "beyond the end is a 416", "Range: bytes=10-")
            .status(416)
            .has("Content-Range: bytes */10"),
        part("9110 15.5.17", "no last bytes is a 416", "Range: bytes=-0").status(416),
        part(at, "an unknown unit is ignored", "Range: lines=0-3").status(200).says(BODY),
        part(at, "a range that is none is ignored", "Range: bytes=a-b").status(200).says(BODY),
        part(at, "an end before its beginning is invalid, and ignored", "Range: bytes=5-2")
            .status(200)
            .says(BODY),
        part(at, "a number that is none is ignored", "Range: bytes=+1-2").status(200).says(BODY),
        part(at, "a number without bounds is beyond the end", "Range: bytes=99999999999999999999999-")
            .status(416),
        part(at, "too many ranges are ignored", &format!("Range: bytes={}", vec!["0-1"; 300].join(",")))
            .status(200)
            .says(BODY),
        case(at, "a HEAD has no ranges")
            .get()
            .answered(FRESH)
            .text(BODY)
            .head()
            .with("Range: bytes=0-1")
            .hit()
            .status(200),
        case(at, "of a chunked response parts are served as well")
            .get()
            .answered(FRESH)
            .body(Body::Chunked(BODY.into(), ""))
            .get()
            .with("Range: bytes=2-4")
            .hit()
            .status(206)
            .says("234"),
        case(at, "a range of a stored 404 is the whole")
            .get()
            .answered_by(404, FRESH)
            .text(BODY)
            .get()
            .with("Range: bytes=2-4")
            .hit()
            .status(404)
            .says(BODY),
    ]
}

fn conditions() -> Vec<Case> {
    let at = "9110 13.1.5";
    vec![
        part(at, "If-Range with the tag", "Range: bytes=0-1|If-Range: \"a\"").status(206).says("01"),
        part(at, "If-Range with another tag is the whole", "Range: bytes=0-1|If-Range: \"b\"").status(200).says(BODY),
        part(at, "If-Range with a weak tag is the whole", "Range: bytes=0-1|If-Range: W/\"a\"").status(200).says(BODY),
        part(at, "If-Range with the date", "Range: bytes=0-1|If-Range: Thu, 01 Jan 2026 00:00:00 GMT").status(206),
        part(at, "If-Range with another date is the whole", "Range: bytes=0-1|If-Range: Fri, 02 Jan 2026 00:00:00 GMT")
            .status(200)
            .says(BODY),
        part("9110 13.2.2", "If-None-Match comes before Range", "Range: bytes=0-1|If-None-Match: \"a\"").status(304),
        case(at, "a weak tag that is stored fits no If-Range")
            .get()
            .answered("Cache-Control: max-age=60|ETag: W/\"a\"")
            .text(BODY)
            .get()
            .with("Range: bytes=0-1|If-Range: W/\"a\"")
            .hit()
            .status(200)
            .says(BODY),
        case(at, "a Last-Modified of the same second as Date fits no If-Range")
            .get()
            .answered("Cache-Control: max-age=60|Last-Modified: Thu, 01 Jan 2099 00:00:00 GMT|Date: Thu, 01 Jan 2099 00:00:00 GMT")
            .text(BODY)
            .get()
            .with("Range: bytes=0-1|If-Range: Thu, 01 Jan 2099 00:00:00 GMT")
            .hit()
            .status(200),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case("9111 3.3", "a 206 is not stored as a whole response")
            .get()
            .with("Range: bytes=0-1")
            .answered_by(206, "Cache-Control: max-age=60|Content-Range: bytes 0-1/10")
            .text("01")
            .status(206)
            .sent("Range: bytes=0-1")
            .get()
            .asked()
            .status(200),
        case("9111 3.3", "a 206 does not answer for another part")
            .get()
            .with("Range: bytes=0-1")
            .answered_by(206, "Cache-Control: max-age=60|Content-Range: bytes 0-1/10")
            .text("01")
            .get()
            .with("Range: bytes=2-3")
            .answered_by(206, "Cache-Control: max-age=60|Content-Range: bytes 2-3/10")
            .text("23")
            .asked()
            .says("23"),
        case("9111 3.3", "a 206 to a plain request is not stored")
            .get()
            .answered_by(206, "Cache-Control: max-age=60|Content-Range: bytes 0-1/10")
            .text("01")
            .get()
            .asked(),
        case("9110 15.5.17", "a 416 does not take the place of the whole")
            .get()
            .with("Range: bytes=99-")
            .answered_by(416, "Cache-Control: max-age=60|Content-Range: bytes */10")
            .status(416)
            .get()
            .asked()
            .status(200),
        case("9111 4.3.1", "a part of a stale response is asked about as a whole")
            .get()
            .answered("Cache-Control: max-age=10|Age: 20|ETag: \"a\"")
            .text(BODY)
            .get()
            .with("Range: bytes=0-1")
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"a\"")
            .sent("If-None-Match: \"a\"")
            .status(206)
            .says("01")
            .get()
            .hit()
            .status(200)
            .says(BODY),
        case("9110 13.1.5", "a confirmed response meets If-Range by strong comparison, too")
            .get()
            .answered("Cache-Control: max-age=10|Age: 20|ETag: W/\"a\"")
            .text(BODY)
            .get()
            .with("Range: bytes=0-1|If-Range: W/\"a\"")
            .answered_by(304, "Cache-Control: max-age=60|ETag: W/\"a\"")
            .status(200)
            .says(BODY),
        case("9110 14.2", "a part of what has come new in place of a stale response")
            .get()
            .answered("Cache-Control: max-age=10|Age: 20|ETag: \"a\"")
            .text("old")
            .get()
            .with("Range: bytes=2-3")
            .answered("Cache-Control: max-age=60|ETag: \"b\"")
            .text(BODY)
            .status(206)
            .says("23")
            .has("Content-Range: bytes 2-3/10")
            .get()
            .hit()
            .says(BODY),
        case("9110 15.5.17", "nothing of what has come new")
            .get()
            .answered("Cache-Control: max-age=10|Age: 20|ETag: \"a\"")
            .get()
            .with("Range: bytes=20-30")
            .answered("Cache-Control: max-age=60|ETag: \"b\"")
            .text(BODY)
            .status(416)
            .has("Content-Range: bytes */10"),
        case("9110 14.2", "several ranges: parts or the whole")
            .get()
            .answered(FRESH)
            .text(BODY)
            .get()
            .with("Range: bytes=0-1,4-5")
            .hit(),
    ]
}
