//! What a request is hashed by, and the hash: the same in every process and on every machine, so that several
//! gateways send the same request to the same backend.

use http::HeaderName;

/// What a consistent hash is made of.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum HashOn {
    /// Path and query.
    #[default]
    Uri,
    /// The path.
    Path,
    /// The value of this field, if there is one.
    Header(HeaderName),
    /// The value of this cookie, if there is one.
    Cookie(String),
    /// The client's address; of IPv6 its /64 network.
    ClientIp,
}

/// FNV-1a. Whoever wants to may find keys that go to one backend: the bound of its load is made for that.
pub fn hash_of(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01B3;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_function() {
        // From the test vectors of its authors (Fowler, Noll, Vo).
        for (text, hash) in
            [("", 0xCBF2_9CE4_8422_2325), ("a", 0xAF63_DC4C_8601_EC8C), ("foobar", 0x8594_4171_F739_67E8)]
        {
            assert_eq!(hash_of(text.as_bytes()), hash, "{text}");
        }
    }
}
