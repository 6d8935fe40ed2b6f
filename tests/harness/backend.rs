//! A backend whose next answers are a value: [`Act`]. It speaks raw bytes, so that it can be as wrong as
//! the real ones are.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};

/// What a backend does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// A status with a small body that names the backend and the request's path.
    Answer(u16),
    /// Exactly these bytes, then the connection is kept.
    Bytes(Vec<u8>),
    /// Exactly these bytes, then it is closed.
    BytesThenClose(Vec<u8>),
    /// Exactly these bytes, then silence.
    BytesThenHang(Vec<u8>),
    /// A status with more header lines (each with its CRLF) and a body.
    Page { status: u16, headers: String, body: String },
    /// Exactly these bytes, then it is reset.
    BytesThenReset(Vec<u8>),
    /// These bytes one by one, with a pause behind each.
    Drip(Vec<u8>, Duration),
    /// These bytes again and again, as long as somebody takes them.
    Storm(Vec<u8>),
    /// The same, after a pause.
    Slow(Duration, Box<Act>),
    /// Closed without a byte.
    Close,
    /// Reset.
    Reset,
    /// Answers the first request of a connection, and closes it without a byte when a second one comes.
    AnswerOnce(u16),
    /// No answer ever.
    Hang,
    /// An answer made from the request's head.
    Reply(fn(&str) -> String),
    /// These bytes, and the rest once the gate is open.
    Gated { first: Vec<u8>, gate: Gate, rest: Box<Act> },
    /// WebSocket-like: 101, then every byte comes back.
    Echo,
}

/// Holds back what a backend does until a scenario opens it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn shut() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// From now on nothing is held back.
    pub fn open(&self) {
        self.0.close();
    }

    pub async fn passed(&self) {
        // It never has permits: the wait ends when it is closed.
        let _ = self.0.acquire().await;
    }
}

/// How long the news of a close is on its way.
const CLOSE_TRAVELS: Duration = Duration::from_millis(20);

/// A page with these extra header lines.
pub fn page(headers: &str, body: &str) -> Act {
    Act::Page { status: 200, headers: headers.to_owned(), body: body.to_owned() }
}

/// A backend on a port of its own.
pub struct Backend {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    life: watch::Sender<u64>,
}

struct Shared {
    address: Mutex<Option<SocketAddr>>,
    act: Mutex<Act>,
    requests: AtomicU64,
    connections: AtomicU64,
    heads: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Vec<u8>>>,
    aside: Mutex<Option<(String, Act)>>,
    idle_limit: Mutex<Option<Duration>>,
    /// Holds the port of a dead backend, so that nobody else answers there.
    closed_port: Mutex<Option<TcpSocket>>,
}

/// Several backends on one port: on 127.0.0.1, 127.0.0.2 and so on.
pub async fn backends_on_one_port<const N: usize>(acts: [Act; N]) -> [Backend; N] {
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < super::PATIENCE, "no port is free on all addresses");
        let first = listen_on("127.0.0.1:0".parse().unwrap()).expect("a free port");
        let port = first.local_addr().unwrap().port();
        let mut listeners = vec![first];
        for host in 2..=u8::try_from(N).unwrap() {
            listeners.extend(listen_on((Ipv4Addr::new(127, 0, 0, host), port).into()));
        }
        if listeners.len() == N {
            let all: Vec<Backend> =
                listeners.into_iter().zip(acts).map(|(listener, act)| Backend::on(listener, act)).collect();
            return all.try_into().ok().expect("as many as acts");
        }
    }
}

/// Several backends at once.
pub async fn backends<const N: usize>(acts: [Act; N]) -> [Backend; N] {
    let mut all = Vec::new();
    for act in acts {
        all.push(Backend::start(act).await);
    }
    all.try_into().ok().expect("as many as acts")
}

impl Backend {
    pub async fn start(act: Act) -> Self {
        Self::on(listen_on("127.0.0.1:0".parse().unwrap()).expect("a free port"), act)
    }

