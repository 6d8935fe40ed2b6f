//! Durations, sizes, percentages and ranges of statuses as they are written, read and shown.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Units of time, largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size, in bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `500ms`, `30s`, `5m`, `24h`, `7d` and compounds with the larger unit first, like `1m30s`. Zero
/// needs no unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut units = TIME_UNITS.as_slice();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, behind) = split_number(rest)?;
        let unit_end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(unit_end)?;
        let at = units.iter().position(|(name, _)| *name == unit)?;
        let (_, milliseconds) = units.get(at)?;
        units = units.get(at + 1..)?;
        total = total.checked_add(number.checked_mul(*milliseconds)?)?;
        rest = behind;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// Reads `64KiB`, `10GiB`, `10MB` and bare bytes.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    if unit.is_empty() {
        return Some(number);
    }
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// Reads `0%` to `100%`.
pub(crate) fn parse_percent(text: &str) -> Option<u8> {
    let (number, unit) = split_number(text)?;
    (unit == "%" && number <= 100).then(|| u8::try_from(number).ok())?
}

/// Reads `204` or `200-299`, from 100 to 599.
pub(crate) fn parse_statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_status(first)?, parse_status(last)?);
    (first <= last).then_some(first..=last)
}

/// Reads a status, from 100 to 599.
pub(crate) fn parse_status(text: &str) -> Option<u16> {
    let (number, rest) = split_number(text)?;
    let status = u16::try_from(number).ok()?;
    (rest.is_empty() && text.len() == 3 && (100..=599).contains(&status)).then_some(status)
}

/// A duration as it would be written: whole hours, days from two on, else seconds or milliseconds.
pub(crate) fn show_duration(duration: Duration) -> String {
    const HOUR: u128 = 3_600_000;
    let milliseconds = duration.as_millis();
    let (unit, size) = match milliseconds {
        0 => ("s", 1000),
        _ if milliseconds.is_multiple_of(24 * HOUR) && milliseconds > 24 * HOUR => ("d", 24 * HOUR),
        _ if milliseconds.is_multiple_of(HOUR) => ("h", HOUR),
        _ if milliseconds.is_multiple_of(1000) => ("s", 1000),
        _ => ("ms", 1),
    };
    format!("{}{unit}", milliseconds / size)
}

/// A size as it would be written.
pub(crate) fn show_size(bytes: u64) -> String {
    let binary = SIZE_UNITS.iter().filter(|(name, _)| name.ends_with("iB")).rev();
    for (unit, size) in binary {
        if bytes >= *size && bytes.is_multiple_of(*size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

/// The digits that a text begins with, at least one, and what follows them.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_may_be_compound() {
        let milliseconds = |text| parse_duration(text).map(|duration| duration.as_millis());
        let good = [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1m30s", 90_000),
            ("1h0m1ms", 3_600_001),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, expected) in good {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        let bad = [
            "",
            "30",
            "1.5s",
            "-1s",
            "+1s",
            "s",
            "1 s",
            "30s1m",
            "1s1s",
            "1s5",
            "1S",
            "1w",
            " 1s",
            "1µs",
            "1s\n",
            "99999999999999999999s",
            "18446744073709551615d",
            "٣s",
        ];
        for text in bad {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal_or_bytes() {
        let good =
            [("0", 0), ("17", 17), ("17B", 17), ("64KiB", 65_536), ("10MB", 10_000_000), ("10GiB", 10 << 30)];
        for (text, expected) in good {
            assert_eq!(parse_size(text), Some(expected), "{text}");
        }
        for text in ["", "KiB", "64K", "64kb", "64 KiB", "-1", "1.5MiB", "18446744073709551615KiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn percentages_end_at_a_hundred() {
        assert_eq!(parse_percent("0%"), Some(0));
        assert_eq!(parse_percent("100%"), Some(100));
        for text in ["", "%", "20", "101%", "-1%", "1.5%", "20 %", "99999999999999999999%"] {
            assert_eq!(parse_percent(text), None, "{text}");
        }
    }

    #[test]
    fn statuses_are_three_digits() {
        assert_eq!(parse_statuses("200-299"), Some(200..=299));
        assert_eq!(parse_statuses("204"), Some(204..=204));
        for text in ["", "20", "2000", "600", "99", "299-200", "200-", "-200", "200-299-300", "2xx", "0200"] {
            assert_eq!(parse_statuses(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for text in ["500ms", "30s", "90s", "24h", "7d", "25h", "0s"] {
            assert_eq!(parse_duration(text).map(show_duration).as_deref(), Some(text));
        }
        for text in ["17", "64KiB", "100MiB", "10GiB", "0"] {
            assert_eq!(parse_size(text).map(show_size).as_deref(), Some(text));
        }
    }
}
