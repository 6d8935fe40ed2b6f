//! The directory: which files there are, how they are named, and that nobody else reads them.
//!
//! All lies in a folder of our own, `copies`, with mode 0700; files have 0600. Only names of our own are ever
//! removed. What has such a name and is no regular file of this user is never opened, see [`Folder`].

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use goodgate_files::Folder;

/// What the version file says. Another text means other files.
const VERSION: &[u8] = b"goodgate disk tier 2\n";
/// What is written and removed again to see whether writing is possible.
const PROBE_BYTES: usize = 64 << 10;

const PURGES: &str = "purges";
const PURGES_DRAFT: &str = "purges.draft";

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Journal,
    Body,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Data, Self::Journal, Self::Body];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Journal => "journal",
            Self::Body => "body",
        }
    }
}

/// The folder of one store; nobody else has it as long as this lives.
#[derive(Debug)]
pub(super) struct Files {
    folder: Arc<Folder>,
    _lock: File,
}

/// Why the folder cannot be had.
#[derive(Debug)]
pub(super) enum Refused {
    Locked,
    Failed(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Files {
    /// Takes the folder and sees whether it can be written to.
    pub(super) fn take(path: &Path) -> Result<Self, Refused> {
        let folder = Arc::new(Folder::open_or_create(path)?.private("copies")?);
        let lock = folder.open_or_create_file("lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Refused::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let files = Self { folder, _lock: lock };
        files.probe()?;
        Ok(files)
    }

    fn probe(&self) -> io::Result<()> {
        let written = self.folder.create("probe").and_then(|mut file| file.write_all(&vec![0; PROBE_BYTES]));
        let removed = self.folder.remove("probe");
        written.and(removed)
    }

    /// The folder, for those who read bodies.
    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Whether what is there can be read; else it is removed. False if it was.
    pub(super) fn is_of_this_version(&self) -> io::Result<bool> {
        let mut text = Vec::new();
        match self.folder.open_to_read("version") {
            Ok(file) => file.take(2 * VERSION.len() as u64).read_to_end(&mut text).map(drop)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if text == VERSION {
            return Ok(true);
        }
        let is_empty = self.list()?.is_empty();
        self.empty()?;
        let mut written = self.folder.create("version")?;
        written.write_all(VERSION)?;
        Ok(is_empty)
    }

    /// Removes all copies.
    pub(super) fn empty(&self) -> io::Result<()> {
        self.list()?.into_iter().try_for_each(|(kind, id)| self.remove(kind, id))
    }

    /// Our files, the oldest first.
    pub(super) fn list(&self) -> io::Result<Vec<(Kind, u64)>> {
        let mut found: Vec<_> = self.folder.names()?.iter().filter_map(|name| parse(name)).collect();
        found.sort_by_key(|(_, id)| *id);
        Ok(found)
    }

    pub(super) fn create(&self, kind: Kind, id: u64) -> io::Result<File> {
        self.folder.create(&name_of(kind, id))
    }

    pub(super) fn open(&self, kind: Kind, id: u64) -> io::Result<File> {
        self.folder.open(&name_of(kind, id))
    }

    /// The file of purges, to be appended to.
    pub(super) fn open_purges(&self) -> io::Result<File> {
        self.folder.open_to_append(PURGES)
    }

    /// Replaces the file of purges as a whole.
    pub(super) fn replace_purges(&self, bytes: &[u8]) -> io::Result<()> {
        let mut draft = self.folder.create(PURGES_DRAFT)?;
        draft.write_all(bytes)?;
        draft.sync_data()?;
        self.folder.rename(PURGES_DRAFT, PURGES)
    }

    pub(super) fn len(&self, kind: Kind, id: u64) -> io::Result<u64> {
        self.folder.len(&name_of(kind, id))
    }

    pub(super) fn remove(&self, kind: Kind, id: u64) -> io::Result<()> {
        self.folder.remove(&name_of(kind, id))
    }
}

/// A body, for those who read it.
pub(super) fn open_body(folder: &Folder, id: u64) -> io::Result<File> {
    folder.open_to_read(&name_of(Kind::Body, id))
}

fn name_of(kind: Kind, id: u64) -> String {
    format!("{id:016x}.{}", kind.suffix())
}

fn parse(name: &str) -> Option<(Kind, u64)> {
    let (id, suffix) = name.split_once('.')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.suffix() == suffix)?;
    let id = u64::from_str_radix(id, 16).ok()?;
    (name == name_of(kind, id)).then_some((kind, id))
}

/// Whether the file still has a name.
pub(super) fn is_there(file: &File) -> io::Result<()> {
    if file.metadata()?.nlink() == 0 { Err(ErrorKind::NotFound.into()) } else { Ok(()) }
}
