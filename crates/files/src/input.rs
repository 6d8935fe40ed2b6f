//! Files that an operator names. Links are followed; only regular files of a bounded size are read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::facts::name_of;

/// Why a file was not read.
#[derive(Debug)]
pub enum Unreadable {
    /// An error of the system.
    Failed(io::Error),
    /// The type of the file, in words.
    NotRegular(&'static str),
    /// It is longer than allowed.
    TooLong,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::NotRegular(kind) => write!(f, "is {kind}; allowed: a regular file"),
            Self::TooLong => f.write_str("is too large"),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// The bytes of a regular file of at most this length.
pub fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Unreadable> {
    read(open(path)?, bytes_max, false)
}

/// The same, and a pipe that the caller of the program opened for it: `/dev/stdin`, `<(…)` of a shell.
pub fn read_bounded_or_pipe(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Unreadable> {
    let is_inherited = ["/dev/stdin", "/dev/fd", "/proc/self/fd"].iter().any(|own| path.starts_with(own));
    if !is_inherited {
        return read_bounded(path, bytes_max);
    }
    let file = open(path)?;
    fcntl_setfl(&file, fcntl_getfl(&file).map_err(io::Error::from)? - OFlags::NONBLOCK)
        .map_err(io::Error::from)?;
    read(file, bytes_max, true)
}

/// A named pipe without a writer would make a blocking open wait for one.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn read(file: File, bytes_max: u64, may_be_pipe: bool) -> Result<Vec<u8>, Unreadable> {
    let facts = file.metadata()?;
    if !facts.is_file() && (!may_be_pipe || facts.is_dir()) {
        return Err(Unreadable::NotRegular(name_of(facts.file_type())));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max { Err(Unreadable::TooLong) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_not_regular(path: &str) -> bool {
        matches!(read_bounded(Path::new(path), 10), Err(Unreadable::NotRegular(_)))
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        assert!(is_not_regular("/dev/zero") && is_not_regular("/dev/null") && is_not_regular("/"));
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(matches!(read_bounded(&own, 10), Err(Unreadable::TooLong)));
        assert!(read_bounded(&own, 1 << 20).unwrap().starts_with(b"[package]"));
        let missing = read_bounded(Path::new("/no/such/file"), 10);
        assert!(matches!(missing, Err(Unreadable::Failed(error)) if error.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn a_link_is_followed_and_a_named_pipe_is_refused_at_once() {
        let folder = std::env::temp_dir().join(format!("goodgate-input-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("data"), "text").unwrap();
        std::os::unix::fs::symlink("data", folder.join("link")).unwrap();
        assert_eq!(read_bounded(&folder.join("link"), 10).unwrap(), b"text");
        let pipe = folder.join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for read in [read_bounded, read_bounded_or_pipe] {
            assert!(matches!(read(&pipe, 10), Err(Unreadable::NotRegular("a named pipe"))));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
