//! Keys whose last response could not be stored (hit-for-miss): requests for them do not wait for one another, since each
//! would have to ask anyway.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pingora_cache::key::HashBinary;

/// How long a key is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// How many keys of one shard are remembered.
const KEYS_MAX: usize = 1024;

/// Those of one shard.
#[derive(Default)]
pub(super) struct Unstorable(HashMap<HashBinary, Instant, ahash::RandomState>);

impl Unstorable {
    pub(super) fn note(&mut self, key: HashBinary, now: Instant) {
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, noted| is_recent(*noted, now));
            if self.0.len() >= KEYS_MAX {
                self.0.clear();
            }
        }
        self.0.insert(key, now);
    }

    pub(super) fn has(&self, key: &HashBinary, now: Instant) -> bool {
        self.0.get(key).is_some_and(|noted| is_recent(*noted, now))
    }

    pub(super) fn forget(&mut self, key: &HashBinary) {
        self.0.remove(key);
    }
}

fn is_recent(noted: Instant, now: Instant) -> bool {
    now.saturating_duration_since(noted) < REMEMBERED_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_for_a_while_and_not_too_many() {
        let (mut keys, now) = (Unstorable::default(), Instant::now());
        keys.note([1; 16], now);
        let later = now + REMEMBERED_FOR;
        assert!(keys.has(&[1; 16], now) && !keys.has(&[2; 16], now) && !keys.has(&[1; 16], later));
        keys.forget(&[1; 16]);
        assert!(!keys.has(&[1; 16], now));
        for number in 0..2 * KEYS_MAX as u128 {
            keys.note(number.to_le_bytes(), now);
            assert!(keys.0.len() <= KEYS_MAX && keys.has(&number.to_le_bytes(), now));
        }
        keys.note([7; 16], later);
        assert_eq!(keys.0.len(), 1);
    }
}
