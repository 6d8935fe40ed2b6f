//! The subject of a certificate as text, escaped as RFC 4514 has it, so that two subjects never give the same text.
//!
//! The parts stand in the order of the certificate, with `, ` between them (RFC 4514 reverses them and has no space).
//! Everything that is not visible ASCII is written as a backslash and two hexadecimal digits for each byte.

use std::fmt::Write;

use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Like `CN=sensor-7, O=Example`; empty for an empty subject.
pub(super) fn of(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for (at, part) in name.iter_rdn().enumerate() {
        for (nth, attribute) in part.iter().enumerate() {
            text.push_str(match (at, nth) {
                (0, 0) => "",
                (_, 0) => ", ",
                // Several attributes of one part (RFC 4514 section 2.2).
                (_, _) => "+",
            });
            write(attribute, &mut text);
        }
    }
    text
}

/// A type without a short name and a value that is no text have the forms of section 2.4: digits and hexadecimal.
fn write(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let name = oid2abbrev(attribute.attr_type(), oid_registry());
    match (name, attribute.as_str()) {
        (Ok(name), Ok(value)) => {
            let _ = write!(text, "{name}=");
            escape(value, text);
        }
        (Ok(name), Err(_)) => {
            let _ = write!(text, "{name}=");
            encoded(attribute, text);
        }
        (Err(_), _) => {
            let _ = write!(text, "{}=", attribute.attr_type());
            encoded(attribute, text);
        }
    }
}

/// The value as the certificate has it: tag, length and content.
fn encoded(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let (header, content) = (&attribute.attr_value().header, attribute.as_slice());
    let tag = u32::from(header.class() as u8) << 6 | u32::from(header.is_constructed()) << 5 | header.tag().0;
    let _ = write!(text, "#{tag:02x}");
    let length = content.len();
    let _ = if length < 128 {
        write!(text, "{length:02x}")
    } else {
        let digits = format!("{length:x}");
        let bytes = digits.len().div_ceil(2);
        write!(text, "{:02x}{digits:0>width$}", 128 + bytes, width = 2 * bytes)
    };
    for byte in content {
        let _ = write!(text, "{byte:02x}");
    }
}

/// Section 2.4.
fn escape(value: &str, text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let is_special =
            matches!(byte, b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\') || at == 0 && byte == b'#';
        // A backslash before a space would stand alone where a header field is trimmed.
        let is_edge = byte == b' ' && (at == 0 || at == last);
        if is_edge || !matches!(byte, b' '..=b'~') {
            let _ = write!(text, "\\{byte:02X}");
            continue;
        }
        if is_special {
            text.push('\\');
        }
        text.push(char::from(byte));
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let long: &[u8] = if length < 128 { &[] } else { &[0x81] };
        [&[tag], long, &[length], content].concat()
    }

    /// `(last arc below 2.5.4, tag of the value, value)` for each attribute of each part.
    fn subject(parts: &[&[(u8, u8, &[u8])]]) -> String {
        let attribute = |(arc, tag, value): &(u8, u8, &[u8])| {
            der(0x30, &[der(6, &[0x55, 4, *arc]), der(*tag, value)].concat())
        };
        let part =
            |part: &&[(u8, u8, &[u8])]| der(0x31, &part.iter().map(attribute).collect::<Vec<_>>().concat());
        let name = der(0x30, &parts.iter().map(part).collect::<Vec<_>>().concat());
        of(&X509Name::from_der(&name).unwrap().1)
    }

    const UTF8: u8 = 12;
    const BMP: u8 = 30;
    const CN: u8 = 3;
    const O: u8 = 10;

    #[test]
    fn an_organisation_cannot_be_read_as_another_part() {
        let two = subject(&[&[(O, UTF8, b"admins")], &[(CN, UTF8, b"root")]]);
        let one = subject(&[&[(O, UTF8, b"admins, CN=root")]]);
        let multi = subject(&[&[(O, UTF8, b"admins"), (CN, UTF8, b"root")]]);
        let plus = subject(&[&[(O, UTF8, b"admins+CN=root")]]);
        assert_eq!(
            [two.as_str(), &one, &multi, &plus],
            ["O=admins, CN=root", "O=admins\\, CN=root", "O=admins+CN=root", "O=admins\\+CN=root"]
        );
    }

    #[test]
    fn special_letters_edges_and_other_bytes_are_escaped() {
        for (value, text) in [
            (&b"a\"b\\c;<d>"[..], "CN=a\\\"b\\\\c\\;\\<d\\>"),
            (b"#a#", "CN=\\#a#"),
            (b"  a  ", "CN=\\20 a \\20"),
            (b" ", "CN=\\20"),
            (b"", "CN="),
            (b"a\0b\r\n", "CN=a\\00b\\0D\\0A"),
            ("\u{e9}".as_bytes(), "CN=\\C3\\A9"),
            (b"a=b", "CN=a=b"),
        ] {
            assert_eq!(subject(&[&[(CN, UTF8, value)]]), text);
        }
    }

    #[test]
    fn unknown_types_and_values_that_are_no_text_are_hexadecimal() {
        assert_eq!(subject(&[&[(CN, UTF8, &[0xff, b'a'])]]), "CN=#0c02ff61");
        assert_eq!(subject(&[&[(CN, BMP, &[0, b'a'])]]), "CN=#1e020061");
        assert_eq!(subject(&[&[(CN, BMP, &[0; 200])]]), format!("CN=#1e81c8{}", "00".repeat(200)));
        assert_eq!(subject(&[&[(127, UTF8, b"x")]]), "2.5.4.127=#0c0178");
    }
}
