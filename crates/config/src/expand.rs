//! `${NAME}` and `${NAME:-default}` in a text. One pass: what was put in is not looked at again.

/// The longest text after expansion, in bytes.
const EXPANDED_BYTES_MAX: usize = 64 * 1024;

/// The text with its variables replaced; none if it has none. As in a shell the default stands in for a
/// name that is unset or empty. `$${` is a literal `${`.
pub(crate) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<Result<String, String>> {
    text.contains("${").then(|| replace(text, env))
}

fn replace(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            continue;
        }
        let Some((inside, behind)) = after.split_once('}') else {
            return Err("`${` without its `}`; write `$${` for a literal `${`".to_owned());
        };
        out.push_str(before);
        out.push_str(&variable(inside, env)?);
        rest = behind;
        if out.len() > EXPANDED_BYTES_MAX {
            return Err("the text is longer than 64KiB after `${…}` was replaced".to_owned());
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        let shown = crate::problem::shown(inside);
        return Err(format!("found `${{{shown}}}`; allowed: `${{NAME}}` or `${{NAME:-default}}`"));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (Some(_) | None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the environment variable `{name}` is not set and has no default")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Option<Result<String, String>> {
        expand(text, &|name| match name {
            "A" => Some("one".to_owned()),
            "DOLLAR" => Some("${A}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn names_defaults_and_literals() {
        let cases = [
            ("x${A}y${A}", "xoney".to_owned() + "one"),
            ("${B:-two}", "two".to_owned()),
            ("${B:-}", String::new()),
            ("${EMPTY:-two}", "two".to_owned()),
            ("${EMPTY}", String::new()),
            ("$${A}", "${A}".to_owned()),
            ("${DOLLAR}", "${A}".to_owned()),
            ("${B:-a:-b}", "a:-b".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(expanded(text), Some(Ok(expected)), "{text}");
        }
        assert_eq!(expanded("$A {A} $"), None);
    }

    #[test]
    fn what_cannot_be_replaced_is_refused() {
        assert!(expanded("${B}").unwrap().unwrap_err().contains("`B` is not set"));
        assert!(expanded("${A").unwrap().is_err());
        assert!(expanded("${}").unwrap().is_err());
        assert!(expanded("${1A}").unwrap().is_err());
        assert!(expanded("${A-x}").unwrap().is_err());
    }
}
