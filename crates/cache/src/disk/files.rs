//! The directory: which files there are, how they are named, and that nobody else reads them.
//!
//! All lies in a folder of our own, `copies`, with mode 0700; files have 0600. Only names of our own are ever
//! removed.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What the version file says. Another text means other files.
const VERSION: &[u8] = b"goodgate disk tier 1\n";
/// What is written and removed again to see whether writing is possible.
const PROBE_BYTES: usize = 64 << 10;

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
    folder: PathBuf,
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
        let folder = path.join("copies");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        if fs::metadata(&folder)?.mode() & 0o777 != 0o700 {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        }
        let lock = options().truncate(false).open(folder.join("lock"))?;
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
        let probe = self.folder.join("probe");
        let written =
            options().truncate(true).open(&probe).and_then(|mut file| file.write_all(&vec![0; PROBE_BYTES]));
        let removed = fs::remove_file(&probe);
        written.and(removed)
    }

    /// Whether what is there can be read; else it is removed. False if it was.
    pub(super) fn is_of_this_version(&self) -> io::Result<bool> {
        let file = self.folder.join("version");
        let mut text = Vec::new();
        match File::open(&file) {
            Ok(file) => file.take(2 * VERSION.len() as u64).read_to_end(&mut text).map(drop)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if text == VERSION {
            return Ok(true);
        }
        let is_empty = self.list()?.is_empty();
        self.empty()?;
        let mut written = options().truncate(true).open(&file)?;
        written.write_all(VERSION)?;
        Ok(is_empty)
    }

    /// Removes all copies.
    pub(super) fn empty(&self) -> io::Result<()> {
        self.list()?.into_iter().try_for_each(|(kind, id)| self.remove(kind, id))
    }

    /// Our files, the oldest first.
    pub(super) fn list(&self) -> io::Result<Vec<(Kind, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(parse));
        }
        found.sort_by_key(|(_, id)| *id);
        Ok(found)
    }

    pub(super) fn create(&self, kind: Kind, id: u64) -> io::Result<File> {
        options().truncate(true).open(self.path(kind, id))
    }

    pub(super) fn open(&self, kind: Kind, id: u64) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(kind, id))
    }

    /// The file of purges, to be appended to.
    pub(super) fn open_purges(&self) -> io::Result<File> {
        let (_, path) = self.purges_paths();
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
    }

    /// Where it is drafted, and where it is.
    pub(super) fn purges_paths(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("purges.draft"), self.folder.join("purges"))
    }

    pub(super) fn len(&self, kind: Kind, id: u64) -> io::Result<u64> {
        Ok(fs::metadata(self.path(kind, id))?.len())
    }

    pub(super) fn remove(&self, kind: Kind, id: u64) -> io::Result<()> {
        match fs::remove_file(self.path(kind, id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, kind: Kind, id: u64) -> PathBuf {
        path_of(&self.folder, kind, id)
    }
}

/// Where a body lies, for those who read it.
pub(super) fn body_path(path: &Path, id: u64) -> PathBuf {
    path_of(&path.join("copies"), Kind::Body, id)
}

fn path_of(folder: &Path, kind: Kind, id: u64) -> PathBuf {
    folder.join(format!("{id:016x}.{}", kind.suffix()))
}

fn parse(name: &str) -> Option<(Kind, u64)> {
    let (id, suffix) = name.split_once('.')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.suffix() == suffix)?;
    let id = u64::from_str_radix(id, 16).ok()?;
    (name == format!("{id:016x}.{suffix}")).then_some((kind, id))
}

/// A new file of ours at this place.
pub(super) fn private(path: &Path) -> io::Result<File> {
    options().truncate(true).open(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

/// Whether the file still has a name.
pub(super) fn is_there(file: &File) -> io::Result<()> {
    if file.metadata()?.nlink() == 0 { Err(ErrorKind::NotFound.into()) } else { Ok(()) }
}
