//! One number for each of many keys, in memory that is bounded: a fixed table in shards with a lock each, in
//! buckets of eight. The number is a time, and one that has passed says nothing any more, so that its place is
//! free. In a full bucket the key with the earliest time makes room: it is the nearest to be forgotten anyway.
//! Whoever is refused just now stays. Memory is taken shard by shard, at its first use.

use parking_lot::Mutex;

const WAYS: usize = 8;
const SHARDS: usize = 64;
const BUCKETS: usize = 128;

/// At most this many keys: 1 MiB.
#[cfg(test)]
const KEYS_MAX: usize = WAYS * SHARDS * BUCKETS;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    time: u64,
}

type Bucket = [Slot; WAYS];

/// Times by key. A key is a hash: two with the same one are one.
#[derive(Debug)]
pub(super) struct Table {
    shards: [Mutex<Vec<Bucket>>; SHARDS],
}

impl Table {
    pub(super) fn new() -> Self {
        Self { shards: [const { Mutex::new(Vec::new()) }; SHARDS] }
    }

    /// Lets `change` look at the time of a key, zero if there is none, and change it. The flag tells whether a
    /// key whose time has not passed was forgotten for it.
    pub(super) fn update<T>(&self, key: u64, now: u64, change: impl FnOnce(&mut u64) -> T) -> (T, bool) {
        let (shard, bucket) = place(key);
        let Some(shard) = self.shards.get(shard) else {
            return (change(&mut 0), false);
        };
        let mut buckets = shard.lock();
        if buckets.is_empty() {
            buckets.resize(BUCKETS, Bucket::default());
        }
        let Some(bucket) = buckets.get_mut(bucket) else {
            return (change(&mut 0), false);
        };
        let (slot, forgets) = find(bucket, key, now);
        (change(&mut slot.time), forgets)
    }
}

impl Table {
    /// The time of a key, zero if there is none.
    pub(super) fn time(&self, key: u64) -> u64 {
        let (shard, bucket) = place(key);
        let Some(shard) = self.shards.get(shard) else {
            return 0;
        };
        let buckets = shard.lock();
        let mut slots = buckets.get(bucket).into_iter().flatten();
        slots.find(|slot| slot.key == key).map_or(0, |slot| slot.time)
    }

    /// Changes the time of a key that there is.
    pub(super) fn amend(&self, key: u64, change: impl FnOnce(&mut u64)) {
        let (shard, bucket) = place(key);
        let Some(shard) = self.shards.get(shard) else {
            return;
        };
        let mut buckets = shard.lock();
        let mut slots = buckets.get_mut(bucket).into_iter().flatten();
        if let Some(slot) = slots.find(|slot| slot.key == key) {
            change(&mut slot.time);
        }
    }
}

/// The highest bits choose the shard, those below the bucket.
fn place(key: u64) -> (usize, usize) {
    let high = usize::try_from(key >> 51).unwrap_or_default();
    (high / BUCKETS, high % BUCKETS)
}

/// The slot of a key, its own or one that is made its own.
fn find(bucket: &mut Bucket, key: u64, now: u64) -> (&mut Slot, bool) {
    let known = bucket.iter().position(|slot| slot.key == key);
    let earliest = || bucket.iter().enumerate().min_by_key(|(_, slot)| slot.time).map(|(at, _)| at);
    let at = known.or_else(earliest).unwrap_or_default();
    #[expect(clippy::indexing_slicing, reason = "a position in this very bucket, or the first of eight")]
    let slot = &mut bucket[at];
    if known.is_some() {
        return (slot, false);
    }
    let forgets = slot.time > now;
    *slot = Slot { key, time: 0 };
    (slot, forgets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spreads numbers over the whole range, as a hash does (splitmix64).
    fn key(number: usize) -> u64 {
        let mut mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn set(table: &Table, key: u64, now: u64, to: u64) -> (u64, bool) {
        table.update(key, now, |time| std::mem::replace(time, to))
    }

    #[test]
    fn a_key_keeps_its_time_until_it_has_passed() {
        let table = Table::new();
        assert_eq!(set(&table, 1, 0, 10), (0, false));
        assert_eq!(set(&table, 2, 0, 20), (0, false));
        assert_eq!((set(&table, 1, 5, 11), set(&table, 2, 5, 21)), ((10, false), (20, false)));
    }

    #[test]
    fn eight_keys_share_a_bucket_and_the_earliest_makes_room() {
        let table = Table::new();
        for at in 0..8 {
            assert_eq!(set(&table, at, 0, 100 + at), (0, false));
        }
        assert_eq!(set(&table, 8, 0, 500), (0, true), "key 0 is forgotten");
        assert_eq!(set(&table, 7, 0, 107), (107, false), "key 7 is not");
        assert_eq!(set(&table, 0, 0, 600), (0, true), "key 1 is");
        assert_eq!(set(&table, 1, 103, 700), (0, false), "the time of key 2 has passed");
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_memory_and_forgets_no_one_who_is_refused() {
        let table = Table::new();
        for refused in 0..100 {
            set(&table, key(refused), 0, 1_000_000);
        }
        for other in 100..3 * KEYS_MAX {
            set(&table, key(other), 0, 1000);
        }
        for refused in 0..100 {
            assert_eq!(set(&table, key(refused), 0, 1_000_000).0, 1_000_000, "{refused}");
        }
        let held: usize = table.shards.iter().map(|shard| shard.lock().capacity() * WAYS).sum();
        assert!(held <= KEYS_MAX && size_of::<Bucket>() * SHARDS * BUCKETS == 1 << 20, "{held}");
    }
}
