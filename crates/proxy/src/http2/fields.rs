//! Reads the field blocks of HTTP/2 (HPACK, RFC 7541) far enough to tell whether one has a pseudo-header field.
//!
//! The h2 library drops pseudo-header fields of trailers without an error. To see them, every block of a connection is
//! followed: entries of the dynamic table are kept as their size and kind, never as text.

use std::collections::VecDeque;

/// The table size that the gateway allows: it announces no other (RFC 9113 section 6.5.2).
const TABLE_BYTES_MAX: usize = 4096;
/// What an entry costs besides its text (RFC 7541 section 4.1).
const ENTRY_BYTES: usize = 32;
/// Of a literal name in Huffman code, the first seven bits: the code of `:`.
const HUFFMAN_COLON: u8 = 0x5c;

/// The names of the static table (RFC 7541 appendix A).
const STATIC_NAMES: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];
/// The Huffman code is canonical (RFC 7541 appendix B): codes of each length are below a limit. Lengths in bits, and
/// the limits with the code in the upper bits.
const CODES: [(u32, u32); 21] = [
    (5, 0xa << 27),
    (6, 0x2e << 26),
    (7, 0x7c << 25),
    (8, 0xfe << 24),
    (10, 0x3fd << 22),
    (11, 0x7fd << 21),
    (12, 0xffc << 20),
    (13, 0x1ffe << 19),
    (14, 0x3ffe << 18),
    (15, 0x7fff << 17),
    (19, 0x7_fff3 << 13),
    (20, 0xf_ffee << 12),
    (21, 0x1f_ffe9 << 11),
    (22, 0x3f_ffec << 10),
    (23, 0x7f_fff5 << 9),
    (24, 0xff_fff6 << 8),
    (25, 0x1ff_fff0 << 7),
    (26, 0x3ff_ffef << 6),
    (27, 0x7ff_fff1 << 5),
    (28, 0xfff_ffff << 4),
    (30, u32::MAX),
];

/// The dynamic table of a connection, as far as it matters.
#[derive(Debug)]
pub(super) struct FieldBlocks {
    /// The newest first.
    entries: VecDeque<TableEntry>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct TableEntry {
    name: FieldName,
    value_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct FieldName {
    bytes: usize,
    is_pseudo: bool,
}

impl TableEntry {
    const fn bytes(self) -> usize {
        self.name.bytes + self.value_bytes + ENTRY_BYTES
    }
}

impl Default for FieldBlocks {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES_MAX }
    }
}

impl FieldBlocks {
    /// Follows the next block of the connection. Whether it has a pseudo-header field; none if it cannot be read.
    pub(super) fn read(&mut self, block: &[u8]) -> Option<bool> {
        let mut has_pseudo = false;
        let mut rest = block;
        while let [first, ..] = rest {
            has_pseudo |= match first {
                0x80.. => self.name(integer(&mut rest, 7)?)?.is_pseudo,
                0x40..=0x7f => self.literal(&mut rest, 6, true)?,
                0x20..=0x3f => self.resize(integer(&mut rest, 5)?)?,
                0x00..=0x1f => self.literal(&mut rest, 4, false)?,
            };
        }
        Some(has_pseudo)
    }

    /// A field with a value of its own. Whether it is a pseudo-header field.
    fn literal(&mut self, rest: &mut &[u8], prefix: u32, is_stored: bool) -> Option<bool> {
        let name = match integer(rest, prefix)? {
            0 => {
                let name = StringLiteral::read(rest)?;
                FieldName { bytes: name.length()?, is_pseudo: name.begins_with_colon() }
            }
            index => self.name(index)?,
        };
        let value = StringLiteral::read(rest)?;
        if is_stored {
            self.insert(TableEntry { name, value_bytes: value.length()? });
        }
        Some(name.is_pseudo)
    }

    fn name(&self, index: usize) -> Option<FieldName> {
        let at = index.checked_sub(1)?;
        match STATIC_NAMES.get(at) {
            Some(name) => Some(FieldName { bytes: name.len(), is_pseudo: name.starts_with(':') }),
            None => self.entries.get(at - STATIC_NAMES.len()).map(|entry| entry.name),
        }
    }

    fn insert(&mut self, entry: TableEntry) {
        let room = self.bytes_max.checked_sub(entry.bytes());
        self.shrink(room.unwrap_or_default());
        if room.is_some() {
            self.bytes += entry.bytes();
            self.entries.push_front(entry);
        }
    }

    fn resize(&mut self, bytes_max: usize) -> Option<bool> {
        (bytes_max <= TABLE_BYTES_MAX).then_some(())?;
        self.bytes_max = bytes_max;
        self.shrink(bytes_max);
        Some(false)
    }

    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.bytes -= oldest.bytes();
        }
    }
}

/// A string literal (RFC 7541 section 5.2).
struct StringLiteral<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

impl<'a> StringLiteral<'a> {
    fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let is_huffman = rest.first()? & 0x80 != 0;
        let length = integer(rest, 7)?;
        let (bytes, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(Self { bytes, is_huffman })
    }

    fn begins_with_colon(&self) -> bool {
        self.bytes
            .first()
            .is_some_and(|first| if self.is_huffman { first >> 1 == HUFFMAN_COLON } else { *first == b':' })
    }

    /// Its decoded length. None: it holds the end-of-string code or too much padding.
    fn length(&self) -> Option<usize> {
        if self.is_huffman { decoded_length(self.bytes) } else { Some(self.bytes.len()) }
    }
}

