//! Interim responses (RFC 9110 section 15.2) over HTTP/2. Pingora has no way to send one, so that their frames are made
//! here and put between those of the library. Fields are written as literals that no table remembers (RFC 7541 section
//! 6.2.2): the library's own encoding stays in step with the client's.

use http::{HeaderMap, HeaderName, StatusCode, header};

const FRAME_BYTES_MAX: usize = 16_384;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
/// The index of `:status` in the static table (RFC 7541 appendix A).
const STATUS: u8 = 8;
const LITERAL: u8 = 0;

/// The field that carries the stream of a request from the frames to the request.
pub(super) const STREAM: HeaderName = HeaderName::from_static("goodgate-stream");

/// The field [`STREAM`] as a literal.
pub(super) fn tag(stream: u32) -> Vec<u8> {
    let mut field = Vec::with_capacity(32);
    literal(&mut field, STREAM.as_str().as_bytes(), itoa::Buffer::new().format(stream).as_bytes());
    field
}

/// The HEADERS frame of an interim response; none if it is too long for one frame.
pub(super) fn frame(stream: u32, status: StatusCode, fields: &HeaderMap) -> Option<Vec<u8>> {
    let mut block = vec![LITERAL | STATUS];
    string(&mut block, status.as_str().as_bytes());
    for (name, value) in fields.iter().filter(|(name, _)| !is_of_connection(name)) {
        literal(&mut block, name.as_str().as_bytes(), value.as_bytes());
    }
    if block.len() > FRAME_BYTES_MAX {
        return None;
    }
    let [_, high, middle, low] = u32::try_from(block.len()).ok()?.to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    let mut frame = vec![high, middle, low, HEADERS, END_HEADERS, a, b, c, d];
    frame.extend_from_slice(&block);
    Some(frame)
}

/// RFC 9113 section 8.2.2.
fn is_of_connection(name: &HeaderName) -> bool {
    let known = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::CONTENT_LENGTH];
    known.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(LITERAL);
    string(block, name);
    string(block, value);
}

/// RFC 7541 section 5.2, without Huffman code; the length has a prefix of seven bits (section 5.1).
fn string(block: &mut Vec<u8>, text: &[u8]) {
    const PREFIX: usize = 127;
    let mut rest = text.len();
    if rest < PREFIX {
        block.push(u8::try_from(rest).unwrap_or_default());
    } else {
        block.push(127);
        rest -= PREFIX;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap_or_default() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap_or_default());
    }
    block.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_long_field_has_a_length_of_several_bytes() {
        let mut block = Vec::new();
        string(&mut block, &[b'x'; 126]);
        assert_eq!((block[0], block.len()), (126, 127));
        block.clear();
        // RFC 7541 appendix C.1.2 has the same with a prefix of five bits.
        string(&mut block, &[b'x'; 127 + 128 * 3 + 5]);
        assert_eq!(block[..3], [127, 128 | 5, 3]);
    }

    #[test]
    fn a_frame_has_the_status_and_no_field_of_the_connection() {
        let mut fields = HeaderMap::new();
        fields.insert(header::LINK, HeaderValue::from_static("<a>"));
        fields.insert(header::CONNECTION, HeaderValue::from_static("link"));
        let frame = frame(5, StatusCode::from_u16(103).unwrap(), &fields).unwrap();
        assert_eq!(frame[..9], [0, 0, 15, 1, 4, 0, 0, 0, 5]);
        assert_eq!(frame[9..], *b"\x08\x03103\x00\x04link\x03<a>");
        fields.insert(header::LINK, HeaderValue::from_bytes(&vec![b'x'; 20_000]).unwrap());
        assert!(super::frame(5, StatusCode::CONTINUE, &fields).is_none());
    }
}
