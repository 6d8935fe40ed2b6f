//! Log files: appended to, possibly as root in a folder that a service user may write to.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::facts::{about, check_log, not_regular};

/// Links that lead to what the process was started with.
const INHERITED: [&str; 4] = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc/self/fd"];

/// Opens the end of a log file; a missing one is created. A symbolic link is refused unless it leads to a file that the
/// process was started with, because a user who may write to the folder could lead it to any file. Named pipes and character devices are allowed: a
/// pipe is opened for reading as well, so that neither opening it nor writing fails without a reader.
pub fn append_to(path: &Path) -> Result<File> {
    match open(path, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => match open(path, true) {
            // Created by another process in between.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => open(path, false),
            created => created,
        },
        opened => opened,
    }
}

fn open(path: &Path, is_new: bool) -> Result<File> {
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if !is_inherited(path) {
        flags |= OFlags::NOFOLLOW;
    }
    let is_pipe = path.symlink_metadata().is_ok_and(|facts| facts.file_type().is_fifo());
    let mut options = OpenOptions::new();
    options.read(is_pipe).append(true).create_new(is_new).custom_flags(flags.bits().cast_signed());
    let file = options.open(path).map_err(|error| about(path, error))?;
    check(&file, path)?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn is_inherited(path: &Path) -> bool {
    INHERITED.iter().any(|link| path.starts_with(link))
}

fn check(file: &File, path: &Path) -> Result<()> {
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() || kind.is_fifo() {
        return Ok(());
    }
    if is_inherited(path) && kind.is_file() {
        return Ok(());
    }
    if kind.is_file() { check_log(file, path) } else { Err(not_regular(path, kind)) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_log_is_appended_to_and_a_link_is_not() {
        let folder = std::env::temp_dir().join(format!("goodgate-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("log");
        for _ in 0..2 {
            append_to(&log).unwrap().write_all(b"line\n").unwrap();
        }
        assert_eq!(std::fs::read(&log).unwrap(), b"line\nline\n");
        symlink(&log, folder.join("link")).unwrap();
        symlink("nothing", folder.join("dangling")).unwrap();
        std::fs::hard_link(&log, folder.join("hard")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap());
        for name in ["link", "dangling", "hard", "socket", "."] {
            let error = append_to(&folder.join(name)).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
        }
        assert_eq!(std::fs::read(&log).unwrap(), b"line\nline\n");
        append_to(Path::new("/dev/null")).unwrap().write_all(b"line").unwrap();
        append_to(Path::new("/dev/stderr")).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