fn decoded_length(code: &[u8]) -> Option<usize> {
    let mut bytes = code.iter();
    // Unread bits, the first one uppermost; behind the text there are only ones.
    let (mut window, mut filled) = (u64::MAX, 0);
    let mut length = 0;
    loop {
        while filled <= 56
            && let Some(byte) = bytes.next()
        {
            let at = 56 - filled;
            window = window & !(0xff << at) | u64::from(*byte) << at;
            filled += 8;
        }
        let head = u32::try_from(window >> 32).ok()?;
        let bits = CODES.iter().find(|(_, limit)| head < *limit).map(|(bits, _)| *bits);
        let Some(bits) = bits.filter(|bits| *bits <= filled) else {
            return (filled < 8).then_some(length);
        };
        length += 1;
        window = window << bits | ((1 << bits) - 1);
        filled -= bits;
    }
}

/// An integer whose first byte has this many bits of it (RFC 7541 section 5.1).
fn integer(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, mut after) = rest.split_first()?;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (byte, next) = after.split_first()?;
            after = next;
            // Four bytes are more than any length that a block can have.
            (shift < 28).then_some(())?;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = after;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn integers_are_those_of_the_examples() {
        for (hex, prefix, expected) in [("0a", 5, 10), ("1f9a0a", 5, 1337), ("2a", 8, 42)] {
            let text = bytes(hex);
            let mut rest = text.as_slice();
            assert_eq!((integer(&mut rest, prefix), rest), (Some(expected), [].as_slice()));
        }
        assert_eq!(integer(&mut bytes("1fffffffffff7f").as_slice(), 5), None);
        assert_eq!(integer(&mut bytes("1f").as_slice(), 5), None);
    }

    #[test]
    fn the_length_of_a_huffman_string_is_that_of_its_text() {
        for (hex, text) in [
            ("f1e3 c2e5 f23a 6ba0 ab90 f4ff", "www.example.com"),
            ("a8eb 1064 9cbf", "no-cache"),
            ("25a8 49e9 5ba9 7d7f", "custom-key"),
            ("25a8 49e9 5bb8 e8b4 bf", "custom-value"),
            ("6402", "302"),
            ("d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            (
                "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
            ("", ""),
        ] {
            assert_eq!(decoded_length(&bytes(hex)), Some(text.len()), "{text}");
        }
        for count in 1..8 {
            assert_eq!(
                decoded_length(&vec![0xff; count]),
                None,
                "padding of a byte, or the end-of-string code"
            );
        }
    }

    /// RFC 7541 appendix C.4: three requests on one connection. The sizes of the table are those given there.
    #[test]
    fn the_table_is_followed_over_several_requests() {
        let mut blocks = FieldBlocks::default();
        for (hex, table) in [
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", 57),
            ("8286 84be 5886 a8eb 1064 9cbf", 110),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", 164),
        ] {
            assert_eq!(blocks.read(&bytes(hex)), Some(true));
            assert_eq!(blocks.bytes, table);
        }
        assert_eq!(blocks.read(&[0xbe]), Some(false), "custom-key");
        assert_eq!(blocks.read(&[0xc0]), Some(true), ":authority is the oldest entry");
        assert_eq!(blocks.read(&[0xc1]), None);
    }

    /// RFC 7541 appendix C.6: responses, with a table of 256 bytes that evicts.
    #[test]
    fn entries_are_evicted() {
        let mut blocks = FieldBlocks { bytes_max: 256, ..FieldBlocks::default() };
        for (hex, table) in [
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                222,
            ),
            ("4883 640e ffc1 c0bf", 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                215,
            ),
        ] {
            assert_eq!(blocks.read(&bytes(hex)), Some(true));
            assert_eq!(blocks.bytes, table);
        }
        assert_eq!(blocks.read(&bytes("20")), Some(false), "a table of no size");
        assert_eq!((blocks.bytes, blocks.entries.len()), (0, 0));
        assert_eq!(blocks.read(&bytes("3fe21f")), None, "4097 bytes are more than was allowed");
    }

    #[test]
    fn a_pseudo_header_field_is_seen_however_it_is_written() {
        for (hex, has_pseudo) in [
            ("", false),
            ("82", true),
            ("8e", true),
            ("8f", false),
            ("0401 61", true),
            ("1401 61", true),
            ("4401 61", true),
            ("0f00 0161", false),
            ("0005 3a70 6174 6801 2f", true),
            ("1005 3a70 6174 6801 2f", true),
            ("4005 3a70 6174 6801 2f", true),
            ("0084 b958 d33f 01 2f", true),
            ("0001 7801 3a", false),
        ] {
            assert_eq!(FieldBlocks::default().read(&bytes(hex)), Some(has_pseudo), "{hex}");
        }
        let mut blocks = FieldBlocks::default();
        blocks.read(&bytes("4002 3a78 0161 4001 7801 61")).unwrap();
        assert_eq!(blocks.read(&bytes("be")), Some(false));
        assert_eq!(blocks.read(&bytes("bf")), Some(true));
        assert_eq!(blocks.read(&bytes("0f30 0161")), Some(true), "a value for the name of an entry");
        for broken in ["80", "c4", "40", "4005 61", "0401", "ff"] {
            assert_eq!(FieldBlocks::default().read(&bytes(broken)), None, "{broken}");
        }
    }
}
