//! Buffers that records are read into. The thread that lets go of one keeps it for its next read: it need neither be
//! asked of the allocator nor be filled with zeros again, and what it held is warm.

use std::cell::RefCell;

/// Their lengths are multiples of this.
const STEP_BYTES: usize = 4 << 10;
/// What a thread keeps at most.
const FREE_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of some length, all of it initialised.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// One of this length, with anything in it.
    pub(super) fn of(len: usize) -> Self {
        let size = len.next_multiple_of(STEP_BYTES);
        // At the end of a thread there is nothing to take from.
        let free = FREE.try_with(|free| take(&mut free.borrow_mut(), size)).ok().flatten();
        Self { bytes: free.unwrap_or_else(|| vec![0; size]), len }
    }
}

fn take(free: &mut Vec<Vec<u8>>, size: usize) -> Option<Vec<u8>> {
    let at = free.iter().rposition(|buffer| buffer.len() == size)?;
    Some(free.remove(at))
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() > FREE_BYTES_MAX {
            return;
        }
        // As above.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            let mut held: usize = free.iter().map(Vec::len).sum();
            while held + bytes.len() > FREE_BYTES_MAX && !free.is_empty() {
                held -= free.remove(0).len();
            }
            free.push(bytes);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_a_few_of_those_it_has_used() {
        let address = |buffer: &Buffer| buffer.as_ref().as_ptr();
        let (first, other) = (Buffer::of(5000), Buffer::of(20_000));
        assert_eq!((first.as_ref().len(), other.as_ref().len()), (5000, 20_000));
        let was_at = address(&first);
        drop(first);
        drop(other);
        let again = Buffer::of(8192);
        assert_eq!((address(&again), again.as_ref().len()), (was_at, 8192));
        let many: Vec<_> = (0..20).map(|_| Buffer::of(100_000)).collect();
        drop(many);
        drop(Buffer::of(2 * FREE_BYTES_MAX));
        let held: usize = FREE.with(|free| free.borrow().iter().map(Vec::len).sum());
        assert!((900_000..=FREE_BYTES_MAX).contains(&held), "{held}");
    }
}
