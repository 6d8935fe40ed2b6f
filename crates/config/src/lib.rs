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
pub use mirror::Mirror;
pub use page::{ErrorPage, Place};
pub use pins::Pins;
pub use problem::{Problem, Problems};
pub use rate::{Per, Period, Rate, RateLimit};
pub use settings::{
    AccessLog, Action, Admin, BasicAuth, ClientCertificates, Config, ErrorSpec, HeaderRules, HostPattern,
    Limits, Listener, ListenerTls, LogFormat, LogMask, LogTarget, Maintenance, Redirect, Respond, Rewrite,
    RouteSpec, Server, Spool, Tracing,
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

use goodgate_files::Unreadable;
use problem::{Mark, Report};

/// The largest configuration file, in bytes. A longer one is refused before it is read as YAML.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Reads and checks a configuration file. Environment variables are the process's own.
///
/// Fails with every problem that can be found in one go; a file that cannot be read is one problem.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let file = path.display().to_string();
    match read_file(path) {
        Ok(text) => parse(&file, &text, &|name| std::env::var(name).ok()),
        Err(message) => Err(Problems::one(&file, message)),
    }
}

/// Checks the text of a configuration. `file` names it in problems, and its folder is where relative
/// paths start (a `token_file` is read from there); `env` answers for `${NAME}`.
pub fn parse(file: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let report = Report::new(file);
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let config = read_text(text, env, folder, &report);
    report.finish(config)
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
    let places = scan::scan(text, report)?;
    let mut root = tree::read(text, &places, report)?;
    resolve::resolve(&mut root, env, report);
    read::config(&root, folder, report)
}

fn read_file(path: &Path) -> Result<String, String> {
    let bytes = goodgate_files::read_bounded_or_pipe(path, FILE_BYTES_MAX as u64);
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
