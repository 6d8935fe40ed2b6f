//! HTTP dates (RFC 9110 section 5.6.7), read by the letter but for their case (RFC 9111 section 4.2).
//!
//! What is no date counts as a time in the past where it matters, so that leniency here would keep copies longer
//! than anybody has said: there is one zone, and no field is shorter or longer than its form.

use std::time::{Duration, SystemTime};

/// Reads any of the three forms. `now` decides the century of a year with two digits; a time before 1970 is 1970.
pub(crate) fn http_date(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let text = text.trim_ascii();
    let comma = text.iter().position(|byte| *byte == b',');
    let date = match comma {
        Some(3) => preferred(text),
        Some(end) => rfc850(text, end, now),
        None => asctime(text),
    }?;
    date.time()
}

#[derive(Clone, Copy)]
struct Date {
    year: u64,
    /// From 0.
    month: usize,
    day: u64,
    /// Since midnight.
    seconds: u64,
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn preferred(text: &[u8]) -> Option<Date> {
    (text.len() == 29 && is_named(text.get(..3)?, &SHORT_DAYS)).then_some(())?;
    let spaces = [4, 7, 11, 16, 25].iter().all(|at| text.get(*at) == Some(&b' '));
    (spaces && text.get(26..)?.eq_ignore_ascii_case(b"GMT")).then_some(())?;
    Some(Date {
        year: number(text.get(12..16)?)?,
        month: month(text.get(8..11)?)?,
        day: number(text.get(5..7)?)?,
        seconds: time_of_day(text.get(17..25)?)?,
    })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &[u8], comma: usize, now: SystemTime) -> Option<Date> {
    let (weekday, rest) = text.split_at_checked(comma)?;
    (rest.len() == 24 && is_named(weekday, &LONG_DAYS)).then_some(())?;
    let marks = [(1, b' '), (4, b'-'), (8, b'-'), (11, b' '), (20, b' ')];
    let is_marked = marks.iter().all(|(at, mark)| rest.get(*at) == Some(mark));
    (is_marked && rest.get(21..)?.eq_ignore_ascii_case(b"GMT")).then_some(())?;
    let date = Date {
        year: number(rest.get(9..11)?)?,
        month: month(rest.get(5..8)?)?,
        day: number(rest.get(2..4)?)?,
        seconds: time_of_day(rest.get(12..20)?)?,
    };
    Some(Date { year: full_year(date.year, now), ..date })
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<Date> {
    (text.len() == 24 && is_named(text.get(..3)?, &SHORT_DAYS)).then_some(())?;
    [3, 7, 10, 19].iter().all(|at| text.get(*at) == Some(&b' ')).then_some(())?;
    let day = text.get(8..10)?;
    Some(Date {
        year: number(text.get(20..)?)?,
        month: month(text.get(4..7)?)?,
        day: number(day.strip_prefix(b" ").unwrap_or(day))?,
        seconds: time_of_day(text.get(11..19)?)?,
    })
}

/// A year of two digits is the latest that is not more than 50 years ahead.
fn full_year(two_digits: u64, now: SystemTime) -> u64 {
    let days = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY;
    let this_year = 1970 + days * 400 / 146_097;
    let year = this_year / 100 * 100 + 100 + two_digits;
    if year > this_year + 150 {
        year - 200
    } else if year > this_year + 50 {
        year - 100
    } else {
        year
    }
}

const DAY: u64 = 86_400;
const SHORT_DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const LONG_DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

fn is_named(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn month(name: &[u8]) -> Option<usize> {
    MONTHS.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// `08:49:37`, a leap second included.
fn time_of_day(text: &[u8]) -> Option<u64> {
    (text.len() == 8 && text.get(2) == Some(&b':') && text.get(5) == Some(&b':')).then_some(())?;
    let (hour, minute, second) = (number(text.get(..2)?)?, number(text.get(3..5)?)?, number(text.get(6..)?)?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

impl Date {
    fn time(self) -> Option<SystemTime> {
        let is_leap =
            self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let leap_day = u64::from(is_leap);
        let lengths = [31, 28 + leap_day, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let days_in_month = *lengths.get(self.month)?;
        (1..=days_in_month).contains(&self.day).then_some(())?;
        if self.year < 1970 {
            return Some(SystemTime::UNIX_EPOCH);
        }
        let before = self.year - 1;
        let leap_days = before / 4 - before / 100 + before / 400 - 477;
        let of_months: u64 = lengths.iter().take(self.month).sum();
        let days = (self.year - 1970) * 365 + leap_days + of_months + self.day - 1;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(days * DAY + self.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::now;

    fn seconds(text: &str) -> Option<u64> {
        let date = http_date(text.as_bytes(), now())?;
        Some(date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    /// RFC 9110 section 5.6.7: the same moment in each form.
    #[test]
    fn section_5_6_7_the_three_forms() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(seconds(text), Some(784_111_777), "{text}");
            assert_eq!(seconds(&text.to_lowercase()), Some(784_111_777), "case: {text}");
        }
    }

    #[test]
    fn every_day_is_what_another_reader_says() {
        for day in (0..120_000).step_by(13) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY + day % DAY);
            let text = httpdate::fmt_http_date(time);
            assert_eq!(http_date(text.as_bytes(), now()), Some(time), "{text}");
        }
    }

    /// RFC 9110 section 5.6.7: what seems to be more than 50 years ahead is past. `now` is in 2027.
    #[test]
    fn section_5_6_7_a_year_of_two_digits_is_no_more_than_50_years_ahead() {
        let year = |two: &str| {
            let time = seconds(&format!("Sunday, 06-Nov-{two} 08:49:37 GMT")).unwrap();
            1970 + time / DAY * 400 / 146_097
        };
        assert_eq!(
            (year("27"), year("77"), year("78"), year("99"), year("00")),
            (2027, 2077, 1978, 1999, 2000)
        );
    }

    #[test]
    fn section_5_6_7_anything_else_is_no_date() {
        for text in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun Nov 06 08:49:37 199",
            "Sun Nov 6 08:49:37 1994",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "\u{e4}un, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!(seconds("Sun, 06 Nov 1904 08:49:37 GMT"), Some(0));
    }
}
