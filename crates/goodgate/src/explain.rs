//! `goodgate explain`: asks the running gateway for the story of one request and prints it.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::command::Whom;
use crate::control::{ask_whom, tame};

/// Prints the story, or the records as JSON. Exit code 1 if the gateway does not know the request.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(crate) fn explain(request_id: &str, whom: &Whom, json: bool) -> Result<ExitCode> {
    let page = if json { "failures" } else { "explain" };
    let answer = ask_whom(whom, &format!("/api/v1/{page}?request_id={}", encoded(request_id)))?;
    print!("{}", tame(&answer.body));
    let is_known = answer.status == 200 && answer.body.trim() != "[]";
    Ok(if is_known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Percent-encoded, but for what is plain.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(tame("ä\n\u{1b}[2J\u{9b}\u{202e}"), "ä\n\\u001b[2J\\u009b\\u202e");
    }

    #[test]
    fn an_identifier_is_encoded_for_the_address() {
        assert_eq!(encoded("a-1+=/ \r\n&x"), "a-1%2B%3D%2F%20%0D%0A%26x");
    }
}
