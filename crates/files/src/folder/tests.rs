//! Each kind of file that is not ours is refused, and stays as it is.

use std::io::Write;
use std::os::unix::fs::symlink;

use super::*;

/// A folder of a test, with a file outside of the opened folder.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("goodgate-folder-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("in")).unwrap();
        std::fs::set_permissions(path.join("in"), Permissions::from_mode(0o755)).unwrap();
        std::fs::write(path.join("victim"), "precious").unwrap();
        Self(path)
    }

    fn open(&self) -> Result<Folder> {
        Folder::open_or_create(&self.0.join("in"))
    }

    fn victim(&self) -> String {
        std::fs::read_to_string(self.0.join("victim")).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Every way to open a file, by its name.
type Way = fn(&Folder, &str) -> Result<()>;
const WAYS: [(&str, Way); 7] = [
    ("open", |folder, name| folder.open(name).map(drop)),
    ("open_to_read", |folder, name| folder.open_to_read(name).map(drop)),
    ("open_or_create_file", |folder, name| folder.open_or_create_file(name).map(drop)),
    ("open_to_append", |folder, name| folder.open_to_append(name).map(drop)),
    ("create", |folder, name| folder.create(name).map(drop)),
    ("remove", |folder, name| folder.remove(name)),
    ("rename", |folder, name| {
        folder.create("source")?;
        folder.rename("source", name)
    }),
];

#[test]
fn what_is_not_ours_is_refused_without_waiting_and_stays() {
    let place = Place::new("kinds");
    let folder = place.open().unwrap();
    let inside = place.0.join("in");
    symlink("../victim", inside.join("link")).unwrap();
    symlink("../nothing", inside.join("dangling")).unwrap();
    std::fs::create_dir(inside.join("folder")).unwrap();
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, inside.join("pipe"), FileType::Fifo, mode, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(inside.join("socket")).unwrap());
    for name in ["link", "dangling", "folder", "pipe", "socket"] {
        for (way, run) in WAYS {
            let error = run(&folder, name).expect_err(&format!("{way} {name}"));
            assert_ne!(error.kind(), ErrorKind::NotFound, "{way} {name}");
            assert!(error.to_string().contains(name), "{way} {name}: {error}");
        }
        assert!(inside.join(name).symlink_metadata().is_ok(), "{name} stays");
    }
    assert_eq!(place.victim(), "precious");
    assert!(!place.0.join("nothing").exists());
}

#[test]
fn a_file_with_two_names_is_not_opened_and_create_makes_another() {
    let place = Place::new("hard");
    let folder = place.open().unwrap();
    std::fs::hard_link(place.0.join("victim"), place.0.join("in/file")).unwrap();
    for (way, run) in &WAYS[..4] {
        assert!(run(&folder, "file").is_err(), "{way}");
    }
    folder.create("file").unwrap().write_all(b"new").unwrap();
    assert_eq!(place.victim(), "precious");
}

#[test]
fn files_of_ours_are_created_written_listed_and_removed() {
    let place = Place::new("ours");
    let folder = place.open().unwrap();
    folder.create("a").unwrap().write_all(b"abc").unwrap();
    folder.create("a").unwrap().write_all(b"de").unwrap();
    folder.open_to_append("a").unwrap().write_all(b"f").unwrap();
    assert_eq!(folder.len("a").unwrap(), 3);
    folder.rename("a", "b").unwrap();
    folder.open_or_create_file("c").unwrap();
    let mut names = folder.names().unwrap();
    names.sort();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(place.0.join("in/b").metadata().unwrap().mode() & 0o777, 0o600);
    folder.remove("b").unwrap();
    folder.remove("b").unwrap();
    assert_eq!(folder.open("b").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn folders_that_others_can_write_to_are_refused_and_unchanged() {
    let place = Place::new("modes");
    let inside = place.0.join("in");
    for (mode, is_good) in [(0o777, false), (0o775, false), (0o1777, true), (0o755, true), (0o700, true)] {
        std::fs::set_permissions(&inside, Permissions::from_mode(mode)).unwrap();
        assert_eq!(place.open().is_ok(), is_good, "{mode:o}");
        assert_eq!(inside.metadata().unwrap().mode() & 0o7777, mode);
    }
    let folder = place.open().unwrap();
    for (mode, is_good) in [(0o777, false), (0o1777, false), (0o720, false), (0o755, true)] {
        let own = inside.join("own");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::set_permissions(&own, Permissions::from_mode(mode)).unwrap();
        assert_eq!(folder.private("own").is_ok(), is_good, "{mode:o}");
    }
    assert_eq!(inside.join("own").metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_private_folder_is_no_link_and_a_path_to_a_named_folder_may_have_some() {
    let place = Place::new("links");
    symlink("in", place.0.join("by-link")).unwrap();
    let folder = Folder::open_or_create(&place.0.join("by-link")).unwrap();
    std::fs::create_dir(place.0.join("elsewhere")).unwrap();
    symlink("../elsewhere", place.0.join("in/own")).unwrap();
    assert!(folder.private("own").is_err());
    let made = Folder::open_or_create(&place.0.join("in/new/deep")).unwrap();
    assert_eq!(made.path().metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn files_and_folders_of_another_user_are_refused() {
    let place = Place::new("owners");
    if user() != 0 {
        return; // Only root can give files away.
    }
    let other = Some(65534);
    let folder = place.open().unwrap();
    folder.create("file").unwrap();
    std::os::unix::fs::chown(place.0.join("in/file"), other, None).unwrap();
    for (way, run) in WAYS {
        let error = run(&folder, "file").expect_err(way).to_string();
        assert!(error.contains("user"), "{way}: {error}");
    }
    std::os::unix::fs::chown(place.0.join("in"), other, None).unwrap();
    assert!(place.open().unwrap_err().to_string().contains("belongs to user 65534"));
}
