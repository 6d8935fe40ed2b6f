//! A client that sees every byte: one connection, kept or not.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::HandshakeKind;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Header lines as they came, without the status line.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body was all that its framing promised.
    pub complete: bool,
}

impl Answer {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection to the gateway.
pub struct Connection {
    stream: Box<dyn Wire>,
    buffer: Vec<u8>,
}

/// With TLS or without.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    fn tcp(&self) -> &TcpStream;
    fn handshake_kind(&self) -> Option<HandshakeKind> {
        None
    }
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.get_ref().1.handshake_kind()
    }
}

/// Longest wait for bytes before a scenario is called broken.
const READ_LIMIT: Duration = Duration::from_secs(90);

impl Connection {
    pub async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::of(stream))
    }

    /// One that was made elsewhere.
    pub fn of(stream: TcpStream) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// A connection over TLS, with what the handshake has told.
    pub fn open_tls(stream: TlsStream<TcpStream>) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Whether its TLS session is a new one.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.stream.handshake_kind()
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// A GET with these extra header lines (each with its CRLF).
    pub async fn get_with(&mut self, path: &str, headers: &str) -> std::io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await?;
        self.answer(false).await
    }

    pub async fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        self.get_with(path, "").await
    }

    /// Waits until these bytes have come; they stay to be read.
    pub async fn sees(&mut self, wanted: &[u8]) {
        while !self.buffer.windows(wanted.len()).any(|window| window == wanted) {
            let fill = tokio::time::timeout(super::PATIENCE, self.fill()).await;
            let has_come = matches!(fill, Ok(Ok(count)) if count > 0);
            let (wanted, seen) = (String::from_utf8_lossy(wanted), String::from_utf8_lossy(&self.buffer));
            assert!(has_come, "{wanted:?} has not come, only {seen:?}: {fill:?}");
        }
    }

    /// Waits for at least this many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await.expect("bytes") > 0, "closed early");
        }
        self.buffer.drain(..count).collect()
    }

    /// Whether the other side closes within the limit without a byte more.
    pub async fn closes(&mut self, limit: Duration) -> bool {
        matches!(tokio::time::timeout(limit, self.fill()).await, Ok(Ok(0) | Err(_)))
    }

    /// Says that nothing more will be sent.
    pub async fn half_close(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// All that still comes until the other side closes; an error if it does not.
    pub async fn rest(&mut self, limit: Duration) -> std::io::Result<Vec<u8>> {
        let all = async { while self.fill().await.is_ok_and(|count| count > 0) {} };
        tokio::time::timeout(limit, all).await?;
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Goes without a word: what is under way is reset.
    pub fn reset(self) {
        let _ = self.stream.tcp().set_zero_linger();
    }

    /// Reads one final answer; interim ones are skipped.
    pub async fn answer(&mut self, to_head: bool) -> std::io::Result<Answer> {
        Ok(self.answers(to_head).await?.1)
    }

    /// Reads one final answer, and the statuses of the interim ones before it.
    pub async fn answers(&mut self, to_head: bool) -> std::io::Result<(Vec<u16>, Answer)> {
        let mut interim = Vec::new();
        loop {
            let head = self.head().await?;
            let mut lines = head.split("\r\n");
            let status_line = lines.next().unwrap_or_default().to_owned();
            let status: u16 =
                status_line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let mut answer = Answer { status, headers, body: Vec::new(), complete: true };
            if !to_head && !matches!(status, 101 | 204 | 304) {
                self.body(&mut answer).await;
            }
            return Ok((interim, answer));
        }
    }

    async fn head(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return Ok(head);
            }
            if self.fill().await? == 0 {
                let what = if self.buffer.is_empty() {
                    "closed without an answer"
                } else {
                    "closed within a header"
                };
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what));
            }
        }
    }

    async fn body(&mut self, answer: &mut Answer) {
        if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            answer.complete = self.chunks(&mut answer.body).await;
        } else if let Some(length) = answer.header("content-length").and_then(|length| length.parse().ok()) {
            while self.buffer.len() < length && self.fill().await.is_ok_and(|count| count > 0) {}
            answer.complete = self.buffer.len() >= length;
            answer.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else {
            while self.fill().await.is_ok_and(|count| count > 0) {}
            answer.body = std::mem::take(&mut self.buffer);
        }
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(size) = self.line().await.and_then(|line| usize::from_str_radix(line.trim(), 16).ok())
            else {
                return false;
            };
            while self.buffer.len() < size + 2 {
                if !self.fill().await.is_ok_and(|count| count > 0) {
                    body.append(&mut self.buffer);
                    return false;
                }
            }
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return true;
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Some(line);
            }
            if !self.fill().await.is_ok_and(|count| count > 0) {
                return None;
            }
        }
    }

    async fn fill(&mut self) -> std::io::Result<usize> {
        let read = self.stream.read_buf(&mut self.buffer);
        tokio::time::timeout(READ_LIMIT, read).await.map_err(|_| std::io::ErrorKind::TimedOut)?
    }
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")).await
}

/// One GET by the address itself, as an operator asks.
pub async fn get_admin(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await
}

/// One request, given as its bytes, on a connection of its own.
pub async fn request(address: SocketAddr, bytes: &str) -> std::io::Result<Answer> {
    let mut connection = Connection::open(address).await?;
    connection.send(bytes).await?;
    connection.answer(bytes.starts_with("HEAD ")).await
}
