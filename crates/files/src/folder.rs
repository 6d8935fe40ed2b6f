//! A folder with files of ours. Everything in it is opened relative to its handle.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Result};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};

use crate::facts::{about, check_folder, check_own, check_own_folder, refused, user};

const PRIVATE_FOLDER: u32 = 0o700;

/// An open folder. A rename of its path does not lead it elsewhere.
#[derive(Debug)]
pub struct Folder {
    handle: File,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder that an operator named; a missing one is created with mode 0700. The path may contain symbolic
    /// links. Fails if the folder belongs to another user than this one or root, or if others may write to it and it
    /// has no sticky bit.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = openat(CWD, path, flags, Mode::empty()).map_err(|errno| about(path, errno.into()))?;
        let folder = Self { handle: File::from(handle), path: path.to_owned() };
        check_folder(&folder.handle, path)?;
        Ok(folder)
    }

    /// The folder of this name in it with mode 0700; a missing one is created. Fails if it is a symbolic link,
    /// belongs to another user, or if others may write to it.
    pub fn private(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        match mkdirat(&self.handle, name, Mode::from_raw_mode(PRIVATE_FOLDER)) {
            Err(errno) if errno != rustix::io::Errno::EXIST => return Err(about(&path, errno.into())),
            Ok(()) | Err(_) => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = openat(&self.handle, name, flags, Mode::empty()).map_err(|errno| match errno {
            rustix::io::Errno::NOTDIR => refused(&path, "is no folder; remove it"),
            errno => about(&path, errno.into()),
        })?;
        let folder = Self { handle: File::from(handle), path };
        check_own_folder(&folder.handle, &folder.path)?;
        if folder.handle.metadata()?.mode() & 0o777 != PRIVATE_FOLDER {
            folder.handle.set_permissions(Permissions::from_mode(PRIVATE_FOLDER))?;
        }
        Ok(folder)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file that is there, to be read and written.
    pub fn open(&self, name: &str) -> Result<File> {
        self.open_with(name, OFlags::RDWR)
    }

    /// A file that is there, to be read.
    pub fn open_to_read(&self, name: &str) -> Result<File> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// A file to be read and written; a missing one is created.
    pub fn open_or_create_file(&self, name: &str) -> Result<File> {
        self.or_new(name, OFlags::RDWR)
    }

    /// A file to be read and appended to; a missing one is created.
    pub fn open_to_append(&self, name: &str) -> Result<File> {
        self.or_new(name, OFlags::RDWR | OFlags::APPEND)
    }

    /// A new, empty file with mode 0600. One of ours that has the name is removed before.
    pub fn create(&self, name: &str) -> Result<File> {
        self.remove(name)?;
        self.new_file(name, OFlags::RDWR)
    }

    /// Removes a file of ours. A missing one is no error; what is not ours stays and is one.
    pub fn remove(&self, name: &str) -> Result<()> {
        if !self.is_there(name)? {
            return Ok(());
        }
        unlinkat(&self.handle, name, AtFlags::empty()).or_else(|errno| self.unless_missing(name, errno))
    }

    /// Gives a file of ours another name. One of ours that has it is replaced.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.is_there(to)?;
        renameat(&self.handle, from, &self.handle, to)
            .map_err(|errno| about(&self.path.join(from), errno.into()))
    }

    /// The length of a file of ours.
    pub fn len(&self, name: &str) -> Result<u64> {
        Ok(self.open_to_read(name)?.metadata()?.len())
    }

    /// All names in it, ours or not.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            names.extend(name.to_str().filter(|name| !matches!(*name, "." | "..")).map(str::to_owned));
        }
        Ok(names)
    }

    fn or_new(&self, name: &str, access: OFlags) -> Result<File> {
        match self.open_with(name, access) {
            Err(error) if error.kind() == ErrorKind::NotFound => self.new_file(name, access),
            opened => opened,
        }
    }

    /// Without waiting, whatever it is, and checked before anything is read or written.
    fn open_with(&self, name: &str, access: OFlags) -> Result<File> {
        let path = self.path.join(name);
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.handle, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| about(&path, errno.into()))?;
        check_own(&file, &path)?;
        Ok(file)
    }

    fn new_file(&self, name: &str, access: OFlags) -> Result<File> {
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|errno| about(&self.path.join(name), errno.into()))
    }

    /// Whether a file of ours has this name; what is not ours is an error.
    fn is_there(&self, name: &str) -> Result<bool> {
        let facts = match statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => facts,
            Err(errno) => return self.unless_missing(name, errno).map(|()| false),
        };
        let is_ours =
            FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile && facts.st_uid == user();
        let what = "is no regular file of the user that goodgate runs as; remove it";
        if is_ours { Ok(true) } else { Err(refused(&self.path.join(name), what)) }
    }

    fn unless_missing(&self, name: &str, errno: rustix::io::Errno) -> Result<()> {
        match io::Error::from(errno) {
            error if error.kind() == ErrorKind::NotFound => Ok(()),
            error => Err(about(&self.path.join(name), error)),
        }
    }
}

#[cfg(test)]
mod tests;
