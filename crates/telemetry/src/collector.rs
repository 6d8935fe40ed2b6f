//! The HTTP client that spans are sent with: one request on one connection, blocking, on the thread of the spans.
//! Nothing but the status of an answer is of interest.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use opentelemetry_http::{HttpClient, HttpError};

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// For a request and its answer.
const TIME_LIMIT: Duration = Duration::from_secs(5);
const STATUS_LINE_BYTES_MAX: u64 = 1024;

/// Whoever takes the spans.
#[derive(Debug)]
pub(crate) struct Collector;

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = post(&request)?;
        Ok(response)
    }
}

fn post(request: &Request<Bytes>) -> io::Result<StatusCode> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let mut stream = Timed { stream: connect(authority)?, deadline: Instant::now() + TIME_LIMIT };
    let mut head = format!("POST {} HTTP/1.1\r\nHost: {authority}\r\n", request.uri().path()).into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    write!(head, "Content-Length: {}\r\nConnection: close\r\n\r\n", request.body().len())?;
    stream.write_all(&head)?;
    stream.write_all(request.body())?;
    let mut line = Vec::new();
    BufReader::new(stream).take(STATUS_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    status(&line).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

/// A connection with one deadline for all reads and writes.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn connect(authority: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<StatusCode> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    StatusCode::from_bytes(rest.get(..3)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(StatusCode::OK));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(StatusCode::SERVICE_UNAVAILABLE));
        for wrong in [&b""[..], b"HTTP/1.1 \r\n", b"HTTP/1.1 2", b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n"] {
            assert_eq!(status(wrong), None);
        }
    }
}
