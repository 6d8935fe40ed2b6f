//! Random operations, restarts among them, against a map of what was last written.

use std::collections::HashMap;

use super::*;

const KEYS: u64 = 12;

#[tokio::test]
async fn what_is_found_is_what_was_last_kept() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::new();
    let spec = StoreSpec { memory_bytes: 2 * MIB, ..spec(&folder.0, 16 * MIB) };
    let mut store = open_with(&spec);
    let mut kept: HashMap<u64, (usize, u64)> = HashMap::new();
    for step in 0..1500_u64 {
        let at = random.u64(..KEYS);
        let path = format!("/{at}");
        match random.u8(..20) {
            0 => {
                close(store);
                store = open_with(&spec);
            }
            1 => {
                store.remove(&key(&path));
                kept.remove(&at);
            }
            2 => forget(store),
            3..9 => {
                let len = random.usize(..100_000) * usize::from(random.bool());
                keep(store, &path, &pattern(len, step));
                kept.insert(at, (len, step));
                // So that nothing is dropped for want of room in the queue.
                store.flush(PATIENCE);
            }
            _ => {
                let body = found(store, &path).await;
                let expected = kept.get(&at).map(|(len, seed)| pattern(*len, *seed));
                // Room is made, so that a copy may be gone; but never another than the last is found.
                assert!(body.is_none() || body == expected, "{path} in step {step}, seed {seed}");
                assert!(body.is_some() || expected.is_none() || usage(store).evictions > 0, "seed {seed}");
            }
        }
    }
    assert_eq!((usage(store).corrupt, usage(store).dropped), (0, 0), "seed {seed}");
}