    fn on(listener: TcpListener, act: Act) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            address: Mutex::new(Some(address)),
            act: Mutex::new(act),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            heads: Mutex::default(),
            bodies: Mutex::default(),
            aside: Mutex::default(),
            idle_limit: Mutex::default(),
            closed_port: Mutex::default(),
        });
        let (life, dead) = watch::channel(0);
        tokio::spawn(accept(listener, Arc::clone(&shared), dead));
        Self { address, shared, life }
    }

    /// From now on it does this.
    pub fn set(&self, act: Act) {
        *self.shared.act.lock() = act;
    }

    /// Requests on this path get this and are not counted (health checks).
    pub fn set_on(&self, path: &str, act: Act) {
        *self.shared.aside.lock() = Some((path.to_owned(), act));
    }

    /// From now on a connection that is idle for this long after an answer is closed. As over a real network
    /// the other side hears of it a little later, and what it sends meanwhile is lost.
    pub fn close_idle_after(&self, limit: Duration) {
        *self.shared.idle_limit.lock() = Some(limit);
    }

    /// Requests seen so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().clone()
    }

    /// The bodies of all requests so far.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.shared.bodies.lock().clone()
    }

    /// The process dies: from now on no request is answered, the port closes, every connection ends.
    pub fn kill(&self) {
        self.life.send_modify(|life| *life += 1);
    }

    /// The same, and waits until nothing of it is left.
    pub async fn die(&self) {
        self.kill();
        super::eventually("the backend is gone", || async {
            self.connections() == 0 && self.shared.closed_port.lock().is_some()
        })
        .await;
    }

    /// It comes back on its port.
    pub async fn revive(&mut self) {
        self.die().await;
        let socket = self.shared.closed_port.lock().take().expect("the port was kept");
        let (life, dead) = watch::channel(0);
        tokio::spawn(accept(socket.listen(1024).unwrap(), Arc::clone(&self.shared), dead));
        self.life = life;
    }

    /// A backend that has died before anybody asked: its port is closed.
    pub async fn refusing() -> Self {
        let backend = Self::start(Act::Hang).await;
        backend.die().await;
        backend
    }
}

/// An address where connections are neither accepted nor refused: its queue is full.
pub struct BlackHole {
    pub address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub async fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        let brief = Duration::from_millis(100);
        while let Ok(Ok(stream)) = tokio::time::timeout(brief, TcpStream::connect(address)).await {
            queued.push(stream);
        }
        Self { address, _listener: listener, _queued: queued }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut dead: watch::Receiver<u64>) {
    loop {
        tokio::select! {
            biased;
            _ = dead.changed() => break,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (shared, mut dead, life) = (Arc::clone(&shared), dead.clone(), dead.clone());
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(stream, &shared, &life) => {}
                        _ = dead.changed() => {}
                    }
                    shared.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }
    // Taken before it is given up, so that nobody else gets the port.
    let socket = bound_to(listener.local_addr().unwrap()).unwrap();
    drop(listener);
    *shared.closed_port.lock() = Some(socket);
}

fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    bound_to(address)?.listen(1024)
}

