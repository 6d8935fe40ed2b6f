//! Text with request variables, like `https://{host}{path_and_query}`: cut into parts once, filled per request.

use http::HeaderValue;

use crate::nearest::nearest;

/// What can stand in braces. What it gives is visible ASCII, so that it can end no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The host asked for, in lower case and without a port.
    Host,
    /// The normalised path.
    Path,
    /// The query, without its `?`; empty if there is none.
    Query,
    /// Path, and query with its `?` if there is one.
    PathAndQuery,
    /// `http` or `https`, as the client speaks to us or to a trusted proxy.
    Scheme,
    /// The request's identifier.
    RequestId,
    /// The client's address.
    ClientIp,
    /// The subject of the client's certificate, with mutual TLS.
    ClientCertSubject,
}

impl Variable {
    const ALL: [(&'static str, Self); 8] = [
        ("host", Self::Host),
        ("path", Self::Path),
        ("query", Self::Query),
        ("path_and_query", Self::PathAndQuery),
        ("scheme", Self::Scheme),
        ("request_id", Self::RequestId),
        ("client_ip", Self::ClientIp),
        ("client_cert_subject", Self::ClientCertSubject),
    ];
}

/// A value of a header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// The same for every request.
    Constant(HeaderValue),
    /// Made for each one.
    Filled(Template),
}

/// Text with at least one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Text, and the variable behind it if there is one.
    parts: Vec<(String, Option<Variable>)>,
}

impl FieldValue {
    /// Reads a text. Braces around anything but lower-case letters and `_` are text. The error says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
        let constant = HeaderValue::from_str(text).ok().filter(|_| is_plain);
        let constant = constant.ok_or("visible ASCII and spaces within, but no line ends")?;
        let parts = parts(text)?;
        if let Some(theirs) = crate::foreign::variable(text) {
            return Err(format!("text with our variables; {theirs}"));
        }
        let has_variables = parts.iter().any(|(_, variable)| variable.is_some());
        Ok(if has_variables { Self::Filled(Template { parts }) } else { Self::Constant(constant) })
    }
}

impl Template {
    /// The text with its variables filled; `value` writes the value of one.
    pub fn fill(&self, value: impl Fn(Variable, &mut String)) -> String {
        let mut text = String::new();
        for (before, variable) in &self.parts {
            text.push_str(before);
            if let Some(variable) = variable {
                value(*variable, &mut text);
            }
        }
        text
    }

    /// Whether it has this variable.
    pub fn has(&self, variable: Variable) -> bool {
        self.parts.iter().any(|(_, other)| *other == Some(variable))
    }
}

fn parts(text: &str) -> Result<Vec<(String, Option<Variable>)>, String> {
    let mut parts = Vec::new();
    let mut before = String::new();
    let mut rest = text;
    while let Some((plain, opened)) = rest.split_once('{') {
        before.push_str(plain);
        let name = opened.split('}').next().filter(|name| name.len() < opened.len());
        let name = name.filter(|name| is_name(name));
        let Some(name) = name else {
            before.push('{');
            rest = opened;
            continue;
        };
        parts.push((std::mem::take(&mut before), Some(variable(name)?)));
        rest = opened.get(name.len() + 1..).unwrap_or_default();
    }
    before.push_str(rest);
    parts.push((before, None));
    Ok(parts)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn variable(name: &str) -> Result<Variable, String> {
    let known = Variable::ALL.into_iter().find(|(known, _)| *known == name);
    known.map(|(_, variable)| variable).ok_or_else(|| {
        let names = Variable::ALL.map(|(known, _)| known);
        let hint = nearest(name, names).map(|near| format!(" (did you mean `{{{near}}}`?)"));
        let names = names.map(|name| format!("{{{name}}}")).join(", ");
        format!("the variables {names}; `{{{name}}}` is none of them{}", hint.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        Ok(match FieldValue::parse(text)? {
            FieldValue::Constant(value) => format!("constant {}", value.to_str().unwrap()),
            FieldValue::Filled(template) => {
                template.fill(|variable, text| text.extend(["<", &format!("{variable:?}"), ">"]))
            }
        })
    }

    #[test]
    fn variables_are_filled_and_other_braces_stay() {
        for (text, expected) in [
            ("max-age=1", "constant max-age=1"),
            ("https://{host}{path_and_query}", "https://<Host><PathAndQuery>"),
            ("{client_ip}", "<ClientIp>"),
            ("a{scheme}b{query}c", "a<Scheme>b<Query>c"),
            ("{\"a\":{\"b\":1}}", "constant {\"a\":{\"b\":1}}"),
            ("{{path}}", "{<Path>}"),
            ("{", "constant {"),
            ("{host", "constant {host"),
            ("{}", "constant {}"),
            ("", "constant "),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(filled("{hots}").unwrap_err().ends_with("`{hots}` is none of them (did you mean `{host}`?)"));
        for (bad, ours) in
            [("https://$host$request_uri", "{host}"), ("{http.host}", "{host}"), ("%{x}", "{path}")]
        {
            assert!(filled(bad).unwrap_err().contains(ours), "{bad}");
        }
        for bad in ["a\r\nb", "a\n", "\0", "é", " a", "a "] {
            assert!(filled(bad).is_err(), "{bad:?}");
        }
    }
}
