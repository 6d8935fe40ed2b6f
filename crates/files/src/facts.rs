//! The checks of an open file, and the sentences that say what is wrong with it.

use std::fs::{File, FileType, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;
/// Only the owner of an entry may rename or remove it.
const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;

/// The user that files must belong to.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A file that only this gateway writes: regular, of one name, and of this user.
pub(crate) fn check_own(file: &File, path: &Path) -> Result<()> {
    let facts = file.metadata()?;
    check_single(&facts, path)?;
    check_owner(&facts, path, &[user()])
}

/// A log file: regular, of one name, and of this user or root.
pub(crate) fn check_log(file: &File, path: &Path) -> Result<()> {
    let facts = file.metadata()?;
    check_single(&facts, path)?;
    check_owner(&facts, path, &[user(), ROOT])
}

/// A folder that an operator named: of this user or root, and others may not rename what is in it.
pub(crate) fn check_folder(folder: &File, path: &Path) -> Result<()> {
    let facts = folder.metadata()?;
    check_owner(&facts, path, &[user(), ROOT])?;
    if facts.mode() & STICKY == 0 { check_mode(&facts, path) } else { Ok(()) }
}

/// A folder of our own: of this user, and writable for no other.
pub(crate) fn check_own_folder(folder: &File, path: &Path) -> Result<()> {
    let facts = folder.metadata()?;
    check_owner(&facts, path, &[user()])?;
    check_mode(&facts, path)
}

/// A hard link made by another user would lead a write to that user's choice of file.
fn check_single(facts: &Metadata, path: &Path) -> Result<()> {
    if !facts.is_file() {
        return Err(not_regular(path, facts.file_type()));
    }
    if facts.nlink() > 1 {
        return Err(refused(path, "has more than one hard link; remove it"));
    }
    Ok(())
}

fn check_owner(facts: &Metadata, path: &Path, allowed: &[u32]) -> Result<()> {
    if allowed.contains(&facts.uid()) {
        return Ok(());
    }
    let what = format!(
        "belongs to user {}, but goodgate runs as user {}; change its owner or use another path",
        facts.uid(),
        user()
    );
    Err(refused(path, &what))
}

fn check_mode(facts: &Metadata, path: &Path) -> Result<()> {
    if facts.mode() & OTHERS_WRITE == 0 {
        return Ok(());
    }
    let mode = facts.mode() & 0o7777;
    let what = format!("has mode {mode:04o}, so other users can write to it; run `chmod go-w` on it");
    Err(refused(path, &what))
}

pub(crate) fn not_regular(path: &Path, kind: FileType) -> Error {
    refused(path, &format!("is {}; a regular file is expected", name_of(kind)))
}

/// The type of a file in words.
pub(crate) fn name_of(kind: FileType) -> &'static str {
    let names = [
        (kind.is_file(), "a regular file"),
        (kind.is_dir(), "a directory"),
        (kind.is_symlink(), "a symbolic link"),
        (kind.is_fifo(), "a named pipe"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device(), "a device"),
        (kind.is_block_device(), "a device"),
    ];
    names.into_iter().find_map(|(is_kind, name)| is_kind.then_some(name)).unwrap_or("of an unknown type")
}

pub(crate) fn refused(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("{} {what}", path.display()))
}

/// An error of a system call, with the path that it is about. Its kind stays.
pub(crate) fn about(path: &Path, error: Error) -> Error {
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return refused(
            path,
            "is a symbolic link; goodgate opens only its own regular files: remove the link",
        );
    }
    // These are handled by number or kind above.
    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StorageFull | ErrorKind::AlreadyExists) {
        return error;
    }
    Error::new(error.kind(), format!("{}: {error}", path.display()))
}
