//! A client of HTTP/2 that sends any frame and any field, well-formed or not.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Gateway;
use super::tls::{Authority, shake_hands};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

/// How a stream ended, as its client sees it.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Answered,
    /// With this error code.
    Reset(u32),
    /// The connection was closed, with this error code if there was one.
    Closed(Option<u32>),
}

pub struct Frames {
    stream: TlsStream<TcpStream>,
    next: u32,
}

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field block: literals without an index and without Huffman code.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The fields of a POST.
pub const POST: [(&[u8], &[u8]); 4] =
    [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", b"/case")];

impl Frames {
    pub async fn open(gateway: &Gateway, authority: &Authority) -> Self {
        let mut config = authority.client(None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut stream = shake_hands(gateway.address, &Arc::new(config), "site.test").await.unwrap();
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&preface).await.unwrap();
        Self { stream, next: 1 }
    }

    /// The number of a new stream.
    pub fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    pub async fn send(&mut self, frames: &[Vec<u8>]) {
        // A connection that was closed meanwhile shows when it is read.
        let _ = self.stream.write_all(&frames.concat()).await;
        let _ = self.stream.flush().await;
    }

    /// How this stream ends.
    pub async fn end(&mut self, stream: u32) -> End {
        tokio::time::timeout(Duration::from_secs(20), self.read_end(stream))
            .await
            .expect("an end of the stream")
    }

    async fn read_end(&mut self, stream: u32) -> End {
        loop {
            let mut head = [0; 9];
            if self.stream.read_exact(&mut head).await.is_err() {
                return End::Closed(None);
            }
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            if self.stream.read_exact(&mut payload).await.is_err() {
                return End::Closed(None);
            }
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            let of = u32::from_be_bytes(head[5..9].try_into().unwrap());
            match head[3] {
                GOAWAY if code(4) != 0 => return End::Closed(Some(code(4))),
                RST_STREAM if of == stream => return End::Reset(code(0)),
                DATA | HEADERS if of == stream && head[4] & END_STREAM != 0 => return End::Answered,
                _ => {}
            }
        }
    }
}
