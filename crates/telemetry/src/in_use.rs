//! Series that several snapshots and tasks count on: resolved at the first use of a name, shared by all users of it, and
//! removed from the exposition with the last one. A reload resolves the series of the new snapshot before the old one
//! ends, so a counter that stays never goes backwards.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{MetricVec, MetricVecBuilder};

/// Series that can leave the exposition.
pub(crate) trait Series {
    /// Removes all of them.
    fn remove(&self);
}

/// The series in use, by name, with the number of their users.
#[derive(Debug)]
pub(crate) struct InUse<T>(Mutex<HashMap<String, (usize, Arc<T>)>>);

impl<T> Default for InUse<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Series> InUse<T> {
    /// The series under this name, made unless another user has them.
    pub(crate) fn hold(self: &Arc<Self>, name: String, make: impl FnOnce() -> T) -> Held<T> {
        let mut all = self.0.lock();
        let (users, series) = all.entry(name.clone()).or_insert_with(|| (0, Arc::new(make())));
        *users += 1;
        let series = Arc::clone(series);
        drop(all);
        Held { name, series, all: Arc::clone(self) }
    }
}

/// One use of the series under a name.
#[derive(Debug)]
pub(crate) struct Held<T: Series> {
    name: String,
    series: Arc<T>,
    all: Arc<InUse<T>>,
}

impl<T: Series> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.series
    }
}

impl<T: Series> Drop for Held<T> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        let Some((users, _)) = all.get_mut(&self.name) else { return };
        *users -= 1;
        if *users == 0 {
            // Within the lock: the next user of the name must find all of them or none.
            self.series.remove();
            all.remove(&self.name);
        }
    }
}

/// Removes one series of a family. One that was never resolved is not there.
pub(crate) fn remove<B: MetricVecBuilder>(family: &MetricVec<B>, labels: &[&str]) {
    let _ = family.remove_label_values(labels);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>);

    impl Series for Counted {
        fn remove(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn series_are_shared_and_removed_with_the_last_user() {
        let removed = Arc::new(AtomicUsize::new(0));
        let all = Arc::new(InUse::default());
        let hold = || all.hold("web".to_owned(), || Counted(Arc::clone(&removed)));
        let (first, second) = (hold(), hold());
        assert!(Arc::ptr_eq(&first.series, &second.series));
        drop(first);
        assert_eq!(removed.load(Ordering::Relaxed), 0);
        let third = hold();
        drop((second, third));
        assert_eq!(removed.load(Ordering::Relaxed), 1);
        drop(hold());
        assert_eq!(removed.load(Ordering::Relaxed), 2);
    }
}
