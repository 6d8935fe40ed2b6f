//! Accepting on the admin listener, and reading the heads of its requests under a deadline.

use std::sync::Arc;
use std::time::Duration;

use log::warn;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::Admin;
use crate::places::{AdminPlace, AdminPlaces};

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a head may take, from the first byte or the connection on.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may wait for another request.
const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// The longest head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How long a request may take, with its body and its response.
const EXCHANGE_LIMIT: Duration = Duration::from_mins(1);
/// How long the unread rest of a body may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// To a request on a place that is reserved for the health pages.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 50\r\n\
Content-Type: text/plain\r\nConnection: close\r\n\r\n503: the admin listener has too many connections.\n";

/// Serves the operator's side until the process ends: while the gateway drains it still answers.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: ShutdownWatch) {
    let places = Arc::new(AdminPlaces::default());
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                if let Some(place) = places.enter() {
                    tokio::spawn(converse(tcp, Arc::clone(&admin), shutdown.clone(), place));
                }
            }
            Err(error) => {
                warn!(error:% = error; "a connection to the admin listener cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection to its end.
async fn converse(tcp: TcpStream, admin: Arc<Admin>, shutdown: ShutdownWatch, mut place: AdminPlace) {
    let mut stream = Box::new(Stream::from(tcp));
    let mut wait = HEAD_LIMIT;
    loop {
        let head = tokio::select! {
            biased;
            head = read_head(&mut stream, wait) => head,
            () = place.must_leave() => None,
        };
        let Some(head) = head.filter(|_| place.has_head()) else {
            return;
        };
        if place.is_reserved && !is_of_health(&head) {
            // The answer fits into the socket's buffer.
            let _ = timeout(HEAD_LIMIT, refuse(&mut stream)).await;
            return;
        }
        stream.rewind(&head);
        let exchange = exchange(stream, &admin, &shutdown);
        let Ok(Some(next)) = timeout(EXCHANGE_LIMIT, exchange).await else {
            return;
        };
        stream = next;
        wait = IDLE_LIMIT;
        place.waits_for_head();
    }
}

async fn refuse(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(BUSY).await?;
    stream.shutdown().await
}

/// One request whose head has come; the connection if it is kept.
async fn exchange(stream: Box<Stream>, admin: &Arc<Admin>, shutdown: &ShutdownWatch) -> Option<Box<Stream>> {
    let mut session = ServerSession::new_http1(stream);
    session.set_total_drain_timeout(Some(DRAIN_LIMIT));
    let (stream, _settings) = admin.process_new_http(session, shutdown).await?.consume();
    stream.into_any().downcast().ok()
}

/// Reads up to the end of a head, and what comes with it. None: it is too long, too late, or the client has left.
async fn read_head(stream: &mut Stream, wait: Duration) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let first = timeout(wait, stream.read_buf(&mut head)).await;
    if !matches!(first, Ok(Ok(count)) if count > 0) {
        return None;
    }
    let rest = async {
        while !is_complete(&head) {
            let count = stream.read_buf(&mut head).await.ok()?;
            if count == 0 || head.len() > HEAD_BYTES_MAX {
                return None;
            }
        }
        Some(())
    };
    timeout(HEAD_LIMIT, rest).await.ok()??;
    Some(head)
}

/// An empty line ends a head, with or without carriage returns.
fn is_complete(head: &[u8]) -> bool {
    let lines = head.windows(2).any(|pair| pair == b"\n\n");
    lines || head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(3).any(|end| end == b"\n\r\n")
}

fn is_of_health(head: &[u8]) -> bool {
    let mut words = head.split(|byte| matches!(byte, b' ' | b'?' | b'\r' | b'\n'));
    matches!(words.next(), Some(b"GET" | b"HEAD")) && matches!(words.next(), Some(b"/livez" | b"/readyz"))
}
