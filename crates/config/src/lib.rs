//! YAML text to a checked [`Config`]; the only room that knows YAML.
//!
//! Text is read twice: an event-level pass notes where everything stands (`scan`), then `serde_yaml`
//! reads the values (`tree`). Merges and `${NAME}` are resolved on the tree, and one reader per section
//! (`read`) returns typed values and collects every problem it meets instead of stopping at the first.
//! Nothing downstream sees a string that still has to be understood. See `docs/decisions/0002-config-positions.md`.

mod access;
mod address;
mod certificate;
pub mod defaults;
mod expand;
mod file;
mod foreign;
mod header_rules;
mod keys;
mod kind;
mod mirror;
mod nearest;
mod page;
mod pem;
mod pins;
mod problem;
mod quantity;
mod rate;
mod read;
mod resolve;
mod scan;
mod settings;
mod split;
mod target;
mod template;
mod token;
mod tree;
mod users;
mod view;

use std::path::Path;

pub use access::Access;
pub use certificate::{BadCertificate, Certificate, FileState};
pub use header_rules::HeaderRules;
pub use mirror::Mirror;
pub use page::{ErrorPage, Place};
pub use pins::Pins;
pub use problem::{Problem, Problems};
pub use rate::{Per, Period, Rate, RateLimit};
pub use settings::{
    AccessLog, Action, Admin, BasicAuth, ClientCertificates, Config, ErrorSpec, HostPattern, Limits,
    Listener, ListenerTls, LogFormat, LogMask, LogTarget, Maintenance, Redirect, Respond, Rewrite, RouteSpec,
    Server, Spool, Tracing,
};
pub use split::Split;
pub use target::{BadTarget, TARGET_BYTES_MAX, merged_path, normal_target};
pub use template::{FieldValue, Template, Variable};
pub use token::Token;
pub use users::{PasswordHash, Users};

/// An address as a configuration has it; none: it is none.
pub fn backend_address(text: &str) -> Option<goodgate_upstream::BackendAddress> {
    address::parse_backend(text).ok().map(|(address, _)| address)
}

/// A backend that is added at run time, from its address as in a configuration. The error says what is allowed.
pub fn added_backend(
    address: &str,
    upstream: &goodgate_upstream::AddedBackend,
) -> Result<goodgate_upstream::BackendSpec, String> {
    read::added(address, upstream)
}

use std::io::Read;

use goodgate_files::Unreadable;
use problem::{Mark, Report};

/// The largest configuration file, in bytes. A longer one is refused before it is read as YAML.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// A configuration as it was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// What is valid and does not do what it seems to do.
    pub warnings: Vec<Problem>,
    /// Identifies the text: the first 64 bits of its SHA-256.
    pub hash: u64,
}

/// Reads and checks a configuration file; `-` is the standard input. The file is read once. Environment variables are the
/// process's own.
///
/// Fails with every problem that can be found in one go; a file that cannot be read is one problem.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    match read_file(path) {
        Ok(text) => load_text(&file, &text, &|name| std::env::var(name).ok()),
        Err(message) => Err(Problems::one(&file, message)),
    }
}

/// Checks the text of a configuration. `file` names it in problems, and its folder is where relative
/// paths start (a `token_file` is read from there); `env` answers for `${NAME}`.
pub fn parse(file: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    load_text(file, text, env).map(|loaded| loaded.config)
}

/// The same with warnings and hash.
pub fn load_text(file: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let report = Report::new(file);
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let config = read_text(text, env, folder, &report);
    let (config, warnings) = report.finish(config)?;
    Ok(Loaded { config, warnings, hash: hash(text) })
}

fn hash(text: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

fn read_text(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    folder: &Path,
    report: &Report,
) -> Option<Config> {
    if text.len() > FILE_BYTES_MAX {
        report.add(Mark::FILE, "", format!("the file has {} bytes; allowed: 1MiB", text.len()));
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(places) = scan::scan(text, report) else {
        other_language(text, report);
        return None;
    };
    let mut root = tree::read(text, &places, report)?;
    resolve::resolve(&mut root, env, report);
    if !matches!(root.kind, tree::Kind::Map(_)) {
        other_language(text, report);
    }
    read::config(&root, folder, report)
}

fn other_language(text: &str, report: &Report) {
    if let Some(other) = foreign::language(text) {
        let shape = "upstreams: { app: [\"10.0.0.1:80\"] }` and `routes: [{ upstream: app }]";
        report.add(
            Mark::FILE,
            "",
            format!("this is a configuration of {other}; a file here is YAML, like `{shape}`"),
        );
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let bytes = if path == Path::new("-") {
        read_standard_input()
    } else {
        goodgate_files::read_bounded_or_pipe(path, FILE_BYTES_MAX as u64)
    };
    let bytes = bytes.map_err(|error| match error {
        Unreadable::Failed(error) => format!("cannot be read: {error}"),
        Unreadable::NotRegular(kind) => format!("is {kind}; allowed: a regular file, or /dev/stdin"),
        Unreadable::TooLong => "the file is larger than 1MiB".to_owned(),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        format!("is not UTF-8: line {line} has a byte that belongs to no character")
    })
}

fn read_standard_input() -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::new();
    std::io::stdin().take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX { Err(Unreadable::TooLong) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_beginning_of_the_sha256_of_the_text() {
        assert_eq!(hash("abc"), 0xba78_16bf_8f01_cfea);
    }
}
