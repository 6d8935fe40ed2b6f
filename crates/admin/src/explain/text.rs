//! Text for a terminal: nothing of a client's choosing may act there, and lines are short.

use std::time::Duration;

/// The longest line, in characters.
const LINE_MAX: usize = 100;

/// The text with everything written as an escape that a terminal would not print as a sign of its own:
/// control characters, changes of direction, what is invisible.
pub(crate) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\'' => safe.push(letter),
            _ => safe.extend(letter.escape_debug()),
        }
    }
    safe
}

/// The text in lines, the first behind `lead`, the others as far in.
pub(crate) fn wrapped(lead: &str, text: &str) -> String {
    let indent = " ".repeat(lead.chars().count());
    let mut lines = String::from(lead);
    let mut column = lead.chars().count();
    let mut is_first = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if !is_first && column + 1 + length > LINE_MAX {
            lines.push('\n');
            lines.push_str(&indent);
            column = indent.len();
        } else if !is_first {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
        is_first = false;
    }
    lines.push('\n');
    lines
}

/// A time as people say it, to two or three places.
pub(crate) fn span(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs_f64(), time.as_secs_f64() * 1e3);
    match time.as_secs() {
        0 if millis < 0.1 => "less than 0.1 ms".to_owned(),
        0 if millis < 9.95 => format!("{} ms", short(millis)),
        0 => format!("{millis:.0} ms"),
        1..120 if seconds < 9.95 => format!("{} s", short(seconds)),
        1..120 => format!("{seconds:.0} s"),
        120..7200 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

/// One place behind the point, unless it is zero.
fn short(number: f64) -> String {
    format!("{number:.1}").trim_end_matches(".0").to_owned()
}

/// A number of things.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_survives() {
        let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        assert!(!shown(&all).chars().any(char::is_control));
        assert_eq!(shown("a\u{1b}[2J\r\n\u{9b}\u{202e}'\"ä"), "a\\u{1b}[2J\\r\\n\\u{9b}\\u{202e}'\"ä");
    }

    #[test]
    fn times_are_said_as_people_do() {
        let millis = Duration::from_micros;
        let cases = [
            (millis(20), "less than 0.1 ms"),
            (millis(240), "0.2 ms"),
            (millis(3000), "3 ms"),
            (millis(312_400), "312 ms"),
            (millis(4_820_000), "4.8 s"),
            (millis(60_000_000), "60 s"),
            (millis(300_000_000), "5 min"),
            (millis(86_400_000_000), "24 h"),
        ];
        for (time, said) in cases {
            assert_eq!(span(time), said);
        }
    }

    #[test]
    fn lines_are_broken_at_spaces() {
        let text = wrapped("- ", &"word ".repeat(30));
        assert!(text.lines().all(|line| line.chars().count() <= LINE_MAX));
        assert!(text.starts_with("- word") && text.lines().nth(1).unwrap().starts_with("  word"));
    }
}
