//! The name by which a request is known in log, header and page.

use http::{HeaderMap, HeaderName, HeaderValue};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest identifier taken over from a trusted proxy.
const BYTES_MAX: usize = 128;
/// Digits of an identifier of ours: 128 random bits in hexadecimal.
const DIGITS: usize = 32;

/// A request's identifier: a token that can be shown anywhere without escaping. Kept as a field value, so
/// that sending it to the backend and to the client copies nothing.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// A trusted proxy's if it is harmless, else a new one.
    pub(crate) fn of(headers: &HeaderMap, is_trusted: bool) -> Self {
        let given = if is_trusted { headers.get(X_REQUEST_ID) } else { None };
        let given = given.filter(|value| is_plain(value.as_bytes()));
        given.map_or_else(Self::random, |value| Self(value.clone()))
    }

    /// A new one.
    pub(crate) fn random() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut bits = fastrand::u128(..);
        let digits: [u8; DIGITS] = std::array::from_fn(|_| {
            let digit = usize::try_from(bits & 15).unwrap_or_default();
            bits >>= 4;
            HEX.get(digit).copied().unwrap_or(b'0')
        });
        Self(HeaderValue::from_bytes(&digits).unwrap_or_else(|_| Self::none().0))
    }

    /// Before a request has a name.
    pub(crate) fn none() -> Self {
        Self(HeaderValue::from_static(""))
    }

    /// As a field value.
    pub(crate) fn value(&self) -> HeaderValue {
        self.0.clone()
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/".contains(byte);
    !id.is_empty() && id.len() <= BYTES_MAX && id.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_over_only_from_a_trusted_proxy_and_if_it_is_harmless() {
        let with = |id: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static("x-request-id"), HeaderValue::from_static(id))])
        };
        assert_eq!(RequestId::of(&with("abc-1"), true).as_str(), "abc-1");
        assert_eq!(RequestId::of(&with("abc-1"), false).as_str().len(), DIGITS);
        assert_eq!(RequestId::of(&with("a\"b"), true).as_str().len(), DIGITS);
        assert_eq!(RequestId::of(&HeaderMap::new(), true).as_str().len(), DIGITS);
    }
}
