//! `goodgate explain`: asks the running gateway for the story of one request and prints it.

use std::fmt::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use goodgate_config::Token;

use crate::control::{ask, load, reachable};

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
    let (address, token) = whom(question, default)?;
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

/// The admin listener and its token. An address that is given goes without a token unless a file is named, too:
/// the secret of this machine's gateway is not for any address.
fn whom(question: &Question<'_>, default: &Path) -> Result<(SocketAddr, Option<Token>)> {
    let Some(address) = question.address else {
        let config = load(question.config.unwrap_or(default))?;
        return Ok((reachable(config.admin.address), config.admin.token));
    };
    let resolved = address.to_socket_addrs().with_context(|| format!("--address {address}"))?.next();
    let resolved = resolved.ok_or_else(|| anyhow!("--address {address} has no address"))?;
    let token = question.config.map(load).transpose()?.and_then(|config| config.admin.token);
    Ok((resolved, token))
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

/// The text with all that a terminal would obey as `\u….`: whoever answers is not trusted with it. In JSON it
/// stays the same text.
fn tame(text: &str) -> String {
    let mut tame = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns =
            matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (letter.is_control() && letter != '\n') {
            let _ = write!(tame, "\\u{:04x}", u32::from(letter));
        } else {
            tame.push(letter);
        }
    }
    tame
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
