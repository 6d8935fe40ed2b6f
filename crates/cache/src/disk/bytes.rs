//! Numbers and strings in a buffer, read with every bound checked: what is on disk may be anything.

/// Takes values off the front of a buffer; none where it is too short.
pub(super) struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// As many bytes as the number in front of them says.
    pub(super) fn framed(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends bytes with their number in front.
pub(super) fn put_framed(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let mut bytes = Vec::new();
        put_framed(&mut bytes, b"ab");
        let mut take = Take::new(&bytes);
        assert_eq!(take.framed(), Some(b"ab".as_slice()));
        assert!(take.is_empty() && take.u8().is_none());
        assert_eq!(Take::new(&[255, 255, 255, 255, 1]).framed(), None);
        assert_eq!(Take::new(&[1, 2, 3]).u32(), None);
    }
}
