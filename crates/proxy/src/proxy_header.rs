//! The PROXY header that a load balancer in front puts before everything else, to say who its client is
//! (versions 1 and 2 of the PROXY protocol).

use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The fixed part of version 2, its length included.
const V2_FIXED_BYTES: usize = 16;
/// Both versions are at least this long, and differ here.
const FIRST_BYTES: usize = 12;
/// The longest header of version 1.
const V1_BYTES_MAX: usize = 107;
/// More than any header of version 2 that is sent.
const V2_BYTES_MAX: usize = 4096;

/// What a connection begins with instead of a PROXY header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoHeader;

/// Reads exactly the header. The address of the client, or nothing if the sender speaks for itself (its own
/// checks, or an address that is none of IP). An error if there is no header: nothing more must be read.
pub(crate) async fn read(tcp: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, NoHeader> {
    let mut bytes = vec![0; FIRST_BYTES];
    tcp.read_exact(&mut bytes).await.map_err(|_| NoHeader)?;
    if bytes == v2::PROTOCOL_PREFIX {
        read_v2(tcp, &mut bytes).await?;
    } else if bytes.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        read_v1(tcp, &mut bytes).await?;
    } else {
        return Err(NoHeader);
    }
    client(&bytes)
}

/// The rest of a binary header; its length stands in it.
async fn read_v2(tcp: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<(), NoHeader> {
    bytes.resize(V2_FIXED_BYTES, 0);
    let rest = bytes.get_mut(FIRST_BYTES..).ok_or(NoHeader)?;
    tcp.read_exact(rest).await.map_err(|_| NoHeader)?;
    let [.., high, low] = bytes.as_slice() else { return Err(NoHeader) };
    let total = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if total > V2_BYTES_MAX {
        return Err(NoHeader);
    }
    bytes.resize(total, 0);
    let rest = bytes.get_mut(V2_FIXED_BYTES..).ok_or(NoHeader)?;
    tcp.read_exact(rest).await.map(|_| ()).map_err(|_| NoHeader)
}

/// The rest of a line. It is read byte by byte, since what follows is not ours.
async fn read_v1(tcp: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<(), NoHeader> {
    while !bytes.ends_with(v1::PROTOCOL_SUFFIX.as_bytes()) {
        if bytes.len() == V1_BYTES_MAX {
            return Err(NoHeader);
        }
        bytes.push(tcp.read_u8().await.map_err(|_| NoHeader)?);
    }
    Ok(())
}

fn client(bytes: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(header) => Ok(match header.map_err(|_| NoHeader)?.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(header) => {
            let header = header.map_err(|_| NoHeader)?;
            Ok(match header.addresses {
                _ if header.command == v2::Command::Local => None,
                v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
                v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a connection, and what is left for others.
    async fn read_of(bytes: &[u8]) -> (Result<Option<String>, NoHeader>, Vec<u8>) {
        let mut rest = bytes;
        let client = read(&mut rest).await.map(|client| client.map(|client| client.to_string()));
        (client, rest.to_vec())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, body, b"GET"].concat()
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_nothing_behind_them_is_read() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
        let six = [
            [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].as_slice(),
            &[0; 16],
            &[0x1f, 0x90, 0, 80],
        ]
        .concat();
        let with_tlv = [four.as_slice(), &[4, 0, 1, 9]].concat();
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\nGET".to_vec(), Some("192.0.2.7:8080")),
            (b"PROXY TCP6 2001:db8::1 ::1 8080 80\r\nGET".to_vec(), Some("[2001:db8::1]:8080")),
            (b"PROXY UNKNOWN\r\nGET".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\nGET".to_vec(), None),
            (v2(1, 0x11, &four), Some("192.0.2.7:8080")),
            (v2(1, 0x21, &six), Some("[2001:db8::1]:8080")),
            (v2(1, 0x11, &with_tlv), Some("192.0.2.7:8080")),
            (v2(0, 0x11, &four), None),
            (v2(0, 0, &[]), None),
            (v2(1, 0, &[]), None),
        ] {
            let (read, rest) = read_of(&bytes).await;
            assert_eq!(read.unwrap().as_deref(), client, "{}", bytes.escape_ascii());
            assert_eq!(rest, b"GET", "{}", bytes.escape_ascii());
        }
    }

    #[tokio::test]
    async fn anything_else_is_no_header() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"".to_vec(),
            b"PROXY".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 808000 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 8080 80\r\n".to_vec(),
            b"PROXY TCP4 localhost 10.0.0.1 1 2\r\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(),
            v2(1, 0x11, &[1, 2, 3]),
            v2(1, 0x11, &[0; 5000]),
            v2(7, 0x11, &[0; 12]),
        ] {
            assert_eq!(read_of(&bytes).await.0, Err(NoHeader), "{}", bytes.escape_ascii());
        }
    }
}
