//! Which part of a stored body a request asks for (RFC 9110 section 14.2).

use std::ops::Range;
use std::time::SystemTime;

use http::{HeaderMap, StatusCode, header};

use crate::conditional::is_in_range;
use crate::fields::Header;

/// What of the body is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it: no part is asked for, or none that can be read, or the condition does not hold.
    Whole,
    /// These bytes; never empty.
    One(Range<usize>),
    /// More than one part.
    Several,
    /// Nothing that is there: 416.
    Beyond,
}

/// The part of a body of `len` bytes that a GET is for.
pub fn part(request: &HeaderMap, response: &impl Header, len: usize, now: SystemTime) -> Part {
    let Some(range) = request.get(header::RANGE).filter(|_| response.status() == StatusCode::OK) else {
        return Part::Whole;
    };
    if request.get(header::IF_RANGE).is_some_and(|condition| !is_in_range(condition, response, now)) {
        return Part::Whole;
    }
    read(range.as_bytes(), len).unwrap_or(Part::Whole)
}

/// None if it is no range of bytes.
fn read(range: &[u8], len: usize) -> Option<Part> {
    let equals = range.iter().position(|byte| *byte == b'=')?;
    let (unit, specs) = range.split_at_checked(equals)?;
    unit.trim_ascii().eq_ignore_ascii_case(b"bytes").then_some(())?;
    let mut specs = specs.get(1..)?.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let first = specs.next()?;
    if specs.next().is_some() {
        return Some(Part::Several);
    }
    let dash = first.iter().position(|byte| *byte == b'-')?;
    let (from, to) = (first.get(..dash)?, first.get(dash + 1..)?);
    if from.is_empty() {
        let last = number(to)?.min(len);
        return Some(if last == 0 { Part::Beyond } else { Part::One(len - last..len) });
    }
    let from = number(from)?;
    let to = if to.is_empty() { usize::MAX } else { number(to)? };
    (from <= to).then_some(())?;
    Some(if from >= len { Part::Beyond } else { Part::One(from..to.saturating_add(1).min(len)) })
}

/// A number too large to be held is as large as can be.
fn number(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    Some(digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{headers, now, response};

    fn of(range: &str) -> Part {
        part(&headers(&[("range", range)]), &response(200, &[("etag", "\"a\"")]), 10, now())
    }

    /// RFC 9110 sections 14.1.1, 14.1.2 and 14.2.
    #[test]
    fn section_14_2_ranges_of_bytes() {
        for (range, expected) in [
            ("bytes=0-3", Part::One(0..4)),
            ("BYTES=3-3", Part::One(3..4)),
            ("bytes=7-", Part::One(7..10)),
            ("bytes=7-99", Part::One(7..10)),
            ("bytes=0-99999999999999999999999", Part::One(0..10)),
            ("bytes=-2", Part::One(8..10)),
            ("bytes=-99", Part::One(0..10)),
            ("bytes=10-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=0-1,3-4", Part::Several),
            ("bytes=4-3", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("lines=0-3", Part::Whole),
        ] {
            assert_eq!(of(range), expected, "{range}");
        }
        assert_eq!(part(&headers(&[]), &response(200, &[]), 10, now()), Part::Whole);
        assert_eq!(part(&headers(&[("range", "bytes=0-0")]), &response(404, &[]), 10, now()), Part::Whole);
        assert_eq!(part(&headers(&[("range", "bytes=0-")]), &response(200, &[]), 0, now()), Part::Beyond);
    }

    /// RFC 9110 section 13.1.5.
    #[test]
    fn section_13_1_5_a_condition_that_does_not_hold_means_the_whole() {
        let of = |condition: &str| {
            let request = headers(&[("range", "bytes=0-3"), ("if-range", condition)]);
            part(&request, &response(200, &[("etag", "\"a\"")]), 10, now())
        };
        assert_eq!(of("\"a\""), Part::One(0..4));
        assert_eq!(of("\"b\""), Part::Whole);
    }
}
