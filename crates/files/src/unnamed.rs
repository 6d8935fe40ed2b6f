//! Temporary files without a name, which vanish with the process.

use std::fs::File;
use std::io::Result;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};

/// A file in this folder that no other process can open. `name` is used for a moment where the file system has no
/// files without a name, and must not be guessable.
pub fn unnamed(folder: &Path, name: impl FnOnce() -> String) -> Result<File> {
    match openat(CWD, folder, ACCESS | OFlags::TMPFILE | OFlags::EXCL, PRIVATE) {
        Ok(file) => Ok(file.into()),
        Err(_) => named(folder, &name()),
    }
}

const ACCESS: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

fn named(folder: &Path, name: &str) -> Result<File> {
    let folder = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let file = openat(&folder, name, ACCESS | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, PRIVATE)?;
    unlinkat(&folder, name, AtFlags::empty())?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn both_ways_leave_no_name_and_neither_opens_what_is_there() {
        let folder = std::env::temp_dir().join(format!("goodgate-unnamed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        unnamed(&folder, || "first".to_owned()).unwrap().write_all(b"text").unwrap();
        named(&folder, "second").unwrap().write_all(b"text").unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::os::unix::fs::symlink("/dev/null", folder.join("third")).unwrap();
        assert!(named(&folder, "third").is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