/// A socket whose address another one of ours may have, too.
fn bound_to(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn serve(mut stream: TcpStream, shared: &Shared, life: &watch::Receiver<u64>) {
    let mut buffer = Vec::new();
    let mut served = 0;
    while let Some(head) = next_head(&mut stream, &mut buffer, shared, served).await {
        let body = read_body(&mut stream, &mut buffer, &head).await;
        served += 1;
        if life.has_changed().unwrap_or(true) {
            return;
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let aside = shared.aside.lock().clone().filter(|(aside, _)| *aside == path);
        if let Some((_, act)) = aside {
            if !perform(&mut stream, act, &head, shared).await {
                return;
            }
            continue;
        }
        shared.requests.fetch_add(1, Ordering::SeqCst);
        shared.heads.lock().push(head.clone());
        shared.bodies.lock().push(body);
        let mut act = shared.act.lock().clone();
        if let Act::AnswerOnce(status) = act {
            act = if served == 1 { Act::Answer(status) } else { Act::Close };
        }
        if !perform(&mut stream, act, &head, shared).await {
            return;
        }
    }
}

/// Whether the connection is kept.
async fn perform(stream: &mut TcpStream, act: Act, head: &str, shared: &Shared) -> bool {
    let is_head = head.starts_with("HEAD ");
    match act {
        Act::Answer(status) => {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let address = shared.address.lock().map(|address| address.to_string()).unwrap_or_default();
            let body = format!("{status} from {address} for {path}\n");
            stream.write_all(response(status, "", &body, is_head).as_bytes()).await.is_ok()
        }
        Act::Page { status, headers, body } => {
            stream.write_all(response(status, &headers, &body, is_head).as_bytes()).await.is_ok()
        }
        Act::Bytes(bytes) => stream.write_all(&bytes).await.is_ok(),
        Act::BytesThenClose(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            false
        }
        Act::BytesThenHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            hang(stream).await
        }
        Act::BytesThenReset(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.set_zero_linger();
            false
        }
        Act::Drip(bytes, pause) => {
            for byte in bytes {
                if stream.write_all(&[byte]).await.is_err() {
                    return false;
                }
                tokio::time::sleep(pause).await;
            }
            true
        }
        Act::Storm(bytes) => {
            while stream.write_all(&bytes).await.is_ok() {}
            false
        }
        Act::Slow(pause, act) => {
            tokio::time::sleep(pause).await;
            Box::pin(perform(stream, *act, head, shared)).await
        }
        Act::Reply(reply) => {
            let text = reply(head);
            stream.write_all(text.as_bytes()).await.is_ok()
        }
        Act::Close | Act::AnswerOnce(_) => false,
        Act::Reset => {
            let _ = stream.set_zero_linger();
            false
        }
        Act::Hang => hang(stream).await,
        Act::Gated { first, gate, rest } => {
            let begun = stream.write_all(&first).await.is_ok();
            gate.passed().await;
            begun && Box::pin(perform(stream, *rest, head, shared)).await
        }
        Act::Echo => echo(stream).await,
    }
}

async fn hang(stream: &mut TcpStream) -> bool {
    let mut waste = [0; 1024];
    while stream.read(&mut waste).await.is_ok_and(|count| count > 0) {}
    false
}

async fn echo(stream: &mut TcpStream) -> bool {
    let upgrade = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    if stream.write_all(upgrade).await.is_err() {
        return false;
    }
    let mut bytes = [0; 1024];
    while let Ok(count) = stream.read(&mut bytes).await {
        if count == 0 || stream.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
    false
}

/// A response with a length.
pub fn response(status: u16, headers: &str, body: &str, is_head: bool) -> String {
    let shown = if is_head { "" } else { body };
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{shown}", body.len())
}

/// The head of the next request; none if the connection ends, or was idle for as long as it may be.
async fn next_head(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    shared: &Shared,
    served: u32,
) -> Option<String> {
    let limit = shared.idle_limit.lock().filter(|_| served > 0);
    match limit {
        None => read_head(stream, buffer).await,
        Some(limit) => match tokio::time::timeout(limit, read_head(stream, buffer)).await {
            Ok(head) => head,
            Err(_) => {
                tokio::time::sleep(CLOSE_TRAVELS).await;
                None
            }
        },
    }
}

/// The next head, taken out of what has been read; none at the end.
pub async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end + 4]).into_owned();
            buffer.drain(..end + 4);
            return Some(head);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

pub async fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &str) -> Vec<u8> {
    let lower = head.to_ascii_lowercase();
    if lower.contains("expect: 100-continue") {
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    if let Some(length) = length.and_then(|length| length.trim().parse::<usize>().ok()) {
        while buffer.len() < length && stream.read_buf(buffer).await.is_ok_and(|count| count > 0) {}
        return buffer.drain(..length.min(buffer.len())).collect();
    }
    if lower.contains("transfer-encoding: chunked") {
        while !buffer.ends_with(b"0\r\n\r\n") && stream.read_buf(buffer).await.is_ok_and(|count| count > 0) {}
        return std::mem::take(buffer);
    }
    Vec::new()
}
