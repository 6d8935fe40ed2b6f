//! Whatever becomes of the files: what is served is what was written, or nothing is.

use super::*;

/// One small copy in a closed directory.
fn small() -> (Folder, PathBuf, PathBuf) {
    let folder = Folder::new();
    let store = open(&folder.0);
    keep(store, "/a", b"hello world");
    close(store);
    let (data, journal) = (folder.files("data").remove(0), folder.files("journal").remove(0));
    (folder, data, journal)
}

async fn served(folder: &Folder) -> Option<Vec<u8>> {
    let store = open(&folder.0);
    let body = found(store, "/a").await;
    close(store);
    body
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_never_served() {
    let (folder, data, journal) = small();
    for file in [data, journal] {
        let whole = std::fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(served(&folder).await, None, "byte {at} of {}", file.display());
        }
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(served(&folder).await.unwrap(), b"hello world");
    }
}

#[tokio::test]
async fn a_file_cut_off_anywhere_is_never_served() {
    let (folder, data, journal) = small();
    for file in [data, journal] {
        let whole = std::fs::read(&file).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&file, &whole[..len]).unwrap();
            assert_eq!(served(&folder).await, None, "{len} bytes of {}", file.display());
            std::fs::write(&file, &whole).unwrap();
        }
    }
    assert_eq!(served(&folder).await.unwrap(), b"hello world");
}

#[tokio::test]
async fn after_a_torn_end_the_next_copies_are_good() {
    let (folder, data, journal) = small();
    let torn = |file: &Path| {
        let mut bytes = std::fs::read(file).unwrap();
        bytes.extend([7; 50]);
        std::fs::write(file, bytes).unwrap();
    };
    torn(&data);
    torn(&journal);
    let store = open(&folder.0);
    keep(store, "/b", b"after");
    close(store);
    let store = open(&folder.0);
    assert_eq!(usage(store).objects, 2);
    assert_eq!(found(store, "/a").await.unwrap(), b"hello world");
    assert_eq!(found(store, "/b").await.unwrap(), b"after");
    assert_eq!(usage(store).corrupt, 0);
}

#[tokio::test]
async fn a_damaged_record_is_counted_and_forgotten() {
    let (folder, data, _) = small();
    let mut bytes = std::fs::read(&data).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let store = open(&folder.0);
    assert!(found(store, "/a").await.is_none() && found(store, "/a").await.is_none());
    assert_eq!((usage(store).corrupt, usage(store).objects), (1, 0));
    keep(store, "/a", b"again");
    forget(store);
    assert_eq!(found(store, "/a").await.unwrap(), b"again");
}

#[tokio::test]
async fn another_version_is_emptied_and_foreign_files_stay() {
    let (folder, ..) = small();
    let inner = folder.0.join("copies");
    std::fs::write(inner.join("version"), "goodgate disk tier 99\n").unwrap();
    std::fs::write(inner.join("notes.txt"), "mine").unwrap();
    assert_eq!(served(&folder).await, None);
    assert_eq!(std::fs::read_to_string(inner.join("notes.txt")).unwrap(), "mine");
    assert!(folder.files("data").is_empty() && folder.files("journal").is_empty());
    let store = open(&folder.0);
    keep(store, "/a", b"again");
    close(store);
    assert_eq!(served(&folder).await.unwrap(), b"again");
}

#[tokio::test]
async fn what_nothing_announces_is_removed() {
    let (folder, data, journal) = small();
    let inner = folder.0.join("copies");
    for stray in ["00000000000000aa.body", "00000000000000bb.data", "00000000000000cc.journal"] {
        std::fs::write(inner.join(stray), "stray").unwrap();
    }
    assert_eq!(served(&folder).await.unwrap(), b"hello world");
    assert_eq!((folder.files("data"), folder.files("journal")), (vec![data], vec![journal]));
    assert!(folder.files("body").is_empty());
}
