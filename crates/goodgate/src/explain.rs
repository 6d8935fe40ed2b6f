//! `goodgate explain`: asks the running gateway for the story of one request and prints it.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::control::{ask, tame, whom};

/// What the command line says.
pub(crate) struct Question<'a> {
    pub(crate) request_id: &'a str,
    /// The configuration file, if it was named.
    pub(crate) config: Option<&'a Path>,
    /// The admin listener, if it is not to be taken from the file.
    pub(crate) address: Option<&'a str>,
    /// Whether the records are wanted as JSON.
    pub(crate) json: bool,
}

/// Prints the story. Exit code 1 if the gateway does not know the request.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(crate) fn explain(question: &Question<'_>, default: &Path) -> Result<ExitCode> {
    let (address, token) = whom(question.config, question.address, default)?;
    let page = if question.json { "failures" } else { "explain" };
    let path = format!("/api/v1/{page}?request_id={}", encoded(question.request_id));
    let answer = ask(address, &path, token.as_ref())?;
    let is_known = match answer.status {
        200 => answer.body.trim() != "[]",
        404 if answer.body.starts_with("There is no record") => false,
        403 => bail!(
            "the admin side at {address} wants its token: set admin.token_file, and name that configuration file \
             (--config)"
        ),
        400 => bail!("{}", tame(answer.body.trim_start_matches("400: ").trim_end())),
        status => bail!("the admin side at {address} answered {status}: is that a goodgate of this version?"),
    };
    print!("{}", tame(&answer.body));
    Ok(if is_known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Percent-encoded, but for what is plain.
fn encoded(text: &str) -> String {
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
