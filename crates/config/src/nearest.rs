//! "Did you mean": the known word that a misspelt one is closest to.

/// The closest of the known words, if one is close enough to have been meant.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = plain(word);
    let limit = (word.len() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|other| other.len().abs_diff(word.len()) <= limit)
        .map(|other| (distance(&word, &plain(other)), other))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// Upper case and hyphens are mistakes that cost nothing.
fn plain(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits between two words, where a swap of neighbours is one (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut a_before = None;
    for (row, a_char) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        let mut b_before = None;
        for (column, b_char) in b.iter().enumerate() {
            let cell = |line: &[usize], at: usize| line.get(at).copied().unwrap_or(usize::MAX - 1);
            let replace = cell(&last, column) + usize::from(a_char != b_char);
            let mut best = replace.min(cell(&last, column + 1) + 1).min(cell(&current, column) + 1);
            if column > 0 && a_before == Some(b_char) && b_before == Some(a_char) {
                best = best.min(cell(&before, column - 1) + 1);
            }
            current.push(best);
            b_before = Some(b_char);
        }
        before = std::mem::replace(&mut last, current);
        a_before = Some(a_char);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood_and_strangers_are_not() {
        let known = ["max_fails", "fail_timeout", "host", "tcp"];
        assert_eq!(nearest("max_fail", known), Some("max_fails"));
        assert_eq!(nearest("max-fails", known), Some("max_fails"));
        assert_eq!(nearest("Max_Fials", known), Some("max_fails"));
        assert_eq!(nearest("fail_timout", known), Some("fail_timeout"));
        assert_eq!(nearest("hsot", known), Some("host"));
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
