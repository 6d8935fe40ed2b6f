//! A backend that keeps what it gets and reads it by the letter of RFC 9112: one request, one reading.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A complete request as a backend reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Method and target.
    pub line: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn new(line: &str, body: &str) -> Self {
        Self { line: line.to_owned(), body: body.as_bytes().to_vec() }
    }
}

/// The backend.
pub struct Recorder {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Received>>,
    heads: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
    total: AtomicUsize,
    bytes: AtomicUsize,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let of_all = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&of_all)));
            }
        });
        Self { address, shared }
    }

    /// Requests so far.
    pub fn total(&self) -> usize {
        self.shared.total.load(Ordering::SeqCst)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// The heads as they came since the last time, in lower case.
    pub fn heads(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.heads.lock())
    }

    /// The requests that have come since the last time.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.shared.requests.lock())
    }

    /// What could not be read since the last time.
    pub fn wrong(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.wrong.lock())
    }

    /// Whether exactly these requests have come since the last time, each with one reading.
    pub async fn took(&self, expected: &[Received]) -> Result<(), String> {
        let start = Instant::now();
        while self.shared.requests.lock().len() < expected.len() && start.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let requests = std::mem::take(&mut *self.shared.requests.lock());
        let wrong = std::mem::take(&mut *self.shared.wrong.lock());
        if !wrong.is_empty() {
            return Err(format!("the backend cannot read {wrong:?}"));
        }
        if requests == expected { Ok(()) } else { Err(format!("the backend received {requests:?}")) }
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut bytes = Vec::new();
    loop {
        match read(&bytes) {
            Ok(Some((request, length))) => {
                let head = find(&bytes, b"\r\n\r\n").unwrap_or_default() + 4;
                shared.heads.lock().push(String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase());
                bytes.drain(..length);
                let body = if request.line.starts_with("HEAD ") { "" } else { "ok" };
                shared.requests.lock().push(request);
                shared.total.fetch_add(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                // A kept connection carries the next request only after this answer.
                if !bytes.is_empty() {
                    shared.wrong.lock().push(format!("bytes behind a request: {}", bytes.escape_ascii()));
                    return;
                }
            }
            Ok(None) => {
                if wants_100(&bytes) && stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                    return;
                }
                match stream.read_buf(&mut bytes).await {
                    Ok(count) if count > 0 => _ = shared.bytes.fetch_add(count, Ordering::SeqCst),
                    _ => return,
                }
            }
            Err(what) => {
                shared.wrong.lock().push(format!("{what}: {}", bytes.escape_ascii()));
                return;
            }
        }
    }
}

/// The head is there and waits for a go-ahead.
fn wants_100(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    text.ends_with("\r\n\r\n") && text.contains("\r\nexpect: 100-continue\r\n")
}

/// A request at the front of the bytes and its length; nothing yet; or what is wrong.
fn read(bytes: &[u8]) -> Result<Option<(Received, usize)>, &'static str> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().strip_suffix(" HTTP/1.1").ok_or("not HTTP/1.1")?;
    if line.split(' ').count() != 2 || !line.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
        return Err("a bad request line");
    }
    let (mut hosts, mut lengths, mut codings) = (0, Vec::new(), Vec::new());
    for field in lines {
        let (name, value) = field.split_once(':').ok_or("no colon")?;
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        {
            return Err("a bad name");
        }
        if value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
            return Err("a control character");
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" => {
                lengths.push(value.trim_matches(' ').parse::<u32>().map_err(|_| "a bad length")?)
            }
            "transfer-encoding" => codings.push(value.trim_matches(' ')),
            _ => {}
        }
    }
    let start = end + 4;
    let body = match (hosts, lengths.as_slice(), codings.as_slice()) {
        (1, [], []) => Some((Vec::new(), start)),
        (1, [length], []) => {
            let stop = start + *length as usize;
            bytes.get(start..stop).map(|body| (body.to_vec(), stop))
        }
        (1, [], ["chunked"]) => chunks(bytes, start)?,
        _ => return Err("not one Host and one framing"),
    };
    Ok(body.map(|(body, length)| (Received { line: line.to_owned(), body }, length)))
}

fn chunks(bytes: &[u8], mut at: usize) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap_or_default();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a bad chunk size");
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| "a huge chunk")?;
        let (data, stop) = (at + line + 2, at + line + 2 + size);
        let Some(end) = bytes.get(stop..stop + 2) else {
            return Ok(None);
        };
        if end != b"\r\n" {
            return Err("no CRLF behind a chunk");
        }
        body.extend_from_slice(&bytes[data..stop]);
        at = stop + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
